//! All processors are busy with commands for twenty seconds: every sign of life is answered within the heartbeat, new
//! commands are accepted and done, and the session is the one that began.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use common::clock::unix_ms;
use common::id::Uid;
use common::wire::frame::Body;
use common::wire::{Command, CommandResult, Outcome, Ping, ResultAck, command_ack};
use testkit::peer::Credentials;
use testkit::pki::Pki;
use testkit::scripted_manager::{ScriptedManager, Session};
use testkit::{House, HouseOptions};
use tokio::time::Instant;

use super::rungs::AGENT;

/// Spinners for each core.
const PER_CORE: usize = 4;
/// How long they spin; each has a timeout of its own.
const SPIN: Duration = Duration::from_secs(20);
/// Processor time that each of them has had in the end, in microseconds: far less than its share.
const SPUN: u64 = 200_000;
/// What the manager says in its welcome, and the latest that a sign of life may come.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Between two pings of the link, and between two `agent.ping`.
const BEAT: Duration = Duration::from_millis(50);
const ASK: Duration = Duration::from_millis(500);
/// For the ends of all spinners, after their time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that was asked of the agent and how long the answers took.
struct Ward {
    session: Session,
    generation: u64,
    /// Spinners that have not ended.
    spinning: BTreeMap<Bytes, u64>,
    /// Pings of the link and of the operation that wait for their answers.
    beats: BTreeMap<u64, Instant>,
    asked: BTreeMap<Bytes, Instant>,
    beat_delays: Vec<Duration>,
    ask_delays: Vec<Duration>,
    next_id: u64,
}

impl Ward {
    fn command(&mut self, operation: &str, args: &serde_json::Value, timeout: Duration) -> anyhow::Result<Command> {
        self.next_id += 1;
        Ok(Command {
            uid: Bytes::copy_from_slice(&Uid::random().0),
            id: self.next_id,
            operation: operation.to_owned(),
            args: args.to_string().into(),
            expires_ms: unix_ms() + 3_600_000,
            generation: self.generation,
            attempt: 1,
            created_ms: unix_ms(),
            timeout_ms: u64::try_from(timeout.as_millis())?,
            has_grace: true,
            ..Command::default()
        })
    }

    /// Takes the next frame, if one comes before the given time.
    async fn take(&mut self, until: Instant) -> anyhow::Result<()> {
        let Some(frame) = self.session.link.before(until).await? else { return Ok(()) };
        match frame.body {
            Some(Body::Pong(_)) => {
                let sent = self.beats.remove(&frame.reply_to).context("an answer to a ping that was never sent")?;
                self.beat_delays.push(sent.elapsed());
            }
            Some(Body::CommandAck(ack)) => ensure!(ack.answer() == command_ack::Answer::Accepted, "{ack:?}"),
            Some(Body::CommandResult(result)) => self.ended(result).await?,
            Some(Body::CommandProgress(_) | Body::CommandOutput(_) | Body::Ping(_)) => {}
            other => bail!("{other:?} came"),
        }
        Ok(())
    }

    async fn ended(&mut self, result: CommandResult) -> anyhow::Result<()> {
        if let Some(sent) = self.asked.remove(&result.uid) {
            ensure!(result.outcome() == Outcome::Succeeded, "{result:?}");
            self.ask_delays.push(sent.elapsed());
        } else {
            self.spinning.remove(&result.uid).with_context(|| format!("an unknown uid or a second end: {result:?}"))?;
            ensure!(result.outcome() == Outcome::TimedOut && result.signal == 9, "{result:?}");
            ensure!(result.cpu_us > SPUN, "it hardly span: {result:?}");
        }
        let ack = ResultAck { uid: result.uid, store_position: 2 };
        self.session.link.send(Body::ResultAck(ack)).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spinners_on_all_cores_delay_no_sign_of_life() -> anyhow::Result<()> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    house.make_agent(AGENT).await?;
    let folder = house.folder().join(AGENT);
    let pem = |name: &str| fs::read_to_string(folder.join(name));
    let agent = Credentials::from_pem(&pem("cert.pem")?, &pem("key.pem")?, &pem("ca.pem")?)?.identity()?;
    let mut manager = ScriptedManager::start(&Pki::of_manager(&house.manager_dir())?, &agent.cluster).await?;
    manager.heartbeat = HEARTBEAT;
    manager.lure(&folder.join("agent.yml"))?;
    house.start_agent(AGENT, &[])?;
    let mut ward = Ward {
        session: manager.serve().await?,
        generation: agent.generation.0,
        spinning: BTreeMap::new(),
        beats: BTreeMap::new(),
        asked: BTreeMap::new(),
        beat_delays: Vec::new(),
        ask_delays: Vec::new(),
        next_id: 0,
    };
    let cores = std::thread::available_parallelism()?.get();
    for _ in 0..cores * PER_CORE {
        let command = ward.command("command.run", &serde_json::json!({"shell": "while :; do :; done"}), SPIN)?;
        ward.spinning.insert(command.uid.clone(), command.id);
        ward.session.link.send(Body::Command(command)).await?;
    }

    let began = Instant::now();
    let (mut next_beat, mut next_ask) = (began, began);
    while !(ward.spinning.is_empty() && ward.beats.is_empty() && ward.asked.is_empty()) {
        let now = Instant::now();
        ensure!(now < began + SPIN + PATIENCE, "{} spinners have not ended", ward.spinning.len());
        let late = ward.beats.values().chain(ward.asked.values()).find(|sent| sent.elapsed() > 5 * HEARTBEAT);
        ensure!(
            late.is_none(),
            "no answer since {:?}, {:?} after the start",
            late.map(Instant::elapsed),
            began.elapsed()
        );
        if !ward.spinning.is_empty() && now >= next_beat {
            let seq = ward.session.link.send(Body::Ping(Ping { clock_ms: unix_ms(), store_position: 1 })).await?;
            ward.beats.insert(seq, now);
            next_beat = now + BEAT;
        }
        if !ward.spinning.is_empty() && now >= next_ask {
            let ping = ward.command("agent.ping", &serde_json::json!({}), Duration::ZERO)?;
            ward.asked.insert(ping.uid.clone(), now);
            ward.session.link.send(Body::Command(ping)).await?;
            next_ask = now + ASK;
        }
        ward.take(next_beat.min(next_ask).max(now + Duration::from_millis(1))).await?;
    }
    ensure!(began.elapsed() >= SPIN, "they span for {:?} only", began.elapsed());

    for (what, delays) in [("a ping of the link", &ward.beat_delays), ("agent.ping", &ward.ask_delays)] {
        let worst = delays.iter().max().copied().context("nothing was asked")?;
        writeln!(std::io::stderr().lock(), "spinners: {what}, {} times, worst {worst:?}", delays.len())?;
        ensure!(delays.len() > 20, "{what} was answered only {} times", delays.len());
        ensure!(worst < HEARTBEAT, "an answer to {what} took {worst:?}");
    }
    ensure!(house.agent(AGENT)?.status()?.is_none(), "the agent died");
    drop(ward);
    house.close().await
}
