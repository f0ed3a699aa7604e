//! Wall clocks are set forth and back by a day while commands run and wait: nothing ends early, late or never because of it.
//!
//! Debug builds read an offset from a file at each look at the wall clock; release builds have no such thing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::commands::{Command, CommandRequest};
use common::clock::OFFSET_VARIABLE;
use common::config::HumanDuration;
use common::model::{Phase, StreamName};
use tempfile::TempDir;
use testkit::effects::Effects;
use testkit::{House, HouseOptions, soon};

const AGENT: &str = "web1";
const DAY_MS: i64 = 24 * 3600 * 1000;
const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Both directions, one after the other, and where it should be again.
const JUMPS: [i64; 3] = [DAY_MS, -DAY_MS, 0];
/// Long enough that a jump falls into it.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The most that a loaded machine may add to a timeout before the test says that it came late.
const LATE: Duration = Duration::from_secs(12);

/// A wall clock that the test sets.
struct WallClock {
    _folder: TempDir,
    file: PathBuf,
}

impl WallClock {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("offset");
        fs::write(&file, "0")?;
        Ok(Self { _folder: folder, file })
    }

    fn variable(&self) -> Vec<(String, String)> {
        vec![(OFFSET_VARIABLE.to_owned(), self.file.display().to_string())]
    }

    /// Sets it so far from the real one. Readers see the old or the new value, never half of it.
    fn set(&self, offset_ms: i64) -> anyhow::Result<()> {
        let staged = self.file.with_extension("new");
        fs::write(&staged, offset_ms.to_string())?;
        Ok(fs::rename(&staged, &self.file)?)
    }
}

fn options() -> HouseOptions {
    HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&[AGENT])
}

async fn start(house: &House, request: &CommandRequest) -> anyhow::Result<u64> {
    Ok(house.client().start(&AGENT.parse()?, request).await?.id)
}

async fn running(house: &House, id: u64) -> anyhow::Result<Command> {
    house.command_when(id, "it to run", |command| command.phase == Phase::Running).await
}

/// Lasts as long as it may. Valid for less than any clock jumps: it starts all the same.
fn with_timeout(house: &House, line: &str, timeout: Duration) -> CommandRequest {
    CommandRequest {
        timeout: Some(HumanDuration(timeout)),
        expires_in: Some(HumanDuration(HOUR)),
        ..house.shell_request(line)
    }
}

/// Ended by its timeout, after as much time as that is.
async fn timed_out_in_time(house: &House, id: u64) -> anyhow::Result<()> {
    let command = house.finished_within(id, TIMEOUT + LATE).await?;
    let lasted = command.usage.and_then(|usage| usage.duration_ms).map(Duration::from_millis);
    let lasted = lasted.with_context(|| format!("no duration: {command:?}"))?;
    ensure!(command.phase == Phase::TimedOut, "{command:?}");
    ensure!(lasted >= TIMEOUT && lasted < TIMEOUT + LATE, "its {TIMEOUT:?} took {lasted:?}");
    Ok(())
}

/// What a house does while a clock in it jumps: timeouts, waiting for the end, live output.
async fn nothing_notices(house: &House, clock: &WallClock) -> anyhow::Result<()> {
    let go = house.folder().join("go");
    let line = format!("echo up; while [ ! -e '{}' ]; do sleep 0.1; done; echo down", go.display());
    let patient = start(house, &with_timeout(house, &line, HOUR)).await?;
    running(house, patient).await?;
    for jump in JUMPS {
        let before = start(house, &with_timeout(house, "sleep 1000", TIMEOUT)).await?;
        running(house, before).await?;
        clock.set(jump)?;
        timed_out_in_time(house, before).await.with_context(|| format!("begun before a jump to {jump} ms"))?;
        ensure!(house.client().command(patient).await?.phase == Phase::Running, "an hour passed in a moment");
        ensure!(house.client().agent(&AGENT.parse()?).await?.connected, "the session did not outlive a jump");
    }
    fs::write(&go, "")?;
    let ended = house.finished(patient).await?;
    ensure!(ended.phase == Phase::Succeeded, "{ended:?}");
    ensure!(house.output(patient, StreamName::Stdout).await? == b"up\ndown\n");
    let lasted = ended.usage.and_then(|usage| usage.duration_ms).unwrap_or(u64::MAX);
    ensure!(u128::from(lasted) < HOUR.as_millis(), "it lasted {lasted} ms by a clock that jumped");
    house.no_survivors().await
}

