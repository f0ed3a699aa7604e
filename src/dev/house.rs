//! The order of start and stop of `paprika dev`, from the options to the last word on stderr.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use api::client::{Client, Endpoint};
use clap::Args;
use common::durable;
use common::error::Chain;
use common::id::Name;
use common::shutdown::{Shutdown, Tasks};
use common::telemetry::{self, LogLevel};
use manager::config::{ApiConfig, LinkConfig, ManagerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::children::AgentFolder;
use super::paste::{self, Paste};

/// How long the manager may take to open its doors: a large store is checked first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long all agents together may take to connect.
const CONNECTED_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long stopping may take: longer than the children's own deadline.
const STOPPED_WITHIN: Duration = Duration::from_secs(25);
/// The longest path of a Unix socket that the kernel takes.
const MAX_SOCKET_PATH: usize = 107;

/// `paprika dev`
#[derive(Debug, Args)]
#[command(after_help = "\
When everything is connected, three lines to try are printed on stdout. DIR/env
holds PAPRIKA_API, PAPRIKA_TOKEN, PAPRIKA_CA and PAPRIKA_LINK for `source`.
Ctrl-C stops the manager and the agents; what was started goes on and is found
again by the next run.")]
pub(crate) struct DevArgs {
    /// How many agents to start: dev-1, dev-2, …
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=100))]
    agents: u16,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = ".paprika-dev")]
    dir: PathBuf,
    /// Where operators connect; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7050")]
    api: SocketAddr,
    /// Where agents connect; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7051")]
    link: SocketAddr,
}

/// Runs until Ctrl-C, TERM or a failure.
pub(crate) fn main(args: &DevArgs) -> ExitCode {
    telemetry::init(LogLevel::Warn);
    let ended =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot start").and_then(
            |runtime| {
                let ended = runtime.block_on(serve(args));
                runtime.shutdown_background();
                ended
            },
        );
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("{}", Chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

/// Says something that is no data. A stderr that is gone must not stop the agents.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "paprika dev: {}", common::escape::text(text));
}

async fn serve(args: &DevArgs) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("Ctrl-C cannot be listened for")?;
    let mut terminate = signal(SignalKind::terminate()).context("TERM cannot be listened for")?;
    let shutdown = Shutdown::new();
    let tasks = Tasks::new();
    let (ended_sender, ended) = oneshot::channel();
    let running = House::new(args)?.live(shutdown.clone(), tasks.clone(), ended_sender);
    let result = tokio::select! {
        result = running => result,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    if result.is_ok() && !shutdown.is_requested() {
        tell("stopping");
    }
    shutdown.request();
    let stop = async {
        for late in tasks.join(STOPPED_WITHIN).await {
            tell(&format!("{late} did not stop in time"));
        }
        // The manager's own reason says more than that it is gone; one that was never started has none.
        match ended.await {
            Ok(Err(error)) => Err(anyhow!(error)),
            Ok(Ok(())) | Err(_) => result,
        }
    };
    tokio::select! {
        stopped = stop => stopped,
        _ = interrupt.recv() => bail!("left before everything had stopped"),
    }
}

/// Where things are, before anything is started.
struct House<'a> {
    args: &'a DevArgs,
    folder: PathBuf,
    config: ManagerConfig,
}

