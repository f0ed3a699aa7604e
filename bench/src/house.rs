//! A whole house as an operator would start it: `paprika dev` as a process of its own, in a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::client::{Client, Endpoint};
use common::id::Name;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stats::children_of;

/// How long a house may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// A running house.
pub struct House {
    child: Child,
    binary: PathBuf,
    folder: PathBuf,
    agents: usize,
    /// Where the API listens.
    api: String,
    /// Where agents dial.
    pub link: SocketAddr,
    /// The CA everybody trusts.
    pub ca_pem: String,
    endpoint: Endpoint,
}

impl House {
    /// Starts a house in `folder` with `agents` agents and waits until it is ready.
    pub fn start(folder: &Path, agents: usize) -> anyhow::Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("paprika");
        anyhow::ensure!(binary.exists(), "{} is missing; build it first: cargo build --release", binary.display());
        Self::open(binary, folder.to_owned(), agents, "127.0.0.1:0", "127.0.0.1:0")
    }

    fn open(binary: PathBuf, folder: PathBuf, agents: usize, api: &str, link: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        let env = folder.join("env");
        let _ = fs::remove_file(&env);
        let log = fs::File::create(folder.join("log"))?;
        let mut child = Command::new(&binary)
            .args(["dev", "--agents", &agents.to_string(), "--api", api, "--link", link, "--dir"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let start = Instant::now();
        let text = loop {
            if let Some(status) = child.try_wait()? {
                bail!("the house ended ({status}):\n{}", fs::read_to_string(folder.join("log"))?);
            }
            // The environment is written first; the line says that every agent is connected.
            if fs::read_to_string(folder.join("log"))?.contains("ready: ") {
                break fs::read_to_string(&env)?;
            }
            if start.elapsed() > READY {
                bail!("the house is not ready after {READY:?}");
            }
            pause(Duration::from_millis(20));
        };
        let value = |name: &str| {
            text.lines()
                .filter_map(|line| line.trim_start_matches("export ").split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim_matches(['\'', '"']).to_owned())
                .with_context(|| format!("{name} is not in {}", env.display()))
        };
        let api = value("PAPRIKA_API")?;
        let endpoint = Endpoint::parse(&api)?.ca_file(value("PAPRIKA_CA")?).token(value("PAPRIKA_TOKEN")?);
        Ok(Self {
            child,
            binary,
            agents,
            link: value("PAPRIKA_LINK")?.parse().context("PAPRIKA_LINK is not an address")?,
            ca_pem: fs::read_to_string(value("PAPRIKA_CA")?)?,
            api,
            endpoint,
            folder,
        })
    }

    /// Stops the house and starts it again in the same place.
    pub fn restart(mut self) -> anyhow::Result<Self> {
        self.end()?;
        let api = self.api.trim_start_matches("https://").to_owned();
        Self::open(self.binary.clone(), self.folder.clone(), self.agents, &api, &self.link.to_string())
    }

    /// A client with connections of its own.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(self.endpoint.clone())?)
    }

    /// The process of the manager.
    pub fn manager_pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes of the agents: children of the house.
    pub fn agent_pids(&self) -> anyhow::Result<Vec<u32>> {
        Ok(children_of(self.child.id())?)
    }

    /// Stops the manager in its tracks until the answer is dropped; its agents go on without it.
    pub fn stand_still(&self) -> anyhow::Result<StandingStill> {
        let manager = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(manager, Signal::SIGSTOP)?;
        Ok(StandingStill(manager))
    }

    /// The binary under test.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The environment of a client verb.
    pub fn client_env(&self) -> anyhow::Result<Vec<(String, String)>> {
        let text = fs::read_to_string(self.folder.join("env"))?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim_start_matches("export ").split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
            .collect())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > Duration::from_secs(30) {
                self.child.kill()?;
                self.child.wait()?;
                bail!("the house did not stop within 30 s");
            }
            pause(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// A manager that stands still.
pub struct StandingStill(Pid);

impl Drop for StandingStill {
    fn drop(&mut self) {
        if let Err(error) = kill(self.0, Signal::SIGCONT) {
            report_late(&error.into());
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            report_late(&error);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a benchmark speaks to the terminal")]
fn report_late(error: &anyhow::Error) {
    eprintln!("warning: {error:#}");
}

/// A name that is known to be one.
pub fn name(text: &str) -> anyhow::Result<Name> {
    Ok(text.parse()?)
}

/// Waits between two looks at another process; nothing else runs in this program meanwhile.
#[expect(clippy::disallowed_methods, reason = "the benchmark polls processes of others and has nothing else to do")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
