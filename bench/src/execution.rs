//! What it costs to run a command: from the submit to its first instruction, its shim in time and memory, and how many
//! of them an agent runs beside a bare loop of fork and exec.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::client::{Client, RawPiece};
use api::commands::{CancelRequest, Command, CommandRequest};
use common::id::Name;
use common::model::{Phase, StreamName};
use serde_json::json;

use crate::commands::{rate, round_trip, run};
use crate::house::{House, name};
use crate::report::Figure;
use crate::stats::{Sample, children_of, children_time, micros, millis, private_memory};
use crate::{baseline, flood, witness};

/// How long one command may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What queues manage with empty tasks. Taken once with the same kind of caller on one machine.
const QUEUES: &str = "measured elsewhere (2 vCPU AMD EPYC, KVM, Linux 6.18, Debian 12): \
                      HyperQueue 907/s, kueue 41/s, pueue 6.1/s; posix_spawn and wait on both cores 3700/s";

/// Measures all of it.
pub async fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let house = House::start(&folder.path().join("house"), 1)?;
    let (client, agent) = (house.client()?, name("dev-1")?);
    let rounds = if quick { 50 } else { 500 };
    for _ in 0..20 {
        round_trip(&client, &agent, &run(&["true"])).await?;
    }
    let mut figures = vec![start_latency(&client, &agent, rounds).await?];
    figures.extend(shim_time(&house, &client, &agent, rounds).await?);
    figures.push(shim_memory(&house, &client, &agent).await?);
    figures.push(rates(&house, &agent, if quick { 200 } else { 4000 }).await?);
    match flood::measure(&house, &folder.path().join("flood"), quick).await {
        Ok(more) => figures.extend(more),
        Err(error) => figures.push(Figure::plain("commands that write much", format!("NOT MEASURED: {error:#}"))),
    }
    Ok(figures)
}

/// From the moment before the submit to the first instruction of the command, by the one clock of this host.
async fn start_latency(client: &Client, agent: &Name, rounds: usize) -> anyhow::Result<Figure> {
    let words = witness::words(&[witness::STAMP])?;
    let request = run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let (mut times, mut bare) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for _ in 0..rounds {
        let submitted = witness::now_ns()?;
        let command = client.start(agent, &request).await?;
        let ended = client.wait_command(command.id, PATIENCE).await?;
        ensure!(ended.phase == Phase::Succeeded, "the stamp ended as {}: {:?}", ended.phase, ended.error);
        let began: u128 = whole(client, &ended).await?.trim().parse().context("the stamp is no time")?;
        times.push(between(submitted, began)?);
        let (program, arguments) = words.split_first().context("the words of the stamp")?;
        let spawned = witness::now_ns()?;
        let output = std::process::Command::new(program).args(arguments).output()?;
        let began: u128 = String::from_utf8(output.stdout)?.trim().parse().context("the stamp is no time")?;
        bare.push(between(spawned, began)?);
    }
    let (started, bare) = (Sample::new(times), Sample::new(bare));
    Ok(Figure::plain(
        format!("from the submit to the first instruction of the command, p50 / p99 (n={})", started.len()),
        format!("{} / {}", millis(started.p50()), millis(started.p99())),
    )
    .beside(format!("the same program by fork+exec {} / {}", millis(bare.p50()), millis(bare.p99()))))
}

fn between(from: u128, to: u128) -> anyhow::Result<Duration> {
    Ok(Duration::from_nanos(u64::try_from(to.saturating_sub(from))?))
}

/// Everything on standard output of a command that has ended.
async fn whole(client: &Client, command: &Command) -> anyhow::Result<String> {
    let mut reader = client.raw_output(command.id, StreamName::Stdout, 0, true);
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await? {
        match piece {
            RawPiece::Bytes(more) => bytes.extend_from_slice(&more),
            RawPiece::Gap { .. } => anyhow::bail!("a gap in the output"),
        }
    }
    Ok(String::from_utf8(bytes)?)
}

