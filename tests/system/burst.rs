//! Five hundred commands of a millisecond at once: all right, each once, and whoever waits for a sign of life of the agent
//! gets it in time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use common::clock::unix_ms;
use common::id::Uid;
use common::model::{Phase, StreamName};
use common::shutdown::Tasks;
use common::wire::frame::Body;
use common::wire::{Command, CommandOutput, CommandResult, Outcome, Ping, ResultAck, command_ack};
use testkit::effects::Effects;
use testkit::peer::Credentials;
use testkit::pki::Pki;
use testkit::scripted_manager::{ScriptedManager, Session};
use testkit::{House, HouseOptions};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const COUNT: usize = 500;
const AGENT: &str = "web1";
/// Between two pings of the scripted manager.
const BEAT: Duration = Duration::from_millis(20);
/// As houses have it: a peer that is silent for longer is pinged, after two and a half times this it is given up.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Five hundred shims in debug builds on two shared cores.
const PATIENCE: Duration = Duration::from_secs(120);
/// What an agent in a debug build may have held at most, in KiB: the same with five hundred commands as with five.
const MOST_MEMORY: u64 = 64 * 1024;

/// What the scripted manager knows of one command.
#[derive(Default)]
struct Seen {
    accepted: usize,
    result: Option<CommandResult>,
    bytes: Vec<u8>,
    acknowledged: bool,
}

impl Seen {
    fn is_whole(&self) -> bool {
        let length = |result: &CommandResult| result.streams.iter().map(|stream| stream.length).sum::<u64>();
        self.result.as_ref().is_some_and(|result| length(result) == self.bytes.len() as u64)
    }
}

/// Heartbeats are late or they are not: here every answer to a ping is measured while the commands start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_commands_at_once_delay_no_sign_of_life() -> anyhow::Result<()> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    house.make_agent(AGENT).await?;
    let folder = house.folder().join(AGENT);
    let pem = |name: &str| fs::read_to_string(folder.join(name));
    let agent = Credentials::from_pem(&pem("cert.pem")?, &pem("key.pem")?, &pem("ca.pem")?)?.identity()?;
    let manager = ScriptedManager::start(&Pki::of_manager(&house.manager_dir())?, &agent.cluster).await?;
    manager.lure(&folder.join("agent.yml"))?;
    house.start_agent(AGENT, &[])?;
    let mut session = manager.serve().await?;

    let effects = Effects::create(house.folder().join("effects"))?;
    let mut seen = BTreeMap::new();
    for number in 0..COUNT {
        let uid = Uid::random();
        let args = serde_json::json!({ "shell": format!("{}; echo {number}", effects.line(&format!("b{number}"))) });
        let command = Command {
            uid: Bytes::copy_from_slice(&uid.0),
            id: number as u64 + 1,
            operation: "command.run".to_owned(),
            args: args.to_string().into(),
            expires_ms: unix_ms() + 3_600_000,
            generation: agent.generation.0,
            attempt: 1,
            created_ms: unix_ms(),
            ..Command::default()
        };
        session.link.send(Body::Command(command)).await?;
        seen.insert(Bytes::copy_from_slice(&uid.0), Seen::default());
    }
    let delays = serve_all(&mut session, &mut seen).await?;

    for seen in seen.values() {
        let result = seen.result.as_ref().context("no result")?;
        ensure!(result.outcome() == Outcome::Succeeded && result.exit_code == 0, "{result:?}");
        ensure!(seen.accepted == 1, "command {} was accepted {} times", result.id, seen.accepted);
        ensure!(seen.bytes == format!("{}\n", result.id - 1).into_bytes(), "{:?}", seen.bytes);
    }
    let counts = effects.counts()?;
    ensure!(counts.len() == COUNT && counts.values().all(|count| *count == 1), "{counts:?}");
    report(&delays)?;
    let worst = delays.iter().max().copied().unwrap_or_default();
    ensure!(worst < HEARTBEAT, "an answer to a ping took {worst:?}");
    memory_is_bounded(&mut house)?;
    drop(session);
    house.close().await
}

