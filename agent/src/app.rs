//! Wiring: loads what lives on disk, builds the parts, hands out the handles, joins them in order.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::error::Chain;
use common::handshake::HelloParams;
use common::shutdown::{Shutdown, Tasks};
use common::version::capability;
use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock::{ManagerClock, ManagerMemory, MemoryFiles, boot_ms};
use crate::commands::kept::Kept;
use crate::commands::reserve::Reserve;
use crate::commands::tombstones::Tombstones;
use crate::commands::{FileError, StateDir, StateDirError};
use crate::config::{Address, AgentConfig, InvalidConfig};
use crate::dispatch::{DispatchError, Dispatcher, Home, Parts};
use crate::identity::{CredentialsError, Files, Keeper, LinkTime, Material};
use crate::limits::OWN_DESCRIPTORS;
use crate::link::{Beginning, Supervisor};
use crate::shim::{Base, ShimCommand, process};
use crate::status::about::About;

/// How long the parts may take to end; the dispatcher's own deadlines are shorter.
const STOP: Duration = Duration::from_secs(10);

/// Why the agent ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration makes no sense.
    #[error("the configuration cannot be used")]
    Config(#[source] InvalidConfig),
    /// The agent has no usable identity.
    #[error("the agent has no identity")]
    Credentials(#[source] CredentialsError),
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    StateDir(#[source] StateDirError),
    /// The memory of the past cannot be read: without it something could run twice.
    #[error("the tombstones cannot be read")]
    Tombstones(#[source] FileError),
    /// What is kept of delivered commands cannot be listed.
    #[error("the kept directories cannot be listed")]
    Kept(#[source] FileError),
    /// The place for the commands' cgroups does not exist or cannot be used.
    #[error("the cgroup of the configuration cannot be used")]
    Cgroup(#[source] io::Error),
    /// The kernel does not tell which boot this is.
    #[error("the boot id cannot be read")]
    Boot(#[source] io::Error),
    /// The owner of the commands cannot go on.
    #[error("the dispatcher stopped")]
    Dispatch(#[source] DispatchError),
    /// A part panicked.
    #[error("a part of the agent ended unexpectedly")]
    Part(#[source] tokio::task::JoinError),
}

/// What is loaded from disk before anything runs.
struct Loaded {
    keeper: Keeper,
    home: Home,
    clock: ManagerClock,
    memory: ManagerMemory,
    hello: HelloParams,
}

/// Runs the agent until it is asked to stop; commands live on.
///
/// # Errors
/// When it cannot start, or its owner of commands cannot go on.
pub async fn run(config: AgentConfig, shutdown: Shutdown) -> Result<(), RunError> {
    config.validate().map_err(RunError::Config)?;
    let max_running = usize::try_from(config.max_running).unwrap_or(usize::MAX);
    let addresses: Vec<_> = config.managers.iter().filter_map(|text| Address::parse(text).ok()).collect();
    let mut loading = JoinSet::new();
    loading.spawn_blocking(move || load(&config));
    let loaded = match loading.join_next().await {
        Some(loaded) => loaded.map_err(RunError::Part)??,
        None => return Ok(()),
    };
    let Loaded { keeper, home, clock, memory, hello } = loaded;
    let identity = keeper.current().identity.clone();
    info!(
        agent.id = %identity.name,
        cluster = %identity.cluster,
        generation = identity.generation.0,
        isolation = %hello.isolation,
        "The agent starts"
    );
    let memory = Arc::new(Mutex::new(memory));
    // One: the supervisor dials the next session only after the last one has ended.
    let (sessions, attach) = mpsc::channel(1);
    let home = Arc::new(home);
    let parts = Parts {
        home: Arc::clone(&home),
        generation: identity.generation.0,
        max_running,
        clock,
        memory: Arc::clone(&memory),
        sessions: attach,
        shutdown: shutdown.clone(),
    };
    let dispatcher = Dispatcher::start(parts).await.map_err(RunError::Dispatch)?;
    let tasks = Tasks::new();
    let stop_parts = shutdown.child();
    let supervisor =
        Supervisor::new(Beginning { addresses, keeper, hello, memory, sessions, shutdown: stop_parts.clone() });
    tasks.spawn("link supervisor", supervisor.run());
    tasks.spawn("watchdog", watchdog(stop_parts.clone()));
    tell_service_manager(NotifyState::Ready);
    let ended = dispatcher.run().await.map_err(RunError::Dispatch);
    tell_service_manager(NotifyState::Stopping);
    stop_parts.request();
    let late = tasks.join(STOP).await;
    if !late.is_empty() {
        warn!(tasks = ?late, "Some parts did not end in time");
    }
    let mut leaving = JoinSet::new();
    leaving.spawn_blocking(move || home.base.leave(home.state.journal()));
    if let Some(Err(error)) = leaving.join_next().await {
        warn!(error = %error, "The place of the commands' cgroups could not be left");
    }
    info!("The agent has stopped; its commands go on");
    ended
}

/// Everything that blocks at the start.
fn load(config: &AgentConfig) -> Result<Loaded, RunError> {
    process::protect_from_oom();
    common::cores::forbid();
    make_room_for_descriptors(config.max_running);
    let configured = Material::load(&Files::of(config)).map_err(RunError::Credentials)?;
    configured.check_name(config.name.as_ref()).map_err(RunError::Credentials)?;
    let state = StateDir::open(&config.state_dir).map_err(RunError::StateDir)?;
    let files = MemoryFiles::new(state.path());
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(RunError::Boot)?.trim().to_owned();
    let saved = files.load_clock().unwrap_or_else(|error| {
        // Safe to lose: until a manager is heard, nothing is started that waited.
        warn!(error = %Chain(&error), "The saved manager time cannot be read");
        None
    });
    let memory = files.load_manager().unwrap_or_else(|error| {
        warn!(error = %Chain(&error), "The memory of the manager cannot be read");
        None
    });
    let mut clock = ManagerClock::new(&boot_id, saved);
    let time = Arc::new(LinkTime::new(&clock));
    let keeper = Keeper::open(configured, state.path(), time).map_err(RunError::Credentials)?;
    let tombstones = Tombstones::open(&state.tombstones(), clock.now(boot_ms())).map_err(RunError::Tombstones)?;
    let base = Base::discover(&config.cgroup, state.journal()).map_err(RunError::Cgroup)?;
    let kept = Kept::open(state.path(), config.keep).map_err(RunError::Kept)?;
    let identity = &keeper.current().identity;
    let about = About::of_this_process(About {
        agent: identity.name.to_string(),
        boot_id: boot_id.clone(),
        isolation: base.isolation().to_owned(),
        rung: base.rung().to_owned(),
        cgroup: base.tree().map(|tree| tree.path.clone()),
        controllers: base
            .tree()
            .map(|tree| tree.controllers.iter().map(|one| (one.name.clone(), one.folder.clone())).collect())
            .unwrap_or_default(),
        max_running: config.max_running,
        reserve: config.reserve.0,
        ..About::default()
    });
    if let Err(error) = about.write(state.path()) {
        warn!(error = %error, "What this agent says of itself for `status` cannot be written");
    }
    let hello = HelloParams {
        name: identity.name.clone(),
        cluster: identity.cluster.clone(),
        boot_id,
        journal: state.journal(),
        incarnation: 0,
        store_position: 0,
        cores: std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes(),
        labels: config.labels.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        isolation: base.isolation().to_owned(),
        capabilities: [capability::COMMAND_RUN, capability::RENEW]
            .iter()
            .chain(&capability::NEEDS)
            .map(ToString::to_string)
            .collect(),
        bundle_hash: None,
    };
    let home = Home {
        shim: ShimCommand {
            exe: config.shim.clone().unwrap_or_else(|| "/proc/self/exe".into()),
            prefix: config.shim_prefix.clone(),
            agent: identity.name.to_string(),
        },
        base,
        agent: identity.name.clone(),
        tombstones,
        files,
        kept,
        reserve: Reserve::open(state.path(), config.reserve.0),
        state,
    };
    Ok(Loaded { keeper, home, clock, memory: memory.unwrap_or_default(), hello })
}

/// Each command that runs costs this process a descriptor: as many as may run have to fit, as far as the host lets us.
/// What is started does not inherit it: the shim gives every command a limit of its own.
fn make_room_for_descriptors(max_running: u32) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = u64::from(max_running).saturating_add(OWN_DESCRIPTORS);
    let found = getrlimit(Resource::Nofile);
    if found.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let current = Some(found.maximum.map_or(wanted, |most| most.min(wanted)));
    let raised = setrlimit(Resource::Nofile, Rlimit { current, maximum: found.maximum });
    if raised.is_err() || current.is_some_and(|current| current < wanted) {
        warn!(wanted, allowed = ?current, "Fewer commands than configured can run at once: too few open files are allowed");
    }
}

/// Memory of this host; 0 when the kernel does not say.
fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Tells systemd, where it listens.
fn tell_service_manager(what: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[what]) {
        warn!(error = %error, "The service manager cannot be told");
    }
}

/// Pats systemd's watchdog, where there is one: from the thread that does all the work, so that a stuck one is noticed.
async fn watchdog(shutdown: Shutdown) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    let mut pats = tokio::time::interval((interval / 2).max(Duration::from_millis(100)));
    loop {
        tokio::select! {
            _ = pats.tick() => tell_service_manager(NotifyState::Watchdog),
            () = shutdown.requested() => return,
        }
    }
}