/// What a process with its shim adds to a command: by the clock against an operation without a process, which is accepted
/// and acknowledged in the same way, and by processor time of the agent's children against bare ones.
async fn shim_time(house: &House, client: &Client, agent: &Name, rounds: usize) -> anyhow::Result<Vec<Figure>> {
    let pid = *house.agent_pids()?.first().context("an agent")?;
    let ping = CommandRequest { operation: "agent.ping".into(), args: json!({}), ..CommandRequest::default() };
    let (mut with, mut without) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for _ in 0..rounds {
        without.push(round_trip(client, agent, &ping).await?);
        with.push(round_trip(client, agent, &run(&["true"])).await?);
    }
    let (with, without) = (Sample::new(with), Sample::new(without));
    let own = std::process::id();
    let used = |pid| children_time(pid).context("the processor time of children");
    let before = used(pid)?;
    for _ in 0..rounds {
        round_trip(client, agent, &run(&["true"])).await?;
    }
    let shims = used(pid)?.saturating_sub(before) / u32::try_from(rounds)?;
    let before = used(own)?;
    let bare = baseline::spawn_true(rounds)?;
    let bare_used = used(own)?.saturating_sub(before) / u32::try_from(rounds)?;
    let added = with.p50().saturating_sub(without.p50()).saturating_sub(bare.p50());
    Ok(vec![
        Figure::plain(
            format!("what the shim adds to a round trip, p50 (n={rounds}): `true`, less `agent.ping`, less fork+exec"),
            millis(added),
        )
        .beside(format!("{} − {} − {}", millis(with.p50()), millis(without.p50()), millis(bare.p50()))),
        Figure::plain(format!("processor time of shim and `true` (n={rounds})"), format!("{} each", micros(shims)))
            .beside(format!("`true` by fork+exec {} each", micros(bare_used))),
    ])
}

/// Private memory of the shim of a command that does nothing.
async fn shim_memory(house: &House, client: &Client, agent: &Name) -> anyhow::Result<Figure> {
    let sleeper = client.start(agent, &run(&["sleep", "600"])).await?;
    let shim = shim_of(house, client, &sleeper).await?;
    let private = private_memory(shim).context("the memory of the shim")?;
    client.cancel(sleeper.id, &CancelRequest::default()).await?;
    client.wait_command(sleeper.id, PATIENCE).await?;
    Ok(Figure::plain("private memory of a live shim", format!("{:.0} KiB", private as f64 / 1024.0)))
}

/// Waits until a command runs and answers the process of its shim.
pub async fn shim_of(house: &House, client: &Client, command: &Command) -> anyhow::Result<u32> {
    let start = Instant::now();
    loop {
        let now = client.command(command.id).await?;
        ensure!(!now.phase.is_final(), "command {} ended as {}", now.id, now.phase);
        if now.phase == Phase::Running {
            break;
        }
        ensure!(start.elapsed() < PATIENCE, "command {} does not run after {PATIENCE:?}", now.id);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let agent = *house.agent_pids()?.first().context("an agent")?;
    let uid = command.uid.to_string();
    children_of(agent)?
        .into_iter()
        .find(|pid| {
            // Arguments are separated by zeros; the last one is the directory of the command.
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.trim_end_matches('\0').ends_with(&uid))
        })
        .with_context(|| format!("no shim of command {} is a child of the agent", command.id))
}

/// Commands per second on one agent at its best, beside loops that do nothing else.
async fn rates(house: &House, agent: &Name, count: usize) -> anyhow::Result<Figure> {
    let (mut best, mut best_callers) = (0.0_f64, 0);
    for callers in [4_usize, 16] {
        let reached = rate(house, agent, callers, count / callers).await?;
        if reached > best {
            (best, best_callers) = (reached, callers);
        }
    }
    let one = baseline::spawn_rate(1, count)?;
    let cores = std::thread::available_parallelism()?.get();
    let all = baseline::spawn_rate(cores, count)?;
    Ok(Figure::plain(
        format!("`true` per second on one agent, {best_callers} callers, durable"),
        format!("{best:.0}/s"),
    )
    .beside(format!("bare fork+exec loop {one:.0}/s, {cores} threads {all:.0}/s; {QUEUES}")))
}