/// Plays the manager until everything has ended; answers how long each ping waited for its answer.
async fn serve_all(session: &mut Session, seen: &mut BTreeMap<Bytes, Seen>) -> anyhow::Result<Vec<Duration>> {
    let (mut pings, mut delays) = (BTreeMap::new(), Vec::new());
    let until = Instant::now() + PATIENCE;
    let mut next_ping = Instant::now();
    let mut open = seen.len();
    while open > 0 || !pings.is_empty() {
        let now = Instant::now();
        ensure!(now < until, "{open} commands have not ended, {} pings wait", pings.len());
        if now >= next_ping && open > 0 {
            let ping = Ping { clock_ms: unix_ms(), store_position: 1 };
            pings.insert(session.link.send(Body::Ping(ping)).await?, now);
            next_ping = now + BEAT;
        }
        let Some(frame) = session.link.before(next_ping.max(now + Duration::from_millis(1))).await? else { continue };
        match frame.body {
            Some(Body::Pong(_)) => {
                let sent = pings.remove(&frame.reply_to).context("an answer to a ping that was never sent")?;
                delays.push(sent.elapsed());
            }
            Some(Body::CommandAck(ack)) => {
                ensure!(ack.answer() == command_ack::Answer::Accepted, "{ack:?}");
                seen.get_mut(&ack.uid).context("an unknown uid")?.accepted += 1;
            }
            Some(Body::CommandOutput(CommandOutput { uid, offset, data, gap: 0, .. })) => {
                let one = seen.get_mut(&uid).context("an unknown uid")?;
                ensure!(offset == one.bytes.len() as u64, "output from {offset} on after {}", one.bytes.len());
                one.bytes.extend_from_slice(&data);
                open -= acknowledge(session, one, &uid).await?;
            }
            Some(Body::CommandResult(result)) => {
                let uid = result.uid.clone();
                let one = seen.get_mut(&uid).context("an unknown uid")?;
                ensure!(one.result.is_none(), "two results: {:?} and {result:?}", one.result);
                one.result = Some(result);
                open -= acknowledge(session, one, &uid).await?;
            }
            Some(Body::CommandProgress(_) | Body::Ping(_)) => {}
            other => bail!("{other:?} came"),
        }
    }
    Ok(delays)
}

/// Lets the agent forget what is here as a whole; answers how many that were. Ends of streams may follow.
async fn acknowledge(session: &mut Session, one: &mut Seen, uid: &Bytes) -> anyhow::Result<usize> {
    if !one.is_whole() || one.acknowledged {
        return Ok(0);
    }
    one.acknowledged = true;
    session.link.send(Body::ResultAck(ResultAck { uid: uid.clone(), store_position: 2 })).await?;
    Ok(1)
}

fn report(delays: &[Duration]) -> anyhow::Result<()> {
    let mut sorted = delays.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
    ensure!(sorted.len() > 20, "hardly a ping was answered meanwhile: {sorted:?}");
    let line = format!("burst: {} pings, p50 {:?}, p99 {:?}, worst {:?}", sorted.len(), at(50), at(99), sorted.last());
    Ok(writeln!(std::io::stderr().lock(), "{line}")?)
}

/// The same through the real manager, from five hundred callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_commands_of_five_hundred_callers_run_once_each_in_one_session() -> anyhow::Result<()> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&[AGENT])).await?;
    let before = house.client().agent(&AGENT.parse()?).await?.address;
    let effects = Effects::create(house.folder().join("effects"))?;
    // One place for each caller: nobody waits to hand in an answer.
    let (sender, mut started) = mpsc::channel(COUNT);
    let tasks = Tasks::new();
    for number in 0..COUNT {
        let (client, sender) = (house.client().clone(), sender.clone());
        let request = house.shell_request(&format!("{}; echo {number}", effects.line(&format!("b{number}"))));
        let agent = AGENT.parse()?;
        tasks.spawn("caller", async move {
            let answer = client.start(&agent, &request).await;
            // The test may have given up.
            let _ = sender.send((number, answer)).await;
        });
    }
    drop(sender);
    let mut ids = BTreeMap::new();
    while let Some((number, answer)) = timeout(PATIENCE, started.recv()).await? {
        ids.insert(answer.with_context(|| format!("caller {number}"))?.id, number);
    }
    ensure!(ids.len() == COUNT, "{} commands", ids.len());
    for (id, number) in ids {
        let command = house.finished_within(id, PATIENCE).await?;
        ensure!(command.phase == Phase::Succeeded && command.exit_code == Some(0), "{command:?}");
        ensure!(house.output(id, StreamName::Stdout).await? == format!("{number}\n").into_bytes());
    }
    let counts = effects.counts()?;
    ensure!(counts.len() == COUNT && counts.values().all(|count| *count == 1), "{counts:?}");
    let after = house.client().agent(&AGENT.parse()?).await?;
    ensure!(after.connected && after.address == before, "another session: {after:?}, before {before:?}");
    memory_is_bounded(&mut house)?;
    house.no_survivors().await?;
    house.close().await
}

fn memory_is_bounded(house: &mut House) -> anyhow::Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", house.agent(AGENT)?.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let most: u64 = line.trim().trim_end_matches(" kB").parse()?;
    ensure!(most < MOST_MEMORY, "the agent held {most} KiB");
    Ok(())
}
