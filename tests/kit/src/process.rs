//! A child process with its log: started, signalled and ended by its own id, never by name.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use common::id::Uid;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_for;

/// How to start a process.
#[derive(Debug, Clone)]
pub struct Program {
    /// What it is called in messages and in the name of its log.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Where its output goes; what earlier starts wrote stays.
    pub log: PathBuf,
}

/// A running or ended child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    log: PathBuf,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// When the log or the program cannot be opened.
    pub fn start(program: &Program) -> anyhow::Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&program.log)
            .with_context(|| format!("open {}", program.log.display()))?;
        let mut command = Command::new(&program.path);
        // What the caller's shell points at must not lead a test to somebody's real manager.
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("PAPRIKA_") {
                command.env_remove(key);
            }
        }
        let child = command
            .args(&program.args)
            .envs(program.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.path.display()))?;
        Ok(Self { name: program.name.clone(), child, ended: None, log: program.log.clone() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it and its predecessors wrote.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Tells how it ended, if it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends a signal, if it still runs.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.status()?.is_none() {
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
            kill_process(pid.ok_or_else(|| anyhow!("no process id"))?, signal)?;
        }
        Ok(())
    }

    /// Ends it with SIGKILL and takes its status.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        let status = match self.ended {
            Some(status) => status,
            None => self.child.wait()?,
        };
        self.ended = Some(status);
        Ok(status)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it is still running after `bound`.
    pub async fn ended(&mut self, bound: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_for(bound, &what, async || self.status()).await
    }

    /// Waits until a crash point has killed it.
    ///
    /// # Errors
    /// When it is still running after `bound`, or ended otherwise.
    pub async fn crashed(&mut self, bound: Duration) -> anyhow::Result<()> {
        let status = self.ended(bound).await?;
        if status.signal() == Some(Signal::KILL.as_raw()) {
            Ok(())
        } else {
            bail!("{} ended with {status} instead of a crash", self.name)
        }
    }

    /// Asks it to stop and waits; a status other than 0 is an error.
    ///
    /// # Errors
    /// When it does not end well within `bound`.
    pub async fn stop(&mut self, bound: Duration) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended(bound).await?;
        if status.success() { Ok(()) } else { bail!("{} ended with {status} when it was asked to stop", self.name) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the survivors' check would find it.
        let _ = self.kill();
    }
}

/// Finds a port that nobody listens on, outside the range from which outgoing connections draw theirs.
///
/// Port 0 cannot be used for daemons that must be found again under the same address after a restart. Somebody else may
/// still take the port in between: who starts a daemon tries again with another one.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> anyhow::Result<u16> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    for _ in 0..1_000 {
        let Uid([a, b, ..]) = Uid::random();
        let port = FIRST + u16::from_be_bytes([a, b]) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("found no free port")
}

/// The end of a text, at most `lines` lines.
#[must_use]
pub fn tail(text: &str, lines: usize) -> &str {
    let start = text.rmatch_indices('\n').nth(lines).map_or(0, |(at, _)| at + 1);
    text.get(start..).unwrap_or(text)
}

/// Reads a log that may not exist yet.
#[must_use]
pub fn read_log(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str, log: &Path) -> Program {
        Program {
            name: "shell".to_owned(),
            path: "/bin/sh".into(),
            args: vec!["-c".into(), line.into()],
            env: vec![("MARK".to_owned(), "x".to_owned())],
            log: log.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_process_is_logged_stopped_and_told_from_a_crash() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let mut polite =
            Process::start(&shell("trap 'exit 0' TERM; echo up $MARK; while :; do read x </dev/zero; done", &log))?;
        wait_for(crate::wait::PATIENCE, "its line", async || Ok(polite.log().contains("up x").then_some(()))).await?;
        polite.signal(Signal::KILL)?;
        polite.crashed(crate::wait::PATIENCE).await?;
        let mut failing = Process::start(&shell("exit 3", &log))?;
        assert!(failing.crashed(crate::wait::PATIENCE).await.is_err());
        assert_eq!(failing.log(), "up x\n", "one log for all starts");
        Ok(())
    }

    #[test]
    fn a_tail_has_at_most_so_many_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(tail("a\n", 5), "a\n");
        assert_eq!(tail("", 5), "");
    }
}
