//! Asks another program of the host a short question: started, read, and killed when it does not answer in time.
//!
//! For programs that talk to services which may hang (directory services, the service manager), where nothing but a
//! deadline keeps the asker alive. No runtime and no threads, so that the shim may use it.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::limits::MAX_ANSWER;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Where the programs of the host are, whatever the environment says.
const PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// What a program writes, if it ends in time.
///
/// # Errors
/// When it cannot be started, and [`io::ErrorKind::TimedOut`] when it did not end: it is gone then.
pub(crate) fn ask(program: &str, words: &[&str], within: Duration) -> io::Result<(ExitStatus, String)> {
    let child = Command::new(program)
        .args(words)
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    answer(child, within)
}

fn answer(mut child: Child, within: Duration) -> io::Result<(ExitStatus, String)> {
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let ended = wait(&[PollFd::new(&handle, PollFlags::IN)], within)?;
    if !ended {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", within.as_secs())));
    }
    let mut text = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        // What it left behind may hold the pipe: what is there is read, its end is not waited for.
        rustix::io::ioctl_fionbio(&stdout, true)?;
        match (&mut stdout).take(MAX_ANSWER).read_to_end(&mut text) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// Waits until one of them reports something; `false`: the time was over first.
pub(crate) fn wait(on: &[PollFd<'_>], within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    let mut on = on.to_vec();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut on, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const BOUND: Duration = Duration::from_secs(30);

    #[test]
    fn an_answer_comes_with_the_status_and_does_not_wait_for_who_was_left_behind() {
        let began = Instant::now();
        let (status, text) = ask("sh", &["-c", "echo yes; sleep 60 & exit 3"], BOUND).unwrap();
        assert_eq!((status.code(), text.as_str()), (Some(3), "yes\n"));
        assert!(began.elapsed() < BOUND);
    }

    #[test]
    fn who_gives_no_answer_is_gone_when_the_time_is_over() {
        let error = ask("sh", &["-c", "exec sleep 600"], Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let flood = ask("sh", &["-c", "exec cat /dev/zero"], Duration::from_millis(50)).unwrap_err();
        assert_eq!(flood.kind(), io::ErrorKind::TimedOut);
        assert!(ask("/no/such/program", &[], BOUND).is_err());
    }
}
