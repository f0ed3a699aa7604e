//! A house of real processes: one manager and its agents, each started, killed and restarted by its own id.
//!
//! ```text
//! test ── api::client ──► manager ◄── (proxy) ── agent ── shim ── command, marked in its environment
//! ```
//! Addresses stay the same over restarts. The end of a test is [`House::close`]; a house that is dropped instead prints
//! the logs of all its processes, because then the test has failed. Nothing it started outlives it either way.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use api::client::{Client, Endpoint, RawPiece};
use api::commands::{Command, CommandRequest};
use common::id::{Name, Uid};
use common::model::StreamName;
use tempfile::TempDir;

use crate::peer::{Credentials, Script};
use crate::process::{Process, Program, free_port, read_log, tail};
use crate::proxy::Proxy;
use crate::settings::{HouseOptions, agent_yml, manager_yml};
use crate::survivors::{self, MARK};
use crate::wait::{PATIENCE, soon, wait_for};

/// How long a daemon may take to stop when it is asked to.
const STOP: Duration = Duration::from_secs(30);
/// Lines of each log that are shown when a test failed.
const SHOWN_LINES: usize = 80;

/// A manager with its agents.
#[derive(Debug)]
pub struct House {
    options: HouseOptions,
    folder: TempDir,
    mark: String,
    api: SocketAddr,
    link: SocketAddr,
    proxy: Option<Proxy>,
    manager: Option<Process>,
    agents: BTreeMap<String, Option<Process>>,
    client: Client,
    /// The test came to its end: logs are of no interest.
    passed: bool,
}

