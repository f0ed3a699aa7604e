//! Disk that is kept back: a file without a meaning, given up when a result cannot be written for want of room, and
//! taken again when there is room. New commands never get it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FallocateFlags;
use tracing::{info, warn};

use super::file_error::{Context, FileError};

/// The file in the state directory.
pub const FILE: &str = "reserve";
/// What is written at a time where the file system cannot set room aside.
const CHUNK: usize = 64 * 1024;

/// The reserve of one state directory; it is taken and given up only where blocking is allowed.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    size: u64,
    held: AtomicBool,
    /// One at a time takes it or gives it up.
    hand: Mutex<()>,
}

impl Reserve {
    /// Takes `size` bytes, or lets go of what an earlier configuration took when it is 0. A disk that has no room for
    /// it is no reason not to start.
    #[must_use]
    pub fn open(state_dir: &Path, size: u64) -> Self {
        let this = Self { path: state_dir.join(FILE), size, held: AtomicBool::new(false), hand: Mutex::new(()) };
        if size == 0 {
            drop(fs::remove_file(&this.path));
        } else if let Err(error) = this.take() {
            warn!(error = %common::error::Chain(&error), size, "There is no room for the reserve");
        }
        this
    }

    /// Gives it up; `false` when there was nothing to give.
    pub fn give_up(&self) -> bool {
        let _hand = self.hand();
        if !self.is_held() {
            return false;
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(error = %error, "The reserve cannot be given up");
                false
            }
            _ => {
                self.held.store(false, Ordering::Relaxed);
                warn!(size = self.size, "The disk is full: the reserve is given up so that results can be written");
                true
            }
        }
    }

    /// Takes it back when twice as much is free: otherwise it would come and go with every result. Answers whether it
    /// is held now.
    pub fn take_back(&self) -> bool {
        if self.is_held() || self.size == 0 {
            return self.is_held();
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        if free(folder).is_ok_and(|free| free >= self.size.saturating_mul(2)) && self.take().is_ok() {
            info!(size = self.size, "There is room again: the reserve is taken back");
        }
        self.is_held()
    }

    /// Tells whether it is there; never blocks.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Tells whether there should be one and is none; never blocks.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.size > 0 && !self.is_held()
    }

    fn take(&self) -> Result<(), FileError> {
        let _hand = self.hand();
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        // Asked first: a try that fails half way would have filled the disk for everybody for a moment.
        let present = fs::symlink_metadata(&self.path).map_or(0, |found| found.blocks().saturating_mul(512));
        if free(folder).context("look at", folder)?.saturating_add(present) < self.size {
            return Err(io::Error::from(io::ErrorKind::StorageFull)).context("set room aside in", &self.path);
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.path)
            .context("open", &self.path)?;
        let taken = fill(&file, self.size);
        if taken.is_err() {
            // Half a reserve is room that is missing elsewhere.
            drop(fs::remove_file(&self.path));
        }
        taken.context("set room aside in", &self.path)?;
        self.held.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn hand(&self) -> MutexGuard<'_, ()> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fill(file: &File, size: u64) -> io::Result<()> {
    let found = file.metadata()?;
    if found.len() == size && found.blocks().saturating_mul(512) >= size {
        return Ok(());
    }
    file.set_len(0)?;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let (mut left, mut file) = (size, file);
            while left > 0 {
                let next = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                file.write_all(&[0; CHUNK][..next])?;
                left -= next as u64;
            }
            // Where blocks are found late, a full disk shows only now.
            file.sync_data()
        }
        taken => taken.map_err(io::Error::from),
    }
}

/// Bytes that may still be written below `folder`.
///
/// # Errors
/// When the file system does not say.
pub fn free(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn size(folder: &Path) -> Option<u64> {
        fs::metadata(folder.join(FILE)).ok().map(|found| found.blocks() * 512)
    }

    #[test]
    fn it_takes_room_gives_it_up_once_and_takes_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(folder.path(), 256 * 1024);
        assert!(reserve.is_held() && !reserve.is_missing());
        assert!(size(folder.path()).is_some_and(|size| size >= 256 * 1024));
        assert!(reserve.give_up());
        assert!(!reserve.give_up() && reserve.is_missing());
        assert_eq!(size(folder.path()), None);
        assert!(reserve.take_back());
        assert!(size(folder.path()).is_some_and(|size| size >= 256 * 1024));
    }

    #[test]
    fn another_size_in_the_configuration_replaces_it_and_none_removes_it() {
        let folder = tempfile::tempdir().unwrap();
        drop(Reserve::open(folder.path(), 512 * 1024));
        drop(Reserve::open(folder.path(), 128 * 1024));
        assert_eq!(fs::metadata(folder.path().join(FILE)).unwrap().len(), 128 * 1024);
        let none = Reserve::open(folder.path(), 0);
        assert!(!none.is_held() && !none.is_missing() && !none.give_up() && !none.take_back());
        assert_eq!(size(folder.path()), None);
    }

    #[test]
    fn a_disk_without_room_is_no_reason_not_to_start_and_nothing_is_left_half_taken() {
        let folder = tempfile::tempdir().unwrap();
        let free = free(folder.path()).unwrap();
        let reserve = Reserve::open(folder.path(), free.saturating_add(1 << 40));
        assert!(reserve.is_missing() && !reserve.take_back());
        assert_eq!(size(folder.path()), None);
    }
}
