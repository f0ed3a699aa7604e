//! Secrets of commands: sealed before the store sees them, opened only for the frame that carries them to their agent.
//!
//! The key is a file, or a credential of the service manager. A manager without a usable key starts all the same: it
//! refuses commands with secrets and says why, and everything else goes on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::base64;
use bytes::Bytes;
use common::config::SecretBytes;
use common::error::Chain;
use common::seal::{KeyError, OpenError, SealKey};
use common::wire;
use prost::Message;
use store::types::{OpenSecrets, SealedSecrets, Secrets};

use super::error::ServiceError;

/// The file in the manager's folder, when nothing else is configured.
pub const KEY_FILE: &str = "seal.key";
/// The name under which a service manager may hand over the key (`LoadCredentialEncrypted=`).
pub const CREDENTIAL: &str = "paprika-seal-key";
/// Where a service manager puts credentials.
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// What secrets in the store are bound to, before the names of what is secret.
const BOUND: &[u8] = b"paprika manager: secrets of a request";

/// Seals and opens with the manager's key, if it has one.
#[derive(Debug, Clone, Default)]
pub struct Seals {
    key: Option<Arc<SealKey>>,
}

/// Why the secrets of a command cannot be given to it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// The manager has no key at all.
    #[error("the secrets of this command cannot be opened: this manager has no key")]
    NoKey,
    /// It has another one, or what was kept is damaged.
    #[error("the secrets of this command cannot be opened: {0}")]
    Sealed(OpenError),
    /// They were never here: the command is known from its agent.
    #[error("the secrets of this command are not known here")]
    Unknown,
    /// What was sealed is not what seals of this kind hold.
    #[error("the secrets of this command cannot be read")]
    Unreadable,
}

/// Where the key comes from: the configured file, else the credential, else the manager's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that somebody made and named.
    File(PathBuf),
    /// A file that the service manager made.
    Credential(PathBuf),
    /// A file that is made when it is missing.
    Own(PathBuf),
}

impl Source {
    /// Chooses; a credential counts only where there is one of our name.
    #[must_use]
    pub fn choose(configured: Option<&Path>, credentials: Option<OsString>, dir: &Path) -> Self {
        if let Some(file) = configured {
            return Self::File(dir.join(file));
        }
        let credential = credentials.map(|folder| PathBuf::from(folder).join(CREDENTIAL)).filter(|file| file.exists());
        credential.map_or_else(|| Self::Own(dir.join(KEY_FILE)), Self::Credential)
    }
}

impl Seals {
    /// Loads the key. What is wrong with it is logged, and the answer has none.
    #[must_use]
    pub fn load(source: &Source) -> Self {
        let loaded = match source {
            Source::File(path) => SealKey::load(path).map(|key| (key, false)),
            Source::Credential(path) => SealKey::load_credential(path).map(|key| (key, false)),
            Source::Own(path) => SealKey::load_or_make(path),
        };
        match loaded {
            Ok((key, made)) => {
                let text = if made { "a new key for secrets was made" } else { "secrets are sealed" };
                tracing::info!(key = key.id(), ?source, text);
                Self::with(key)
            }
            Err(error) => {
                tracing::error!(
                    error = %Chain(&error), ?source,
                    "commands with secrets are refused: there is no usable key to seal them with"
                );
                Self::default()
            }
        }
    }

    /// Seals with a key.
    #[must_use]
    pub fn with(key: SealKey) -> Self {
        Self { key: Some(Arc::new(key)) }
    }

    /// Seals and opens with 32 bytes that the caller has.
    ///
    /// # Errors
    /// When they are no key.
    pub fn of(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        SealKey::new(bytes).map(Self::with)
    }

