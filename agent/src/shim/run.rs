//! The shim from its first to its last step.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::id::Uid;
use common::model::{Outcome, StreamName};
use common::wire::Command;
use common::{clock, crash, durable};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, WaitStatus};

use super::crew::Crew;
use super::launch::{AGENT_VARIABLE, CGROUP_VARIABLE, JOIN_VARIABLE, is_unknown_call};
use super::output::StreamWriter;
use super::program::{self, Program};
use super::spawn::{self, NotStarted, Prepared, Waiting};
use super::watch::{Cause, Tap, Watch, Watched};
use super::{cgroup, process};
use crate::commands::accept::WAKE;
use crate::commands::{End, RecordError, RecordLock, Start, layout, request};

/// Asked of the kernel for each pipe: a burst does not wait for the disk.
const PIPE: usize = 1024 * 1024;
/// Notes to the agent are at least this far apart.
const NOTE_PAUSE: Duration = Duration::from_millis(2);
/// How long a note that did not fit waits for its next try.
const NOTE_AGAIN: Duration = Duration::from_millis(50);
/// What is written when something of the shim itself failed; for people.
const LOG: &str = "shim.log";

/// Why a shim gives up; the record then has no END, and the agent decides what comes next.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{step}")]
    Step {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

trait At<T> {
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
            let line = format!("{} {}\n", clock::unix_ms(), common::error::Chain(&error));
            // There is nobody else to tell; without room for a line the missing END says it.
            drop(
                File::options()
                    .append(true)
                    .create(true)
                    .open(dir.join(LOG))
                    .and_then(|mut log| log.write_all(line.as_bytes())),
            );
            ExitCode::FAILURE
        }
    }
}

fn shim(dir: &Path) -> Result<(), ShimError> {
    // Its own session already: started by hand as a leader.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at("become the reaper of orphans")?;
    // Nothing but KILL ends a shim: who wants the command stopped places a request.
    SigSet::all().thread_block().map_err(io::Error::from).at("block signals")?;
    let Some(mut lock) = RecordLock::try_take(dir)? else { return Ok(()) };
    if lock.history().start.is_some() || lock.history().end.is_some() {
        return Ok(());
    }
    let wake = layout::open_fifo(&dir.join(WAKE), OFlags::RDWR).at("open the FIFO wake")?;
    let command = lock.history().spec.command.clone();
    let mut notifier = Notifier::new(dir, &command);
    let end = match cancelled(dir) {
        Some(end) => end,
        None => match program::program(&command, &std::env::var(AGENT_VARIABLE).unwrap_or_default()) {
            Ok(program) => run(dir, &command, program, wake, &mut lock, &mut notifier)?,
            Err(error) => {
                End::without_process(Outcome::Failed, clock::unix_ms()).because(error.code(), error.to_string())
            }
        },
    };
    crash::point("shim.end.before");
    lock.append_end(end)?;
    crash::point("shim.end.after");
    notifier.now();
    Ok(())
}

fn cancelled(dir: &Path) -> Option<End> {
    let first = request::cancels(dir).into_iter().next()?;
    Some(End::cancelled(&first.by, &first.reason, clock::unix_ms()))
}

/// Where the command's processes live.
struct Fence {
    work: Option<PathBuf>,
    group: Option<PathBuf>,
    flags: Vec<&'static str>,
}

impl Fence {
    fn build() -> Self {
        let none = |flags| Self { work: None, group: None, flags };
        let Some(group) = std::env::var_os(CGROUP_VARIABLE).map(PathBuf::from) else { return none(Vec::new()) };
        let joined = if std::env::var_os(JOIN_VARIABLE).is_some() {
            cgroup::make_leaf(&group, "shim").and_then(|leaf| cgroup::join(&leaf))
        } else {
            Ok(())
        };
        match joined.and_then(|()| cgroup::make_leaf(&group, "work")) {
            Ok(work) => Self { work: Some(work), group: Some(group), flags: Vec::new() },
            Err(_) => none(vec!["no_cgroup"]),
        }
    }

