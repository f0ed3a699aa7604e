//! The loop of the shim from the first go to the last byte: one `poll`, then what it says, then what the clock says.
//!
//! ```text
//!             ┌── pause (frozen, no timeout) ◄─► go on
//! Running ────┼─stop──► Asked (signal, CONT, thaw) ──grace over──► Killing ──all gone──► Draining ──pipes empty──► done
//!    │        │            └──────────all gone────────────────────────────────────────────►│
//!    ├─main ended: the rest is killed at once ─► Killing
//!    └─main ended, strays are kept ─► Lingering ──streams end, or long enough──► done
//! ```
//! The same loop watches guards and the main process, one after the other: time, pauses and requests go through.
//!
//! What ends by itself has ended by itself: after the main process no cancel and no timeout changes the outcome. A
//! cancel that comes while strays are waited for ends those strays, and nothing else.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use common::limits;
use common::model::Flag;
use common::wire::Command;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::WaitStatus;

use super::crew::Crew;
use super::notifier::{Notifier, Teller};
use super::output::StreamWriter;
use super::pace::Pace;
use crate::commands::request::{self, CancelRequest};
use crate::commands::status::ShimPhase;
use crate::limits::{DRAIN, HOLD_AGAIN, HOLD_LOOK, KILL_AGAIN, SHIM_READ, STUCK, STUCK_AGAIN, STUCK_NAMED};

/// Why the command was stopped by us.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    Cancel(CancelRequest),
    Timeout,
}

/// What a command says about its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    timeout: Option<Duration>,
    /// From the first signal to the kill.
    grace: Duration,
    /// 0: TERM.
    stop_signal: u32,
    stop_only_main: bool,
    keep_strays: bool,
    /// How long streams may last after the main process when strays are kept.
    stray_drain: Duration,
    /// Bytes of output that are kept, both streams together.
    quota: u64,
}

impl Manners {
    pub(super) fn of(command: &Command) -> Self {
        let grace = if command.has_grace {
            Duration::from_millis(command.grace_ms.into()).min(limits::MAX_GRACE)
        } else {
            limits::DEFAULT_GRACE
        };
        Self {
            timeout: (command.timeout_ms > 0).then(|| Duration::from_millis(command.timeout_ms)),
            grace,
            stop_signal: command.stop_signal,
            stop_only_main: command.stop_only_main,
            keep_strays: command.keep_strays,
            stray_drain: stray_drain(),
            quota: kept(command).saturating_mul(2),
        }
    }
}

/// What is kept of one stream.
fn kept(command: &Command) -> u64 {
    match command.limits.as_ref().map_or(0, |limits| limits.output) {
        0 => limits::DEFAULT_OUTPUT_QUOTA,
        quota => quota,
    }
}

/// A test may shorten it; not in a release build.
fn stray_drain() -> Duration {
    let shorter = if cfg!(debug_assertions) { std::env::var("PAPRIKA_STRAY_DRAIN_MS").ok() } else { None };
    shorter.and_then(|text| text.parse().ok()).map_or(limits::STRAY_DRAIN, Duration::from_millis)
}

/// Whom the loop watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Guard,
    Main,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Running,
    Asked { kill_at: Instant },
    Killing { since: Instant, again: Instant },
    Lingering { until: Instant },
    Draining { until: Instant },
    Done,
}

/// One pipe and where its bytes go.
pub(super) struct Tap {
    pub(super) pipe: Option<OwnedFd>,
    pub(super) writer: StreamWriter,
}

/// A pause that lasts, or the time that pauses have taken.
#[derive(Debug, Default)]
struct Pauses {
    since: Option<Instant>,
    look_at: Option<Instant>,
    before: Duration,
    /// The newest wish that was obeyed.
    wish: Option<u64>,
}

