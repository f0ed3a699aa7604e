//! Promise 1 in a storm: kill -9 at every named crash point of manager, agent and shim, under load.
//!
//! The names are read from the sources, so that none is forgotten. Managers and agents are killed two hundred times
//! without a shim being touched: then nothing may be interrupted. Shims are killed in a second storm.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::commands::CancelRequest;
use common::model::StreamName;
use testkit::checker::{Interruptions, Witness, breaches};
use testkit::effects::Effects;
use testkit::process::Process;
use testkit::{House, HouseOptions, wait_for};
use tokio::time::{Instant, sleep};

/// Kills of managers and agents in one run.
const KILLS: usize = 200;
/// However slow the machine is, the storm ends.
const STORM: Duration = Duration::from_secs(240);
/// After the last fault everything is final within this time.
const CALM: Duration = Duration::from_secs(90);
/// A point that is not reached in this time is left for later; the process is killed where it stands.
const ARMED: Duration = Duration::from_secs(4);
/// An agent that waits longer than this for its next try is restarted: its backoff is not what is tested here.
const LONELY: Duration = Duration::from_millis(800);
/// Commands that are under way at the same time.
const LOAD: usize = 6;
/// How often the storm looks around.
const LOOK: Duration = Duration::from_millis(5);

const AGENTS: [&str; 2] = ["web1", "web2"];
const CRASH: &str = "PAPRIKA_CRASH_POINT";

/// All names in the sources that begin with `prefix`.
fn points(prefix: &str) -> anyhow::Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for folder in ["agent/src", "manager/src", "manager/store/src"] {
        search(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found)?;
    }
    let names: Vec<_> = found.into_iter().filter(|name| name.starts_with(prefix)).collect();
    ensure!(!names.is_empty(), "no crash point begins with {prefix}");
    Ok(names)
}

fn search(folder: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            search(&path, found)?;
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path)?;
            let calls = text.split("crash::point(").skip(1);
            found.extend(calls.filter_map(|call| Some(call.strip_prefix('"')?.split_once('"')?.0.to_owned())));
        }
    }
    Ok(())
}

/// Gives out crash points in turn; what was never hit comes first again.
struct Turns {
    names: Vec<String>,
    next: usize,
    hit: BTreeMap<String, usize>,
}

impl Turns {
    fn new(prefix: &str) -> anyhow::Result<Self> {
        Ok(Self { names: points(prefix)?, next: 0, hit: BTreeMap::new() })
    }

    /// A name for the environment: the first hit, or a later one, so that the process has worked before it dies.
    fn take(&mut self) -> (String, String) {
        let count = self.names.len();
        let at = (self.next..self.next + count).find(|at| !self.hit.contains_key(&self.names[at % count])).unwrap_or(self.next);
        self.next = at + 1;
        let name = self.names[at % count].clone();
        // Rare points are met at their first visit.
        let visit = if self.hit.contains_key(&name) { 1 + self.next % 3 } else { 1 };
        (format!("{name}@{visit}"), name)
    }

    fn missed(&self) -> Vec<&String> {
        self.names.iter().filter(|name| !self.hit.contains_key(*name)).collect()
    }
}

/// What the test asked for and will check.
struct Load {
    effects: Effects,
    /// Accepted commands by id, with their tags and what they print.
    accepted: BTreeMap<u64, (String, Vec<u8>)>,
    open: Vec<u64>,
    made: usize,
}

impl Load {
    fn new(house: &House) -> anyhow::Result<Self> {
        let effects = Effects::create(house.folder().join("effects"))?;
        Ok(Self { effects, accepted: BTreeMap::new(), open: Vec::new(), made: 0 })
    }

    /// Starts one more command, cancels some, forgets those that are final. The client repeats what it got no answer
    /// to under the same idempotency key, so an accepted command is always known here.
    async fn step(&mut self, house: &House) -> anyhow::Result<()> {
        if self.open.len() < LOAD {
            self.made += 1;
            let (number, agent) = (self.made, AGENTS[self.made % AGENTS.len()]);
            let tag = format!("t{number}");
            let bytes = 1 + number * 977 % 90_000;
            let pause = if number % 5 == 0 { "sleep 0.4; " } else { "" };
            let line = format!("{}; head -c {bytes} /dev/zero; {pause}:", self.effects.line(&tag));
            let command = house.client().start(&agent.parse()?, &house.shell_request(&line)).await?;
            self.accepted.insert(command.id, (tag, vec![0; bytes]));
            self.open.push(command.id);
            if number % 7 == 0 {
                house.client().cancel(command.id, &CancelRequest::default()).await?;
            }
        }
        let mut left = Vec::new();
        for id in std::mem::take(&mut self.open) {
            let command = house.client().command(id).await;
            if !command.is_ok_and(|command| command.phase.is_final()) {
                left.push(id);
            }
        }
        self.open = left;
        Ok(())
    }

