//! The one error of file work: what was tried on which path.

use std::io;
use std::path::{Path, PathBuf};

/// A step on a file failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Tells whether the disk (or a quota on it) is full: waiting may help, trying again at once does not.
    #[must_use]
    pub fn is_full(&self) -> bool {
        is_full(&self.source)
    }

    /// Tells whether the agent itself lacks something (descriptors, memory), which says nothing about the file.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let passing = [libc::ENOBUFS, libc::EINTR];
        is_shortage(&self.source) || self.source.raw_os_error().is_some_and(|code| passing.contains(&code))
    }

    /// Tells whether the thing was not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Tells whether a step failed for want of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Tells whether the host lacks something that others may give back: descriptors, process numbers, memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let lacking = [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| lacking.contains(&code))
}

/// Adds action and path to the result of a step.
pub(crate) trait Context<T> {
    /// Names what was tried on which path.
    fn context(self, action: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError { action, path: path.to_owned(), source: source.into() })
    }
}
