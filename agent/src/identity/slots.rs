//! The two slots for renewed identities on disk. All functions block.
//!
//! ```text
//! <state_dir>/identity/a/key.pem  cert.pem  ca.pem
//!                      b/…
//! write: cert.pem goes ─► key.pem ─► ca.pem ─► cert.pem, each of them durable before the next
//! ```
//! A slot counts when its certificate is there, and that comes last: whatever moment the host dies at, a slot is whole
//! or does not count. Only a slot that is not in use is written to, so that one whole identity is there at any time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use common::crash;
use common::durable;

use super::choose::Slot;
use super::material::Files;
use crate::commands::{Context, FileError};

/// What a slot is filled with, PEM.
#[derive(Clone, Copy)]
pub(crate) struct Pem<'a> {
    pub(crate) key: &'a str,
    pub(crate) chain: &'a str,
    pub(crate) bundle: &'a str,
}

/// The folder of both slots.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    folder: PathBuf,
    /// Held while a slot is filled: a session that broke off may have left a thread that still writes.
    filling: Arc<Mutex<()>>,
}

/// One durable change of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Clear,
    Key,
    Authorities,
    Certificate,
}

impl Step {
    /// In the order in which they are taken.
    const ALL: [Self; 4] = [Self::Clear, Self::Key, Self::Authorities, Self::Certificate];

    /// The name of the point behind it.
    fn point(self) -> &'static str {
        match self {
            Self::Clear => "identity.cleared",
            Self::Key => "identity.key",
            Self::Authorities => "identity.authorities",
            Self::Certificate => "identity.certificate",
        }
    }
}

impl Slots {
    /// The slots in a state directory; nothing is made yet.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("identity"), filling: Arc::default() }
    }

    /// The files of one slot.
    pub(crate) fn files(&self, slot: Slot) -> Files {
        let folder = self.folder.join(slot.as_str());
        Files { cert: folder.join("cert.pem"), key: folder.join("key.pem"), ca: folder.join("ca.pem") }
    }

    /// Tells whether a slot counts.
    pub(crate) fn is_filled(&self, slot: Slot) -> bool {
        self.files(slot).cert.exists()
    }

    /// Fills a slot; when it returns, a crash no longer loses it.
    ///
    /// # Errors
    /// The first step that failed; the slot does not count then.
    pub(crate) fn write(&self, slot: Slot, pem: Pem<'_>) -> Result<(), FileError> {
        let _filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        for step in Step::ALL {
            self.take(step, slot, pem)?;
            crash::point(step.point());
        }
        Ok(())
    }

    fn take(&self, step: Step, slot: Slot, pem: Pem<'_>) -> Result<(), FileError> {
        let files = self.files(slot);
        match step {
            Step::Clear => self.clear(slot, &files.cert),
            Step::Key => durable::replace(&files.key, pem.key.as_bytes()).context("write", &files.key),
            Step::Authorities => durable::replace(&files.ca, pem.bundle.as_bytes()).context("write", &files.ca),
            Step::Certificate => durable::replace(&files.cert, pem.chain.as_bytes()).context("write", &files.cert),
        }
    }

    /// Makes the folder, and takes the certificate out of it: the slot does not count from here on.
    fn clear(&self, slot: Slot, cert: &Path) -> Result<(), FileError> {
        let folder = self.folder.join(slot.as_str());
        durable::create_folder(&folder).context("make", &folder)?;
        durable::sync_folder(&self.folder).context("sync", &self.folder)?;
        match fs::remove_file(cert) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("remove", cert),
            _ => {}
        }
        durable::sync_folder(&folder).context("sync", &folder)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const OLD: Pem<'_> = Pem { key: "old key", chain: "old chain", bundle: "old bundle" };
    const NEW: Pem<'_> = Pem { key: "new key", chain: "new chain", bundle: "new bundle" };

    fn content(slots: &Slots, slot: Slot) -> [String; 3] {
        let Files { cert, key, ca } = slots.files(slot);
        [cert, key, ca].map(|path| fs::read_to_string(path).unwrap())
    }

    #[test]
    fn a_slot_is_readable_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let slots = Slots::new(folder.path());
        assert!(!slots.is_filled(Slot::A));
        slots.write(Slot::A, NEW).unwrap();
        assert_eq!(content(&slots, Slot::A), ["new chain", "new key", "new bundle"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let Files { cert, key, ca } = slots.files(Slot::A);
        assert_eq!([&cert, &key, &ca].map(|path| mode(path)), [0o600; 3]);
        for path in [&slots.folder, &slots.folder.join("a")] {
            assert_eq!(mode(path), 0o700, "{}", path.display());
        }
    }

    /// A crash after any step, also in the middle of one, leaves the slot whole or not counting, and the other as it was.
    #[test]
    fn at_every_moment_a_slot_is_whole_or_does_not_count() {
        for steps in 0..=Step::ALL.len() {
            let folder = tempfile::tempdir().unwrap();
            let slots = Slots::new(folder.path());
            slots.write(Slot::A, OLD).unwrap();
            slots.write(Slot::B, OLD).unwrap();
            for step in Step::ALL.into_iter().take(steps) {
                slots.take(step, Slot::B, NEW).unwrap();
            }
            // The next step was begun: its content lies beside its place.
            let Files { cert, key, ca } = slots.files(Slot::B);
            for begun in [&cert, &key, &ca] {
                fs::write(begun.with_extension("pem.new"), "half").unwrap();
            }
            assert_eq!(content(&slots, Slot::A), ["old chain", "old key", "old bundle"], "after {steps} steps");
            let expected = match steps {
                0 => Some(["old chain", "old key", "old bundle"]),
                4 => Some(["new chain", "new key", "new bundle"]),
                _ => None,
            };
            assert_eq!(slots.is_filled(Slot::B), expected.is_some(), "after {steps} steps");
            if let Some(expected) = expected {
                assert_eq!(content(&slots, Slot::B), expected);
            }
            slots.write(Slot::B, NEW).unwrap();
            assert_eq!(
                content(&slots, Slot::B),
                ["new chain", "new key", "new bundle"],
                "the next attempt is not held up"
            );
        }
    }
}
