//! Starting the agent behind a join: by systemd where it runs this host, else by the words for whoever does it by hand.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::DEFAULT_FILE;

/// The agent's units; the second one holds what the first one starts.
const UNITS: [&str; 2] = ["paprika-commands.service", "paprika-agent.service"];

/// What the host is like.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// systemd runs it.
    booted: bool,
    /// We may tell systemd what to do.
    root: bool,
    /// The program that asks systemd.
    systemctl: PathBuf,
    /// How this program is called, for people.
    program: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// These calls of systemctl, in this order.
    Units(Vec<Vec<&'static str>>),
    /// Whoever joined starts it, with these words.
    ByHand(String),
}

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    #[error("systemctl cannot be run")]
    Run(#[source] io::Error),
    #[error("`systemctl {words}` failed: {said}")]
    Failed { words: String, said: String },
}

impl Host {
    /// Looks at this host; `program` is how this program is called.
    pub(super) fn look(program: String) -> Self {
        Self {
            booted: Path::new("/run/systemd/system").is_dir(),
            root: rustix::process::geteuid().is_root(),
            systemctl: "systemctl".into(),
            program,
        }
    }

    /// Decides how the agent is started; `again` when one that runs has to hear of its new identity.
    pub(super) fn plan(&self, config: &Path, again: bool) -> Plan {
        // The unit names the usual file. With another one, somebody has plans of their own.
        if self.booted && self.root && config == Path::new(DEFAULT_FILE) && self.knows_units() {
            let [commands, agent] = UNITS;
            let mut calls = vec![vec!["enable", "--now", commands, agent]];
            if again {
                calls.push(vec!["restart", agent]);
            }
            return Plan::Units(calls);
        }
        if self.booted && !self.root && config == Path::new(DEFAULT_FILE) {
            return Plan::ByHand("systemctl enable --now paprika-commands paprika-agent".to_owned());
        }
        Plan::ByHand(format!("{} --config {}", self.program, config.display()))
    }

    fn knows_units(&self) -> bool {
        let mut ask = Command::new(&self.systemctl);
        ask.arg("cat").args(UNITS).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ask.status().is_ok_and(|status| status.success())
    }

    /// Calls systemctl.
    ///
    /// # Errors
    /// When it cannot be run or fails.
    pub(super) fn call(&self, words: &[&str]) -> Result<(), ServiceError> {
        let output = Command::new(&self.systemctl)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .map_err(ServiceError::Run)?;
        if output.status.success() {
            return Ok(());
        }
        let said = common::escape::text(String::from_utf8_lossy(&output.stderr).trim());
        Err(ServiceError::Failed { words: words.join(" "), said })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A host whose systemctl writes its words down and ends with `code`.
    fn host(folder: &Path, code: u8) -> Host {
        let systemctl = folder.join("systemctl");
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {}\necho so said systemd >&2\nexit {code}\n",
            folder.join("calls").display()
        );
        fs::write(&systemctl, script).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        Host { booted: true, root: true, systemctl, program: "paprika-agent".to_owned() }
    }

    #[test]
    fn systemd_starts_the_usual_agent_and_a_person_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let host = host(folder.path(), 0);
        let usual = Path::new(DEFAULT_FILE);
        let enable = vec!["enable", "--now", "paprika-commands.service", "paprika-agent.service"];
        assert_eq!(host.plan(usual, false), Plan::Units(vec![enable.clone()]));
        let restart = vec!["restart", "paprika-agent.service"];
        assert_eq!(host.plan(usual, true), Plan::Units(vec![enable, restart]), "one that runs must read its new files");
        let other = host.plan(Path::new("/srv/agent.yml"), false);
        assert_eq!(other, Plan::ByHand("paprika-agent --config /srv/agent.yml".to_owned()));
        let by_hand = |host: Host| matches!(host.plan(usual, false), Plan::ByHand(words) if words.starts_with("paprika-agent --config /etc"));
        assert!(by_hand(Host { booted: false, ..host.clone() }));
        let nobody = Host { root: false, ..host.clone() };
        assert!(matches!(nobody.plan(usual, false), Plan::ByHand(words) if words.starts_with("systemctl enable")));
        let bare = self::host(folder.path(), 1);
        assert!(by_hand(bare), "the units are not installed");
    }

    #[test]
    fn what_systemd_said_is_told() {
        let folder = tempfile::tempdir().unwrap();
        host(folder.path(), 0).call(&["restart", "x"]).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("calls")).unwrap(), "restart x\n");
        let error = host(folder.path(), 3).call(&["enable", "--now", "x"]).unwrap_err();
        assert_eq!(error.to_string(), "`systemctl enable --now x` failed: so said systemd");
        let gone = Host { systemctl: "/nowhere/systemctl".into(), ..host(folder.path(), 0) };
        assert!(matches!(gone.call(&["restart"]), Err(ServiceError::Run(_))));
    }
}
