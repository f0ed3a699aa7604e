//! What a person pastes: the file for `source` and the three lines to try. Every path is absolute and quoted.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;

/// Where everything is that the lines name.
#[derive(Debug)]
pub(super) struct Paste {
    pub(super) api: SocketAddr,
    pub(super) link: SocketAddr,
    pub(super) ca: PathBuf,
    pub(super) token_file: PathBuf,
    pub(super) socket: PathBuf,
    /// How the shell finds this program.
    pub(super) program: String,
}

impl Paste {
    /// The address of the API for people of this host.
    pub(super) fn url(&self) -> String {
        format!("https://{}", reachable(self.api))
    }

    /// The content of the file for `source`.
    pub(super) fn env(&self, token: &str) -> String {
        [
            ("PAPRIKA_API", self.url()),
            ("PAPRIKA_TOKEN", token.to_owned()),
            ("PAPRIKA_CA", self.ca.to_string_lossy().into_owned()),
            ("PAPRIKA_LINK", reachable(self.link).to_string()),
        ]
        .map(|(name, value)| format!("export {name}={}\n", quoted(&value)))
        .concat()
    }

    /// A start with curl, a start and a cancel with curl, and a start with this program.
    pub(super) fn lines(&self) -> [String; 3] {
        let curl = format!(
            "curl -sS --cacert {} -H \"authorization: Bearer $(cat {})\"",
            quoted(&self.ca.to_string_lossy()),
            quoted(&self.token_file.to_string_lossy()),
        );
        let commands = format!("{}/agents/dev-1/commands", self.url());
        let post = |run: &str| {
            format!(
                "{curl} -H 'content-type: application/json' -X POST {commands} \
                 -d '{{\"operation\":\"command.run\",\"args\":{{\"run\":{run}}}}}'"
            )
        };
        let id = "sed -n 's/^{ *\"id\": *\\([0-9][0-9]*\\).*/\\1/p'";
        let socket = quoted(&format!("unix:{}", self.socket.display()));
        [
            post("[\"uname\",\"-a\"]"),
            format!("id=$({} | {id}); {curl} -X DELETE {commands}/$id", post("[\"sleep\",\"600\"]")),
            format!("PAPRIKA_API={socket} {} run dev-1 -- uname -a", self.program),
        ]
    }
}

/// Nobody can connect to "any address"; this host is meant.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => ([0, 0, 0, 0, 0, 0, 0, 1], v6.port()).into(),
        address => address,
    }
}

/// Writes a word so that a shell takes it as it is.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// How this program is called: by its name where that finds this very file, else by its path.
pub(super) fn program() -> anyhow::Result<String> {
    let own = env::current_exe().context("the path of this program is not known")?;
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("paprika")).find(|file| file.is_file());
    let is_own = found.and_then(|file| file.canonicalize().ok()) == own.canonicalize().ok();
    Ok(if is_own { "paprika".to_owned() } else { quoted(&own.to_string_lossy()) })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::process::Command;

    use super::*;

    fn paste() -> Paste {
        Paste {
            api: "0.0.0.0:7050".parse().unwrap(),
            link: "127.0.0.1:7051".parse().unwrap(),
            ca: "/x y/it's/ca.pem".into(),
            token_file: "/x y/admin.token".into(),
            socket: "/x y/api.sock".into(),
            program: "paprika".into(),
        }
    }

    #[test]
    fn the_file_is_understood_by_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("env");
        fs::write(&file, paste().env("paprika_id_secret")).unwrap();
        let script = format!(
            ". {}; sh -c 'echo $PAPRIKA_API; echo $PAPRIKA_CA; echo $PAPRIKA_LINK; echo $PAPRIKA_TOKEN'",
            file.display()
        );
        let out = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            "https://127.0.0.1:7050\n/x y/it's/ca.pem\n127.0.0.1:7051\npaprika_id_secret\n"
        );
    }

    #[test]
    fn every_line_is_one_line_that_a_shell_can_read() {
        for line in paste().lines() {
            assert!(!line.contains('\n'));
            let checked = Command::new("sh").args(["-n", "-c", &line]).status().unwrap();
            assert!(checked.success(), "{line}");
        }
    }

    #[test]
    fn the_id_is_found_in_the_answer() {
        let [_, line, _] = paste().lines();
        let sed = line.split(" | ").nth(1).unwrap().split(");").next().unwrap();
        for answer in [r#"{"id":42,"uid":"77","args":{"id":7}}"#, r#"{ "id": 42, "x": 1}"#] {
            let out = Command::new("sh").args(["-c", &format!("printf %s '{answer}' | {sed}")]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "42", "{answer}");
        }
    }
}
