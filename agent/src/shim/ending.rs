//! The last things a shim does: output made durable, END written whatever the disk says, and nobody killed by leaving.
//!
//! A result that is known is not given up because the disk is full for a while: END is tried again until it is durable.
//! Room for a short one was written together with SPEC, so this is for disks that cannot even take that.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use common::model::Flag;
use common::{crash, durable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::spawn;
use super::watch::Tap;
use crate::commands::{End, RecordError, RecordLock, request};
use crate::limits::{SHIM_AGAIN, SHIM_AGAIN_FOR, SINK};

/// Makes the output durable before END speaks of it. Where that fails, END says so: its lengths are lower bounds then,
/// and what was not synced has no hash that would vouch for it.
pub(super) fn keep_streams(dir: &Path, taps: &mut [Tap; 2], end: &mut End) {
    crash::point("shim.streams.before");
    let (mut names, mut failed) = (false, None);
    for tap in taps.iter_mut() {
        let synced = tap.writer.sync();
        names |= synced.names;
        failed = failed.or(synced.failed);
        if tap.writer.lost {
            flag(end, Flag::DiskFull);
        }
        end.streams.extend(tap.writer.end());
    }
    if names && let Err(error) = durable::sync_folder(dir) {
        // Without their names none of the files is there after a crash.
        end.streams.iter_mut().flat_map(|stream| &mut stream.segments).for_each(|segment| segment.blake3.clear());
        failed = failed.or(Some(error));
    }
    if let Some(error) = failed {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        flag(end, if full { Flag::DiskFull } else { Flag::DiskError });
        end.lower_bounds = true;
    }
    crash::point("shim.streams.after");
}

fn flag(end: &mut End, flag: Flag) {
    if !flag.is_in(&end.flags) {
        end.flags.push(flag.to_string());
    }
}

/// Writes END, and tries again while the disk refuses it: for an hour at most, or until somebody who cannot wait places
/// another request to cancel.
///
/// # Errors
/// The last refusal.
pub(super) fn write(dir: &Path, lock: &mut RecordLock, end: End, wake: &File) -> Result<(), RecordError> {
    let (began, requests) = (Instant::now(), request::cancels(dir).len());
    let mut pause = SHIM_AGAIN.0;
    loop {
        let Err(error) = lock.append_end(end.clone()) else { return Ok(()) };
        if began.elapsed() >= SHIM_AGAIN_FOR || request::cancels(dir).len() > requests {
            return Err(error);
        }
        wait(wake, pause);
        pause = (pause * 2).min(SHIM_AGAIN.1);
    }
}

/// Waits for a byte in `wake`, at most for the pause.
pub(super) fn wait(wake: &File, pause: Duration) {
    let timeout = Timespec { tv_sec: pause.as_secs().cast_signed(), tv_nsec: pause.subsec_nanos().into() };
    let mut fds = [PollFd::new(wake, PollFlags::IN)];
    if poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0) {
        let mut bytes = [0; 64];
        let _ = rustix::io::read(wake, &mut bytes);
    }
}

/// Leaves a process behind that reads what kept processes still write, and throws it away: they would die of a broken
/// pipe otherwise. It ends with the last of them, and holds nothing of the command: no record, no `wake`.
pub(super) fn stay_for(held: &[Option<OwnedFd>; 2]) -> io::Result<()> {
    if held.iter().all(Option::is_none) {
        return Ok(());
    }
    spawn::leave_behind(held, swallow)
}

/// Reads the files 0 and 1 to their ends.
fn swallow() {
    let (out, err) = (io::stdin(), io::stdout());
    let mut open = vec![out.as_fd(), err.as_fd()];
    let mut sink = vec![0; SINK];
    while !open.is_empty() {
        let mut fds: Vec<_> = open.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        open.retain(|fd| !ready.next().unwrap_or(false) || goes_on(*fd, &mut sink));
    }
}

fn goes_on(fd: BorrowedFd<'_>, sink: &mut [u8]) -> bool {
    match rustix::io::read(fd, sink) {
        Ok(got) => got > 0,
        Err(error) => matches!(error, rustix::io::Errno::INTR | rustix::io::Errno::AGAIN),
    }
}
