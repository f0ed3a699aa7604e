//! The agent's state directory: its paths, its identity, and the one process that may use it.
//!
//! ```text
//! <state_dir>/lock         held (flock) by the agent that runs
//!             journal      16 random bytes in hex, made once together with the directory
//!             notify       FIFO: shims write the 16 bytes of their uid when there is something to read
//!             staging/     directories being built; swept at every start
//!             commands/    one directory per command
//!             tombstones/  what is known of commands that are gone
//!             kept/        directories of delivered commands, for a look on the host
//!             identity/    renewed certificates, in two slots (see `crate::identity`)
//!             quarantine/  directories whose record could not be understood
//!             reserve      disk kept back for results
//!             seal.key     what secrets of commands are sealed with
//!             about        what the agent that runs, or ran last, says of itself
//! ```

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use common::durable;
use common::id::{IdError, Uid};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::file_error::{Context, FileError, is_full};
use super::record;
use super::seals::Seals;

/// How often and how long apart the lock is tried: a child between fork and exec may hold it for a moment.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Folders in the state directory.
const FOLDERS: [&str; 5] = ["staging", "commands", "tombstones", "kept", "quarantine"];
/// The unit in which the kernel counts what files take and what processes read and write.
pub(crate) const SECTOR: u64 = 512;
/// Bytes of one note in the notify FIFO.
const NOTE: usize = 16;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// A step on one of its files failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody else owns it: what it holds decides what runs as us.
    #[error("use {}: it belongs to user {owner}, this process runs as user {ours}", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        ours: u32,
    },
    /// Another agent uses it.
    #[error("use {}: another agent is using it", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The journal id is not readable.
    #[error("read the journal id in {}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: IdError,
    },
}

/// The opened state directory of the one agent that uses it.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    journal: Uid,
    notify: File,
    seals: Seals,
    /// Lets the sync of `commands/` fail, as a disk with errors does.
    #[cfg(test)]
    broken: std::sync::atomic::AtomicBool,
    /// Held for life: keeps a second agent out.
    _lock: File,
}