    fn isolation(&self) -> &'static str {
        if self.work.is_some() { "cgroup" } else { "best_effort" }
    }
}

fn run(
    dir: &Path,
    command: &Command,
    program: Program,
    wake: File,
    lock: &mut RecordLock,
    notifier: &mut Notifier,
) -> Result<End, ShimError> {
    let mut fence = Fence::build();
    if let Some(end) = enforce_limits(command, &mut fence) {
        return Ok(end);
    }
    let mut children = SigSet::empty();
    children.add(NixSignal::SIGCHLD);
    let children = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(io::Error::from)
        .at("listen for ended children")?;
    let (mut taps, waiting) = match prepare(dir, command, program, &fence) {
        Ok(ready) => ready,
        Err(error) => {
            let text = format!("the process could not be made: {}", common::error::Chain(&error));
            return Ok(End::without_process(Outcome::Failed, clock::unix_ms()).because("fork", text));
        }
    };
    let Waiting { pid, door, mut failure } = waiting;
    let main = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH).at("name the process")?;
    let mut start = Start::new(
        process::boot_id().at("read the boot id")?,
        pid.unsigned_abs(),
        process::stat(pid).map_or(0, |stat| stat.start_time),
        clock::unix_ms(),
    );
    start.cgroup.clone_from(&fence.group);
    fence.isolation().clone_into(&mut start.isolation);
    let started_ms = start.at_ms;
    crash::point("shim.start.before");
    lock.append_start(start)?;
    crash::point("shim.start.after");
    let mut crew = Crew::new(fence.work.clone(), main);
    if let Some(mut end) = cancelled(dir) {
        // The door closes on a process that has run nothing.
        drop(door);
        let _ = rustix::process::kill_process(main, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(main), rustix::process::WaitOptions::empty());
        fence.isolation().clone_into(&mut end.isolation);
        return Ok(end);
    }
    match rustix::io::write(&door, &[1]) {
        // A process that failed before the door has said why on its other pipe.
        Ok(_) | Err(rustix::io::Errno::PIPE) => {}
        Err(error) => return Err(error).at("let the process go"),
    }
    drop(door);
    crash::point("shim.go.after");
    notifier.soon(Instant::now());
    let timeout = (command.timeout_ms > 0).then(|| Duration::from_millis(command.timeout_ms));
    let watched = Watch { dir, wake, children, crew: &mut crew, taps: &mut taps, notifier, timeout }
        .run()
        .at("watch the command")?;
    let not_started = spawn::read_failure(&mut failure).at("read why the process was not started")?;
    let mut end = finish(command, &crew, watched, not_started);
    if end.changed {
        end.started_ms = started_ms;
    }
    account_for(&mut end, &fence);
    end.flags.extend(fence.flags.iter().map(|flag| (*flag).to_owned()));
    keep(dir, &mut taps, &mut end)?;
    Ok(end)
}

/// Sets limits; a refusal when one cannot be enforced and the command insists.
fn enforce_limits(command: &Command, fence: &mut Fence) -> Option<End> {
    let limits = command.limits.as_ref()?;
    let missed = match &fence.group {
        Some(group) => cgroup::limit(group, limits),
        None if limits.memory_max > 0 || limits.memory_high > 0 || limits.cpu_percent > 0 || limits.tasks > 0 => {
            vec!["all"]
        }
        None => Vec::new(),
    };
    if missed.is_empty() {
        return None;
    }
    fence.flags.push("limits_not_enforced");
    if limits.best_effort {
        return None;
    }
    let text = format!("this host cannot enforce: {}", missed.join(", "));
    let mut end = End::without_process(Outcome::Refused, clock::unix_ms()).because("limits", text);
    fence.isolation().clone_into(&mut end.isolation);
    Some(end)
}

