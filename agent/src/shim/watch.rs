//! The loop of the shim from go to the last byte: one `poll`, then what it says, then what the clock says.
//!
//! ```text
//! Running ──stop──► Asked (TERM, CONT) ──grace over──► Killing ──all gone──► Draining ──pipes empty──► done
//!    │                 └──────────all gone────────────────────────────────────►│
//!    └─main ended: rest is killed at once ─► Killing
//! ```

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use common::limits;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::cgroup::KILL_AGAIN;
use super::crew::Crew;
use super::output::StreamWriter;
use super::run::Notifier;
use crate::commands::request::{self, CancelRequest};

/// How long the pipes of a command that is gone may be held open by somebody else.
const DRAIN: Duration = Duration::from_secs(2);
/// One read: a turn of the loop takes no longer than this needs.
const BUFFER: usize = 256 * 1024;
/// After so long the flag says that something does not die.
const STUCK: Duration = Duration::from_secs(5);

/// Why the command was stopped by us.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    Cancel(CancelRequest),
    Timeout,
}

/// What is known when everything is over.
pub(super) struct Watched {
    pub(super) cause: Option<Cause>,
    pub(super) flags: Vec<&'static str>,
    pub(super) duration: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Running,
    Asked { kill_at: Instant },
    Killing { since: Instant, again: Instant },
    Draining { until: Instant },
}

/// One pipe and where its bytes go.
pub(super) struct Tap {
    pub(super) pipe: Option<OwnedFd>,
    pub(super) writer: StreamWriter,
}

/// Everything the loop looks at.
pub(super) struct Watch<'a> {
    pub(super) dir: &'a Path,
    pub(super) wake: File,
    pub(super) children: SignalFd,
    pub(super) crew: &'a mut Crew,
    pub(super) taps: &'a mut [Tap; 2],
    pub(super) notifier: &'a mut Notifier,
    pub(super) timeout: Option<Duration>,
}

struct Loop<'a> {
    on: Watch<'a>,
    stage: Stage,
    started: Instant,
    ended: Option<Instant>,
    cause: Option<Cause>,
    requests: usize,
    flags: Vec<&'static str>,
    buffer: Vec<u8>,
}

impl Watch<'_> {
    /// Runs until nothing of the command lives and its pipes are empty.
    pub(super) fn run(self) -> rustix::io::Result<Watched> {
        let now = Instant::now();
        let mut this = Loop {
            on: self,
            stage: Stage::Running,
            started: now,
            ended: None,
            cause: None,
            requests: 0,
            flags: Vec::new(),
            buffer: vec![0; BUFFER],
        };
        this.look_at_requests(now);
        this.on.notifier.flush(now);
        while !this.turn()? {}
        let ended = this.ended.unwrap_or_else(Instant::now);
        Ok(Watched { cause: this.cause, flags: this.flags, duration: ended - this.started })
    }
}

