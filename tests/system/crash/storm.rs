//! Managers and agents die again and again; their shims do not. Nothing is lost, repeated or even interrupted.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::ensure;
use common::model::{Phase, StreamName};
use testkit::checker::Interruptions;
use testkit::process::Process;
use testkit::{House, HouseOptions, wait_for};
use tokio::time::{Instant, sleep, timeout};

use super::load::{Asked, CALM, Load, PLACES};
use super::points::{CRASH, Turns};

/// Kills of managers and agents in one run.
const KILLS: usize = 200;
/// Asks for more of them (docs/testing.md).
const ASKED: &str = "PAPRIKA_STORM_KILLS";
/// However slow the machine is, a storm of [`KILLS`] ends; a longer one may take longer in proportion.
const STORM: Duration = Duration::from_secs(220);
/// A point that is not reached in this time is left for later; the process is killed where it stands.
const ARMED: Duration = Duration::from_secs(4);
/// An agent without a session for longer than this is restarted: its backoff is not what is tested here.
const LONELY: Duration = Duration::from_millis(800);
/// How often the storm looks around.
const LOOK: Duration = Duration::from_millis(20);

const AGENTS: [&str; 2] = ["web1", "web2"];
/// Points that only a dead shim leads to.
const RARE: [&str; 1] = ["agent.end."];

/// One process of the storm.
struct Armed {
    point: String,
    since: Instant,
    /// An agent without a session, since when.
    lonely: Option<Instant>,
}

struct Storm {
    house: House,
    manager: Turns,
    agent: Turns,
    armed: BTreeMap<&'static str, Armed>,
    kills: usize,
}

impl Storm {
    fn everybody() -> impl Iterator<Item = &'static str> {
        AGENTS.into_iter().chain(["manager"])
    }

    fn process(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        if name == "manager" { self.house.manager() } else { self.house.agent(name) }
    }

    fn turns(&mut self, name: &str) -> &mut Turns {
        if name == "manager" { &mut self.manager } else { &mut self.agent }
    }

    fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.kills += 1;
        if name == "manager" { self.house.kill_manager() } else { self.house.kill_agent(name) }
    }

    /// Kills a process, if it is not dead yet, and starts it with the next point.
    fn again(&mut self, name: &'static str) -> anyhow::Result<()> {
        self.kill(name)?;
        let (value, point) = self.turns(name).take();
        let env = [(CRASH, value.as_str())];
        if name == "manager" {
            self.house.launch_manager(&env)?;
        } else {
            self.house.start_agent(name, &env)?;
        }
        self.armed.insert(name, Armed { point, since: Instant::now(), lonely: None });
        Ok(())
    }

    /// One look at everybody.
    async fn look(&mut self) -> anyhow::Result<()> {
        for name in Self::everybody() {
            let ended = self.process(name)?.status()?;
            let Some(armed) = self.armed.get(name) else { continue };
            let (point, old) = (armed.point.clone(), armed.since.elapsed() >= ARMED);
            if let Some(status) = ended {
                ensure!(status.signal() == Some(9), "{name} ended with {status}, armed with {point}");
                self.turns(name).hit(&point);
                self.again(name)?;
            } else if old || (name != "manager" && self.is_lonely(name).await) {
                self.again(name)?;
            }
        }
        Ok(())
    }

    async fn is_lonely(&mut self, name: &'static str) -> bool {
        let Ok(asked) = name.parse() else { return false };
        // The manager may be down: then nobody knows.
        let answer = timeout(Duration::from_millis(100), self.house.client().agent(&asked)).await;
        let (Ok(Ok(agent)), Some(armed)) = (answer, self.armed.get_mut(name)) else { return false };
        if agent.connected {
            armed.lonely = None;
            return false;
        }
        armed.lonely.get_or_insert_with(Instant::now).elapsed() > LONELY
    }

    fn missed(&self) -> Vec<&str> {
        [self.manager.missed(), self.agent.missed()].concat()
    }
}

/// Protocol R-CMD-2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_of_managers_and_agents_lose_repeat_and_interrupt_nothing() -> anyhow::Result<()> {
    let kills = std::env::var(ASKED).ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS).max(KILLS);
    let limit = STORM * u32::try_from(kills.div_ceil(KILLS))?;
    let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&AGENTS);
    options.max_running = Some(PLACES);
    let house = House::start(options).await?;
    let load = Load::start(&house, &AGENTS)?;
    let (manager, agent) = (Turns::new("manager.", &[])?, Turns::new("agent.", &RARE)?);
    let mut storm = Storm { house, manager, agent, armed: BTreeMap::new(), kills: 0 };
    let started = Instant::now();
    for name in Storm::everybody() {
        storm.again(name)?;
    }
    while (storm.kills < kills || !storm.missed().is_empty()) && started.elapsed() < limit {
        storm.look().await?;
        sleep(LOOK).await;
    }
    let took = started.elapsed();
    // Calm: everybody once more, without a point.
    for name in Storm::everybody() {
        storm.kill(name)?;
    }
    storm.house.start_manager(&[]).await?;
    for name in AGENTS {
        storm.house.start_agent(name, &[])?;
        storm.house.connected(name).await?;
    }
    let asked = load.stop().await?;
    let summary = asked.judge(&storm.house, Interruptions::None).await?;
    Asked::is_handed_over(&storm.house, &AGENTS).await?;
    storm.house.no_survivors().await?;
    ensure!(storm.kills >= kills, "only {} kills in {took:?}: {summary}", storm.kills);
    ensure!(
        storm.missed().is_empty(),
        "{} kills in {took:?} ({summary}) never reached {:?}",
        storm.kills,
        storm.missed()
    );
    say(&format!("{} kills in {} s: {summary}", storm.kills, took.as_secs()))?;
    storm.house.close().await
}

/// A longer storm is run for its figures.
fn say(figures: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr().lock(), "storm: {figures}")
}

#[tokio::test]
async fn killing_the_manager_alone_interrupts_nothing_and_output_goes_on() -> anyhow::Result<()> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"])).await?;
    let go = house.folder().join("go");
    let line = format!("n=0; while [ ! -e '{}' ]; do n=$((n+1)); echo $n; sleep 0.02; done; echo end", go.display());
    let id = house.shell("web1", &line).await?.id;
    for _ in 0..3 {
        let before = length(&house, id).await?;
        wait_for(CALM, "more output", async || Ok((length(&house, id).await? > before).then_some(()))).await?;
        house.kill_manager()?;
        house.start_manager(&[]).await?;
    }
    fs::write(&go, "")?;
    let command = house.finished_within(id, CALM).await?;
    ensure!(command.phase == Phase::Succeeded, "{command:?}");
    let text = String::from_utf8(house.output(id, StreamName::Stdout).await?)?;
    let mut lines: Vec<_> = text.lines().collect();
    ensure!(lines.pop() == Some("end"), "{text}");
    for (at, line) in lines.iter().enumerate() {
        ensure!(*line == (at + 1).to_string(), "line {at} is {line}");
    }
    house.close().await
}

async fn length(house: &House, id: u64) -> anyhow::Result<u64> {
    let command = house.client().command(id).await?;
    Ok(command.streams.get(&StreamName::Stdout).map_or(0, |stream| stream.length))
}
