//! One state directory with commands in it, and ways to look at what they do.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::commands::accept::{NewCommand, accept_many};
use agent::commands::recover::{Recovered, recover};
use agent::commands::request::{self, CancelRequest, PauseRequest};
use agent::commands::seals::Kept;
use agent::commands::segment::{Piece, StreamReader};
use agent::commands::status::{self, ShimPhase};
use agent::commands::{End, History, StateDir, record};
use agent::shim::{Base, ShimCommand, ShimProcess, cgroup, process};
use common::id::Uid;
use common::model::StreamName;
use common::wire;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; a test that needs it all has failed.
pub(crate) const BOUND: Duration = Duration::from_secs(30);
const EXPIRES: u64 = u64::MAX / 2;

pub(crate) struct House {
    _folder: TempDir,
    pub(crate) state: StateDir,
    pub(crate) base: Base,
}

/// A command that is accepted, with a shim at work.
pub(crate) struct Running<'a> {
    _house: &'a House,
    pub(crate) uid: Uid,
    pub(crate) dir: PathBuf,
    shim: Option<ShimProcess>,
}

impl House {
    /// With cgroups where this host lets us.
    pub(crate) fn new() -> Self {
        Self::with("auto")
    }

    pub(crate) fn with(choice: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let base = Base::discover(choice, state.journal()).unwrap();
        Self { _folder: folder, state, base }
    }

    /// Both ways to fence a command in, for what has to hold in each; the second alone, and said so, on hosts that have
    /// no cgroups for us.
    pub(crate) fn both() -> Vec<Self> {
        let (fenced, plain) = (Self::new(), Self::with("none"));
        if fenced.base.tree().is_some() {
            return vec![fenced, plain];
        }
        let test = std::thread::current().name().unwrap_or("unnamed").replace("shim::", "");
        not_run(&format!("{test} with cgroups"), "there are none here for us");
        vec![plain]
    }

    pub(crate) fn accept(&self, command: wire::Command) -> Uid {
        let uid = Uid::random();
        let command = wire::Command { uid: uid.to_wire(), id: 1, expires_ms: EXPIRES, ..command };
        let Kept { raw, sealed } = self.state.seals().keep(command).unwrap();
        let new = NewCommand { uid, accepted_ms: 1, raw, sealed, end: None };
        accept_many(&self.state, &[new]).pop().unwrap().unwrap();
        uid
    }

    pub(crate) fn launch(&self, uid: Uid) -> Running<'_> {
        let dir = self.state.command(uid);
        let command = ShimCommand { exe: exe(), prefix: Vec::new(), agent: "web1".into() };
        let shim = command.spawn(&dir, &self.base).unwrap();
        Running { _house: self, uid, dir, shim: Some(shim) }
    }

    pub(crate) fn start(&self, command: wire::Command) -> Running<'_> {
        self.launch(self.accept(command))
    }

    /// Runs to the end.
    pub(crate) fn run(&self, command: wire::Command) -> End {
        self.start(command).end()
    }

    pub(crate) fn shell(&self, line: &str) -> End {
        self.run(shell(line))
    }

    /// A shim with a point at which it kills itself; answers when it is gone.
    pub(crate) fn run_crashing(&self, uid: Uid, point: &str) {
        let mut command = Command::new(exe());
        command.arg("shim").arg(self.state.command(uid)).env_clear().env("PAPRIKA_CRASH_POINT", point);
        if let Some(group) = self.base.of(uid) {
            std::fs::create_dir_all(group.join("shim")).unwrap();
            command.env("PAPRIKA_SHIM_CGROUP", group).env("PAPRIKA_SHIM_JOIN", "1");
        }
        let status = command.stdin(Stdio::null()).status().unwrap();
        assert!(!status.success(), "the shim did not die at {point}");
    }

    pub(crate) fn recover(&self, uid: Uid) -> Recovered {
        recover(&self.state, &self.base, uid, 1).unwrap()
    }

    /// The same after a shim that is known to be gone: what it forked may still be closing its copy of the lock.
    pub(crate) fn recover_gone(&self, uid: Uid) -> Recovered {
        let mut found = self.recover(uid);
        wait_for("the lock", || {
            if found == Recovered::Held {
                found = self.recover(uid);
            }
            found != Recovered::Held
        });
        found
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for uid in self.state.list().unwrap_or_default() {
            if let Some(group) = self.base.of(uid) {
                let _ = cgroup::kill_all(&group, BOUND);
            }
            cgroup::remove(&self.base, uid);
        }
        self.base.leave(self.state.journal());
    }
}