impl House {
    /// Starts the manager, makes and starts the agents, and waits until all of them are connected.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start(options: HouseOptions) -> anyhow::Result<Self> {
        let names = options.agents.clone();
        let mut house = Self::start_manager_of(options).await?;
        for name in &names {
            house.make_agent(name).await?;
            house.start_agent(name, &[])?;
        }
        for name in &names {
            house.connected(name).await?;
        }
        Ok(house)
    }

    async fn start_manager_of(options: HouseOptions) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("paprika-").tempdir()?;
        fs::create_dir(folder.path().join("logs"))?;
        let dir = options.manager_dir.clone().unwrap_or_else(|| folder.path().join("manager"));
        // Somebody may take a port between the look and the start.
        for _ in 0..5 {
            let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
            let (api, link) = (local(free_port()?), local(free_port()?));
            let proxy = if options.proxy { Some(Proxy::start(link).await?) } else { None };
            let dialled = proxy.as_ref().map_or(link, Proxy::address).to_string();
            let config = folder.path().join("manager.yml");
            fs::write(&config, manager_yml(&dir, api.port(), link.port(), &dialled, &options))?;
            let mut manager = Process::start(&manager_program(&options, folder.path(), &[]))?;
            let up = wait_for(PATIENCE, "the manager's first answer", async || {
                if manager.status()?.is_some() {
                    return Ok(Some(None));
                }
                let token = fs::read_to_string(dir.join("admin.token"))?;
                let endpoint =
                    Endpoint::parse(&format!("https://{api}"))?.ca_file(dir.join("ca/ca.pem")).token(token.trim());
                let client = Client::new(endpoint)?;
                client.status().await?;
                Ok(Some(Some(client)))
            });
            match up.await {
                Ok(Some(client)) => {
                    return Ok(Self {
                        mark: Uid::random().to_string(),
                        options,
                        folder,
                        api,
                        link,
                        proxy,
                        manager: Some(manager),
                        agents: BTreeMap::new(),
                        client,
                        passed: false,
                    });
                }
                Ok(None) if manager.log().contains("in use") => {}
                Ok(None) => bail!("the manager ended at once:\n{}", tail(&manager.log(), SHOWN_LINES)),
                Err(error) => return Err(error.context(tail(&manager.log(), SHOWN_LINES).to_owned())),
            }
        }
        bail!("found no free ports for a manager")
    }

    /// The typed client, with the first operator's token.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where the API listens.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where the manager listens for agents; never the proxy.
    #[must_use]
    pub fn link(&self) -> SocketAddr {
        self.link
    }

    /// The proxy between agents and manager.
    ///
    /// # Errors
    /// When the house was started without one.
    pub fn proxy(&self) -> anyhow::Result<&Proxy> {
        self.proxy.as_ref().context("this house has no proxy")
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the manager keeps its files.
    #[must_use]
    pub fn manager_dir(&self) -> PathBuf {
        self.options.manager_dir.clone().unwrap_or_else(|| self.folder().join("manager"))
    }

    /// The first operator's token.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn token(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.manager_dir().join("admin.token"))?.trim().to_owned())
    }

    /// Where an agent keeps its files.
    #[must_use]
    pub fn state_dir(&self, agent: &str) -> PathBuf {
        let own = || self.folder().join(agent).join("state");
        self.options.state_dirs.get(agent).cloned().unwrap_or_else(own)
    }

    /// The mark in the environment of every command that was made with [`House::shell_request`].
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }

    // --- Processes ---------------------------------------------------------------------------------------------

    /// Starts the manager again, with additions to its environment, and waits for its first answer.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_manager(&mut self, env: &[(&str, &str)]) -> anyhow::Result<()> {
        self.launch_manager(env)?;
        self.manager_answers().await
    }

    /// Starts the manager again without waiting: it may be about to crash.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_manager(&mut self, env: &[(&str, &str)]) -> anyhow::Result<()> {
        self.manager = Some(Process::start(&manager_program(&self.options, self.folder.path(), env))?);
        Ok(())
    }

    /// Waits until the manager answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn manager_answers(&self) -> anyhow::Result<()> {
        soon("the manager's answer", async || Ok(Some(self.client.status().await.map(drop)?))).await
    }

    /// The manager's process.
    ///
    /// # Errors
    /// When it was taken down.
    pub fn manager(&mut self) -> anyhow::Result<&mut Process> {
        self.manager.as_mut().context("the manager is down")
    }

    /// Kills the manager.
    ///
    /// # Errors
    /// When it is down already.
    pub fn kill_manager(&mut self) -> anyhow::Result<()> {
        self.manager.take().context("the manager is down")?.kill().map(drop)
    }

    /// Stops the manager in good order.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn stop_manager(&mut self) -> anyhow::Result<()> {
        self.manager.take().context("the manager is down")?.stop(STOP).await
    }

    /// Makes an agent on the manager and its files here; does not start it.
    ///
    /// # Errors
    /// When the manager refuses.
    pub async fn make_agent(&mut self, agent: &str) -> anyhow::Result<()> {
        let folder = self.folder().join(agent);
        fs::create_dir_all(&folder)?;
        let issued = self.client.agent_certificate(&agent.parse()?).await?;
        for (file, text) in [("cert.pem", &issued.chain_pem), ("key.pem", &issued.key_pem), ("ca.pem", &issued.ca_pem)]
        {
            let mut options = fs::OpenOptions::new();
            options.create(true).write(true).truncate(true).mode(0o600);
            options.open(folder.join(file))?.write_all(text.as_bytes())?;
        }
        let manager = self.proxy.as_ref().map_or(self.link, Proxy::address).to_string();
        let config = agent_yml(&folder, &self.state_dir(agent), &manager, &self.options);
        fs::write(folder.join("agent.yml"), config)?;
        self.agents.entry(agent.to_owned()).or_default();
        Ok(())
    }

    /// Starts an agent that was made, with additions to its environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&mut self, agent: &str, env: &[(&str, &str)]) -> anyhow::Result<()> {
        let program = Program {
            name: agent.to_owned(),
            path: self.options.program.clone(),
            args: vec!["agent".into(), "--config".into(), self.folder().join(agent).join("agent.yml").into()],
            env: environment(&self.options.agent_env, env),
            log: log_path(self.folder(), agent),
        };
        self.agents.insert(agent.to_owned(), Some(Process::start(&program)?));
        Ok(())
    }

    /// The same with another program; `words` stand before the agent's own arguments (`agent` where one binary is
    /// everything).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent_as(&mut self, agent: &str, path: &Path, words: &[&str]) -> anyhow::Result<()> {
        let mut args: Vec<_> = words.iter().map(Into::into).collect();
        args.extend(["--config".into(), self.folder().join(agent).join("agent.yml").into()]);
        let env = environment(&self.options.agent_env, &[]);
        let program =
            Program { name: agent.to_owned(), path: path.to_owned(), args, env, log: log_path(self.folder(), agent) };
        self.agents.insert(agent.to_owned(), Some(Process::start(&program)?));
        Ok(())
    }

    /// An agent's process.
    ///
    /// # Errors
    /// When it was taken down.
    pub fn agent(&mut self, agent: &str) -> anyhow::Result<&mut Process> {
        self.agents.get_mut(agent).and_then(Option::as_mut).with_context(|| format!("{agent} is down"))
    }

    /// Kills an agent; its shims live on.
    ///
    /// # Errors
    /// When it is down already.
    pub fn kill_agent(&mut self, agent: &str) -> anyhow::Result<()> {
        self.take_agent(agent)?.kill().map(drop)
    }

    /// Stops an agent in good order; its shims live on.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn stop_agent(&mut self, agent: &str) -> anyhow::Result<()> {
        self.take_agent(agent)?.stop(STOP).await
    }

    fn take_agent(&mut self, agent: &str) -> anyhow::Result<Process> {
        self.agents.get_mut(agent).and_then(Option::take).with_context(|| format!("{agent} is down"))
    }

    /// Waits until the manager says that an agent is connected.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn connected(&self, agent: &str) -> anyhow::Result<()> {
        self.connection(agent, true).await
    }

    /// Waits until the manager says that an agent is away.
    ///
    /// # Errors
    /// When it is still there.
    pub async fn away(&self, agent: &str) -> anyhow::Result<()> {
        self.connection(agent, false).await
    }

    async fn connection(&self, agent: &str, wanted: bool) -> anyhow::Result<()> {
        let name: Name = agent.parse()?;
        let what = format!("{agent} to be {}", if wanted { "connected" } else { "away" });
        soon(&what, async || Ok((self.client.agent(&name).await?.connected == wanted).then_some(()))).await
    }

    /// The log of the manager, of all its starts.
    #[must_use]
    pub fn manager_log(&self) -> String {
        read_log(&log_path(self.folder(), "manager"))
    }

    /// The log of an agent, of all its starts.
    #[must_use]
    pub fn agent_log(&self, agent: &str) -> String {
        read_log(&log_path(self.folder(), agent))
    }

    /// A scripted agent with a certificate of its own; the manager knows the name afterwards.
    ///
    /// # Errors
    /// When the manager issues none.
    pub async fn script(&self, agent: &str) -> anyhow::Result<Script> {
        let issued = self.client.agent_certificate(&agent.parse()?).await?;
        Script::new(self.link, Credentials::from_pem(&issued.chain_pem, &issued.key_pem, &issued.ca_pem)?)
    }

    // --- Commands ----------------------------------------------------------------------------------------------

    /// A request for a line of shell that carries the mark of this house.
    #[must_use]
    pub fn shell_request(&self, line: &str) -> CommandRequest {
        CommandRequest {
            operation: "command.run".to_owned(),
            args: serde_json::json!({ "shell": line }),
            env: BTreeMap::from([(MARK.to_owned(), self.mark.as_str().into())]),
            ..CommandRequest::default()
        }
    }

    /// Starts a line of shell on an agent.
    ///
    /// # Errors
    /// When the manager refuses.
    pub async fn shell(&self, agent: &str, line: &str) -> anyhow::Result<Command> {
        Ok(self.client.start(&agent.parse()?, &self.shell_request(line)).await?)
    }

    /// Waits until a command is final and its output complete.
    ///
    /// # Errors
    /// When it is not within the usual bound.
    pub async fn finished(&self, id: u64) -> anyhow::Result<Command> {
        self.finished_within(id, PATIENCE).await
    }

    /// The same with another bound.
    ///
    /// # Errors
    /// When it is not within `bound`.
    pub async fn finished_within(&self, id: u64, bound: Duration) -> anyhow::Result<Command> {
        let command = self.client.wait_command(id, bound).await?;
        if command.phase.is_final() && command.streams.values().all(|stream| stream.end) {
            Ok(command)
        } else {
            bail!("waited {bound:?} for the end of command {id}: {}", serde_json::to_string(&command)?)
        }
    }

    /// Waits until a command satisfies a condition.
    ///
    /// # Errors
    /// When it does not within the usual bound.
    pub async fn command_when(&self, id: u64, what: &str, fits: impl Fn(&Command) -> bool) -> anyhow::Result<Command> {
        let mut last = String::new();
        let found = soon(what, async || {
            let command = self.client.command(id).await?;
            last = serde_json::to_string(&command)?;
            Ok(fits(&command).then_some(command))
        });
        found.await.with_context(|| format!("the command was at last {last}"))
    }

    /// Reads what there is of a stream; a gap is an error.
    ///
    /// # Errors
    /// When it cannot be read or has a gap.
    pub async fn output(&self, id: u64, stream: StreamName) -> anyhow::Result<Vec<u8>> {
        let mut reader = self.client.raw_output(id, stream, 0, false);
        let mut bytes = Vec::new();
        while let Some(piece) = reader.next().await? {
            match piece {
                RawPiece::Bytes(more) => bytes.extend_from_slice(&more),
                RawPiece::Gap { offset, length } => bail!("{length} bytes are missing from {offset} on"),
            }
        }
        Ok(bytes)
    }

    /// Waits until no process carries the mark of this house.
    ///
    /// # Errors
    /// When some are left; they are named.
    pub async fn no_survivors(&self) -> anyhow::Result<()> {
        let mut left = Vec::new();
        let gone = soon("all commands to be gone", async || {
            left = survivors::marked(&self.mark);
            Ok(left.is_empty().then_some(()))
        });
        gone.await.with_context(|| format!("still there: {left:?}"))
    }

    /// Ends a test: all daemons stop in good order, and none of them ever panicked.
    ///
    /// # Errors
    /// When one does not stop well, or its log holds a panic.
    pub async fn close(mut self) -> anyhow::Result<()> {
        for (name, agent) in &mut self.agents {
            if let Some(agent) = agent {
                agent.stop(STOP).await.with_context(|| format!("stopping {name}"))?;
            }
        }
        if let Some(manager) = &mut self.manager {
            manager.stop(STOP).await.context("stopping the manager")?;
        }
        for name in self.agents.keys().map(String::as_str).chain(["manager"]) {
            let log = read_log(&log_path(self.folder.path(), name));
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                bail!("{name} panicked: {line}");
            }
        }
        self.passed = true;
        Ok(())
    }

    fn show_logs(&self) {
        let mut shown = String::new();
        for name in ["manager"].into_iter().chain(self.agents.keys().map(String::as_str)) {
            let log = read_log(&log_path(self.folder(), name));
            shown.push_str(&format!("----- the end of the log of {name}\n{}\n", tail(&log, SHOWN_LINES)));
        }
        // The test has failed anyway; nothing more can be said when this fails too.
        let _ = std::io::stderr().lock().write_all(shown.as_bytes());
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if !self.passed {
            self.show_logs();
        }
        self.agents.clear();
        self.manager = None;
        // Shims carry the path of their directory; commands carry the mark. Ending a shim may show what it hid.
        let folders = self.options.state_dirs.values().map(PathBuf::as_path);
        let places: Vec<_> = folders.chain([self.folder.path()]).map(|path| path.display().to_string()).collect();
        for _ in 0..50 {
            let shims = places.iter().flat_map(|place| survivors::with_argument(place));
            let left: Vec<_> = shims.chain(survivors::marked(&self.mark)).collect();
            if left.is_empty() {
                break;
            }
            survivors::end(&left);
        }
        let agents: Vec<_> = self.options.agents.iter().map(|agent| self.state_dir(agent)).collect();
        agents.iter().for_each(|state| remove_cgroups(state));
    }
}