impl StateDir {
    /// Opens the directory, makes what is missing, and sweeps what a crash left in `staging`.
    ///
    /// # Errors
    /// When it belongs to somebody else, is in use, or a file step fails.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        durable::create_folder(path).context("make", path)?;
        let path = path.canonicalize().context("resolve", path)?;
        check_owner(&path)?;
        let lock = take_lock(&path)?;
        for folder in FOLDERS {
            let folder = path.join(folder);
            durable::create_folder(&folder).context("make", &folder)?;
        }
        sweep(&path.join("staging"))?;
        let journal = journal(&path.join("journal"))?;
        let notify = open_notify(&path.join("notify"))?;
        let seals = Seals::open(&path);
        durable::sync_folder(&path).context("sync", &path)?;
        Ok(Self {
            path,
            journal,
            notify,
            seals,
            #[cfg(test)]
            broken: Default::default(),
            _lock: lock,
        })
    }

    /// The id that was made together with this directory.
    #[must_use]
    pub fn journal(&self) -> Uid {
        self.journal
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What secrets of commands are sealed with.
    #[must_use]
    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    /// Where one command lives.
    #[must_use]
    pub fn command(&self, uid: Uid) -> PathBuf {
        self.path.join("commands").join(uid.to_string())
    }

    /// The folder of all commands.
    #[must_use]
    pub fn commands(&self) -> PathBuf {
        self.path.join("commands")
    }

    /// Makes the names of the commands' directories durable.
    ///
    /// # Errors
    /// When the folder cannot be synced: then nobody knows which of the last renames would survive a crash.
    pub fn sync_commands(&self) -> Result<(), FileError> {
        let folder = self.commands();
        #[cfg(test)]
        if self.broken.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::EIO)).context("sync", &folder);
        }
        durable::sync_folder(&folder).context("sync", &folder)
    }

    /// Lets every sync of `commands/` fail from now on, or no longer.
    #[cfg(test)]
    pub(crate) fn break_sync(&self, broken: bool) {
        self.broken.store(broken, std::sync::atomic::Ordering::Relaxed);
    }

    /// The folder of directories being built.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// The folder of tombstones.
    #[must_use]
    pub fn tombstones(&self) -> PathBuf {
        self.path.join("tombstones")
    }

    /// The read side of the notify FIFO, non-blocking; its readiness means that [`StateDir::notes`] has something.
    #[must_use]
    pub fn notify(&self) -> &File {
        &self.notify
    }

    /// Takes the notes that are waiting. Lost notes are harmless: a note says "read again", never what changed.
    ///
    /// # Errors
    /// When the FIFO cannot be read.
    pub fn notes(&self) -> io::Result<Vec<Uid>> {
        let mut found = Vec::new();
        // A multiple of the note's size, and notes are written whole, so none is ever split.
        let mut buffer = [0; NOTE * 256];
        loop {
            let got = match (&self.notify).read(&mut buffer) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for note in buffer.get(..got).unwrap_or_default().chunks_exact(NOTE) {
                if let Ok(uid) = Uid::from_wire(note)
                    && !found.contains(&uid)
                {
                    found.push(uid);
                }
            }
            if got < buffer.len() {
                break;
            }
        }
        Ok(found)
    }

    /// The commands that have a directory.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Uid>, FileError> {
        let folder = self.commands();
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).context("list", &folder)? {
            let entry = entry.context("list", &folder)?;
            if let Some(uid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                found.push(uid);
            }
        }
        Ok(found)
    }

    /// Removes the directories of commands that were delivered and have a tombstone. What is already gone is fine.
    ///
    /// # Errors
    /// The first directory that could not be removed; a crash in between leaves whole directories or swept rests.
    pub fn forget(&self, uids: &[Uid]) -> Result<(), FileError> {
        for uid in uids {
            let from = self.command(*uid);
            // Renamed first: a directory that is half removed must never be taken for a command.
            let to = self.staging().join(format!("gone-{uid}"));
            match fs::rename(&from, &to) {
                // Also tried when it was moved before: a removal may have failed half way.
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if is_full(&error) => {
                    // No room for a name. The record goes last: what stays after a crash is a command with an end, or
                    // a folder without one, which is no command.
                    remove_in_place(&from)?;
                    continue;
                }
                Err(error) => return Err(error).context("move away", &from),
            }
            match fs::remove_dir_all(&to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("remove", &to),
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts a directory aside whose record cannot be understood, so that a person can look at it.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn quarantine(&self, uid: Uid) -> Result<PathBuf, FileError> {
        let from = self.command(uid);
        let to = self.path.join("quarantine").join(uid.to_string());
        fs::rename(&from, &to).context("move to quarantine", &from)?;
        durable::sync_folder(&self.commands()).context("sync", &self.commands())?;
        Ok(to)
    }
}

/// Removes a command's directory where it stands.
fn remove_in_place(dir: &Path) -> Result<(), FileError> {
    let record = dir.join(record::FILE);
    for entry in fs::read_dir(dir).context("list", dir)? {
        let path = entry.context("list", dir)?.path();
        if path != record {
            fs::remove_file(&path).context("remove", &path)?;
        }
    }
    fs::remove_file(&record).context("remove", &record)?;
    fs::remove_dir(dir).context("remove", dir)
}

fn check_owner(path: &Path) -> Result<(), StateDirError> {
    let found = fs::metadata(path).context("look at", path)?;
    let ours = rustix::process::geteuid().as_raw();
    if found.uid() != ours {
        return Err(StateDirError::Owner { path: path.to_owned(), owner: found.uid(), ours });
    }
    if found.permissions().mode() & 0o777 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).context("restrict", path)?;
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, StateDirError> {
    let file = path.join("lock");
    let lock =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&file).context("open", &file)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "at start, before there is a runtime; flock has no wait with a deadline"
    )]
    for attempt in 1.. {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < LOCK_TRIES => thread::sleep(LOCK_PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StateDirError::InUse { path: path.to_owned() }),
            Err(error) => return Err(FileError { action: "lock", path: file, source: error.into() }.into()),
        }
    }
    Ok(lock)
}

