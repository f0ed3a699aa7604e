//! Encryption at rest for what must be kept and must not be readable in a copy of a disk: secrets of commands.
//!
//! One key, 32 bytes, in a file that only its owner reads. What is sealed says by a fingerprint which key it needs, so
//! that a lost key is told from damage. Sealed for one place it does not open in another: every use names what it is
//! bound to. Nothing in here decides where keys come from or what is secret.
//!
//! ```text
//! sealed   1 | 8 bytes: which key | 12 bytes: nonce, drawn at random | AES-256-GCM(plain) | 16 bytes: tag
//! key file 64 hex digits, a newline
//! ```

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};

use crate::config::SecretBytes;
use crate::durable;

/// First byte of what is sealed; another one is another layout.
const LAYOUT: u8 = 1;
const KEY: usize = 32;
const KEY_ID: usize = 8;
const NONCE: usize = 12;
const TAG: usize = 16;
/// What stands in front of the encrypted bytes.
const HEAD: usize = 1 + KEY_ID + NONCE;
/// A key file is 65 bytes long; what is much longer is another file.
const MAX_KEY_FILE: u64 = 4 * 1024;
/// What sealing adds to the length.
pub const OVERHEAD: usize = HEAD + TAG;

/// Names of the keys that are derived from the one in the file: no key serves two purposes.
const ENCRYPTION: &str = "paprika 2026 seal encryption";
const FINGERPRINT: &str = "paprika 2026 seal fingerprint";
const IDENTITY: &str = "paprika 2026 seal key id";

/// A key that seals and opens.
pub struct SealKey {
    cipher: RandomizedNonceKey,
    fingerprint: [u8; KEY],
    id: [u8; KEY_ID],
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the key file {path} cannot be read", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Users other than the owner can read it.
    #[error("the key file {path} has mode {mode:04o}: it must be readable by its owner alone (chmod 600)", path = path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds something else.
    #[error("the key file {path} does not hold 64 hex digits (openssl rand -hex 32 makes some)", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
    },
    /// A new one cannot be written.
    #[error("the key file {path} cannot be made", path = path.display())]
    Unmade {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key cannot be used by the cryptography of this build.
    #[error("the key cannot be used")]
    Unusable,
}

impl KeyError {
    /// Tells whether there simply is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Why something could not be opened. Never says anything about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was not sealed by this code.
    #[error("it is not sealed in a way that this release knows")]
    Layout,
    /// Another key is needed.
    #[error("it was sealed with another key")]
    OtherKey,
    /// It is not what was sealed, or it was sealed for another place.
    #[error("it was changed since it was sealed, or belongs somewhere else")]
    Changed,
}

/// There is no randomness, or no memory, to seal with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealing failed")]
pub struct SealError;

impl SealKey {
    /// Makes the key of 32 bytes.
    ///
    /// # Errors
    /// When the cryptography of this build cannot use it.
    pub fn new(bytes: &[u8; KEY]) -> Result<Self, KeyError> {
        let mut encryption = blake3::derive_key(ENCRYPTION, bytes);
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &encryption);
        wipe(&mut encryption);
        let mut id = [0; KEY_ID];
        let mut hasher = blake3::Hasher::new_derive_key(IDENTITY);
        hasher.update(bytes).finalize_xof().fill(&mut id);
        let fingerprint = blake3::derive_key(FINGERPRINT, bytes);
        Ok(Self { cipher: cipher.map_err(|_| KeyError::Unusable)?, fingerprint, id })
    }

    /// Reads a key file that only its owner may read.
    ///
    /// # Errors
    /// When it cannot be read, can be read by others, or holds no key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        read(path, true)
    }

    /// Reads a key that a service manager put into a folder of this service: that folder is what guards it, and its mode
    /// may show the group's bit for an access list.
    ///
    /// # Errors
    /// When it cannot be read or holds no key.
    pub fn load_credential(path: &Path) -> Result<Self, KeyError> {
        read(path, false)
    }

    /// Reads a key file, or makes one where there is none. The second part says that it is new.
    ///
    /// # Errors
    /// When one that is there cannot be used, or none can be written.
    pub fn load_or_make(path: &Path) -> Result<(Self, bool), KeyError> {
        match Self::load(path) {
            Err(error) if error.is_missing() => {}
            found => return found.map(|key| (key, false)),
        }
        let mut bytes = [0; KEY];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Unusable)?;
        let mut text = SecretBytes::new(hex(&bytes).into_bytes());
        text.push(b'\n');
        let made = durable::replace(path, text.expose());
        let key = Self::new(&bytes);
        wipe(&mut bytes);
        made.map_err(|source| KeyError::Unmade { path: path.to_owned(), source })?;
        key.map(|key| (key, true))
    }

    /// Which key this is, for people: nothing can be opened with it.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// Seals. `bound` is what has to be given again to open it: where it belongs.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn seal(&self, bound: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut body = plain.to_vec();
        let nonce = self.cipher.seal_in_place_append_tag(Aad::from(bound), &mut body).map_err(|_| SealError)?;
        let mut sealed = Vec::with_capacity(HEAD + body.len());
        sealed.push(LAYOUT);
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made with the same `bound`.
    ///
    /// # Errors
    /// When it was sealed with another key, bound to something else, or changed since.
    pub fn open(&self, bound: &[u8], sealed: &[u8]) -> Result<SecretBytes, OpenError> {
        let (&layout, rest) = sealed.split_first().ok_or(OpenError::Layout)?;
        let (id, rest) = rest.split_first_chunk::<KEY_ID>().ok_or(OpenError::Layout)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>().ok_or(OpenError::Layout)?;
        if layout != LAYOUT || body.len() < TAG {
            return Err(OpenError::Layout);
        }
        if *id != self.id {
            return Err(OpenError::OtherKey);
        }
        let mut body = body.to_vec();
        let opened = self.cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut body);
        let length = opened.map_err(|_| OpenError::Changed)?.len();
        body.truncate(length);
        Ok(SecretBytes::new(body))
    }

    /// A hash that only the holder of the key can make: of what may hold secrets that could be guessed.
    #[must_use]
    pub fn fingerprint(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.fingerprint, bytes).as_bytes()
    }
}