/// Makes the pipes and the process that waits at the door.
fn prepare(dir: &Path, command: &Command, program: Program, fence: &Fence) -> Result<([Tap; 2], Waiting), ShimError> {
    let quota = command.limits.as_ref().map_or(0, |limits| limits.output);
    let tap = |stream| -> Result<(Tap, OwnedFd), ShimError> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
        // Smaller is slower, not wrong.
        let _ = fcntl_setpipe_size(&write, PIPE);
        if let Some(account) = &program.account {
            // Else `/dev/stdout` could not be opened by its new owner.
            let owner = Some(rustix::fs::Uid::from_raw(account.uid));
            rustix::fs::fchown(&write, owner, None).at("hand over a pipe")?;
        }
        Ok((Tap { pipe: Some(read), writer: StreamWriter::new(dir, stream, quota) }, write))
    };
    let (out, stdout) = tap(StreamName::Stdout)?;
    let (err, stderr) = tap(StreamName::Stderr)?;
    let stdin = if command.has_stdin {
        given_input(&command.stdin)?
    } else {
        File::open("/dev/null").at("open /dev/null")?.into()
    };
    let place = fence.work.as_deref().map(cgroup::open).transpose().at("open the cgroup")?;
    let mut prepared = Prepared {
        argv: program.argv,
        env: program.env,
        candidates: program.candidates,
        cwd: program.cwd,
        account: program.account,
        stdin,
        stdout,
        stderr,
        cgroup_procs: None,
    };
    let waiting = match (spawn::start(&prepared, place.as_ref().map(AsFd::as_fd)), &fence.work) {
        (Err(error), Some(work)) if is_unknown_call(&error) => {
            use std::os::unix::ffi::OsStrExt;
            let procs = work.join("cgroup.procs");
            prepared.cgroup_procs = std::ffi::CString::new(procs.as_os_str().as_bytes()).ok();
            spawn::start(&prepared, None)
        }
        (other, _) => other,
    };
    // Dropping `prepared` closes this side's copies of the pipes: they end with the command.
    Ok(([out, err], waiting.at("make the process")?))
}

/// A file without a name that holds the input, read from its beginning.
fn given_input(content: &[u8]) -> Result<OwnedFd, ShimError> {
    let memory = rustix::fs::memfd_create("stdin", MemfdFlags::CLOEXEC).at("make the input")?;
    let mut file = File::from(memory);
    file.write_all(content).at("write the input")?;
    io::Seek::rewind(&mut file).at("rewind the input")?;
    Ok(file.into())
}

/// What the end says about the processes.
fn finish(command: &Command, crew: &Crew, watched: Watched, not_started: Option<NotStarted>) -> End {
    let code = crew.status.and_then(WaitStatus::exit_status);
    let outcome = match (&watched.cause, code) {
        (Some(Cause::Cancel(_)), _) => Outcome::Cancelled,
        (Some(Cause::Timeout), _) => Outcome::TimedOut,
        (None, Some(0)) => Outcome::Succeeded,
        (None, _) => Outcome::Failed,
    };
    let mut end = End::without_process(outcome, clock::unix_ms());
    end.flags.extend(watched.flags.iter().map(|flag| (*flag).to_owned()));
    if crew.escaped {
        end.flags.push("escaped".to_owned());
    }
    match watched.cause {
        Some(Cause::Cancel(request)) => {
            end.cancelled_by = request.by;
            end.cancel_reason = request.reason;
        }
        Some(Cause::Timeout) => {
            let text = format!("it did not end within {} ms", command.timeout_ms);
            end = end.because("timeout", text);
        }
        None => {}
    }
    if let Some(not) = not_started {
        if end.error.is_none() {
            end = end.because(not.step.code(), explain(command, not));
        }
        return end;
    }
    end.changed = true;
    end.duration_us = u64::try_from(watched.duration.as_micros()).unwrap_or(u64::MAX);
    if let Some(status) = crew.status {
        end.exit_code = code;
        end.signal = status.terminating_signal().map(i32::unsigned_abs);
        end.core_dumped = end.signal.is_some() && libc::WCOREDUMP(status.as_raw());
    }
    end
}

