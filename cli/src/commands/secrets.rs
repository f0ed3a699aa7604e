//! Gets secrets for a command from where the options say they are. Errors name the place, never the content.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use api::commands::TextOrSecret;
use common::config::SecretBytes;
use common::limits::{MAX_ENV_BYTES, MAX_STDIN_BYTES};

use crate::args::{SecretFrom, SecretVar, Start};
use crate::error::{Failure, Kind};

/// The standard input of a command.
#[derive(Debug, PartialEq)]
pub(super) enum Input {
    /// It is text.
    Text(TextOrSecret),
    /// It is not; base64.
    Base64(TextOrSecret),
}

/// Refuses options of which two would read our standard input.
pub(super) fn one_reader(script: Option<&Path>, start: &Start) -> Result<(), Failure> {
    let is_ours = |path: Option<&Path>| path == Some(Path::new("-"));
    let secret = start.secret_env.iter().filter(|var| var.from == SecretFrom::Input);
    let readers: Vec<String> = [
        ("--script -", is_ours(script)),
        ("--stdin -", is_ours(start.stdin.as_deref())),
        ("--secret-stdin -", is_ours(start.secret_stdin.as_deref())),
    ]
    .into_iter()
    .filter(|(_, reads)| *reads)
    .map(|(option, _)| option.to_owned())
    .chain(secret.map(|var| format!("--secret-env {}=-", var.name)))
    .collect();
    match readers.as_slice() {
        [first, second, ..] => {
            Err(Failure::new(Kind::Usage, format!("{first} and {second} both read our standard input"))
                .hint("give one of them a file"))
        }
        _ => Ok(()),
    }
}

/// Gets the value of a variable. One newline at the end of a file or of our input is not part of it.
pub(super) fn variable(var: &SecretVar) -> Result<TextOrSecret, Failure> {
    let option = match &var.from {
        SecretFrom::Environment => format!("--secret-env {}", var.name),
        SecretFrom::Input => format!("--secret-env {}=-", var.name),
        SecretFrom::File(path) => format!("--secret-env {}={}", var.name, path.display()),
    };
    let bad = |why: &str| Failure::new(Kind::Usage, format!("{option} {why}"));
    // Our own dump would show it.
    common::cores::forbid();
    let bytes = match &var.from {
        SecretFrom::Environment => {
            let Some(value) = std::env::var_os(&var.name) else {
                return Err(bad("names a variable that is not set here")
                    .hint(format!("set it, or name a file: --secret-env {}=FILE", var.name)));
            };
            SecretBytes::new(value.into_encoded_bytes())
        }
        SecretFrom::Input => line(read(Path::new("-"), MAX_ENV_BYTES), &bad)?,
        SecretFrom::File(path) => line(read(path, MAX_ENV_BYTES), &bad)?,
    };
    if bytes.expose().contains(&0) {
        return Err(bad("holds a NUL, which no variable can"));
    }
    // The error of the library would hold the bytes.
    let text = std::str::from_utf8(bytes.expose()).map_err(|_| bad("is not UTF-8 text"))?;
    Ok(TextOrSecret::secret(text.to_owned()))
}

/// Gets the standard input from a file, all of it.
pub(super) fn input(path: &Path) -> Result<Input, Failure> {
    let bad = |why: &str| Failure::new(Kind::Usage, format!("--secret-stdin {} {why}", path.display()));
    common::cores::forbid();
    let bytes = whole(read(path, MAX_STDIN_BYTES), MAX_STDIN_BYTES, &bad)?;
    Ok(match std::str::from_utf8(bytes.expose()) {
        Ok(text) => Input::Text(TextOrSecret::secret(text.to_owned())),
        Err(_) => Input::Base64(TextOrSecret::secret(api::base64::encode(bytes.expose()))),
    })
}

fn line(read: io::Result<Option<SecretBytes>>, bad: &dyn Fn(&str) -> Failure) -> Result<SecretBytes, Failure> {
    let bytes = whole(read, MAX_ENV_BYTES, bad)?;
    let content = bytes.expose();
    Ok(SecretBytes::new(content.strip_suffix(b"\n").unwrap_or(content).to_vec()))
}

fn whole(
    read: io::Result<Option<SecretBytes>>,
    most: usize,
    bad: &dyn Fn(&str) -> Failure,
) -> Result<SecretBytes, Failure> {
    let found = read.map_err(|error| bad("cannot be read").because(error))?;
    found.ok_or_else(|| bad(&format!("is larger than {} KiB", most / 1024)))
}

/// Reads a file, or our standard input for `-`; nothing when it is larger than `most`.
fn read(path: &Path, most: usize) -> io::Result<Option<SecretBytes>> {
    let mut bytes = Vec::new();
    let limit = most as u64 + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    }
    let bytes = SecretBytes::new(bytes);
    Ok((bytes.expose().len() <= most).then_some(bytes))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;
    use crate::args::secrets::secret_var;

    fn from(folder: &Path, content: &[u8]) -> Result<TextOrSecret, String> {
        let path = folder.join("s");
        fs::write(&path, content).unwrap();
        variable(&secret_var(&format!("T={}", path.display())).unwrap()).map_err(|failure| failure.lines())
    }

    #[test]
    fn a_file_gives_its_line_and_errors_never_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let secret = |text: &str| Ok(TextOrSecret::secret(text.to_owned()));
        assert_eq!(from(folder.path(), b"hunter2\n"), secret("hunter2"));
        assert_eq!(from(folder.path(), b"hunter2"), secret("hunter2"));
        assert_eq!(from(folder.path(), b"a\nb\n\n"), secret("a\nb\n"));
        assert_eq!(from(folder.path(), b""), secret(""));
        for (content, says) in [
            (&b"hunter2\0"[..], "holds a NUL"),
            (b"hunter2\xff", "is not UTF-8"),
            (&[b'x'; MAX_ENV_BYTES + 1], "is larger than 128 KiB"),
        ] {
            let told = from(folder.path(), content).unwrap_err();
            assert!(told.contains(says) && !told.contains("hunter2") && told.contains("--secret-env T="), "{told}");
        }
        let missing = variable(&secret_var("T=/no/such/file").unwrap()).unwrap_err().lines();
        assert!(missing.contains("cannot be read"), "{missing}");
    }

    #[test]
    fn our_own_variable_is_taken_or_named_as_missing() {
        let path = variable(&secret_var("PATH").unwrap()).unwrap();
        assert_eq!(path, TextOrSecret::secret(std::env::var("PATH").unwrap()));
        let told = variable(&secret_var("PAPRIKA_NO_SUCH").unwrap()).unwrap_err().lines();
        assert!(told.contains("not set here") && told.contains("PAPRIKA_NO_SUCH=FILE"), "{told}");
    }

    #[test]
    fn a_secret_input_is_text_where_it_can_be_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        let given = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            input(&path).map_err(|failure| failure.lines())
        };
        assert_eq!(given(b"a\n").unwrap(), Input::Text(TextOrSecret::secret("a\n".to_owned())));
        assert_eq!(given(b"\xff\x00").unwrap(), Input::Base64(TextOrSecret::secret("/wA=".to_owned())));
        assert!(given(&vec![b'x'; MAX_STDIN_BYTES]).is_ok());
        assert!(given(&vec![b'x'; MAX_STDIN_BYTES + 1]).unwrap_err().contains("larger than 256 KiB"));
    }
}