/// Everything the loop looks at, and what it knows.
pub(super) struct Watch<'a> {
    dir: &'a Path,
    wake: &'a File,
    children: SignalFd,
    notifier: &'a mut Notifier,
    teller: Teller,
    manners: Manners,
    /// None before the first process.
    pub(super) crew: Option<Crew>,
    pub(super) taps: [Tap; 2],
    pub(super) cause: Option<Cause>,
    pub(super) flags: Vec<Flag>,
    /// Strays that were kept hold pipes that are still open: somebody has to go on reading.
    pub(super) pipes_go_on: bool,
    /// Something was killed in the command's cgroup: kernels exist that kill whatever is born in it after that by
    /// somebody outside of it, while those that move there are left alone.
    pub(super) killed: bool,
    role: Role,
    stage: Stage,
    started: Option<Instant>,
    ended: Option<Instant>,
    pauses: Pauses,
    cancels: usize,
    stuck: Vec<i32>,
    pace: Pace,
    buffer: Vec<u8>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        dir: &'a Path,
        wake: &'a File,
        children: SignalFd,
        notifier: &'a mut Notifier,
        manners: Manners,
        taps: [Tap; 2],
    ) -> Self {
        Self {
            dir,
            wake,
            children,
            notifier,
            teller: Teller::new(dir),
            manners,
            crew: None,
            taps,
            cause: None,
            flags: Vec::new(),
            pipes_go_on: false,
            killed: false,
            role: Role::Main,
            stage: Stage::Running,
            started: None,
            ended: None,
            pauses: Pauses::default(),
            cancels: 0,
            stuck: Vec::new(),
            pace: Pace::new(manners.quota),
            buffer: vec![0; SHIM_READ],
        }
    }

    /// A process waits at its door: holds it there when a pause was wished, and answers whether it may go at all.
    pub(super) fn at_the_door(&mut self, role: Role) -> bool {
        let now = Instant::now();
        self.role = role;
        self.stage = Stage::Running;
        self.ended = None;
        self.obey_cancels(now);
        self.obey_pause(now);
        if self.pauses.since.is_some() {
            // This process was not there when the others were held.
            self.hold(now);
        }
        self.speak(now);
        self.cause.is_none()
    }

    /// The main process is another one than START names.
    pub(super) fn main_is(&mut self, pid: u32, start_time: u64) {
        self.teller.main_is(pid, start_time);
    }

    /// The door opens.
    pub(super) fn gone_through(&mut self) {
        let now = Instant::now();
        self.started.get_or_insert(now);
        self.notifier.soon(now);
    }

    /// The door stays shut: ends the process behind it, which has run nothing.
    pub(super) fn turn_away(&mut self) -> rustix::io::Result<()> {
        self.start_killing(Instant::now());
        self.run()
    }

    /// Runs until nothing of the process lives and the pipes are empty.
    pub(super) fn run(&mut self) -> rustix::io::Result<()> {
        // It may have ended before anybody listened.
        self.reap();
        let now = Instant::now();
        self.step(now);
        self.speak(now);
        while !matches!(self.stage, Stage::Done) {
            self.turn()?;
        }
        Ok(())
    }

    /// How the watched process ended.
    pub(super) fn status(&self) -> Option<WaitStatus> {
        self.crew.as_ref().and_then(|crew| crew.status)
    }

    /// From the first go to the end of the last process; none when nothing was let go.
    pub(super) fn duration(&self) -> Option<Duration> {
        let ended = self.ended.unwrap_or_else(Instant::now);
        self.started.map(|started| ended.saturating_duration_since(started))
    }

    /// Waits for something and deals with it.
    fn turn(&mut self) -> rustix::io::Result<()> {
        let ready = self.wait()?;
        let now = Instant::now();
        if ready.wake {
            let mut bytes = [0; 64];
            // Emptied first, then looked: a request placed after the look puts a new byte.
            while matches!((&mut &*self.wake).read(&mut bytes), Ok(got) if got == bytes.len()) {}
            self.obey_cancels(now);
            self.obey_pause(now);
        }
        if ready.children {
            while matches!(self.children.read_signal(), Ok(Some(_))) {}
            self.reap();
        }
        for (tap, is_ready) in self.taps.iter_mut().zip(ready.taps) {
            if is_ready && let Some(pipe) = &tap.pipe {
                match rustix::io::read(pipe, self.buffer.as_mut_slice()) {
                    Ok(0) => tap.pipe = None,
                    Ok(got) => {
                        tap.writer.write(self.buffer.get(..got).unwrap_or_default(), now);
                        self.notifier.want();
                        self.pace.took(got, now);
                    }
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Err(_) => tap.pipe = None,
                }
            }
        }
        self.step(now);
        self.speak(now);
        Ok(())
    }

    fn wait(&mut self) -> rustix::io::Result<Ready> {
        let timeout = self.next_deadline().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        let [out, err] = &self.taps;
        let mut fds =
            vec![PollFd::new(self.wake, PollFlags::IN), PollFd::from_borrowed_fd(self.children.as_fd(), PollFlags::IN)];
        // Resting: the pipes fill, and who writes into them waits.
        let rests = self.pace.rests_until(Instant::now()).is_some();
        let open = |pipe: &Option<OwnedFd>| pipe.is_some() && !rests;
        for pipe in [&out.pipe, &err.pipe].into_iter().flatten().filter(|_| !rests) {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut found = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || found.next().unwrap_or(false);
        let (wake, children) = (next(), next());
        let taps = [open(&out.pipe) && next(), open(&err.pipe) && next()];
        Ok(Ready { wake, children, taps })
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Running | Stage::Done => None,
            Stage::Asked { kill_at } => Some(kill_at),
            Stage::Killing { again, .. } => Some(again),
            Stage::Lingering { until } | Stage::Draining { until } => Some(until),
        };
        let rest = self.pace.rests_until(Instant::now());
        let others = [self.timeout_at(), self.pauses.look_at, self.notifier.due(), self.teller.due(), rest];
        others.into_iter().chain([stage]).flatten().min()
    }

    /// Only what runs can run out of time.
    fn timeout_at(&self) -> Option<Instant> {
        if !matches!(self.stage, Stage::Running) || self.ended.is_some() || self.pauses.since.is_some() {
            return None;
        }
        self.started?.checked_add(self.manners.timeout?)?.checked_add(self.pauses.before)
    }

    fn reap(&mut self) {
        if let Some(crew) = &mut self.crew {
            crew.reap();
        }
    }

    fn gone(&self) -> bool {
        self.crew.as_ref().is_none_or(Crew::gone)
    }

    fn obey_cancels(&mut self, now: Instant) {
        let requests = request::cancels(self.dir);
        if requests.len() == self.cancels {
            return;
        }
        let first_look = self.cancels == 0;
        self.cancels = requests.len();
        let Some(first) = requests.first() else { return };
        let by_itself = self.role == Role::Main && self.status().is_some() && self.cause.is_none();
        if !by_itself && self.cause.is_none() {
            self.cause = Some(Cause::Cancel(first.clone()));
        }
        let grace = if requests.len() > 1 { Duration::ZERO } else { first.grace(self.manners.grace) };
        if first_look || requests.len() > 1 {
            self.stop(now, grace);
        }
    }

    /// Begins the ladder, or shortens it.
    fn stop(&mut self, now: Instant, grace: Duration) {
        let kill_at = now + grace;
        match &mut self.stage {
            Stage::Running | Stage::Lingering { .. } => {
                if matches!(self.stage, Stage::Lingering { .. }) {
                    self.flag(Flag::StraysKilled);
                }
                if grace.is_zero() {
                    self.start_killing(now);
                } else {
                    if let Some(crew) = &mut self.crew {
                        crew.ask(self.manners.stop_signal, self.manners.stop_only_main);
                    }
                    self.end_pause(now);
                    self.stage = Stage::Asked { kill_at };
                }
            }
            Stage::Asked { kill_at: before } => *before = (*before).min(kill_at),
            Stage::Killing { .. } | Stage::Draining { .. } | Stage::Done => {}
        }
    }

    fn start_killing(&mut self, now: Instant) {
        if let Some(crew) = &mut self.crew {
            crew.kill();
        }
        self.killed = true;
        self.end_pause(now);
        self.stage = Stage::Killing { since: now, again: now + KILL_AGAIN };
    }

    /// Holds the command or lets it go on, as was wished last. What is being ended is not held any more.
    fn obey_pause(&mut self, now: Instant) {
        let Some(wish) = request::pause_wish(self.dir).filter(|wish| self.pauses.wish.is_none_or(|w| w < wish.wish))
        else {
            return;
        };
        self.pauses.wish = Some(wish.wish);
        match self.pauses.since {
            None if wish.paused && matches!(self.stage, Stage::Running) && self.cause.is_none() => {
                self.pauses.since = Some(now);
                self.hold(now);
            }
            Some(_) if !wish.paused => self.end_pause(now),
            _ => {}
        }
    }

    fn hold(&mut self, now: Instant) {
        let Some(crew) = &mut self.crew else { return };
        let held = crew.freeze() || crew.frozen();
        self.pauses.look_at = match (held, crew.stays_frozen()) {
            (true, true) => None,
            (true, false) => Some(now + HOLD_LOOK),
            (false, _) => Some(now + HOLD_AGAIN),
        };
    }

    fn end_pause(&mut self, now: Instant) {
        self.pauses.look_at = None;
        if let Some(since) = self.pauses.since.take() {
            self.pauses.before += now.saturating_duration_since(since);
            if let Some(crew) = &mut self.crew {
                crew.thaw();
            }
        }
    }

    /// Moves on by what is known now.
    fn step(&mut self, now: Instant) {
        let status = self.status();
        if self.ended.is_none() && status.is_some() {
            self.ended = Some(now);
        }
        if self.timeout_at().is_some_and(|at| now >= at) {
            self.cause = Some(Cause::Timeout);
            self.stop(now, self.manners.grace);
        }
        if self.pauses.look_at.is_some_and(|at| now >= at) {
            self.hold(now);
        }
        let gone = self.gone();
        match self.stage {
            Stage::Running | Stage::Asked { .. } | Stage::Killing { .. } | Stage::Lingering { .. } if gone => {
                self.end_pause(now);
                self.stuck.clear();
                self.stage = Stage::Draining { until: now + DRAIN };
            }
            Stage::Running if status.is_some() && self.role == Role::Main && self.manners.keep_strays => {
                self.end_pause(now);
                self.stage = Stage::Lingering { until: now + self.manners.stray_drain };
            }
            Stage::Running if status.is_some() => {
                if self.role == Role::Main {
                    self.flag(Flag::StraysKilled);
                }
                self.start_killing(now);
            }
            Stage::Asked { kill_at } if now >= kill_at => self.start_killing(now),
            // Who asks the main process alone leaves the others to it; without it nobody asks them.
            Stage::Asked { .. } if status.is_some() && self.cause.is_some() && self.manners.stop_only_main => {
                self.start_killing(now);
            }
            Stage::Killing { since, again } if now >= again => self.kill_again(now, since),
            _ => {}
        }
        let empty = self.taps.iter().all(|tap| tap.pipe.is_none());
        match self.stage {
            Stage::Draining { until } if empty || now >= until => {
                if !empty {
                    self.flag(Flag::PipeHeld);
                }
                self.stage = Stage::Done;
            }
            Stage::Lingering { until } if empty || now >= until => {
                self.flag(Flag::StraysKept);
                if !empty {
                    self.flag(Flag::OutputCut);
                    self.pipes_go_on = true;
                }
                self.stage = Stage::Done;
            }
            _ => {}
        }
    }

    fn kill_again(&mut self, now: Instant, since: Instant) {
        let Some(crew) = &mut self.crew else { return };
        crew.kill();
        crew.reap();
        let mut pause = KILL_AGAIN;
        if now.saturating_duration_since(since) >= STUCK {
            pause = STUCK_AGAIN;
            self.stuck = crew.alive();
            self.stuck.sort_unstable();
            self.stuck.truncate(STUCK_NAMED);
            self.flag(Flag::Stuck);
        }
        // What has just gone is seen in the next turn, at once.
        let again = if self.gone() { now } else { now + pause };
        self.stage = Stage::Killing { since, again };
    }

    /// Says what is new to whom it may concern.
    fn speak(&mut self, now: Instant) {
        let phase = if self.cause.is_some() || !self.stuck.is_empty() {
            ShimPhase::Stopping
        } else if self.pauses.since.is_some() {
            ShimPhase::Paused
        } else {
            ShimPhase::Running
        };
        self.teller.stands(phase, &self.stuck);
        if self.teller.flush(now) {
            self.notifier.want();
        }
        self.notifier.flush(now);
    }

    fn flag(&mut self, flag: Flag) {
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