/// Removes the subtree of cgroups that an agent made for itself; empty groups only, so nothing can be hurt.
fn remove_cgroups(state_dir: &Path) {
    let Ok(journal) = fs::read(state_dir.join("journal")) else { return };
    let text = String::from_utf8_lossy(&journal).trim().to_owned();
    let Some(own) = text.get(..8) else { return };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts.lines().filter(|line| line.contains(" - cgroup2 ")).filter_map(|line| line.split(' ').nth(4)) {
        remove_empty(&Path::new(mount).join("paprika-commands").join(own));
    }
}

fn remove_empty(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // A group with processes stays, as it should.
    let _ = fs::remove_dir(group);
}

fn manager_program(options: &HouseOptions, folder: &Path, env: &[(&str, &str)]) -> Program {
    Program {
        name: "manager".to_owned(),
        path: options.program.clone(),
        args: vec!["manager".into(), "--config".into(), folder.join("manager.yml").into()],
        env: environment(&options.manager_env, env),
        log: log_path(folder, "manager"),
    }
}

fn environment(always: &[(String, String)], now: &[(&str, &str)]) -> Vec<(String, String)> {
    let now = now.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    always.iter().cloned().chain(now).collect()
}

fn log_path(folder: &Path, name: &str) -> PathBuf {
    folder.join("logs").join(format!("{name}.log"))
}