impl Running<'_> {
    pub(crate) fn history(&self) -> History {
        record::read(&self.dir).unwrap()
    }

    /// Waits for the shim and answers what it wrote last.
    pub(crate) fn end(mut self) -> End {
        self.shim.take().unwrap().wait_blocking().unwrap();
        let log = std::fs::read_to_string(self.dir.join("shim.log")).unwrap_or_default();
        self.history().end.unwrap_or_else(|| panic!("no END: {log}"))
    }

    /// Waits for a shim that has nothing to do.
    pub(crate) fn shim_exits_alone(mut self) {
        self.shim.take().unwrap().wait_blocking().unwrap();
    }

    pub(crate) fn wait_for_output(&self, text: &str) {
        wait_for(&format!("{text:?} on stdout"), || {
            String::from_utf8_lossy(&read_all(&self.dir, StreamName::Stdout)).contains(text)
        });
    }

    pub(crate) fn cancel(&self, reason: &str, grace: Option<Duration>) {
        let grace_ms = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap());
        request::cancel(&self.dir, &CancelRequest { by: "admin".into(), reason: reason.into(), grace_ms }).unwrap();
    }

    pub(crate) fn pause(&self, wish: u64, paused: bool) {
        request::pause(&self.dir, &PauseRequest { wish, paused, by: "admin".into() }).unwrap();
    }

    pub(crate) fn phase(&self) -> ShimPhase {
        status::read(&self.dir).map_or(ShimPhase::Running, |status| status.phase)
    }

    pub(crate) fn wait_for_phase(&self, phase: ShimPhase) {
        wait_for(&format!("{phase:?}"), || self.phase() == phase);
    }

    /// How many bytes are on stdout.
    pub(crate) fn length(&self) -> u64 {
        agent::commands::segment::length(&self.dir, StreamName::Stdout).unwrap()
    }

    /// The shim's process.
    pub(crate) fn shim_id(&self) -> i32 {
        self.shim.as_ref().unwrap().id()
    }

    pub(crate) fn kill_shim(&mut self) {
        let shim = self.shim.take().unwrap();
        let pid = rustix::process::Pid::from_raw(shim.id()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        shim.wait_blocking().unwrap();
    }

    /// The numbers that the command wrote, one in a line.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let text = String::from_utf8(read_all(&self.dir, StreamName::Stdout)).unwrap();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }
}

pub(crate) fn exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_paprika-agent"))
}

pub(crate) fn argv(words: &[&str]) -> wire::Command {
    let args = serde_json::json!({ "run": words }).to_string();
    wire::Command { operation: "command.run".into(), args: args.into_bytes().into(), ..Default::default() }
}

pub(crate) fn shell(line: &str) -> wire::Command {
    let args = serde_json::json!({ "shell": line }).to_string();
    wire::Command { operation: "command.run".into(), args: args.into_bytes().into(), ..Default::default() }
}

/// The same with more arguments of the operation.
pub(crate) fn run_args(args: serde_json::Value) -> wire::Command {
    operation("command.run", args)
}

pub(crate) fn script(args: serde_json::Value) -> wire::Command {
    operation("script.run", args)
}

fn operation(name: &str, args: serde_json::Value) -> wire::Command {
    wire::Command { operation: name.into(), args: args.to_string().into_bytes().into(), ..Default::default() }
}

/// Says that a test, or a part of it, did not run: in the output and where the summary of the test command looks.
pub(crate) fn not_run(test: &str, reason: &str) {
    use std::io::Write;
    let line = format!("NOT RUN: shim::{test}: {reason}\n");
    std::io::stderr().lock().write_all(line.as_bytes()).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("not-run");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("shim::{test}.txt")), line).unwrap();
}

pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        not_run(test, "needs root");
    }
    root
}

pub(crate) fn read_all(dir: &Path, stream: StreamName) -> Vec<u8> {
    let mut reader = StreamReader::new(dir, stream);
    let mut found = Vec::new();
    while let Piece::Bytes(bytes) = reader.read(found.len() as u64, 1 << 20).unwrap() {
        found.extend_from_slice(&bytes);
    }
    found
}

pub(crate) fn text(house: &House, uid: Uid, stream: StreamName) -> String {
    String::from_utf8(read_all(&house.state.command(uid), stream)).unwrap()
}

pub(crate) fn alive(pid: i32) -> bool {
    process::stat(pid).is_some_and(|stat| !stat.zombie)
}

#[expect(clippy::disallowed_methods, reason = "the one place that looks again and again; with a bound")]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process outside of everything, in its own group, killed when dropped.
pub(crate) struct Outsider(Child);

impl Outsider {
    pub(crate) fn new(line: &str) -> Self {
        let words: [OsString; 2] = ["-c".into(), line.into()];
        Self(Command::new("/bin/sh").args(words).process_group(0).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}
