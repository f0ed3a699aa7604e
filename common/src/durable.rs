//! Files that must survive a crash: written beside their place, synced, renamed, folder synced; owner-only from the
//! first byte.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Mode of files we make: nobody but the owner reads them.
const FILE_MODE: u32 = 0o600;
/// Mode of folders we make.
const FOLDER_MODE: u32 = 0o700;

/// Replaces the content of `path`, or makes the file: after it returns, a crash shows the old or the new content, whole.
///
/// # Errors
/// The first step that failed; the file at `path` is then the old one.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = parent(path)?;
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    let staged = Path::new(&staged);
    match fs::remove_file(staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_new(staged)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(staged, path)?;
    sync_folder(folder)
}

/// Reads a whole file that must not be larger than `limit`; whatever the name points to, no more is ever read.
///
/// # Errors
/// When it cannot be read, or is larger ([`io::ErrorKind::FileTooLarge`]).
pub fn read_bounded(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Makes a file that did not exist, readable by its owner alone.
///
/// # Errors
/// Also when something of that name exists, a dangling link included.
pub fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Makes a folder and the missing ones above it, open to its owner alone.
///
/// # Errors
/// When it cannot be made; an existing folder is not an error.
pub fn create_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

/// Makes the entries of a folder durable.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => Ok(folder),
        Some(_) => Ok(Path::new(".")),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no folder")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_replaced_file_is_whole_private_and_leaves_nothing_behind() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key");
        replace(&path, b"old")?;
        fs::write(folder.path().join("key.new"), b"left by a crash")?;
        replace(&path, b"new")?;
        assert_eq!(fs::read(&path)?, b"new");
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("x");
        fs::write(&path, b"12345")?;
        assert_eq!(read_bounded(File::open(&path)?, 5)?, b"12345");
        for too_small in [0, 4] {
            let refused = read_bounded(File::open(&path)?, too_small).map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::FileTooLarge));
        }
        assert!(read_bounded(File::open("/dev/zero")?, 1000).is_err());
        Ok(())
    }

    #[test]
    fn a_file_that_exists_is_not_taken_over() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("x");
        create_new(&path)?;
        assert_eq!(create_new(&path).map_err(|error| error.kind()).err(), Some(io::ErrorKind::AlreadyExists));
        Ok(())
    }
}
