//! Requests from the agent to a shim: files renamed into place, and a byte in `wake`.
//!
//! The shim looks at the files whenever it is woken and when it starts, so a request is never lost and never depends
//! on the byte. `cancel` is the first request, `cancel.2` the second, which skips the rest of the grace. `pause` holds the
//! last wish about pausing, numbered by the manager: a newer one replaces it, an older one never does.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use common::durable;
use rustix::fs::{OFlags, RenameFlags};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::accept::WAKE;
use super::file_error::{Context, FileError};
use super::layout;

/// Names of the requests to cancel, in order.
pub(crate) const CANCEL: [&str; 2] = ["cancel", "cancel.2"];
/// Name of the wish about pausing.
pub(crate) const PAUSE: &str = "pause";
/// A request file is small; more is not read.
const MAX_REQUEST: u64 = 64 * 1024;

/// Asks a shim to stop its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// From TERM to kill; none: the default. Zero: at once.
    #[serde(default)]
    pub grace_ms: Option<u64>,
}

/// Asks a shim to hold its command, or to let it go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRequest {
    /// Counts the wishes for this command.
    pub wish: u64,
    /// `false`: go on.
    pub paused: bool,
    /// Who.
    #[serde(default)]
    pub by: String,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It is the first one.
    First,
    /// It is the second one: it skips the grace.
    Second,
    /// The same request was there already (a repeat of the link), or nothing stronger can be asked for.
    Repeat,
}

impl CancelRequest {
    /// The grace as a duration, within what is allowed; `default` is that of the command.
    #[must_use]
    pub fn grace(&self, default: Duration) -> Duration {
        self.grace_ms.map_or(default, Duration::from_millis).min(common::limits::MAX_GRACE)
    }
}

/// Places a durable request to cancel and wakes the shim.
///
/// # Errors
/// When the request could not be made durable.
pub fn cancel(dir: &Path, request: &CancelRequest) -> Result<Placed, FileError> {
    let present = cancels(dir);
    let placed = match present.as_slice() {
        [] => Placed::First,
        [first] if first != request => Placed::Second,
        _ => Placed::Repeat,
    };
    let name = match placed {
        Placed::First => CANCEL[0],
        Placed::Second => CANCEL[1],
        Placed::Repeat => {
            wake(dir).context("wake the shim of", dir)?;
            return Ok(placed);
        }
    };
    place(dir, name, request, RenameFlags::NOREPLACE)?;
    Ok(placed)
}

/// Places a durable wish about pausing and wakes the shim: [`Placed::First`] when it is in place now,
/// [`Placed::Repeat`] when it was there before or a newer one is.
///
/// # Errors
/// When the wish could not be made durable.
pub fn pause(dir: &Path, request: &PauseRequest) -> Result<Placed, FileError> {
    if pause_wish(dir).is_some_and(|known| known.wish >= request.wish) {
        // An earlier try may have placed it and failed to sync: what is answered now has to last.
        durable::sync_folder(dir).context("sync", dir)?;
        wake(dir).context("wake the shim of", dir)?;
        return Ok(Placed::Repeat);
    }
    place(dir, PAUSE, request, RenameFlags::empty())?;
    Ok(Placed::First)
}

/// The last wish about pausing; one that cannot be understood is none.
#[must_use]
pub fn pause_wish(dir: &Path) -> Option<PauseRequest> {
    serde_json::from_slice(&read_small(&dir.join(PAUSE)).ok()?).ok()
}

fn place<T: Serialize>(dir: &Path, name: &str, request: &T, flags: RenameFlags) -> Result<(), FileError> {
    let staged = dir.join(format!("{name}.new"));
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("remove", &staged),
        _ => {}
    }
    let mut file = durable::create_new(&staged).context("make", &staged)?;
    let content = serde_json::to_vec(request).map_err(io::Error::from).context("write", &staged)?;
    file.write_all(&content).context("write", &staged)?;
    file.sync_data().context("sync", &staged)?;
    let target = dir.join(name);
    rustix::fs::renameat_with(rustix::fs::CWD, &staged, rustix::fs::CWD, &target, flags).context("place", &target)?;
    durable::sync_folder(dir).context("sync", dir)?;
    wake(dir).context("wake the shim of", dir)?;
    Ok(())
}

