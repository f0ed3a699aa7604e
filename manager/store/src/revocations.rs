//! What was taken back for ever, in an append-only file that is not part of a backup: a restored store must not let in
//! again who was thrown out after the backup was made.
//!
//! One line each: `token <id>`, `join <id>`, `agent <generation>` or `operator <generation>`. A line counts once its newline is there; the file is synced
//! before the database commits the same fact, so a crash between the two leaves it revoked.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// Name of the file in the store's folder.
const FILE: &str = "revocations";

/// One thing that was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// A token, by id.
    Token(String),
    /// An agent, by generation.
    Agent(u64),
    /// A join token, by id.
    JoinToken(String),
    /// A certificate of an operator, by generation.
    Operator(u64),
}

/// The file.
#[derive(Debug)]
pub(crate) struct Revocations {
    path: PathBuf,
}

impl Revocations {
    /// Names the file of a folder; it is made by the first revocation.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// Reads everything that was revoked. Lines of later releases are left alone.
    pub(crate) fn read(&self) -> Result<Vec<Revoked>, StoreError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.failed(source)),
        };
        let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or(""));
        Ok(whole
            .lines()
            .filter_map(|line| match line.split_once(' ')? {
                ("token", id) => Some(Revoked::Token(id.to_owned())),
                ("agent", generation) => generation.parse().ok().map(Revoked::Agent),
                ("join", id) => Some(Revoked::JoinToken(id.to_owned())),
                ("operator", generation) => generation.parse().ok().map(Revoked::Operator),
                _ => None,
            })
            .collect())
    }

    /// Adds one and makes it durable.
    pub(crate) fn add(&self, revoked: &Revoked) -> Result<(), StoreError> {
        self.append(revoked).map_err(|source| self.failed(source))
    }

    fn append(&self, revoked: &Revoked) -> std::io::Result<()> {
        let fresh = !self.path.exists();
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        cut_torn_line(&mut file)?;
        let mut line = String::new();
        match revoked {
            Revoked::Token(id) => line.push_str(&format!("token {id}\n")),
            Revoked::Agent(generation) => line.push_str(&format!("agent {generation}\n")),
            Revoked::JoinToken(id) => line.push_str(&format!("join {id}\n")),
            Revoked::Operator(generation) => line.push_str(&format!("operator {generation}\n")),
        }
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        if fresh && let Some(folder) = self.path.parent() {
            common::durable::sync_folder(folder)?;
        }
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> StoreError {
        StoreError::File { path: self.path.clone(), source }
    }
}

/// Removes a last line that a crash cut off: half a generation is the number of another agent.
fn cut_torn_line(file: &mut File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    // No line is longer than this: ids of tokens are short, and the store refuses others.
    let from = length.saturating_sub(4096);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut tail)?;
    if tail.last().is_none_or(|last| *last == b'\n') {
        return Ok(());
    }
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    file.set_len(from + whole as u64)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_torn_line_neither_counts_nor_spoils_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let file = Revocations::new(folder.path());
        assert_eq!(file.read().unwrap(), []);
        file.add(&Revoked::Token("abc".into())).unwrap();
        let mut raw = OpenOptions::new().append(true).open(folder.path().join(FILE)).unwrap();
        raw.write_all(b"agent 12").unwrap();
        assert_eq!(file.read().unwrap(), [Revoked::Token("abc".into())]);
        file.add(&Revoked::Agent(3)).unwrap();
        let all =
            [Revoked::Token("abc".into()), Revoked::Agent(3), Revoked::JoinToken("j".into()), Revoked::Operator(7)];
        for one in &all[2..] {
            file.add(one).unwrap();
        }
        assert_eq!(file.read().unwrap(), all);
    }
}