impl Drop for SealKey {
    fn drop(&mut self) {
        wipe(&mut self.fingerprint);
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.id())
    }
}

fn read(path: &Path, private: bool) -> Result<SealKey, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // The opened file is judged, not the name: the name may point elsewhere a moment later.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if private && mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let text = SecretBytes::new(durable::read_bounded(file, MAX_KEY_FILE).map_err(unreadable)?);
    let mut bytes = unhex(text.expose().trim_ascii()).ok_or_else(|| KeyError::Content { path: path.to_owned() })?;
    let key = SealKey::new(&bytes);
    wipe(&mut bytes);
    key
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).map_or('0', |digit| char::from(*digit));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &[u8]) -> Option<[u8; KEY]> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; KEY];
    if text.len() != 2 * KEY {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

/// Overwrites, as far as the compiler lets us.
fn wipe(bytes: &mut [u8; KEY]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::HashSet;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(byte: u8) -> SealKey {
        SealKey::new(&[byte; KEY]).unwrap()
    }

    #[test]
    fn what_was_sealed_comes_back_and_its_bytes_show_nothing() {
        let key = key(1);
        for plain in [&b""[..], b"x", b"hunter2-hunter2-hunter2", &[0xff; 100_000]] {
            let sealed = key.seal(b"here", plain).unwrap();
            assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            assert_eq!(key.open(b"here", &sealed).unwrap().expose(), plain);
            assert!(plain.len() < 4 || !sealed.windows(plain.len()).any(|window| window == plain));
        }
    }

    #[test]
    fn another_key_is_told_from_damage_and_from_another_place() {
        let (ours, other) = (key(1), key(2));
        let sealed = ours.seal(b"here", b"plain").unwrap();
        let why = |key: &SealKey, bound: &[u8], sealed: &[u8]| key.open(bound, sealed).map(drop).unwrap_err();
        assert_eq!(why(&other, b"here", &sealed), OpenError::OtherKey);
        assert_eq!(why(&ours, b"there", &sealed), OpenError::Changed);
        for short in 0..OVERHEAD {
            assert_eq!(why(&ours, b"here", &sealed[..short]), OpenError::Layout, "{short}");
        }
        assert_eq!(why(&ours, b"here", &sealed[..sealed.len() - 1]), OpenError::Changed);
    }

    #[test]
    fn no_byte_can_be_changed_unnoticed() {
        let key = key(1);
        let sealed = key.seal(b"here", b"plain").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(key.open(b"here", &changed).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn no_nonce_is_used_twice() {
        let key = key(1);
        let nonces: HashSet<_> =
            (0..10_000).map(|_| key.seal(b"", b"same").unwrap()[1 + KEY_ID..HEAD].to_vec()).collect();
        assert_eq!(nonces.len(), 10_000);
    }

    #[test]
    fn a_fingerprint_needs_the_key() {
        assert_eq!(key(1).fingerprint(b"a"), key(1).fingerprint(b"a"));
        assert_ne!(key(1).fingerprint(b"a"), key(2).fingerprint(b"a"));
        assert_ne!(key(1).fingerprint(b"a"), key(1).fingerprint(b"b"));
        assert_ne!(key(1).fingerprint(b"a"), *blake3::hash(b"a").as_bytes());
    }

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let (first, made) = SealKey::load_or_make(&path).unwrap();
        assert!(made);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (again, made) = SealKey::load_or_make(&path).unwrap();
        assert!(!made);
        assert_eq!(again.open(b"", &first.seal(b"", b"x").unwrap()).unwrap().expose(), b"x");
        assert_eq!(fs::read(&path).unwrap().len(), 65);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        SealKey::load_or_make(&path).unwrap();
        let content = fs::read(&path).unwrap();
        for (mode, exposed) in
            [(0o644, true), (0o640, true), (0o604, true), (0o610, true), (0o600, false), (0o400, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let loaded = SealKey::load_or_make(&path);
            assert_eq!(matches!(loaded, Err(KeyError::Exposed { .. })), exposed, "{mode:o}");
            assert!(SealKey::load_credential(&path).is_ok(), "the folder guards it");
        }
        assert_eq!(fs::read(&path).unwrap(), content);
    }

    #[test]
    fn what_is_no_key_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        for content in ["", "hunter2", &"a".repeat(63), &"a".repeat(65), &"g".repeat(64), &"a".repeat(5_000)] {
            durable::replace(&path, content.as_bytes()).unwrap();
            let error = SealKey::load_or_make(&path).unwrap_err();
            let text = crate::error::Chain(&error).to_string();
            assert!(text.contains("seal.key") && !text.contains("hunter2") && !text.contains("aaaa"), "{text}");
            assert!(!error.is_missing());
        }
        durable::replace(&path, format!("  {}\n\n", "Ab".repeat(32)).as_bytes()).unwrap();
        assert!(SealKey::load(&path).is_ok());
        assert!(SealKey::load(&folder.path().join("none")).unwrap_err().is_missing());
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let shown = format!("{:?}", key(0xab));
        assert!(shown.starts_with("SealKey(") && !shown.contains("abab"), "{shown}");
    }
}