fn sweep(folder: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).context("list", folder)? {
        let path = entry.context("list", folder)?.path();
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).context("sweep", &path)?;
        } else {
            fs::remove_file(&path).context("sweep", &path)?;
        }
    }
    Ok(())
}

fn journal(path: &Path) -> Result<Uid, StateDirError> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim_end().parse().map_err(|source| StateDirError::Journal { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let journal = Uid::random();
            durable::replace(path, format!("{journal}\n").as_bytes()).context("write", path)?;
            Ok(journal)
        }
        Err(error) => Err(FileError { action: "read", path: path.to_owned(), source: error }.into()),
    }
}

fn open_notify(path: &Path) -> Result<File, FileError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_fifo() => {}
        Ok(_) => {
            fs::remove_file(path).context("replace", path)?;
            make_fifo(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_fifo(path)?,
        Err(error) => return Err(error).context("look at", path),
    }
    open_fifo(path, OFlags::RDWR).context("open", path)
}

/// Makes a FIFO that only its owner may use.
pub(crate) fn make_fifo(path: &Path) -> Result<(), FileError> {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .context("make the FIFO", path)
}

/// Opens a FIFO without waiting for the other side.
pub(crate) fn open_fifo(path: &Path, access: OFlags) -> rustix::io::Result<File> {
    rustix::fs::open(path, access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .map(File::from)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::io::Write;

    use super::*;

    #[test]
    fn the_journal_is_made_once_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(folder.path()).unwrap().journal();
        assert_eq!(StateDir::open(folder.path()).unwrap().journal(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(StateDir::open(other.path()).unwrap().journal(), first);
    }

    #[test]
    fn a_second_agent_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let _first = StateDir::open(folder.path()).unwrap();
        assert!(matches!(StateDir::open(folder.path()), Err(StateDirError::InUse { .. })));
    }

    #[test]
    fn rests_of_a_crash_are_swept_and_the_mode_is_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("staging/half/built")).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(fs::read_dir(state.staging()).unwrap().count(), 0);
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn notes_come_whole_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (a, b) = (Uid::random(), Uid::random());
        let mut shim = open_fifo(&folder.path().join("notify"), OFlags::WRONLY).unwrap();
        for uid in [a, b, a] {
            shim.write_all(&uid.0).unwrap();
        }
        assert_eq!(state.notes().unwrap(), vec![a, b]);
        assert!(state.notes().unwrap().is_empty());
    }

    #[test]
    fn names_that_are_no_uid_are_not_commands() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let uid = Uid::random();
        fs::create_dir(state.command(uid)).unwrap();
        fs::create_dir(state.commands().join("lost+found")).unwrap();
        assert_eq!(state.list().unwrap(), vec![uid]);
        state.forget(&[uid, Uid::random()]).unwrap();
        assert!(state.list().unwrap().is_empty());
    }

    #[test]
    fn what_was_moved_away_but_not_removed_goes_with_the_next_try() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let uid = Uid::random();
        // The directory is gone from `commands`, its removal failed half way.
        fs::create_dir_all(state.staging().join(format!("gone-{uid}"))).unwrap();
        fs::write(state.staging().join(format!("gone-{uid}/stdout")), b"x").unwrap();
        state.forget(&[uid]).unwrap();
        assert_eq!(fs::read_dir(state.staging()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_moved_is_removed_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("one");
        fs::create_dir(&dir).unwrap();
        for name in [record::FILE, "wake", "stdout.0"] {
            fs::write(dir.join(name), b"x").unwrap();
        }
        remove_in_place(&dir).unwrap();
        assert!(!dir.exists());
    }
}
