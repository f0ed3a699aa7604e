//! The kernel's word that something below a folder changed. It says no more: the folder is read as a whole again.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits::SITE_FOLDERS_WATCHED;

/// Bytes for one look at the queue: some hundred events, whose content does not matter.
const EVENTS: usize = 16 * 1024;

/// A watch of all folders below one, as they were when it began.
pub(super) struct Watch {
    queue: AsyncFd<OwnedFd>,
}

/// A watch that no runtime listens to yet.
pub(super) struct Begun(OwnedFd);

impl Watch {
    /// Begins to watch. Blocking.
    ///
    /// # Errors
    /// When the folder is none, or the kernel has no room for more watches.
    pub(super) fn start(folder: &Path) -> io::Result<Begun> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        // The folder itself may be reached by a link; what lies in it may not.
        inotify::add_watch(&queue, folder, flags - WatchFlags::DONT_FOLLOW)?;
        let (mut left, mut watched) = (below(folder), 1);
        while let Some(folder) = left.pop() {
            if watched >= SITE_FOLDERS_WATCHED {
                break;
            }
            match inotify::add_watch(&queue, &folder, flags) {
                Ok(_) => watched += 1,
                // Removed, or made a link, since it was listed: the watch of the one above has told so.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                // The poll finds what is changed where nobody watches.
                Err(Errno::NOSPC | Errno::ACCESS) => continue,
                Err(error) => return Err(error.into()),
            }
            left.extend(below(&folder));
        }
        Ok(Begun(queue))
    }

    /// Listens to a watch that has begun.
    ///
    /// # Errors
    /// When the runtime cannot wait for it.
    pub(super) fn listen(begun: Begun) -> io::Result<Self> {
        #[expect(deprecated, reason = "what took its place is unsafe; an owned descriptor is what it asks for")]
        let queue = AsyncFd::with_interest(begun.0, Interest::READABLE)?;
        Ok(Self { queue })
    }

    /// Waits until something changed, and forgets all that was told so far. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        loop {
            let Ok(mut ready) = self.queue.readable().await else {
                // The runtime is ending.
                return std::future::pending().await;
            };
            let mut told = false;
            let mut buffer = [MaybeUninit::uninit(); EVENTS];
            let mut reader = Reader::new(self.queue.get_ref(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(_) => told = true,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    // A queue that cannot be read is no reason to spin: the poll goes on.
                    Err(_) => return std::future::pending().await,
                }
            }
            ready.clear_ready();
            if told {
                return;
            }
        }
    }
}

/// The folders in a folder that are not hidden; one that cannot be read has none.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let seen = folders.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    seen.map(|entry| entry.path()).collect()
}
