//! A copy of the manager's checkpoints against its audit: what the audit was once, and whether it still is.
//!
//! Whoever can change everything on the manager's host can write new rows, new checkpoints and a new key. A copy that
//! lies elsewhere is out of reach: the hash of a row covers every row before it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use api::audit::{AuditCheckpoint, AuditFault, AuditQuery, AuditRow};
use api::client::{AuditExport, Client};
use common::durable;
use serde::Serialize;

use crate::error::{Failure, Kind};

/// Largest copy that is read: half a million checkpoints.
const MAX_BYTES: u64 = 128 * 1024 * 1024;
/// Longest row of the audit that is put together from pieces.
const MAX_ROW: usize = 8 * 1024 * 1024;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Compared {
    /// How many checkpoints of the copy were compared.
    pub(super) checkpoints: u64,
    /// How many are about rows that are kept no more.
    pub(super) older: u64,
    /// How many are about rows that a restored copy of the store does not have.
    pub(super) lost_to_restore: u64,
    /// The first row that is not what it was.
    pub(super) first_bad: Option<AuditFault>,
}

/// What a copy says the audit must hold.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Kept {
    /// Hashes by the number of the row.
    rows: BTreeMap<u64, String>,
    /// Rows that a restore took away, whose numbers were given out again.
    lost_to_restore: u64,
}

/// Reads a copy. Its last line may be cut off: a copy may be made while a line is written.
pub(super) fn read(path: &Path) -> Result<Kept, Failure> {
    let bad = |why: String| Failure::new(Kind::Usage, format!("--checkpoints {} {why}", path.display()));
    let bytes = File::open(path)
        .and_then(|file| durable::read_bounded(file, MAX_BYTES))
        .map_err(|error| bad("cannot be read".to_owned()).because(error))?;
    let text = String::from_utf8(bytes).map_err(|_| bad("is not text".to_owned()))?;
    let kept = parse(&text).map_err(|(line, why)| bad(format!("line {line}: {why}")))?;
    if kept.rows.is_empty() {
        return Err(bad("holds no checkpoint".to_owned()));
    }
    Ok(kept)
}

fn parse(text: &str) -> Result<Kept, (usize, String)> {
    let mut kept = Kept::default();
    let mut life = None;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let Some(line) = line.strip_suffix('\n') else { break };
        let read: AuditCheckpoint =
            serde_json::from_str(line).map_err(|error| (number, format!("no checkpoint: {error}")))?;
        if life.is_some_and(|life| life != read.incarnation) {
            // What the life before signed from here on went with the copy that was replaced.
            kept.lost_to_restore += kept.rows.split_off(&read.seq).len() as u64;
        }
        life = Some(read.incarnation);
        if let Some(other) = kept.rows.insert(read.seq, read.hash.clone())
            && other != read.hash
        {
            return Err((number, format!("another checkpoint of row {} stands before it", read.seq)));
        }
    }
    Ok(kept)
}

/// Reads the whole audit of the manager and compares it with the copy.
pub(super) async fn compare(client: &Client, kept: &Kept) -> Result<Compared, Failure> {
    let mut rows = Rows { export: client.export_audit(&AuditQuery::default()).await?, buffer: Vec::new() };
    let mut comparison = Comparison::new(&kept.rows);
    while let Some(row) = rows.next().await? {
        comparison.row(&row);
    }
    Ok(Compared { lost_to_restore: kept.lost_to_restore, ..comparison.end() })
}

/// The rows of an export, put together from its pieces.
struct Rows {
    export: AuditExport,
    buffer: Vec<u8>,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<AuditRow>, Failure> {
        let malformed = |why: String| Failure::new(Kind::Work, format!("the audit cannot be understood: {why}"));
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(|error| malformed(error.to_string()));
            }
            if self.buffer.len() > MAX_ROW {
                return Err(malformed("a row is longer than any row should be".to_owned()));
            }
            match self.export.next().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(malformed("it ends within a row".to_owned())),
            }
        }
    }
}

/// Goes through rows and checkpoints side by side.
struct Comparison<'k> {
    kept: &'k BTreeMap<u64, String>,
    found: Compared,
    before: Option<u64>,
}

impl<'k> Comparison<'k> {
    fn new(kept: &'k BTreeMap<u64, String>) -> Self {
        Self { kept, found: Compared::default(), before: None }
    }

    fn row(&mut self, row: &AuditRow) {
        match self.before {
            // Old rows are taken away from the front after their time; the hash of the first one left covers them.
            None => self.found.older = self.kept.range(..row.seq).count() as u64,
            Some(before) if row.seq != before + 1 => self.bad(before + 1, "the row is missing"),
            Some(_) => {}
        }
        self.before = Some(row.seq);
        if let Some(hash) = self.kept.get(&row.seq) {
            self.found.checkpoints += 1;
            if *hash != row.hash {
                self.bad(row.seq, "the row, or one before it, is not what it was at this checkpoint");
            }
        }
    }

