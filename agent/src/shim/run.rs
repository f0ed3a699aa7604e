//! The shim from its first to its last step.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use common::model::{Outcome, StreamName};
use common::wire::Command;
use common::{clock, cores, crash};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::OFlags;
use rustix::process::Pid;

use super::ending;
use super::fence::Fence;
use super::guards::Verdict;
use super::launch::{self, AGENT_VARIABLE};
use super::notifier::Notifier;
use super::output::StreamWriter;
use super::prepare::{self, Streams};
use super::process;
use super::program::{self, Program};
use super::spawn::{self, NotStarted, Task, Waiting};
use super::verdict::{self, Course, Span};
use super::watch::{Manners, Role, Tap, Watch};
use crate::clock::boot_ms;
use crate::commands::accept::WAKE;
use crate::commands::{End, RecordError, RecordLock, Start, is_shortage, layout, request, seals};
use crate::limits::{SHIM_AGAIN, SHIM_AGAIN_FOR};

/// What is written when something of the shim itself failed; for people.
const LOG: &str = "shim.log";

/// Why a shim gives up; the record then has no END, and the agent decides what comes next.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShimError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{step}")]
    Step {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

impl ShimError {
    /// Tells whether the host lacks something that others may give back.
    fn is_shortage(&self) -> bool {
        matches!(self, Self::Step { source, .. } if is_shortage(source))
    }
}

pub(super) trait At<T> {
    fn at(self, step: &'static str) -> Result<T, ShimError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, ShimError> {
        self.map_err(|source| ShimError::Step { step, source: source.into() })
    }
}

/// Runs the command in `dir` unless it runs or has ended already.
#[must_use]
pub fn main(dir: &Path) -> ExitCode {
    match shim(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody else to tell; without room for a line the missing END says it.
            note(dir, &common::error::Chain(&error).to_string());
            ExitCode::FAILURE
        }
    }
}

/// Writes a line for people, if there is room for it.
fn note(dir: &Path, text: &str) {
    let line = format!("{} {text}\n", clock::unix_ms());
    let log = File::options().append(true).create(true).open(dir.join(LOG));
    drop(log.and_then(|mut log| log.write_all(line.as_bytes())));
}

fn shim(dir: &Path) -> Result<(), ShimError> {
    // Its own session already: started by hand as a leader.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at("become the reaper of orphans")?;
    process::protect_from_oom();
    // Nothing but KILL ends a shim: who wants the command stopped places a request.
    SigSet::all().thread_block().map_err(io::Error::from).at("block signals")?;
    let Some(mut lock) = RecordLock::try_take(dir)? else { return Ok(()) };
    if lock.history().start.is_some() || lock.history().end.is_some() {
        return Ok(());
    }
    let wake = layout::open_fifo(&dir.join(WAKE), OFlags::RDWR).at("open the FIFO wake")?;
    let mut command = lock.history().spec.command.clone();
    // From here on a dump of this process, or of the command's own, would show them.
    let lost = match seals::give(dir, &lock.history().spec) {
        Ok(None) => None,
        Ok(opened) => {
            cores::forbid();
            command.secrets = opened;
            None
        }
        Err(error) => Some(error),
    };
    let mut notifier = Notifier::new(dir, &command);
    let over = match (cancelled(dir), lost) {
        (Some(end), _) => Over::without_process(end),
        (None, Some(error)) => {
            let end = End::without_process(Outcome::Refused, clock::unix_ms());
            Over::without_process(end.because("secrets_lost", error.to_string()))
        }
        (None, None) => match program::program(&command, &std::env::var(AGENT_VARIABLE).unwrap_or_default()) {
            Ok(mut program) => {
                if command.secrets.is_none() {
                    program.setting.posture.core = launch::core_from_env();
                }
                // Of an agent that does not say so only an upper bound is known: all of the validity at its acceptance.
                let accepted_ms = lock.history().spec.accepted_ms;
                let bound = || boot_ms().saturating_add(command.expires_ms.saturating_sub(accepted_ms));
                let until = launch::until_from_env().unwrap_or_else(bound);
                let fence = Fence::build();
                if let Some(trouble) = &fence.trouble {
                    note(dir, trouble);
                }
                let mut run = Run { dir, command: &command, wake: &wake, lock: &mut lock, fence, until };
                run.carry_out(&program, &mut notifier)?
            }
            Err(error) => {
                let end = End::without_process(Outcome::Failed, clock::unix_ms());
                Over::without_process(end.because(error.code(), error.to_string()))
            }
        },
    };
    crash::point("shim.end.before");
    ending::write(dir, &mut lock, over.end, &wake)?;
    crash::point("shim.end.after");
    // Nobody may take this process for one that still has something to do: what follows is not the command's.
    drop(lock);
    drop(wake);
    notifier.now();
    ending::stay_for(&over.held).at("stay for what was kept")
}

