//! Secrets of commands on this host: sealed before anything of a command is written, opened by its shim.
//!
//! The key lies beside the directories of commands, as open as they are: what it keeps is that copies of them (backups,
//! a directory put aside for a look) show nothing. It never leaves the host, and the manager's is another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::config::SecretBytes;
use common::error::Chain;
use common::seal::{KeyError, OpenError, SealKey};
use common::wire::{Command, Secrets};
use prost::Message;

use super::record::Spec;

/// The key's file in the state directory.
pub const FILE: &str = "seal.key";
/// What sealed secrets are bound to, before the command they belong to.
const BOUND: &[u8] = b"paprika agent: secrets of a command\0";

/// Seals with this host's key, if it can be used.
#[derive(Debug, Clone)]
pub struct Seals {
    key: Option<Arc<SealKey>>,
}

/// A command as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The message, with the names of its secrets only.
    pub raw: Bytes,
    /// The values, sealed; empty: it has none.
    pub sealed: Bytes,
}

/// Why a command with secrets cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this agent has no key to keep secrets with; its log says why")]
pub struct NoKey;

/// Why the secrets of a command cannot be given to it.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// There is no usable key.
    #[error("the secrets of this command cannot be opened: {0}")]
    Key(String),
    /// They were sealed with another one, or are damaged.
    #[error("the secrets of this command cannot be opened: {0}")]
    Sealed(OpenError),
    /// What was sealed is not what seals hold.
    #[error("the secrets of this command cannot be read")]
    Unreadable,
}

impl Seals {
    /// Loads the key of a state directory, or makes it. What is wrong with it is logged; the answer then takes no secrets.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        match SealKey::load_or_make(&path(state_dir)) {
            Ok((key, _)) => Self { key: Some(Arc::new(key)) },
            Err(error) => {
                tracing::error!(error = %Chain(&error), "Commands with secrets are refused: there is no usable key");
                Self { key: None }
            }
        }
    }

    /// Makes of a command what is written of it: the message without the values of its secrets, and those sealed
    /// (protocol R-SECRET-2).
    ///
    /// # Errors
    /// When it has secrets and there is no key.
    pub fn keep(&self, mut command: Command) -> Result<Kept, NoKey> {
        let Some(secrets) = command.secrets.take() else {
            return Ok(Kept { raw: command.encode_to_vec().into(), sealed: Bytes::new() });
        };
        let key = self.key.as_ref().ok_or(NoKey)?;
        command.secrets = Some(secrets.names());
        let raw = Bytes::from(command.encode_to_vec());
        let plain = SecretBytes::new(secrets.encode_to_vec());
        let sealed = key.seal(&bound(&raw), plain.expose()).map_err(|_| NoKey)?;
        Ok(Kept { raw, sealed: sealed.into() })
    }
}

/// Opens the secrets of a command for its process (protocol R-SECRET-3); `dir` is the command's directory. `None`: it has
/// none.
///
/// # Errors
/// When they cannot be had any more.
pub fn give(dir: &Path, spec: &Spec) -> Result<Option<Secrets>, Unopened> {
    if spec.sealed.is_empty() {
        return Ok(None);
    }
    let unusable = |error: KeyError| Unopened::Key(Chain(&error).to_string());
    let no_place = || Unopened::Key("the state directory is not known".to_owned());
    let state_dir = dir.parent().and_then(Path::parent).ok_or_else(no_place)?;
    let key = SealKey::load(&path(state_dir)).map_err(unusable)?;
    let plain = key.open(&bound(&spec.raw), &spec.sealed).map_err(Unopened::Sealed)?;
    Secrets::decode(plain.expose()).map(Some).map_err(|_| Unopened::Unreadable)
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// The whole command without its secrets: they open for no other.
fn bound(raw: &[u8]) -> Vec<u8> {
    [BOUND, blake3::hash(raw).as_bytes().as_slice()].concat()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::commands::record;

    fn command() -> Command {
        let env = [("TOKEN".to_owned(), Bytes::from_static(b"hunter2"))].into();
        let secrets = Secrets { env, stdin: Bytes::from_static(b"hunter2"), has_stdin: true };
        Command { id: 7, uid: vec![1; 16].into(), secrets: Some(secrets), ..Command::default() }
    }

    /// The state directory, the command's directory, and its record as it is written.
    fn kept() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("commands").join("01");
        fs::create_dir_all(&dir).unwrap();
        let Kept { raw, sealed } = Seals::open(folder.path()).keep(command()).unwrap();
        let content = record::initial(5, &raw, &sealed, None);
        fs::write(dir.join(record::FILE), &content).unwrap();
        (folder, dir, content)
    }

    /// Protocol R-SECRET-2.
    #[test]
    fn what_is_written_shows_names_and_no_values_and_the_shim_gets_them_back() {
        let (_folder, dir, content) = kept();
        let has = |text: &[u8]| content.windows(text.len()).any(|window| window == text);
        assert!(has(b"TOKEN") && !has(b"hunter2"));
        let history = record::read(&dir).unwrap();
        assert_eq!(give(&dir, &history.spec).unwrap(), command().secrets);
        assert_eq!(record::salvage(&dir).map(|spec| spec.sealed), Some(history.spec.sealed.clone()));
        let described = Command::decode(history.spec.raw.clone()).unwrap();
        assert_eq!(described.secrets, command().secrets.map(|secrets| secrets.names()), "what is sent back");
    }

    #[test]
    fn secrets_open_for_no_other_command_and_with_no_other_key() {
        let (folder, dir, _) = kept();
        let spec = record::read(&dir).unwrap().spec;
        let mut other = spec.command.clone();
        other.user = "root".into();
        let other = Spec { raw: other.encode_to_vec().into(), ..spec.clone() };
        assert!(matches!(give(&dir, &other), Err(Unopened::Sealed(OpenError::Changed))));
        fs::remove_file(folder.path().join(FILE)).unwrap();
        assert!(matches!(give(&dir, &spec), Err(Unopened::Key(_))));
        drop(Seals::open(folder.path()));
        assert!(matches!(give(&dir, &spec), Err(Unopened::Sealed(OpenError::OtherKey))));
        assert_eq!(give(&dir, &Spec { sealed: Bytes::new(), ..spec }).unwrap(), None);
    }

    #[test]
    fn a_key_that_others_can_read_takes_no_secrets_and_everything_else() {
        let folder = tempfile::tempdir().unwrap();
        drop(Seals::open(folder.path()));
        fs::set_permissions(folder.path().join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
        let seals = Seals::open(folder.path());
        assert_eq!(seals.keep(command()), Err(NoKey));
        assert!(seals.keep(Command { secrets: None, ..command() }).is_ok_and(|kept| kept.sealed.is_empty()));
    }
}
