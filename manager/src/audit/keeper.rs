//! Writes checkpoints when the audit has grown: a thousand rows behind the last one, or a minute after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::checkpoint::{Checkpoint, Signer};
use super::file::{CheckpointFile, CheckpointsError, Read};
use super::verdict::{Expected, expected};

/// Rows that may be behind the last checkpoint.
pub(crate) const ROWS: u64 = 1_000;
/// How long rows may be behind the last checkpoint.
pub(crate) const SPAN: Duration = Duration::from_secs(60);

/// The one writer of the file.
#[derive(Debug)]
pub(crate) struct Keeper {
    signer: Arc<Signer>,
    file: CheckpointFile,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    checkpoint: Option<Checkpoint>,
    whole: u64,
    /// The file is not ours as it stands: nothing is added, so that nothing is lost of what it shows.
    forged: Option<String>,
}

impl Keeper {
    /// Reads what is there. A file that does not hold is no reason not to start: it is said by the checks, and left as it
    /// is. Blocking.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn open(signer: Signer, file: CheckpointFile) -> Result<Self, CheckpointsError> {
        let (read, forged) = match file.read(&signer) {
            Ok(read) => (read, None),
            Err(error @ CheckpointsError::Forged { .. }) => (Read::default(), Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let last = Last { checkpoint: read.checkpoints.last().cloned(), whole: read.whole, forged };
        Ok(Self { signer: Arc::new(signer), file, last: Mutex::new(last) })
    }

    /// What others check signatures with.
    pub(crate) fn public_key(&self) -> [u8; 32] {
        self.signer.public_key()
    }

    /// Writes a checkpoint of this head when it is time; answers whether it did.
    ///
    /// # Errors
    /// When the file cannot be written, or does not hold.
    pub(crate) async fn look(
        &self,
        head: (u64, [u8; 32]),
        now: u64,
        incarnation: u64,
    ) -> Result<bool, CheckpointsError> {
        let mut last = self.last.lock().await;
        if last.forged.is_some() || !is_time(last.checkpoint.as_ref(), head.0, now, incarnation) {
            return Ok(false);
        }
        let next = self.signer.sign(head, now, incarnation, last.checkpoint.as_ref());
        let (file, line, whole) = (self.file.clone(), next.clone(), last.whole);
        let written = tokio::task::spawn_blocking(move || file.add(&line, whole)).await;
        last.whole = written.unwrap_or(Err(CheckpointsError::Interrupted))?;
        last.checkpoint = Some(next);
        Ok(true)
    }

    /// Reads the file again: what the audit must hold by it, and the newest checkpoint.
    ///
    /// # Errors
    /// When it cannot be read, or a line was not written by this manager.
    pub(crate) async fn expected(&self) -> Result<(Expected, Option<Checkpoint>), CheckpointsError> {
        // Nothing is added while it is read.
        let _last = self.last.lock().await;
        let (file, signer) = (self.file.clone(), Arc::clone(&self.signer));
        let read = tokio::task::spawn_blocking(move || file.read(&signer)).await;
        let read = read.unwrap_or(Err(CheckpointsError::Interrupted))?;
        Ok((expected(&read.checkpoints), read.checkpoints.last().cloned()))
    }
}

/// A new life of the store is marked at once: what an earlier one had behind this point is lost with the restore.
fn is_time(last: Option<&Checkpoint>, seq: u64, now: u64, incarnation: u64) -> bool {
    let Some(last) = last else { return seq > 0 };
    if incarnation != last.incarnation {
        return true;
    }
    let due = now.saturating_sub(last.at) >= u64::try_from(SPAN.as_millis()).unwrap_or(u64::MAX);
    seq > last.seq && (due || seq - last.seq >= ROWS)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn keeper(folder: &std::path::Path) -> Keeper {
        let signer = Signer::open(&folder.join("audit.key"), &"c1".parse().unwrap()).unwrap();
        Keeper::open(signer, CheckpointFile::new(folder.join("audit.checkpoints"))).unwrap()
    }

    #[tokio::test]
    async fn a_checkpoint_is_written_after_so_many_rows_or_so_much_time_and_never_without_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let minute = SPAN.as_millis() as u64;
        let keeper = keeper(folder.path());
        let mut written = Vec::new();
        for (seq, now, incarnation, expected) in [
            (0, 5, 1, false),
            (1, 5, 1, true),
            (1 + ROWS - 1, 6, 1, false),
            (1 + ROWS, 6, 1, true),
            (1 + ROWS, 6 + 2 * minute, 1, false),
            (2 + ROWS, 6 + minute - 1, 1, false),
            (2 + ROWS, 6 + minute, 1, true),
            (3, 7 + minute, 2, true),
        ] {
            assert_eq!(keeper.look((seq, [1; 32]), now, incarnation).await.unwrap(), expected, "{seq} at {now}");
            if expected {
                written.push(seq);
            }
        }
        let (expected, newest) = keeper.expected().await.unwrap();
        assert_eq!(expected.rows.iter().map(|row| row.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((expected.restored_away, newest.unwrap().seq), (2, 3));
        assert_eq!(written.len(), 4);
    }

    #[tokio::test]
    async fn a_keeper_goes_on_behind_its_own_last_line_and_leaves_a_forged_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(keeper(folder.path()).look((1, [1; 32]), 0, 1).await.unwrap());
        assert!(keeper(folder.path()).look((1 + ROWS, [2; 32]), 0, 1).await.unwrap());
        let path = folder.path().join("audit.checkpoints");
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        let forged = std::fs::read_to_string(&path).unwrap().replacen(r#""seq":1,"#, r#""seq":2,"#, 1);
        std::fs::write(&path, &forged).unwrap();
        let keeper = keeper(folder.path());
        assert!(!keeper.look((9 * ROWS, [3; 32]), 0, 1).await.unwrap());
        assert!(matches!(keeper.expected().await, Err(CheckpointsError::Forged { line: 1, .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), forged);
    }
}
