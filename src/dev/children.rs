//! The agents of `paprika dev`: their folders, and the child processes that are started again when they die.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use agent::config::AgentConfig;
use anyhow::Context as _;
use api::client::Client;
use cli::process::{PARENT_VARIABLE, ask_to_end};
use common::backoff::Backoff;
use common::id::Name;
use common::shutdown::Shutdown;
use common::telemetry::LogLevel;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::house::tell;

/// Pauses between restarts of an agent that dies.
const RESTART: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// An agent that lived this long starts again at once.
const HEALTHY: Duration = Duration::from_secs(30);
/// How long an agent may take to end by itself; its commands live on without it.
const STOP: Duration = Duration::from_secs(10);

/// One agent and where it lives.
#[derive(Debug)]
pub(super) struct AgentFolder {
    name: Name,
    config: PathBuf,
    log: PathBuf,
}

impl AgentFolder {
    /// Where an agent writes what it has to say.
    pub(super) fn log_path(folder: &Path, name: &Name) -> PathBuf {
        folder.join("agents").join(name.as_str()).join("agent.log")
    }

    /// Gets a fresh certificate for the agent and writes everything it needs.
    pub(super) async fn prepare(client: &Client, folder: &Path, name: &Name, link: SocketAddr) -> anyhow::Result<Self> {
        let certificate =
            client.agent_certificate(name).await.with_context(|| format!("no certificate for agent {name}"))?;
        let home = folder.join("agents").join(name.as_str());
        let written = cli::write_certificate(&certificate, &home, true)?;
        // The file for a host of its own names the addresses that the manager advertises; here it is always this host.
        let config = AgentConfig {
            managers: vec![link.to_string()],
            name: Some(name.clone()),
            state_dir: home.join("state"),
            cert: home.join("cert.pem"),
            key: home.join("key.pem"),
            ca: home.join("ca.pem"),
            labels: [("dev".to_owned(), "true".to_owned())].into(),
            log: LogLevel::Info,
            ..AgentConfig::default()
        };
        // JSON is YAML, and quotes whatever a path may hold.
        let text = serde_json::to_string_pretty(&config).context("the agent's configuration cannot be written")?;
        fs::write(&written.config, text).with_context(|| format!("{} cannot be written", written.config.display()))?;
        Ok(Self { name: name.clone(), config: written.config, log: Self::log_path(folder, name) })
    }

    /// Runs the agent until the shutdown; starts it again when it dies.
    pub(super) async fn keep_running(self, shutdown: Shutdown) {
        let mut pauses = Backoff::new(RESTART.0, RESTART.1);
        while !shutdown.is_requested() {
            let born = Instant::now();
            match self.start() {
                Ok(child) => {
                    let Some(how) = self.watch(child, &shutdown).await else { return };
                    tell(&format!("agent {} {how}; its log is {}", self.name, self.log.display()));
                }
                Err(error) => tell(&format!("agent {} cannot be started: {error}", self.name)),
            }
            if born.elapsed() >= HEALTHY {
                pauses.reset();
            }
            tokio::select! {
                () = sleep(pauses.next()) => {}
                () = shutdown.requested() => {}
            }
        }
    }

    fn start(&self) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)?;
        Command::new(std::env::current_exe()?)
            .arg("agent")
            .arg("--config")
            .arg(&self.config)
            // However this process ends, its agents end too; what they run does not.
            .env(PARENT_VARIABLE, std::process::id().to_string())
            // Ctrl-C is for us alone: we ask the agents to end, one after the other would look like a crash.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    }

    /// Waits for the end of a child; `None` when we wanted it to end.
    async fn watch(&self, mut child: Child, shutdown: &Shutdown) -> Option<String> {
        tokio::select! {
            ended = child.wait() => return Some(match ended {
                Ok(status) => format!("ended by itself ({status})"),
                Err(error) => format!("was lost ({error})"),
            }),
            () = shutdown.requested() => {}
        }
        // Without an id it has ended already.
        if let Some(pid) = child.id()
            && ask_to_end(pid).is_ok()
            && timeout(STOP, child.wait()).await.is_err()
        {
            tell(&format!("agent {} did not end within {STOP:?} and is killed", self.name));
        }
        if let Err(error) = child.kill().await {
            // It had ended: nothing is left to kill.
            tracing::debug!(%error, "The agent could not be killed");
        }
        None
    }
}