    /// Waits for calm and applies the rules of promise 1.
    async fn judge(&self, house: &House, interruptions: Interruptions) -> anyhow::Result<()> {
        let mut witnesses = Vec::new();
        let until = Instant::now() + CALM;
        for (id, (tag, expected)) in &self.accepted {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            // What is not final by now is a breach that the rules name.
            let command = house.client().wait_command(*id, left).await?;
            let stdout = house.output(*id, StreamName::Stdout).await?;
            witnesses.push(Witness { tag: tag.clone(), command, stdout, expected: expected.clone() });
        }
        let found = breaches(&witnesses, &self.effects.counts()?, interruptions);
        let mut phases: BTreeMap<String, usize> = BTreeMap::new();
        for witness in &witnesses {
            *phases.entry(witness.command.phase.to_string()).or_default() += 1;
        }
        ensure!(found.is_empty(), "{} breaches among {phases:?}:\n{}", found.len(), found.join("\n"));
        ensure!(phases.get("succeeded").copied().unwrap_or(0) * 2 > witnesses.len(), "hardly anything succeeded: {phases:?}");
        Ok(())
    }
}

/// One process of the storm, armed with a point.
struct Armed {
    point: String,
    since: Instant,
    /// An agent without a session, since when.
    lonely: Option<Instant>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_of_managers_and_agents_lose_nothing_repeat_nothing_and_interrupt_nothing() -> anyhow::Result<()> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&AGENTS)).await?;
    let mut load = Load::new(&house)?;
    let (mut of_manager, mut of_agent) = (Turns::new("manager.")?, Turns::new("agent.")?);
    let mut armed: BTreeMap<&str, Armed> = BTreeMap::new();
    let (started, mut kills) = (Instant::now(), 0);
    for name in AGENTS.into_iter().chain(["manager"]) {
        kill(&mut house, name)?;
        kills += 1;
        arm(&mut house, name, &mut of_manager, &mut of_agent, &mut armed)?;
    }
    while (kills < KILLS || !of_manager.missed().is_empty() || !of_agent.missed().is_empty()) && started.elapsed() < STORM {
        // The load runs until somebody dies or it is time to look.
        let _ = tokio::time::timeout(Duration::from_millis(100), load.step(&house)).await;
        for name in AGENTS.into_iter().chain(["manager"]) {
            let Some(state) = armed.get_mut(name) else { continue };
            let ended = process(&mut house, name)?.status()?;
            if let Some(status) = ended {
                use std::os::unix::process::ExitStatusExt;
                ensure!(status.signal() == Some(9), "{name} ended with {status} at {}", state.point);
                let turns = if name == "manager" { &mut of_manager } else { &mut of_agent };
                *turns.hit.entry(state.point.clone()).or_default() += 1;
            } else {
                let lonely = name != "manager" && is_lonely(&house, name, state).await;
                if state.since.elapsed() < ARMED && !lonely {
                    continue;
                }
            }
            kill(&mut house, name)?;
            kills += 1;
            arm(&mut house, name, &mut of_manager, &mut of_agent, &mut armed)?;
        }
        sleep(LOOK).await;
    }
    // Calm: everybody once more, without a point.
    for name in AGENTS.into_iter().chain(["manager"]) {
        kill(&mut house, name)?;
    }
    house.start_manager(&[]).await?;
    for name in AGENTS {
        house.start_agent(name, &[])?;
        house.connected(name).await?;
    }
    load.judge(&house, Interruptions::None).await?;
    house.no_survivors().await?;
    ensure!(kills >= KILLS, "only {kills} kills in {:?}", started.elapsed());
    let missed: Vec<_> = of_manager.missed().into_iter().chain(of_agent.missed()).collect();
    ensure!(missed.is_empty(), "never reached: {missed:?}");
    house.close().await
}

/// Whether an agent has been without a session for longer than a first try takes.
async fn is_lonely(house: &House, name: &str, state: &mut Armed) -> bool {
    let asked = async { house.client().agent(&name.parse()?).await.map_err(anyhow::Error::from) };
    let Ok(Ok(agent)) = tokio::time::timeout(Duration::from_millis(200), asked).await else { return false };
    if agent.connected {
        state.lonely = None;
        return false;
    }
    state.lonely.get_or_insert_with(Instant::now).elapsed() > LONELY
}

