//! Commands that write much: how fast their bytes reach the agent's disk while nobody fetches them, and what ten
//! gigabytes do to agent, shim and everybody else's commands.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::client::Client;
use api::commands::{Command, CommandRequest, LimitsRequest};
use bytes::Bytes;
use common::id::Name;
use common::limits::{DEFAULT_OUTPUT_QUOTA, MAX_OUTPUT_PAYLOAD, OUTPUT_HEAD};
use common::model::{Phase, StreamName};
use store::Store;
use store::types::{Actor, Chunk, Limits, Request, Submit};

use crate::commands::{round_trip, run};
use crate::execution::shim_of;
use crate::house::{House, name, pause};
use crate::report::Figure;
use crate::stats::{Sample, millis, private_memory};
use crate::witness;

const MIB: u64 = 1024 * 1024;
/// How long a flood may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// What agent and shim may use together.
const MEMORY: u64 = 16 * MIB;

/// Measures both, in a house with one agent.
pub async fn measure(house: &House, folder: &Path, quick: bool) -> anyhow::Result<Vec<Figure>> {
    fs::create_dir_all(folder)?;
    let mut figures = vec![to_disk(house, folder, if quick { 128 * MIB } else { 1024 * MIB }, 3).await?];
    figures.push(into_the_store(folder, if quick { 128 * MIB } else { 1024 * MIB }).await?);
    figures.extend(beside_a_flood(house, quick).await?);
    Ok(figures)
}

/// Measures only what other commands feel, in a house of its own.
pub async fn alone(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let house = House::start(&folder.path().join("house"), 1)?;
    trips(&house.client()?, &name("dev-1")?, 20).await?;
    beside_a_flood(&house, quick).await
}

/// The median of some rounds, each beside the same bytes through `cat` on the same disk.
async fn to_disk(house: &House, folder: &Path, bytes: u64, rounds: usize) -> anyhow::Result<Figure> {
    let (mut ours, mut cats) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        ours.push(cut_off(house, &folder.join(format!("ours-{round}")), bytes).await?);
        cats.push(cat(&folder.join(format!("cat-{round}")), bytes)?);
    }
    let megabytes = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e6;
    let (ours, cats) = (Sample::new(ours), Sample::new(cats));
    let ratio = cats.p50().as_secs_f64() / ours.p50().as_secs_f64();
    Ok(Figure::plain(
        format!("output of one command to the agent's disk, link cut off, {} MiB, median of {rounds}", bytes / MIB),
        format!("{:.0} MB/s", megabytes(ours.p50())),
    )
    .beside(format!("`cat > file` {:.0} MB/s: {ratio:.2} of it", megabytes(cats.p50()))))
}

/// How long a command takes to write its bytes while the manager stands still: nothing is fetched meanwhile, all of it is
/// kept.
async fn cut_off(house: &House, folder: &Path, bytes: u64) -> anyhow::Result<Duration> {
    fs::create_dir_all(folder)?;
    let (client, agent) = (house.client()?, name("dev-1")?);
    let (go, report) = (folder.join("go"), folder.join("report"));
    let words = witness::words(&[witness::POUR, &bytes.to_string(), text(&go)?, text(&report)?])?;
    // Only what the default would not keep needs a quota of its own.
    let limits = (bytes > DEFAULT_OUTPUT_QUOTA / 2)
        .then(|| LimitsRequest { output: Some(format!("{}M", bytes / MIB * 2)), ..LimitsRequest::default() });
    let request = CommandRequest { limits, ..run(&words.iter().map(String::as_str).collect::<Vec<_>>()) };
    let command = client.start(&agent, &request).await?;
    shim_of(house, &client, &command).await?;
    let still = house.stand_still()?;
    File::create(&go)?;
    let took = reported(&report);
    drop(still);
    let took = took?;
    let ended = client.wait_command(command.id, PATIENCE).await?;
    ensure!(ended.phase == Phase::Succeeded, "the writer ended as {}: {:?}", ended.phase, ended.error);
    kept(&client, &ended, bytes, true).await?;
    Ok(took)
}

/// The same writer into `cat`, which writes a file.
fn cat(folder: &Path, bytes: u64) -> anyhow::Result<Duration> {
    fs::create_dir_all(folder)?;
    let (go, report, file) = (folder.join("go"), folder.join("report"), folder.join("file"));
    File::create(&go)?;
    let words = witness::words(&[witness::POUR, &bytes.to_string(), text(&go)?, text(&report)?])?;
    let (program, arguments) = words.split_first().context("the words of the writer")?;
    let mut writer = Process::new(program).args(arguments).stdout(Stdio::piped()).spawn()?;
    let from = writer.stdout.take().context("the output of the writer")?;
    let copied = Process::new("cat").stdin(from).stdout(File::create(&file)?).status()?;
    ensure!(writer.wait()?.success() && copied.success(), "cat failed");
    let length = fs::metadata(&file)?.len();
    fs::remove_file(&file)?;
    ensure!(length == bytes, "cat wrote {length} of {bytes} bytes");
    reported(&report)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path is not text")
}

/// Waits for the report of a writer.
fn reported(report: &Path) -> anyhow::Result<Duration> {
    let start = Instant::now();
    loop {
        // It is made first and filled then.
        if let Some(took) = fs::read_to_string(report).ok().and_then(|text| text.parse().ok()) {
            return Ok(Duration::from_nanos(took));
        }
        ensure!(start.elapsed() < PATIENCE, "the writer did not report within {PATIENCE:?}");
        pause(Duration::from_millis(5));
    }
}