fn cancelled(dir: &Path) -> Option<End> {
    let first = request::cancels(dir).into_iter().next()?;
    Some(End::cancelled(&first.by, &first.reason, clock::unix_ms()))
}

/// A command that is over.
struct Over {
    end: End,
    /// Pipes that processes which were kept still hold.
    held: [Option<OwnedFd>; 2],
}

impl Over {
    fn without_process(end: End) -> Self {
        Self { end, held: [None, None] }
    }
}

/// One command on its way.
struct Run<'a> {
    dir: &'a Path,
    command: &'a Command,
    wake: &'a File,
    lock: &'a mut RecordLock,
    fence: Fence,
    /// Until when it may be started, on the clock that begins with the boot.
    until: u64,
}

/// A process that is over.
struct Left {
    not_started: Option<NotStarted>,
    /// It may have run: its door was opened.
    went: bool,
}

/// Why there is no process to speak of.
enum Halt {
    Shim(ShimError),
    /// Nothing was started.
    NotStarted(Box<Over>),
    /// A guard has run, and then no process could be made.
    NotMade(String),
}

impl From<ShimError> for Halt {
    fn from(error: ShimError) -> Self {
        Self::Shim(error)
    }
}

impl From<Over> for Halt {
    fn from(over: Over) -> Self {
        Self::NotStarted(Box::new(over))
    }
}