    /// Seals what is open; what is sealed or nothing stays as it is.
    ///
    /// # Errors
    /// When there is no key.
    pub fn seal(&self, secrets: Secrets) -> Result<Secrets, ServiceError> {
        let Secrets::Open(open) = secrets else { return Ok(secrets) };
        let mut kept = SealedSecrets {
            env: open.env.keys().cloned().collect(),
            stdin: open.stdin.is_some(),
            sealed: String::new(),
        };
        // Wiped when it is dropped; what the encoder reads from lives as short as it does.
        let plain = SecretBytes::new(to_wire(&open).encode_to_vec());
        let key = self.key.as_ref().ok_or_else(no_key)?;
        let sealed = key.seal(&bound(&kept), plain.expose()).map_err(|_| no_key())?;
        kept.sealed = base64::encode(&sealed);
        Ok(Secrets::Sealed(kept))
    }

    /// Opens what a command needs; `None` when nothing of it is secret.
    ///
    /// # Errors
    /// When they cannot be had any more.
    pub fn open(&self, secrets: &Secrets) -> Result<Option<wire::Secrets>, Unopened> {
        let kept = match secrets {
            Secrets::None => return Ok(None),
            Secrets::Open(open) => return Ok(Some(to_wire(open))),
            Secrets::Sealed(kept) if kept.sealed.is_empty() => return Err(Unopened::Unknown),
            Secrets::Sealed(kept) => kept,
        };
        let key = self.key.as_ref().ok_or(Unopened::NoKey)?;
        let sealed = base64::decode(&kept.sealed).map_err(|_| Unopened::Unreadable)?;
        let plain = key.open(&bound(kept), &sealed).map_err(Unopened::Sealed)?;
        wire::Secrets::decode(plain.expose()).map(Some).map_err(|_| Unopened::Unreadable)
    }

    /// A hash of a request with secrets that says nothing about them to somebody without the key.
    ///
    /// # Errors
    /// When there is no key.
    pub fn fingerprint(&self, request: &[u8]) -> Result<[u8; 32], ServiceError> {
        self.key.as_ref().map(|key| key.fingerprint(request)).ok_or_else(no_key)
    }
}

fn no_key() -> ServiceError {
    ServiceError::Conflict {
        code: "no_secrets_key",
        text: "this manager has no key to keep secrets with; its log says why".to_owned(),
    }
}

fn to_wire(open: &OpenSecrets) -> wire::Secrets {
    let env = open.env.iter().map(|(name, value)| (name.clone(), Bytes::copy_from_slice(value.expose().as_bytes())));
    wire::Secrets {
        env: env.collect(),
        stdin: open.stdin.as_ref().map(|stdin| Bytes::copy_from_slice(stdin.expose())).unwrap_or_default(),
        has_stdin: open.stdin.is_some(),
    }
}

