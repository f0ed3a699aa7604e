//! Directories of commands that the manager has everything of, kept for a look on the host.
//!
//! ```text
//! commands/<uid> ──(tombstone durable)──► kept/<wall ms>-<uid> ──(age, count, bytes, disk full)──► gone
//! ```
//! What lies here is a copy for people: it has a tombstone, is never listed to a manager and never started. Nothing is
//! synced: after a crash a directory is where it was, and is delivered or removed once more.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::id::Uid;

use super::file_error::{Context, FileError};
use super::layout::SECTOR;
use crate::config::Keep;

/// The folder in the state directory.
pub const FOLDER: &str = "kept";

/// One that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct One {
    /// Wall clock when it was delivered, Unix milliseconds.
    at_ms: u64,
    uid: Uid,
    bytes: u64,
}

/// All that are kept, the oldest first; used where blocking is allowed, unless a function says otherwise.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    keep: Keep,
    index: Mutex<Index>,
    count: AtomicUsize,
}

/// The oldest first, and what they weigh together: added up anew for each that goes, many would take minutes.
#[derive(Debug, Default)]
struct Index {
    all: VecDeque<One>,
    bytes: u64,
}

impl Index {
    fn push(&mut self, one: One) {
        self.bytes = self.bytes.saturating_add(one.bytes);
        self.all.push_back(one);
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.all.pop_front() {
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
        }
    }
}