impl Run<'_> {
    fn carry_out(&mut self, program: &Program, notifier: &mut Notifier) -> Result<Over, ShimError> {
        let limits = self.command.limits.as_ref();
        if let Some(text) = limits.and_then(|limits| self.fence.limit(limits).err()) {
            return Ok(self.never_started(Outcome::Refused, "limits", text));
        }
        let mut children = SigSet::empty();
        children.add(Signal::SIGCHLD);
        let children = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(io::Error::from)
            .at("listen for ended children")?;
        let quota = limits.map_or(0, |limits| limits.output);
        let tap = |stream| Tap { pipe: None, writer: StreamWriter::new(self.dir, stream, quota) };
        let taps = [tap(StreamName::Stdout), tap(StreamName::Stderr)];
        let manners = Manners::of(self.command);
        let mut watch = Watch::new(self.dir, self.wake, children, notifier, manners, taps);
        let course = match self.processes(program, &mut watch) {
            Ok(course) => course,
            Err(Halt::NotStarted(over)) => return Ok(*over),
            Err(Halt::NotMade(text)) => Course::NotMade(text),
            Err(Halt::Shim(error)) => return Err(error),
        };
        let started_ms = self.lock.history().start.as_ref().map_or(0, |start| start.at_ms);
        let span = Span { started_ms, finished_ms: clock::unix_ms() };
        let mut end = verdict::end(self.command, program, &watch, course, span);
        self.fence.account(&mut end);
        end.flags.extend(self.fence.flags.iter().map(ToString::to_string));
        ending::keep_streams(self.dir, &mut watch.taps, &mut end);
        // What a stranger holds, or what nobody was asked to keep, finds its reader gone.
        let kept = watch.pipes_go_on;
        let held = watch.taps.map(|tap| tap.pipe.filter(|_| kept));
        Ok(Over { end, held })
    }

    /// Guards, then the main process.
    fn processes(&mut self, program: &Program, watch: &mut Watch<'_>) -> Result<Course, Halt> {
        for guard in &program.guards {
            let left = self.process(program, guard.task(), Role::Guard, watch)?;
            if watch.cause.is_some() {
                return Ok(Course::Stopped);
            }
            if let Some(not) = left.not_started {
                return Ok(Course::GuardFailed(verdict::guard_not_started(self.command, program, guard, not)));
            }
            match guard.judge(watch.status().into()) {
                Verdict::Needed => {}
                Verdict::Needless(text) => return Ok(Course::Skipped(guard.value(&text))),
                Verdict::Unknown(text) => return Ok(Course::GuardFailed(text)),
            }
        }
        let left = self.process(program, Task::Exec(&program.main), Role::Main, watch)?;
        Ok(if left.went { Course::Ran(left.not_started) } else { Course::Stopped })
    }

    /// One process from its birth to the moment when nothing of it lives.
    fn process(&mut self, program: &Program, task: Task<'_>, role: Role, watch: &mut Watch<'_>) -> Result<Left, Halt> {
        if watch.killed {
            self.fence.on_foot();
        }
        let Waiting { pid, door, mut failure } = self.make(program, task, role, watch)?;
        let main = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH).at("name the process")?;
        let start_time = process::stat(pid).map_or(0, |stat| stat.start_time);
        match &mut watch.crew {
            Some(crew) => {
                crew.next_main(main);
                watch.main_is(pid.unsigned_abs(), start_time);
            }
            None => {
                if let Err(error) = self.start(pid, start_time) {
                    // The door closes on a process that has run nothing.
                    drop(door);
                    let mut crew = self.fence.crew(main);
                    crew.kill();
                    let _ = rustix::process::waitpid(Some(main), rustix::process::WaitOptions::empty());
                    let (code, text) = verdict::not_recorded(&error);
                    return Err(self.never_started(Outcome::Failed, code, text).into());
                }
                watch.crew = Some(self.fence.crew(main));
            }
        }
        if !watch.at_the_door(role) {
            drop(door);
            watch.turn_away().at("end a process that was not let go")?;
            return Ok(Left { not_started: None, went: false });
        }
        match rustix::io::write(&door, &[1]) {
            // A process that failed before the door has said why on its other pipe.
            Ok(_) | Err(rustix::io::Errno::PIPE) => {}
            Err(error) => return Err(error).at("let the process go")?,
        }
        drop(door);
        if role == Role::Main {
            crash::point("shim.go.after");
        }
        watch.gone_through();
        watch.run().at("watch the command")?;
        let not_started = spawn::read_failure(&mut failure).at("read why the process was not started")?;
        Ok(Left { not_started, went: true })
    }

    /// Makes a process that waits at its door. Before START, while the host lacks what a process is made of, it is tried
    /// again: until there is one, the command is cancelled or expires, or nobody has helped for an hour.
    fn make(&mut self, program: &Program, task: Task<'_>, role: Role, watch: &mut Watch<'_>) -> Result<Waiting, Halt> {
        let (began, mut pause) = (Instant::now(), SHIM_AGAIN.0);
        loop {
            let streams = Streams::of(self.command, program, role, &mut watch.taps);
            let waiting = streams.and_then(|streams| prepare::waiting(program, task, streams, &mut self.fence));
            let Err(error) = waiting else { return waiting.map_err(Halt::from) };
            let text = format!("the process could not be made: {}", common::error::Chain(&error));
            // After a guard something was started: then this is an end of that.
            if watch.crew.is_some() {
                return Err(Halt::NotMade(text));
            }
            if !error.is_shortage() || began.elapsed() >= SHIM_AGAIN_FOR {
                return Err(self.never_started(Outcome::Failed, "fork", text).into());
            }
            ending::wait(self.wake, pause);
            pause = (pause * 2).min(SHIM_AGAIN.1);
            if let Some(end) = cancelled(self.dir) {
                return Err(Over::without_process(end).into());
            }
            if boot_ms() >= self.until {
                return Err(Over::without_process(End::expired(clock::unix_ms())).into());
            }
        }
    }

    /// Makes START durable: from here on the command counts as started.
    fn start(&mut self, pid: i32, start_time: u64) -> Result<(), ShimError> {
        let boot_id = process::boot_id().at("read the boot id")?;
        let mut start = Start::new(boot_id, pid.unsigned_abs(), start_time, clock::unix_ms());
        start.cgroup = self.fence.group().map(Path::to_owned);
        start.controllers = self.fence.controllers().to_vec();
        self.fence.isolation().clone_into(&mut start.isolation);
        crash::point("shim.start.before");
        self.lock.append_start(start)?;
        crash::point("shim.start.after");
        Ok(())
    }

    fn never_started(&self, outcome: Outcome, code: &str, text: String) -> Over {
        let mut end = End::without_process(outcome, clock::unix_ms()).because(code, text);
        self.fence.isolation().clone_into(&mut end.isolation);
        Over::without_process(end)
    }
}