    fn end(mut self) -> Compared {
        let behind = self.before.map_or(0, |newest| newest + 1);
        if let Some((seq, _)) = self.kept.range(behind..).next_back() {
            let text = format!("the audit went as far as row {seq} at a checkpoint, and ends before it now");
            self.bad(behind.max(1), &text);
        }
        self.found
    }

    fn bad(&mut self, seq: u64, text: &str) {
        if self.found.first_bad.is_none() {
            self.found.first_bad = Some(AuditFault { seq, text: text.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use api::time::Time;
    use serde_json::Value;

    use super::*;

    fn row(seq: u64, hash: &str) -> AuditRow {
        let word = String::new;
        let (actor, action, object, outcome) = (word(), word(), word(), word());
        AuditRow { seq, at: Time(0), actor, action, object, outcome, details: Value::Null, hash: hash.to_owned() }
    }

    fn compared(kept: &[(u64, &str)], rows: &[(u64, &str)]) -> Compared {
        let kept = kept.iter().map(|(seq, hash)| (*seq, (*hash).to_owned())).collect();
        let mut comparison = Comparison::new(&kept);
        rows.iter().for_each(|(seq, hash)| comparison.row(&row(*seq, hash)));
        comparison.end()
    }

    #[test]
    fn what_is_as_it_was_is_whole() {
        let found = compared(&[(2, "b"), (3, "c")], &[(1, "a"), (2, "b"), (3, "c"), (4, "d")]);
        assert_eq!(found, Compared { checkpoints: 2, ..Compared::default() });
        let pruned = compared(&[(2, "b"), (9, "i")], &[(8, "h"), (9, "i")]);
        assert_eq!(pruned, Compared { checkpoints: 1, older: 1, ..Compared::default() });
    }

    #[test]
    fn a_change_a_gap_and_a_cut_tail_are_found_at_their_row() {
        let bad = |kept: &[(u64, &str)], rows: &[(u64, &str)]| compared(kept, rows).first_bad.map(|bad| bad.seq);
        assert_eq!(bad(&[(2, "b")], &[(1, "a"), (2, "x"), (3, "y")]), Some(2));
        assert_eq!(bad(&[(4, "d")], &[(1, "a"), (2, "b"), (4, "d")]), Some(3));
        assert_eq!(bad(&[(2, "b"), (4, "d")], &[(1, "a"), (2, "b"), (3, "c")]), Some(4));
        assert_eq!(bad(&[(4, "d")], &[]), Some(1), "an audit without a row");
    }

    fn line(seq: u64, hash: &str, incarnation: u64) -> String {
        let at = "2026-01-01T00:00:00.000Z";
        let line = serde_json::json!(
            {"seq": seq, "hash": hash, "at": at, "incarnation": incarnation, "signature": "AA=="}
        );
        format!("{line}\n")
    }

    #[test]
    fn what_a_restore_took_away_is_counted_and_not_looked_for() {
        let text = [(3, 1), (9, 1), (12, 1), (5, 2), (20, 2)].map(|(seq, life)| line(seq, "x", life)).concat();
        let kept = parse(&text).unwrap();
        assert_eq!(kept.rows.keys().copied().collect::<Vec<_>>(), [3, 5, 20]);
        assert_eq!(kept.lost_to_restore, 2);
    }

    #[test]
    fn a_copy_is_read_up_to_a_line_that_is_cut_off() {
        let line = |seq: u64, hash: &str| line(seq, hash, 1);
        let text = line(1, "a") + &line(5, "e") + "{\"seq\":";
        assert_eq!(parse(&text).unwrap().rows.into_iter().collect::<Vec<_>>(), [(1, "a".into()), (5, "e".into())]);
        assert_eq!(parse(&(line(1, "a") + "x\n")).unwrap_err().0, 2);
        assert!(parse(&(line(1, "a") + &line(1, "b"))).unwrap_err().1.contains("another checkpoint of row 1"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.checkpoints");
        assert!(read(&path).unwrap_err().lines().contains("cannot be read"));
        std::fs::write(&path, "").unwrap();
        assert!(read(&path).unwrap_err().lines().contains("holds no checkpoint"));
        std::fs::write(&path, line(1, "a") + "x\n").unwrap();
        let failure = read(&path).unwrap_err();
        assert!(failure.kind() == Kind::Usage && failure.lines().contains("line 2"), "{}", failure.lines());
    }
}
