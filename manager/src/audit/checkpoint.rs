//! One checkpoint: where the head of the audit stood, when, in which life of the store, signed over the one before.

use std::fmt;
use std::path::Path;

use api::base64;
use api::time::Time;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use common::durable;
use common::id::Name;
use serde::Deserialize;

use super::file::CheckpointsError;

/// What a signature is about comes first, so that one made for something else never fits.
const DOMAIN: &str = "paprika audit checkpoint 1";
/// Bytes of an Ed25519 signature.
const SIGNATURE: usize = 64;

/// Where the head of the audit stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Number of the last row.
    pub(crate) seq: u64,
    /// Its hash.
    pub(crate) hash: [u8; 32],
    /// When, in the manager's time.
    pub(crate) at: u64,
    /// Which life of the store.
    pub(crate) incarnation: u64,
    /// Signature over all of it and the signature before.
    pub(crate) signature: [u8; SIGNATURE],
}

/// Signs checkpoints of one cluster.
pub(crate) struct Signer {
    cluster: Name,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads the key, or makes it when there is none. Blocking.
    ///
    /// # Errors
    /// When the file cannot be read or written, others can read it, or it holds no key.
    pub(crate) fn open(path: &Path, cluster: &Name) -> Result<Self, CheckpointsError> {
        let bytes = match std::fs::File::open(path) {
            Ok(file) => read_private(file, path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8());
                let made = made.map_err(|_| CheckpointsError::Key { path: path.to_owned() })?;
                durable::replace(path, made.as_ref()).map_err(|source| CheckpointsError::file(path, source))?;
                made.as_ref().to_vec()
            }
            Err(source) => return Err(CheckpointsError::file(path, source)),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| CheckpointsError::Key { path: path.to_owned() })?;
        Ok(Self { cluster: cluster.clone(), pair })
    }

    /// What others check signatures with.
    pub(crate) fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        let bytes = self.pair.public_key().as_ref();
        // The length is part of the algorithm; a longer key would be cut here and fit nothing.
        key.iter_mut().zip(bytes).for_each(|(into, from)| *into = *from);
        key
    }

    /// Signs where the head stands, over the checkpoint before.
    pub(crate) fn sign(
        &self,
        head: (u64, [u8; 32]),
        at: u64,
        incarnation: u64,
        before: Option<&Checkpoint>,
    ) -> Checkpoint {
        let (seq, hash) = head;
        let mut made = Checkpoint { seq, hash, at, incarnation, signature: [0; SIGNATURE] };
        let signature = self.pair.sign(&made.said(&self.cluster, before));
        made.signature.iter_mut().zip(signature.as_ref()).for_each(|(into, from)| *into = *from);
        made
    }

    /// Tells whether this key signed a checkpoint over the one before.
    pub(crate) fn signed(&self, checkpoint: &Checkpoint, before: Option<&Checkpoint>) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public_key())
            .verify(&checkpoint.said(&self.cluster, before), &checkpoint.signature)
            .is_ok()
    }
}

/// Reads a key that only its owner may read.
fn read_private(file: std::fs::File, path: &Path) -> Result<Vec<u8>, CheckpointsError> {
    use std::os::unix::fs::MetadataExt as _;
    /// An Ed25519 key in its envelope has below a hundred bytes.
    const MAX_KEY: u64 = 1_024;
    let mode = file.metadata().map_err(|source| CheckpointsError::file(path, source))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CheckpointsError::Exposed { path: path.to_owned(), mode });
    }
    durable::read_bounded(file, MAX_KEY).map_err(|source| CheckpointsError::file(path, source))
}

impl Checkpoint {
    /// What is signed.
    fn said(&self, cluster: &Name, before: Option<&Self>) -> Vec<u8> {
        let mut said = format!("{DOMAIN}\n{cluster}\n{}\n{}\n{}\n", self.seq, self.at, self.incarnation).into_bytes();
        said.extend_from_slice(&self.hash);
        said.extend_from_slice(&before.map_or([0; SIGNATURE], |before| before.signature));
        said
    }

    /// Reads a line of the file; `None` when it is none.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let line: Line = serde_json::from_str(line).ok()?;
        Some(Self {
            seq: line.seq,
            hash: bytes(&line.hash)?,
            at: line.at.0,
            incarnation: line.incarnation,
            signature: base64::decode(&line.signature).ok()?.try_into().ok()?,
        })
    }

    /// The line of the file, without its end.
    pub(crate) fn line(&self) -> String {
        let Self { seq, at, incarnation, .. } = self;
        let (hash, signature) = (hex(&self.hash), base64::encode(&self.signature));
        // Hand-made, because nothing of it can fail or need an escape.
        format!(
            r#"{{"seq":{seq},"hash":"{hash}","at":"{at}","incarnation":{incarnation},"signature":"{signature}"}}"#,
            at = Time(*at)
        )
    }
}

/// A line as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    hash: String,
    at: Time,
    incarnation: u64,
    signature: String,
}

/// Bytes as people compare them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from the digits that [`hex`] writes, and no others.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut read = [0; N];
    for (at, into) in read.iter_mut().enumerate() {
        *into = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(read)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_checkpoint_reads_back_and_fits_only_behind_the_one_it_was_signed_over() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("audit.key");
        let signer = Signer::open(&key, &"c1".parse().unwrap()).unwrap();
        let first = signer.sign((7, [7; 32]), 1_000, 1, None);
        let second = signer.sign((9, [9; 32]), 2_000, 1, Some(&first));
        assert_eq!(Checkpoint::read(&second.line()).unwrap(), second);
        assert!(signer.signed(&first, None) && signer.signed(&second, Some(&first)));
        assert!(!signer.signed(&second, None), "the one before was taken out");
        assert!(!signer.signed(&Checkpoint { seq: 8, ..first.clone() }, None));
        assert!(!signer.signed(&Checkpoint { hash: [8; 32], ..first.clone() }, None));
        let again = Signer::open(&key, &"c1".parse().unwrap()).unwrap();
        assert!(again.signed(&first, None), "the key is kept");
        let elsewhere = Signer::open(&key, &"c2".parse().unwrap()).unwrap();
        assert!(!elsewhere.signed(&first, None), "another cluster's checkpoint is none of ours");
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("audit.key");
        let cluster = "c1".parse().unwrap();
        Signer::open(&key, &cluster).unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Signer::open(&key, &cluster), Err(CheckpointsError::Exposed { mode: 0o640, .. })));
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&key, "nonsense").unwrap();
        assert!(matches!(Signer::open(&key, &cluster), Err(CheckpointsError::Key { .. })));
    }

    #[test]
    fn what_is_no_line_is_no_checkpoint() {
        let line = Checkpoint { seq: 1, hash: [1; 32], at: 2, incarnation: 3, signature: [4; 64] }.line();
        assert!(Checkpoint::read(&line).is_some());
        let longer = line.replace("0101", "010101");
        for bad in
            ["", "{}", &line[1..], &line[..line.len() - 1], &format!("{line} x"), &line.replace("01", "0G"), &longer]
        {
            assert_eq!(Checkpoint::read(bad), None, "{bad}");
        }
    }
}