impl<'a> House<'a> {
    fn new(args: &'a DevArgs) -> anyhow::Result<Self> {
        let folder = make_folder(&args.dir)?;
        is_free(args.api, "--api")?;
        is_free(args.link, "--link")?;
        let config = ManagerConfig {
            dir: folder.join("manager"),
            api: ApiConfig { listen: args.api, ..ApiConfig::default() },
            link: LinkConfig { listen: args.link, ..LinkConfig::default() },
            log: LogLevel::Warn,
            ..ManagerConfig::default()
        };
        let socket = config.socket_path();
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            bail!("the path {} is too long for a socket; choose a shorter --dir", socket.display());
        }
        Ok(Self { args, folder, config })
    }

    /// Starts everything and returns only when something fails.
    async fn live(
        self,
        shutdown: Shutdown,
        tasks: Tasks,
        ended: oneshot::Sender<Result<(), manager::RunError>>,
    ) -> anyhow::Result<()> {
        let Self { args, folder, config } = self;
        let (ready_sender, ready) = oneshot::channel();
        let (stopped_sender, stopped) = oneshot::channel();
        let (manager_config, manager_shutdown) = (config.clone(), shutdown.clone());
        tasks.spawn("manager", async move {
            let result = manager::run(manager_config, manager_shutdown, ready_sender).await;
            // Whoever still listens gets the word; the other end may have gone with the select.
            let _ = ended.send(result);
            let _ = stopped_sender.send(());
        });
        let ready = match timeout(READY_WITHIN, ready).await {
            Ok(Ok(ready)) => ready,
            // The reason comes with the end of the manager.
            Ok(Err(_)) => return Ok(()),
            Err(_) => bail!("the manager was not ready within {READY_WITHIN:?}"),
        };
        let token = fs::read_to_string(config.token_path())
            .with_context(|| format!("the token {} cannot be read", config.token_path().display()))?;
        let paste = Paste {
            api: ready.api,
            link: ready.link,
            ca: config.dir.join("ca/ca.pem"),
            token_file: config.token_path(),
            socket: config.socket_path(),
            program: paste::program()?,
        };
        let env_file = folder.join("env");
        durable::replace(&env_file, paste.env(token.trim()).as_bytes())
            .with_context(|| format!("{} cannot be written", env_file.display()))?;

        let client = Client::new(Endpoint::unix(config.socket_path()))?;
        let mut names = Vec::new();
        for number in 1..=args.agents {
            let name: Name = format!("dev-{number}").parse()?;
            let agent = AgentFolder::prepare(&client, &folder, &name, ready.link).await?;
            tasks.spawn("agent", agent.keep_running(shutdown.clone()));
            names.push(name);
        }
        let connecting = wait_until_connected(&client, &names, &folder);
        tokio::pin!(stopped);
        tokio::select! {
            connected = connecting => connected?,
            _ = &mut stopped => return Ok(()),
        }
        announce(&paste, args, &env_file)?;
        // Ends only with the manager; its own result says why.
        let _ = stopped.await;
        bail!("the manager stopped");
    }
}

fn make_folder(dir: &Path) -> anyhow::Result<PathBuf> {
    durable::create_folder(dir)
        .and_then(|()| dir.canonicalize())
        .with_context(|| format!("the folder {} cannot be used", dir.display()))
}

/// Tells a taken port before anything is started, with who has it and what to do.
fn is_free(address: SocketAddr, option: &str) -> anyhow::Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = cli::process::holder_of(address).unwrap_or_else(|| "another process".to_owned());
            bail!("{address} is taken by {holder}; end that, or choose another with {option} {}:0", address.ip());
        }
        Err(error) => Err(error).with_context(|| format!("{address} cannot be used")),
    }
}

async fn wait_until_connected(client: &Client, names: &[Name], folder: &Path) -> anyhow::Result<()> {
    let until = Instant::now() + CONNECTED_WITHIN;
    for name in names {
        while !client.agent(name).await?.connected {
            if Instant::now() >= until {
                let log = AgentFolder::log_path(folder, name);
                bail!("agent {name} did not connect within {CONNECTED_WITHIN:?}; its log is {}", log.display());
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// Three lines of data, and around them words for people.
fn announce(paste: &Paste, args: &DevArgs, env_file: &Path) -> anyhow::Result<()> {
    let agents = match args.agents {
        0 => "no agents".to_owned(),
        1 => "agent dev-1".to_owned(),
        count => format!("agents dev-1 to dev-{count}"),
    };
    tell(&format!("ready: manager at {}, {agents}; for other terminals: source {}", paste.url(), env_file.display()));
    tell("try one of these; Ctrl-C here stops");
    let mut out = io::stdout().lock();
    for line in paste.lines() {
        writeln!(out, "{line}").context("stdout takes nothing")?;
    }
    out.flush().context("stdout takes nothing")
}
