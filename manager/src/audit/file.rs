//! The file of the checkpoints: lines are only ever added, a line that a crash cut off is taken away before the next.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use common::durable;

use super::checkpoint::{Checkpoint, Signer};

/// Longest line that is looked at: a checkpoint has about 250 bytes.
const MAX_LINE: u64 = 512;

/// Why checkpoints cannot be read, written or believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointsError {
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written", path = path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key can be read by others.
    #[error("{path} has mode {mode:04o}: the key of the audit must be readable by its owner alone (chmod 600)", path = path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is no key in the file.
    #[error("{path} holds no key to sign checkpoints with", path = path.display())]
    Key {
        /// Which file.
        path: PathBuf,
    },
    /// A line was changed, added by somebody else, or the one before it was taken out.
    #[error("line {line} of {path} was not written by this manager, or the line before it is missing", path = path.display())]
    Forged {
        /// Which file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
    },
    /// The work was cut short by the end of the program.
    #[error("the work was interrupted")]
    Interrupted,
}

impl CheckpointsError {
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointFile {
    path: PathBuf,
}

/// What was read of the file.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Everything that was signed, in order.
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// Bytes of whole lines: what stands behind them was never finished.
    pub(crate) whole: u64,
}

impl CheckpointFile {
    /// Names the file; it is made with the first line.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads all checkpoints and checks each signature. A last line without its end was never finished. Blocking.
    ///
    /// # Errors
    /// When it cannot be read, or a line was not written by this key.
    pub(crate) fn read(&self, signer: &Signer) -> Result<Read, CheckpointsError> {
        let mut read = Read::default();
        let failed = |source| CheckpointsError::file(&self.path, source);
        let mut file = match File::open(&self.path) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(read),
            Err(source) => return Err(failed(source)),
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            let got = file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(failed)? as u64;
            let Some(text) = line.strip_suffix(b"\n") else {
                // The end of the file, or a line that is too long to be one of ours.
                let longer = got == MAX_LINE;
                return if longer { Err(self.forged(&read)) } else { Ok(read) };
            };
            let checkpoint = std::str::from_utf8(text).ok().and_then(Checkpoint::read);
            match checkpoint.filter(|one| signer.signed(one, read.checkpoints.last())) {
                Some(checkpoint) => read.checkpoints.push(checkpoint),
                None => return Err(self.forged(&read)),
            }
            read.whole += got;
        }
    }

    /// Adds one behind the whole lines and makes it durable; answers how many bytes are whole then. Blocking.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn add(&self, checkpoint: &Checkpoint, whole: u64) -> Result<u64, CheckpointsError> {
        self.append(checkpoint, whole).map_err(|source| CheckpointsError::file(&self.path, source))
    }

    fn append(&self, checkpoint: &Checkpoint, whole: u64) -> io::Result<u64> {
        let fresh = !self.path.exists();
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        if file.metadata()?.len() > whole {
            file.set_len(whole)?;
        }
        let line = format!("{}\n", checkpoint.line());
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        if fresh && let Some(folder) = self.path.parent() {
            durable::sync_folder(folder)?;
        }
        Ok(whole + line.len() as u64)
    }

    fn forged(&self, read: &Read) -> CheckpointsError {
        CheckpointsError::Forged { path: self.path.clone(), line: read.checkpoints.len() + 1 }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    struct Desk {
        folder: tempfile::TempDir,
        signer: Signer,
        file: CheckpointFile,
    }

    fn desk() -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(&folder.path().join("audit.key"), &"c1".parse().unwrap()).unwrap();
        let file = CheckpointFile::new(folder.path().join("audit.checkpoints"));
        Desk { folder, signer, file }
    }

    fn write(desk: &Desk, count: u64) -> Vec<Checkpoint> {
        let mut written: Vec<Checkpoint> = Vec::new();
        for seq in 1..=count {
            let next = desk.signer.sign((seq, [seq as u8; 32]), seq, 1, written.last());
            let whole = desk.file.read(&desk.signer).unwrap().whole;
            desk.file.add(&next, whole).unwrap();
            written.push(next);
        }
        written
    }

    #[test]
    fn lines_read_back_in_order_and_a_torn_one_does_not_count() {
        let desk = desk();
        assert_eq!(desk.file.read(&desk.signer).unwrap().checkpoints, []);
        let mut written = write(&desk, 3);
        let path = desk.folder.path().join("audit.checkpoints");
        let mut raw = OpenOptions::new().append(true).open(&path).unwrap();
        raw.write_all(br#"{"seq":4,"hash":"0404"#).unwrap();
        let read = desk.file.read(&desk.signer).unwrap();
        assert_eq!(read.checkpoints, written);
        let next = desk.signer.sign((5, [5; 32]), 5, 1, written.last());
        desk.file.add(&next, read.whole).unwrap();
        written.push(next);
        assert_eq!(desk.file.read(&desk.signer).unwrap().checkpoints, written);
    }

    #[test]
    fn a_line_that_was_changed_or_taken_out_is_named() {
        let desk = desk();
        write(&desk, 4);
        let path = desk.folder.path().join("audit.checkpoints");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let without_second = format!("{}\n{}\n{}\n", lines[0], lines[2], lines[3]);
        let changed = text.replacen(r#""seq":3"#, r#""seq":2"#, 1);
        let foreign = format!("{text}nonsense\n");
        let endless = format!("{text}{}", "0".repeat(10_000));
        for (forged, line) in [(without_second, 2), (changed, 3), (foreign, 5), (endless, 5)] {
            std::fs::write(&path, forged).unwrap();
            let refused = desk.file.read(&desk.signer).unwrap_err();
            assert!(matches!(refused, CheckpointsError::Forged { line: named, .. } if named == line), "{refused}");
        }
    }
}