/// The requests to cancel that are in place, in order. One that cannot be understood still cancels.
#[must_use]
pub fn cancels(dir: &Path) -> Vec<CancelRequest> {
    let mut found = Vec::new();
    for name in CANCEL {
        let path = dir.join(name);
        match read_small(&path) {
            Ok(content) => found.push(serde_json::from_slice(&content).unwrap_or_else(|_| CancelRequest {
                by: String::new(),
                reason: "a request that could not be read".to_owned(),
                grace_ms: None,
            })),
            Err(_) => break,
        }
    }
    found
}

pub(super) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    File::open(path)?.take(MAX_REQUEST).read_to_end(&mut content)?;
    Ok(content)
}

/// Puts a byte into `wake`; `false` when no shim reads it.
///
/// # Errors
/// When the FIFO cannot be opened or written for another reason.
pub fn wake(dir: &Path) -> io::Result<bool> {
    match layout::open_fifo(&dir.join(WAKE), OFlags::WRONLY) {
        Ok(fifo) => ring(&fifo),
        Err(rustix::io::Errno::NXIO | rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn ring(mut fifo: &File) -> io::Result<bool> {
    match fifo.write(&[1]) {
        // A full FIFO wakes as well as one more byte would.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        // It ended after the FIFO was opened: what was placed is durable, and whoever looks next finds it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|_| true),
    }
}

/// How many bytes of `wake` nobody has read yet; a shim that lives leaves none. 0 where nobody reads at all.
///
/// # Errors
/// When the FIFO cannot be opened for another reason.
pub fn unread(dir: &Path) -> io::Result<u64> {
    match layout::open_fifo(&dir.join(WAKE), OFlags::WRONLY) {
        Ok(fifo) => Ok(rustix::io::ioctl_fionread(&fifo)?),
        Err(rustix::io::Errno::NXIO | rustix::io::Errno::NOENT) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Notices when the shim of a command is gone: it was the only one that reads `wake`.
#[derive(Debug)]
pub struct WakeWatch {
    fifo: AsyncFd<File>,
}

impl WakeWatch {
    /// Starts to watch; `None` when nobody reads `wake` now: the shim has not opened it yet, or is gone.
    ///
    /// # Errors
    /// When the FIFO cannot be opened for another reason.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub fn open(dir: &Path) -> io::Result<Option<Self>> {
        match layout::open_fifo(&dir.join(WAKE), OFlags::WRONLY) {
            // Only errors are asked for: a FIFO with room would be writable all the time.
            Ok(fifo) => {
                #[expect(
                    deprecated,
                    reason = "what replaces it is unsafe for descriptors that may change; a File's cannot"
                )]
                let fifo = AsyncFd::with_interest(fifo, Interest::ERROR)?;
                Ok(Some(Self { fifo }))
            }
            Err(rustix::io::Errno::NXIO | rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until nobody reads `wake` any more.
    ///
    /// # Errors
    /// When the runtime goes down.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn gone(&self) -> io::Result<()> {
        self.fifo.ready(Interest::ERROR).await.map(drop)
    }

    /// Wakes the shim.
    pub fn wake(&self) {
        // Full or gone: both are noticed elsewhere.
        drop((&mut self.fifo.get_ref()).write(&[1]));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::io::Read;

    use super::*;

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        layout::make_fifo(&dir.path().join(WAKE)).unwrap();
        dir
    }

    fn request(reason: &str) -> CancelRequest {
        CancelRequest { by: "admin".into(), reason: reason.into(), grace_ms: Some(5) }
    }

    #[test]
    fn a_repeat_is_no_second_request_and_a_third_is_nothing() {
        let dir = dir();
        assert!(cancels(dir.path()).is_empty());
        assert_eq!(cancel(dir.path(), &request("a")).unwrap(), Placed::First);
        assert_eq!(cancel(dir.path(), &request("a")).unwrap(), Placed::Repeat);
        assert_eq!(cancel(dir.path(), &request("b")).unwrap(), Placed::Second);
        assert_eq!(cancel(dir.path(), &request("c")).unwrap(), Placed::Repeat);
        assert_eq!(cancels(dir.path()), vec![request("a"), request("b")]);
    }

    #[test]
    fn an_unreadable_request_still_cancels() {
        let dir = dir();
        fs::write(dir.path().join("cancel"), b"{").unwrap();
        assert_eq!(cancels(dir.path()).len(), 1);
    }

    #[test]
    fn only_a_newer_wish_replaces_what_was_wished_last() {
        let dir = dir();
        let wish = |wish, paused| PauseRequest { wish, paused, by: "admin".into() };
        assert_eq!(pause_wish(dir.path()), None);
        assert_eq!(pause(dir.path(), &wish(2, true)).unwrap(), Placed::First);
        for late in [wish(1, false), wish(2, false), wish(2, true)] {
            assert_eq!(pause(dir.path(), &late).unwrap(), Placed::Repeat);
            assert_eq!(pause_wish(dir.path()), Some(wish(2, true)));
        }
        assert_eq!(pause(dir.path(), &wish(3, false)).unwrap(), Placed::First);
        assert_eq!(pause_wish(dir.path()), Some(wish(3, false)));
        fs::write(dir.path().join(PAUSE), b"{").unwrap();
        assert_eq!(pause_wish(dir.path()), None);
        assert_eq!(pause(dir.path(), &wish(1, true)).unwrap(), Placed::First, "what nobody can read is replaced");
    }

    #[test]
    fn a_byte_arrives_where_somebody_reads_and_is_reported_where_nobody_does() {
        let dir = dir();
        assert!(!wake(dir.path()).unwrap());
        let mut shim = layout::open_fifo(&dir.path().join(WAKE), OFlags::RDWR).unwrap();
        assert!(wake(dir.path()).unwrap());
        assert_eq!(unread(dir.path()).unwrap(), 1);
        let mut buffer = [0; 8];
        assert_eq!(shim.read(&mut buffer).unwrap(), 1);
        assert_eq!(unread(dir.path()).unwrap(), 0);
        drop(shim);
        assert_eq!(unread(dir.path()).unwrap(), 0, "nobody is there to be deaf");
    }

    #[test]
    fn a_shim_that_ends_just_now_is_nobody_and_no_error() {
        let dir = dir();
        let shim = layout::open_fifo(&dir.path().join(WAKE), OFlags::RDWR).unwrap();
        let fifo = layout::open_fifo(&dir.path().join(WAKE), OFlags::WRONLY).unwrap();
        assert!(ring(&fifo).unwrap());
        drop(shim);
        assert!(!ring(&fifo).unwrap());
    }

    #[test]
    fn the_grace_has_a_default_and_a_bound() {
        let own = Duration::from_millis(200);
        let of = |grace_ms| CancelRequest { grace_ms, ..request("") }.grace(own);
        assert_eq!(of(None), own);
        assert_eq!(of(Some(0)), Duration::ZERO);
        assert_eq!(of(Some(3_600_000)), common::limits::MAX_GRACE);
        assert_eq!(of(Some(3_600_001)), common::limits::MAX_GRACE);
    }

    #[tokio::test]
    async fn the_watch_ends_when_the_last_reader_is_gone_and_not_before() {
        let dir = dir();
        assert!(WakeWatch::open(dir.path()).unwrap().is_none());
        let shim = layout::open_fifo(&dir.path().join(WAKE), OFlags::RDWR).unwrap();
        let watch = WakeWatch::open(dir.path()).unwrap().unwrap();
        watch.wake();
        let early = tokio::time::timeout(Duration::from_millis(20), watch.gone()).await;
        assert!(early.is_err());
        drop(shim);
        tokio::time::timeout(Duration::from_secs(5), watch.gone()).await.unwrap().unwrap();
    }
}