/// Nobody can give the values other names, or those of one request to another that names other things.
fn bound(kept: &SealedSecrets) -> Vec<u8> {
    let mut bound = BOUND.to_vec();
    let names: BTreeMap<_, _> = kept.env.iter().map(|name| (name, ())).collect();
    for name in names.into_keys() {
        bound.push(0);
        bound.extend_from_slice(name.as_bytes());
    }
    bound.extend_from_slice(if kept.stdin { b"\0\0stdin" } else { b"\0\0" });
    bound
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use common::config::Secret;

    use super::*;

    fn open() -> OpenSecrets {
        OpenSecrets {
            env: [("TOKEN".to_owned(), Secret::new("hunter2".to_owned()))].into(),
            stdin: Some(SecretBytes::new(vec![0xff, 0])),
        }
    }

    fn sealed(seals: &Seals) -> SealedSecrets {
        match seals.seal(Secrets::Open(open())).unwrap() {
            Secrets::Sealed(sealed) => sealed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_sealed_reaches_its_frame_and_shows_only_names_on_the_way() {
        let seals = Seals::of(&[1; 32]).unwrap();
        let kept = sealed(&seals);
        assert_eq!((kept.env.as_slice(), kept.stdin), (&["TOKEN".to_owned()][..], true));
        let text = serde_json::to_string(&Secrets::Sealed(kept.clone())).unwrap();
        assert!(!text.contains("hunter2") && !text.contains(&base64::encode(b"hunter2")), "{text}");
        let frame = seals.open(&Secrets::Sealed(kept)).unwrap().unwrap();
        assert_eq!(frame, to_wire(&open()));
        assert_eq!(
            (frame.env["TOKEN"].as_ref(), frame.stdin.as_ref(), frame.has_stdin),
            (&b"hunter2"[..], &[0xff, 0][..], true)
        );
        assert_eq!(seals.seal(Secrets::None).unwrap(), Secrets::None);
        assert_eq!(seals.open(&Secrets::None).unwrap(), None);
    }

    #[test]
    fn a_key_that_is_gone_is_told_from_names_that_were_changed() {
        let (seals, other) = (Seals::of(&[1; 32]).unwrap(), Seals::of(&[2; 32]).unwrap());
        let kept = sealed(&seals);
        let why = |seals: &Seals, kept: &SealedSecrets| seals.open(&Secrets::Sealed(kept.clone())).unwrap_err();
        assert_eq!(why(&other, &kept), Unopened::Sealed(OpenError::OtherKey));
        assert_eq!(why(&Seals::default(), &kept), Unopened::NoKey);
        let renamed = SealedSecrets { env: vec!["LD_PRELOAD".to_owned()], ..kept.clone() };
        assert_eq!(why(&seals, &renamed), Unopened::Sealed(OpenError::Changed));
        assert_eq!(why(&seals, &SealedSecrets { stdin: false, ..kept.clone() }), Unopened::Sealed(OpenError::Changed));
        assert_eq!(why(&seals, &SealedSecrets { sealed: "?".to_owned(), ..kept.clone() }), Unopened::Unreadable);
        assert_eq!(why(&seals, &SealedSecrets { sealed: String::new(), ..kept }), Unopened::Unknown);
    }

    #[test]
    fn without_a_key_secrets_are_refused_and_everything_else_is_not() {
        let none = Seals::default();
        assert_eq!(none.seal(Secrets::Open(open())).unwrap_err().code(), "no_secrets_key");
        assert_eq!(none.fingerprint(b"x").unwrap_err().code(), "no_secrets_key");
        assert_eq!(none.seal(Secrets::None).unwrap(), Secrets::None);
    }

    #[test]
    fn the_configured_file_comes_before_the_credential_and_that_before_our_own() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Path::new("/var/lib/m");
        let credentials = || Some(folder.path().as_os_str().to_owned());
        assert_eq!(Source::choose(None, None, dir), Source::Own("/var/lib/m/seal.key".into()));
        assert_eq!(Source::choose(None, credentials(), dir), Source::Own("/var/lib/m/seal.key".into()), "none of ours");
        let credential = folder.path().join(CREDENTIAL);
        fs::write(&credential, "a".repeat(64)).unwrap();
        assert_eq!(Source::choose(None, credentials(), dir), Source::Credential(credential.clone()));
        assert_eq!(Source::choose(Some(Path::new("/etc/k")), credentials(), dir), Source::File("/etc/k".into()));
        assert_eq!(Source::choose(Some(Path::new("k")), None, dir), Source::File("/var/lib/m/k".into()));
        assert!(Seals::load(&Source::Credential(credential)).key.is_some());
    }

    #[test]
    fn a_manager_without_a_usable_key_starts_and_one_of_its_own_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Source::File(folder.path().join("missing"));
        assert!(Seals::load(&missing).key.is_none());
        assert!(!folder.path().join("missing").exists(), "a file that somebody named is never made up");
        let own = Source::Own(folder.path().join(KEY_FILE));
        let (first, second) = (Seals::load(&own), Seals::load(&own));
        assert!(second.open(&first.seal(Secrets::Open(open())).unwrap()).is_ok());
    }
}