/// Waits until all that is left of a stream is here, and checks that bytes and gaps are what was written.
async fn kept(client: &Client, command: &Command, bytes: u64, whole: bool) -> anyhow::Result<u64> {
    let start = Instant::now();
    let stream = loop {
        let now = client.command(command.id).await?;
        let stream = now.streams.get(&StreamName::Stdout).context("standard output is missing")?.clone();
        if stream.end {
            break stream;
        }
        ensure!(start.elapsed() < PATIENCE, "the output is not here after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let lost: u64 = stream.gaps.iter().map(|gap| gap.length).sum();
    ensure!(stream.length == bytes, "{} of {bytes} bytes are counted", stream.length);
    ensure!(!whole || lost == 0, "{lost} bytes were lost");
    ensure!(
        stream.gaps.first().is_none_or(|gap| gap.offset >= OUTPUT_HEAD),
        "the head is not whole: {:?}",
        stream.gaps
    );
    Ok(bytes - lost)
}

/// How fast the manager's store takes the bytes of one command as long as all of them stay, and how fast when the oldest
/// have to go.
async fn into_the_store(folder: &Path, bytes: u64) -> anyhow::Result<Figure> {
    let place = folder.join("store");
    fs::create_dir_all(&place)?;
    let store = Store::open(&place).await?;
    let (agent, actor) = (name("away")?, Actor("bench".into()));
    store.ensure_agent(&agent, &actor, 1).await?;
    let mut rates = Vec::new();
    for quota in [bytes * 2, bytes / 8] {
        let request = Request {
            operation: "command.run".into(),
            args: r#"{"run":["true"]}"#.into(),
            limits: Limits { output: Some(quota), ..Limits::default() },
            ..Request::default()
        };
        let submit = Submit {
            agents: vec![agent.clone()],
            request,
            expires_at: u64::MAX / 4,
            actor: actor.clone(),
            authority: None,
            as_job: false,
            idempotency: None,
            now: 2,
        };
        let command = *store.submit(submit).await?.commands.first().context("a command")?;
        let data = Bytes::from(vec![0; MAX_OUTPUT_PAYLOAD]);
        let start = Instant::now();
        for first in (0..bytes).step_by(MIB as usize) {
            let chunk = |offset| Chunk { command, stream: StreamName::Stdout, offset, data: data.clone(), gap: 0 };
            let call = (first..(first + MIB).min(bytes)).step_by(MAX_OUTPUT_PAYLOAD).map(chunk).collect();
            store.append_output(call)?.await?;
        }
        rates.push(bytes as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
    let size = fs::metadata(place.join("output.db"))?.len();
    store.close().await;
    let [below, over] = rates[..] else { anyhow::bail!("two rates") };
    Ok(Figure::plain(
        format!("output into the manager's store over its quota of {} MiB, {} MiB", bytes / 8 / MIB, bytes / MIB),
        format!("{over:.0} MB/s"),
    )
    .beside(format!("below its quota {below:.0} MB/s; the file has {} MiB after both", size / MIB)))
}

/// Round trips of another command before and during a flood, and the most that agent and shim used meanwhile.
async fn beside_a_flood(house: &House, quick: bool) -> anyhow::Result<Vec<Figure>> {
    let bytes = if quick { 1024 * MIB } else { 10 * 1024 * MIB };
    let (client, agent) = (house.client()?, name("dev-1")?);
    let pid = *house.agent_pids()?.first().context("an agent")?;
    let before = trips(&client, &agent, if quick { 50 } else { 1000 }).await?;
    let words = witness::words(&[witness::POUR, &bytes.to_string()])?;
    let began = Instant::now();
    let flood = client.start(&agent, &run(&words.iter().map(String::as_str).collect::<Vec<_>>())).await?;
    let shim = shim_of(house, &client, &flood).await?;
    let (mut times, mut most) = (Vec::new(), 0);
    while !client.command(flood.id).await?.phase.is_final() {
        times.push(round_trip(&client, &agent, &run(&["true"])).await?);
        // Whoever has ended uses nothing.
        most = most.max(private_memory(pid).unwrap_or(0) + private_memory(shim).unwrap_or(0));
        ensure!(began.elapsed() < PATIENCE, "the flood is not over after {PATIENCE:?}");
    }
    let took = began.elapsed();
    let ended = client.wait_command(flood.id, PATIENCE).await?;
    ensure!(ended.phase == Phase::Succeeded, "the flood ended as {}: {:?}", ended.phase, ended.error);
    let kept = kept(&client, &ended, bytes, bytes <= DEFAULT_OUTPUT_QUOTA).await?;
    let during = Sample::new(times);
    let gib = bytes as f64 / (1024.0 * MIB as f64);
    let ratio = during.p99().as_secs_f64() / before.p99().as_secs_f64();
    Ok(vec![
        Figure::new(
            format!("agent and shim during {gib:.0} GiB of one command, most private memory"),
            format!("{:.1} MiB", most as f64 / MIB as f64),
            "≤ 16 MiB",
            most <= MEMORY,
        )
        .beside(format!(
            "{:.0} MB/s; {} MiB kept, every other byte counted",
            bytes as f64 / took.as_secs_f64() / 1e6,
            kept / MIB
        )),
        Figure::new(
            format!("round trip of `true` during that, p50 / p99 (n={})", during.len()),
            format!("{} / {}", millis(during.p50()), millis(during.p99())),
            "p99 < twice",
            ratio < 2.0,
        )
        .beside(format!(
            "p99 {ratio:.2} times that before it: {} / {} (n={})",
            millis(before.p50()),
            millis(before.p99()),
            before.len()
        )),
    ])
}

async fn trips(client: &Client, agent: &Name, rounds: usize) -> anyhow::Result<Sample> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        times.push(round_trip(client, agent, &run(&["true"])).await?);
    }
    Ok(Sample::new(times))
}