/// Commands that wait for their start while the host's clock jumps: what is due to expire does, what is not runs.
async fn expiry_is_kept(house: &mut House, clock: &WallClock, jump: i64) -> anyhow::Result<()> {
    let effects = Effects::create(house.folder().join(format!("effects{jump}")))?;
    house.stop_agent(AGENT).await?;
    house.away(AGENT).await?;
    let waits = |tag: &str, expires_in: Duration| CommandRequest {
        expires_in: Some(HumanDuration(expires_in)),
        ..house.shell_request(&effects.line(tag))
    };
    let (brief, valid) = (waits("brief", Duration::from_secs(1)), waits("valid", HOUR));
    let (brief, valid) = (start(house, &brief).await?, start(house, &valid).await?);
    soon("the short one to expire", async || {
        Ok((house.client().command(brief).await?.phase == Phase::Expired).then_some(()))
    })
    .await?;
    clock.set(jump)?;
    house.start_agent(AGENT, &[])?;
    house.connected(AGENT).await?;
    let ran = house.finished(valid).await?;
    ensure!(ran.phase == Phase::Succeeded, "still valid for nearly an hour, the clock at {jump} ms: {ran:?}");
    ensure!((effects.count("valid")?, effects.count("brief")?) == (1, 0), "{:?}", effects.counts()?);
    clock.set(0)
}

/// Protocol R-CMD-5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosts_clock_that_jumps_by_a_day_ends_nothing_early_late_or_never() -> anyhow::Result<()> {
    let clock = WallClock::new()?;
    let mut options = options();
    options.agent_env = clock.variable();
    let mut house = House::start(options).await?;
    nothing_notices(&house, &clock).await?;
    for jump in [DAY_MS, -DAY_MS] {
        expiry_is_kept(&mut house, &clock, jump).await?;
    }
    house.close().await
}

/// Protocol R-CMD-5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_managers_clock_that_jumps_by_a_day_stops_nothing_that_runs_and_starts_nothing_expired() -> anyhow::Result<()>
{
    let clock = WallClock::new()?;
    let mut options = options();
    options.manager_env = clock.variable();
    let mut house = House::start(options).await?;
    nothing_notices(&house, &clock).await?;

    // The manager's time is what counts: what it holds past its end is over, and never runs however the clock goes. It
    // was a day ahead before and does not go back, so that a jump has to be longer to be one.
    house.stop_agent(AGENT).await?;
    house.away(AGENT).await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    let request = |house: &House, tag: &str, expires_in| CommandRequest {
        expires_in: Some(HumanDuration(expires_in)),
        ..house.shell_request(&effects.line(tag))
    };
    let (hour, week) =
        (start(&house, &request(&house, "hour", HOUR)).await?, start(&house, &request(&house, "week", WEEK)).await?);
    clock.set(2 * DAY_MS)?;
    soon("the hour to be over", async || {
        Ok((house.client().command(hour).await?.phase == Phase::Expired).then_some(()))
    })
    .await?;
    clock.set(0)?;
    house.start_agent(AGENT, &[])?;
    house.connected(AGENT).await?;
    let ran = house.finished(week).await?;
    ensure!(ran.phase == Phase::Succeeded, "{ran:?}");
    let expired = house.client().command(hour).await?;
    ensure!(expired.phase == Phase::Expired && effects.count("hour")? == 0, "{expired:?}");

    // The next manager begins behind what agents were told, and goes on from where this one had come: agents still start
    // what is valid for less than that.
    house.stop_manager().await?;
    house.start_manager(&[]).await?;
    house.connected(AGENT).await?;
    let next = start(&house, &request(&house, "next", HOUR)).await?;
    let ran = house.finished(next).await?;
    ensure!(ran.phase == Phase::Succeeded && effects.count("next")? == 1, "after a restart: {ran:?}");
    let degraded = house.client().status().await?.degraded;
    ensure!(degraded.iter().any(|text| text.contains("wall clock")), "nobody is told: {degraded:?}");
    house.close().await
}