impl Loop<'_> {
    /// Waits for something, deals with it; `true` when all is over.
    fn turn(&mut self) -> rustix::io::Result<bool> {
        let ready = self.wait()?;
        let now = Instant::now();
        if ready.wake {
            let mut bytes = [0; 64];
            // Emptied first, then looked: a request placed after the look puts a new byte.
            while matches!((&self.on.wake).read(&mut bytes), Ok(got) if got == bytes.len()) {}
            self.look_at_requests(now);
        }
        if ready.children {
            while matches!(self.on.children.read_signal(), Ok(Some(_))) {}
            self.on.crew.reap();
        }
        for (tap, is_ready) in self.on.taps.iter_mut().zip(ready.taps) {
            if is_ready && let Some(pipe) = &tap.pipe {
                match rustix::io::read(pipe, self.buffer.as_mut_slice()) {
                    Ok(0) => tap.pipe = None,
                    Ok(got) => {
                        tap.writer.write(self.buffer.get(..got).unwrap_or_default(), now);
                        self.on.notifier.want();
                    }
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Err(_) => tap.pipe = None,
                }
            }
        }
        self.on.notifier.flush(now);
        Ok(self.step(now))
    }

    fn wait(&mut self) -> rustix::io::Result<Ready> {
        let timeout = self.next_deadline().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        let [out, err] = &*self.on.taps;
        let mut fds = vec![
            PollFd::new(&self.on.wake, PollFlags::IN),
            PollFd::from_borrowed_fd(self.on.children.as_fd(), PollFlags::IN),
        ];
        for pipe in [&out.pipe, &err.pipe].into_iter().flatten() {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut found = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || found.next().unwrap_or(false);
        let (wake, children) = (next(), next());
        let taps = [out.pipe.is_some() && next(), err.pipe.is_some() && next()];
        Ok(Ready { wake, children, taps })
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Running => None,
            Stage::Asked { kill_at } => Some(kill_at),
            Stage::Killing { again, .. } => Some(again),
            Stage::Draining { until } => Some(until),
        };
        [stage, self.timeout_at(), self.on.notifier.due()].into_iter().flatten().min()
    }

    fn timeout_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Running if self.ended.is_none() => {
                self.on.timeout.and_then(|timeout| self.started.checked_add(timeout))
            }
            _ => None,
        }
    }

    fn look_at_requests(&mut self, now: Instant) {
        let requests = request::cancels(self.on.dir);
        if requests.len() == self.requests {
            return;
        }
        let first_look = self.requests == 0;
        self.requests = requests.len();
        let Some(first) = requests.first() else { return };
        // What has ended by itself has ended by itself.
        if self.on.crew.status.is_some() && self.cause.is_none() {
            return;
        }
        let grace = if requests.len() > 1 { Duration::ZERO } else { first.grace() };
        if self.cause.is_none() {
            self.cause = Some(Cause::Cancel(first.clone()));
        }
        if first_look || requests.len() > 1 {
            self.stop(now, grace);
        }
    }

    /// Begins the ladder, or shortens it.
    fn stop(&mut self, now: Instant, grace: Duration) {
        let kill_at = now + grace;
        match &mut self.stage {
            Stage::Running => {
                if grace.is_zero() {
                    self.start_killing(now);
                } else {
                    self.on.crew.ask();
                    self.stage = Stage::Asked { kill_at };
                }
            }
            Stage::Asked { kill_at: before } => *before = (*before).min(kill_at),
            Stage::Killing { .. } | Stage::Draining { .. } => {}
        }
    }

    fn start_killing(&mut self, now: Instant) {
        self.on.crew.kill();
        self.stage = Stage::Killing { since: now, again: now + KILL_AGAIN };
    }

    /// Moves on by what is known now; `true` at the end.
    fn step(&mut self, now: Instant) -> bool {
        if self.ended.is_none() && self.on.crew.status.is_some() {
            self.ended = Some(now);
        }
        if self.timeout_at().is_some_and(|at| now >= at) {
            self.cause = Some(Cause::Timeout);
            self.stop(now, limits::DEFAULT_GRACE);
        }
        let gone = self.on.crew.gone();
        match self.stage {
            Stage::Running | Stage::Asked { .. } | Stage::Killing { .. } if gone => {
                self.stage = Stage::Draining { until: now + DRAIN };
            }
            Stage::Running if self.ended.is_some() => {
                self.flag("strays_killed");
                self.start_killing(now);
            }
            Stage::Asked { kill_at } if now >= kill_at => self.start_killing(now),
            Stage::Killing { since, again } if now >= again => {
                if now - since >= STUCK {
                    self.flag("stuck");
                }
                self.on.crew.kill();
                self.on.crew.reap();
                self.stage = Stage::Killing { since, again: now + KILL_AGAIN };
            }
            _ => {}
        }
        if let Stage::Draining { until } = self.stage {
            if self.on.taps.iter().all(|tap| tap.pipe.is_none()) {
                return true;
            }
            if now >= until {
                self.flag("pipe_held");
                return true;
            }
        }
        false
    }

    fn flag(&mut self, flag: &'static str) {
        if !self.flags.contains(&flag) {
            self.flags.push(flag);
        }
    }
}

struct Ready {
    wake: bool,
    children: bool,
    taps: [bool; 2],
}