fn explain(command: &Command, not: NotStarted) -> String {
    let what = match not.step {
        spawn::Step::Setup => "prepare the process".to_owned(),
        spawn::Step::User => format!("become user {}", common::escape::text(&command.user)),
        spawn::Step::Cwd => format!("enter the directory {}", common::escape::text(&command.cwd)),
        spawn::Step::Exec => {
            let name = program::name(command).unwrap_or_default();
            format!("execute {}", common::escape::text(&name))
        }
    };
    let errno = nix::errno::Errno::from_raw(not.errno);
    format!("cannot {what}: {} ({errno:?})", errno.desc())
}

/// Fills in what the kernel counted.
fn account_for(end: &mut End, fence: &Fence) {
    fence.isolation().clone_into(&mut end.isolation);
    let work = fence.work.as_deref();
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).ok();
    let rusage_us = || {
        let used = used.as_ref()?;
        let sum = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        u64::try_from(sum(used.user_time()) + sum(used.system_time())).ok()
    };
    // The kernel counts in KiB here.
    let rusage_peak = || used.as_ref().and_then(|used| u64::try_from(used.max_rss()).ok()).map(|kib| kib * 1024);
    end.cpu_us = work.and_then(cgroup::cpu_us).or_else(rusage_us).unwrap_or_default();
    end.memory_peak = work.and_then(cgroup::memory_peak).or_else(rusage_peak).unwrap_or_default();
    end.oom = work.is_some_and(cgroup::oom);
}

/// Makes the output durable before END speaks of it.
fn keep(dir: &Path, taps: &mut [Tap; 2], end: &mut End) -> Result<(), ShimError> {
    crash::point("shim.streams.before");
    let mut names = false;
    for tap in taps.iter_mut() {
        names |= tap.writer.sync().at("sync the output")?;
        if tap.writer.lost && !end.flags.iter().any(|flag| flag == "disk_full") {
            end.flags.push("disk_full".to_owned());
        }
        end.streams.extend(tap.writer.end());
    }
    if names {
        durable::sync_folder(dir).at("sync the directory")?;
    }
    crash::point("shim.streams.after");
    Ok(())
}

/// Tells the agent that there is something to read.
pub(super) struct Notifier {
    path: Option<PathBuf>,
    note: Vec<u8>,
    fifo: Option<File>,
    wanted: bool,
    not_before: Option<Instant>,
}

impl Notifier {
    fn new(dir: &Path, command: &Command) -> Self {
        // commands/<uid> stands two levels below the state directory.
        let path = dir.parent().and_then(Path::parent).map(|state| state.join("notify"));
        let path = path.filter(|_| Uid::from_wire(&command.uid).is_ok());
        Self { path, note: command.uid.to_vec(), fifo: None, wanted: false, not_before: None }
    }

    /// Something is there to be read.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The same, not at once: a command that is over by then needs one note and not two.
    fn soon(&mut self, now: Instant) {
        self.wanted = true;
        self.not_before = Some(now + NOTE_PAUSE);
    }

    /// When the waiting note may go.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.wanted { self.not_before } else { None }
    }

    /// Sends the waiting note if it may go.
    pub(super) fn flush(&mut self, now: Instant) {
        if !self.wanted || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        let sent = self.send();
        self.wanted = !sent;
        self.not_before = Some(now + if sent { NOTE_PAUSE } else { NOTE_AGAIN });
    }

    /// Sends one now; lost when nobody listens, which the agent's next look makes good.
    fn now(&mut self) {
        self.send();
    }

    /// `true`: sent, or there is nobody who could read it.
    fn send(&mut self) -> bool {
        let Some(path) = &self.path else { return true };
        if self.fifo.is_none() {
            self.fifo = layout::open_fifo(path, OFlags::WRONLY).ok();
        }
        let Some(fifo) = &mut self.fifo else { return true };
        match fifo.write(&self.note) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.fifo = None;
                true
            }
        }
    }
}
