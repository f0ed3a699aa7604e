//! A house for one test: `paprika dev` in a folder of its own, and ways to run commands against it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The binary under test.
pub const PAPRIKA: &str = env!("CARGO_BIN_EXE_paprika");
/// No step of any test takes this long on a machine that is merely busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A running `paprika dev`.
pub struct House {
    pub folder: PathBuf,
    pub lines: Vec<String>,
    dev: Option<Running>,
    _own: Option<tempfile::TempDir>,
}

impl House {
    pub fn with_agents(count: u16) -> Self {
        let own = tempfile::Builder::new().prefix("paprika-").tempdir().unwrap();
        let mut house = Self::open(&own.path().join("d"), count);
        house._own = Some(own);
        house
    }

    /// Starts in a folder that may have been used before.
    pub fn open(folder: &Path, agents: u16) -> Self {
        Self::begin(&mut Command::new(PAPRIKA), folder, agents)
    }

    /// Starts with a command that already says what to run and as whom.
    pub fn begin(command: &mut Command, folder: &Path, agents: u16) -> Self {
        let mut dev = Running::start(
            command
                .args([
                    "dev",
                    "--api",
                    "127.0.0.1:0",
                    "--link",
                    "127.0.0.1:0",
                    "--agents",
                    &agents.to_string(),
                    "--dir",
                ])
                .arg(folder),
        );
        let lines = (0..3).map(|_| dev.line()).collect();
        Self { folder: folder.canonicalize().unwrap(), lines, dev: Some(dev), _own: None }
    }

    /// The id of the process that everything hangs on.
    pub fn pid(&self) -> u32 {
        self.dev.as_ref().unwrap().child.id()
    }

    /// Asks it to stop and returns how it ended.
    pub fn stop(&mut self) -> Output {
        let dev = self.dev.take().unwrap();
        dev.signal(Signal::SIGTERM);
        dev.finish()
    }

    pub fn socket(&self) -> String {
        format!("unix:{}", self.folder.join("manager/api.sock").display())
    }

    /// A command line of the operator, over the local socket.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(PAPRIKA);
        command.args(args).env("PAPRIKA_API", self.socket());
        command
    }

    /// Runs it to its end.
    pub fn paprika(&self, args: &[&str]) -> Output {
        Running::start(&mut self.command(args)).finish()
    }

    /// Runs it and reads what it printed as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.paprika(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", text(&out.stdout)))
    }

    /// What `source DIR/env` sets.
    pub fn variables(&self) -> Vec<(String, String)> {
        let env = fs::read_to_string(self.folder.join("env")).unwrap();
        let pairs = env.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(dev) = self.dev.take() {
            dev.signal(Signal::SIGTERM);
            let out = dev.finish();
            if thread::panicking() {
                eprintln_all("paprika dev", &out.stderr);
                for log in fs::read_dir(self.folder.join("agents")).into_iter().flatten().flatten() {
                    eprintln_all("agent.log", &fs::read(log.path().join("agent.log")).unwrap_or_default());
                }
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what the daemons said")]
fn eprintln_all(name: &str, bytes: &[u8]) {
    eprintln!("--- {name}\n{}", text(bytes));
}

/// A process whose output is read from its first byte on, so that it never stands still for want of a reader.
pub struct Running {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    held: Vec<u8>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self::start_with_input(command, b"")
    }

    pub fn start_with_input(command: &mut Command, input: &[u8]) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that does not read its input is not a failure of the test.
        let _ = child.stdin.take().unwrap().write_all(input);
        let (stdout, stderr) = (pump(child.stdout.take().unwrap()), pump(child.stderr.take().unwrap()));
        Self { child, stdout, stderr, held: Vec::new() }
    }

    pub fn signal(&self, signal: Signal) {
        // It is our child and was not waited for, so the id is still its own.
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal);
    }

    /// Waits for the next line of stdout.
    pub fn line(&mut self) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                return text(&line).trim_end().to_owned();
            }
            match self.stdout.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.held.extend(bytes),
                Err(error) => {
                    let _ = self.child.kill();
                    let said = drain(&self.stderr, Instant::now() + Duration::from_secs(5));
                    panic!("no line on stdout: {error}; stderr: {}", text(&said));
                }
            }
        }
    }

    /// Waits until stderr holds a text.
    pub fn wait_for_stderr(&mut self, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while !text(&seen).contains(wanted) {
            match self.stderr.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => seen.extend(bytes),
                Err(error) => panic!("{wanted:?} was never said: {error}; said was: {}", text(&seen)),
            }
        }
    }

    /// Waits for its end and the rest of its output.
    pub fn finish(mut self) -> Output {
        let until = Instant::now() + PATIENCE;
        let mut stdout = std::mem::take(&mut self.held);
        stdout.extend(drain(&self.stdout, until));
        let stderr = drain(&self.stderr, until);
        if Instant::now() >= until {
            let _ = self.child.kill();
        }
        let status = self.child.wait().unwrap();
        Output { status, stdout, stderr }
    }
}

/// Reads a pipe to its end in a thread of its own.
fn pump(pipe: impl std::io::Read + Send + 'static) -> Receiver<Vec<u8>> {
    // More than any test writes at once; beyond it the process waits, as with any pipe.
    let (sender, receiver) = sync_channel(4096);
    thread::spawn(move || {
        let mut pipe = BufReader::with_capacity(64 * 1024, pipe);
        while let Ok(bytes) = pipe.fill_buf() {
            let count = bytes.len();
            if count == 0 || sender.send(bytes.to_vec()).is_err() {
                return;
            }
            pipe.consume(count);
        }
        let _ = pipe.read(&mut []);
    });
    receiver
}

fn drain(pipe: &Receiver<Vec<u8>>, until: Instant) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match pipe.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(bytes) => all.extend(bytes),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return all,
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks again and again until an answer comes; each question takes its own time, so this does not spin.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "never came true: {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}