impl Kept {
    /// Reads what is there; what is beyond the bounds goes with the first [`Kept::evict`].
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(state_dir: &Path, keep: Keep) -> Result<Self, FileError> {
        let folder = state_dir.join(FOLDER);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).context("list", &folder)? {
            let entry = entry.context("list", &folder)?;
            if let Some((at_ms, uid)) = entry.file_name().to_str().and_then(parse) {
                found.push(One { at_ms, uid, bytes: weigh(&entry.path()) });
            }
        }
        found.sort_unstable_by_key(|one| (one.at_ms, one.uid));
        let mut index = Index::default();
        found.into_iter().for_each(|one| index.push(one));
        Ok(Self { folder, keep, count: AtomicUsize::new(index.all.len()), index: Mutex::new(index) })
    }

    /// Tells whether anything is to be kept at all; never blocks.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.keep.age.0.is_zero() && self.keep.count > 0 && self.keep.bytes.0 > 0
    }

    /// Keeps the directory `from` of a command that was delivered at wall time `now_ms`.
    ///
    /// # Errors
    /// When it cannot be moved: then it is where it was.
    pub fn add(&self, from: &Path, uid: Uid, now_ms: u64) -> Result<(), FileError> {
        let mut index = self.index();
        // Always behind the youngest: a clock that was set back would let the newest go first.
        let at_ms = index.all.back().map_or(now_ms, |youngest| now_ms.max(youngest.at_ms.saturating_add(1)));
        let one = One { at_ms, uid, bytes: weigh(from) };
        fs::rename(from, self.path(&one)).context("keep", from)?;
        index.push(one);
        self.count.store(index.all.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Removes what is beyond the bounds at wall time `now_ms`, the oldest first; answers how many went.
    ///
    /// # Errors
    /// The first that cannot be removed; it stays known, and the next call tries again.
    pub fn evict(&self, now_ms: u64) -> Result<usize, FileError> {
        let Keep { age, count, bytes } = self.keep;
        let age_ms = u64::try_from(age.0.as_millis()).unwrap_or(u64::MAX);
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        self.remove_while(|oldest, index| {
            now_ms.saturating_sub(oldest.at_ms) >= age_ms || index.all.len() > most || index.bytes > bytes.0
        })
    }

    /// Removes all of them: what runs needs the room.
    ///
    /// # Errors
    /// The first that cannot be removed.
    pub fn evict_all(&self) -> Result<usize, FileError> {
        self.remove_while(|_, _| true)
    }

    /// Milliseconds of wall time from `now_ms` until the oldest has reached its age.
    #[must_use]
    pub fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        let age_ms = u64::try_from(self.keep.age.0.as_millis()).unwrap_or(u64::MAX);
        self.index().all.front().map(|oldest| oldest.at_ms.saturating_add(age_ms).saturating_sub(now_ms))
    }

    /// How many there are; never blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Tells whether there is none; never blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn remove_while(&self, goes: impl Fn(&One, &Index) -> bool) -> Result<usize, FileError> {
        let mut index = self.index();
        let mut gone = 0;
        while let Some(oldest) = index.all.front().filter(|oldest| goes(oldest, &index)) {
            let path = self.path(oldest);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("remove", &path),
                _ => {}
            }
            index.pop();
            self.count.store(index.all.len(), Ordering::Relaxed);
            gone += 1;
        }
        Ok(gone)
    }

    fn path(&self, one: &One) -> PathBuf {
        self.folder.join(format!("{:014}-{}", one.at_ms, one.uid))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the name of a kept directory.
pub(crate) fn parse(name: &str) -> Option<(u64, Uid)> {
    let (at_ms, uid) = name.split_once('-')?;
    Some((at_ms.parse().ok()?, uid.parse().ok()?))
}

/// Bytes of the disk that the files of a directory take.
fn weigh(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.blocks().saturating_mul(SECTOR)).sum()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use common::config::{HumanDuration, Size};

    use super::*;

    fn keep(age: u64, count: u32, bytes: u64) -> Keep {
        Keep { age: HumanDuration(Duration::from_millis(age)), count, bytes: Size(bytes) }
    }

    /// A state directory with two folders, and what is kept in it.
    fn bed(keep: Keep) -> (tempfile::TempDir, Kept) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(FOLDER)).unwrap();
        let kept = Kept::open(folder.path(), keep).unwrap();
        (folder, kept)
    }

    fn add(folder: &Path, kept: &Kept, now_ms: u64) -> Uid {
        let uid = Uid::random();
        let dir = folder.join(uid.to_string());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("stdout.0"), vec![b'x'; 64 * 1024]).unwrap();
        kept.add(&dir, uid, now_ms).unwrap();
        uid
    }

    fn left(folder: &Path) -> Vec<Uid> {
        let names = fs::read_dir(folder.join(FOLDER)).unwrap();
        let mut found: Vec<_> = names.map(|name| parse(name.unwrap().file_name().to_str().unwrap()).unwrap()).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, uid)| uid).collect()
    }

    #[test]
    fn each_bound_takes_the_oldest_first_and_nothing_within_it() {
        let (folder, kept) = bed(keep(100, 10, 1 << 30));
        let (a, b) = (add(folder.path(), &kept, 1_000), add(folder.path(), &kept, 1_050));
        assert_eq!((kept.evict(1_099).unwrap(), kept.next_due_ms(1_099)), (0, Some(1)));
        assert_eq!(kept.evict(1_100).unwrap(), 1);
        assert_eq!(left(folder.path()), [b], "not {a}");

        let (folder, kept) = bed(keep(1 << 40, 2, 1 << 30));
        let all: Vec<_> = (0..4).map(|at| add(folder.path(), &kept, at)).collect();
        assert_eq!(kept.evict(9).unwrap(), 2);
        assert_eq!(left(folder.path()), all[2..]);

        let (folder, kept) = bed(keep(1 << 40, 10, 2 * 64 * 1024 + 16 * 1024));
        let all: Vec<_> = (0..4).map(|at| add(folder.path(), &kept, at)).collect();
        assert_eq!(kept.evict(9).unwrap(), 2);
        assert_eq!(left(folder.path()), all[2..]);
    }

    #[test]
    fn they_survive_a_restart_in_order_and_go_when_nothing_is_wanted_any_more() {
        let (folder, kept) = bed(keep(1 << 40, 2, 1 << 30));
        let first = add(folder.path(), &kept, 5_000);
        let second = add(folder.path(), &kept, 4_000);
        assert_eq!(left(folder.path()).len(), 2);
        drop(kept);
        let kept = Kept::open(folder.path(), keep(1 << 40, 1, 1 << 30)).unwrap();
        assert_eq!(kept.len(), 2);
        kept.evict(5_001).unwrap();
        assert_eq!(left(folder.path()), [second], "not {first}: a clock that was set back makes nobody older");
        drop(kept);
        let kept = Kept::open(folder.path(), keep(0, 200, 1 << 30)).unwrap();
        assert!(!kept.is_wanted());
        kept.evict(0).unwrap();
        assert!(kept.is_empty() && left(folder.path()).is_empty());
    }

    #[test]
    fn all_go_at_once_and_one_that_is_gone_already_is_no_error() {
        let (folder, kept) = bed(keep(1 << 40, 10, 1 << 30));
        add(folder.path(), &kept, 1);
        add(folder.path(), &kept, 2);
        let one = fs::read_dir(folder.path().join(FOLDER)).unwrap().next().unwrap().unwrap().path();
        fs::remove_dir_all(one).unwrap();
        assert_eq!(kept.evict_all().unwrap(), 2);
        assert!(kept.is_empty());
        assert_eq!(kept.index().bytes, 0, "what is gone weighs nothing");
        assert_eq!(kept.next_due_ms(0), None);
    }
}