fn process<'a>(house: &'a mut House, name: &str) -> anyhow::Result<&'a mut Process> {
    if name == "manager" { house.manager() } else { house.agent(name) }
}

fn kill(house: &mut House, name: &str) -> anyhow::Result<()> {
    if name == "manager" { house.kill_manager() } else { house.kill_agent(name) }
}

fn arm<'a>(
    house: &mut House,
    name: &'a str,
    of_manager: &mut Turns,
    of_agent: &mut Turns,
    armed: &mut BTreeMap<&'a str, Armed>,
) -> anyhow::Result<()> {
    let (value, point) = if name == "manager" { of_manager.take() } else { of_agent.take() };
    let env = [(CRASH, value.as_str())];
    if name == "manager" {
        house.launch_manager(&env)?;
    } else {
        house.start_agent(name, &env)?;
    }
    armed.insert(name, Armed { point, since: Instant::now(), lonely: None });
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_shims_at_every_point_end_each_command_once_with_evidence() -> anyhow::Result<()> {
    let agent = "web1";
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&[agent])).await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    let mut witnesses = Vec::new();
    for (number, point) in points("shim.")?.into_iter().enumerate() {
        // The agent hands its point on to the shims it starts; it has no such point itself.
        house.kill_agent(agent)?;
        house.start_agent(agent, &[(CRASH, &point)])?;
        house.connected(agent).await?;
        for part in 0..2 {
            let tag = format!("s{number}-{part}");
            let line = format!("{}; echo {tag}", effects.line(&tag));
            let command = house.shell(agent, &line).await?;
            let command = house.finished_within(command.id, CALM).await.with_context(|| point.clone())?;
            let stdout = house.output(command.id, StreamName::Stdout).await?;
            witnesses.push(Witness { expected: format!("{tag}\n").into_bytes(), tag, command, stdout });
        }
    }
    // And a shim that is killed while its command runs: the command is not left behind.
    house.kill_agent(agent)?;
    house.start_agent(agent, &[])?;
    let id = house.shell(agent, "echo begun; setsid sleep 1000 & sleep 1000").await?.id;
    let running = house.command_when(id, "its output", |command| command.streams.values().any(|one| one.length > 0)).await?;
    let folder = format!("commands/{}", running.uid);
    let shims = testkit::survivors::with_argument(&folder);
    ensure!(!shims.is_empty(), "no shim in {folder}");
    testkit::survivors::end(&shims);
    let ended = house.finished(id).await?;
    ensure!(ended.phase == common::model::Phase::Interrupted && ended.error.is_some(), "{ended:?}");
    house.no_survivors().await?;
    let found = breaches(&witnesses, &effects.counts()?, Interruptions::Allowed);
    ensure!(found.is_empty(), "{}", found.join("\n"));
    house.close().await
}

#[tokio::test]
async fn killing_the_manager_alone_interrupts_nothing_and_output_goes_on() -> anyhow::Result<()> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"])).await?;
    let go = house.folder().join("go");
    let line = format!("n=0; while [ ! -e '{}' ]; do n=$((n+1)); echo $n; sleep 0.02; done; echo end", go.display());
    let id = house.shell("web1", &line).await?.id;
    for _ in 0..3 {
        let before = length(&house, id).await?;
        wait_for(Duration::from_secs(60), "more output", async || Ok((length(&house, id).await? > before).then_some(()))).await?;
        house.kill_manager()?;
        house.start_manager(&[]).await?;
    }
    fs::write(&go, "")?;
    let command = house.finished_within(id, CALM).await?;
    ensure!(command.phase == common::model::Phase::Succeeded, "{command:?}");
    let text = String::from_utf8(house.output(id, StreamName::Stdout).await?)?;
    let lines: Vec<_> = text.lines().collect();
    ensure!(lines.last() == Some(&"end"));
    for (at, line) in lines.iter().enumerate().take(lines.len() - 1) {
        ensure!(*line == (at + 1).to_string(), "line {at} is {line}");
    }
    house.close().await
}

async fn length(house: &House, id: u64) -> anyhow::Result<u64> {
    let command = house.client().command(id).await?;
    Ok(command.streams.get(&StreamName::Stdout).map_or(0, |stream| stream.length))
}
