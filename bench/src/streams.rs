//! Output end to end: throughput, delay of a line, and a cancel while another command floods.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::client::{Client, OutputEvent, RawPiece};
use api::commands::{CancelRequest, OutputCursor};
use common::clock::unix_ms;
use common::id::Name;
use common::model::{Phase, StreamName};

use crate::baseline;
use crate::commands::run;
use crate::house::{House, name};
use crate::report::Figure;
use crate::stats::{Sample, millis};

const MIB: f64 = 1024.0 * 1024.0;

/// Measures the way of bytes.
pub async fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let house = House::start(&folder.path().join("house"), 1)?;
    let (client, agent) = (house.client()?, name("dev-1")?);
    // Below the default output quota of 256 MiB: what a quota takes is a gap, not throughput.
    let bytes: u64 = if quick { 64 << 20 } else { 240 << 20 };
    let through = throughput(&client, &agent, bytes).await?;
    let bare = baseline::bare_tls(bytes).await;
    let delays = line_delays(&client, &agent, if quick { 50 } else { 300 }).await?;
    let cancels = cancel_under_flood(&client, &agent, if quick { 10 } else { 100 }).await?;
    let beside = match bare {
        Ok(rate) => format!("one bare TLS socket {:.0} MB/s", rate / 1e6),
        Err(error) => format!("bare TLS socket not measured: {error:#}"),
    };
    Ok(vec![
        Figure::new(
            format!("output of one command end to end, {:.0} MiB", bytes as f64 / MIB),
            format!("{:.0} MB/s", through / 1e6),
            "≥ 200 MB/s",
            through >= 200e6,
        )
        .beside(beside),
        Figure::new(
            format!("delay of a line at the reader, p50 / p99 (n={})", delays.len()),
            format!("{} / {}", millis(delays.p50()), millis(delays.p99())),
            "≤ 10 ms p50",
            delays.p50() <= Duration::from_millis(10),
        ),
        Figure::new(
            format!("cancel while another command floods, until final, p50 / p99 (n={})", cancels.len()),
            format!("{} / {}", millis(cancels.p50()), millis(cancels.p99())),
            "≤ 20 ms p99",
            cancels.p99() <= Duration::from_millis(20),
        ),
    ])
}

/// Follows a command that writes `bytes` from its first byte to its last; answers bytes per second.
async fn throughput(client: &Client, agent: &Name, bytes: u64) -> anyhow::Result<f64> {
    let start = Instant::now();
    let command = client.start(agent, &run(&["head", "-c", &bytes.to_string(), "/dev/zero"])).await?;
    let mut reader = client.raw_output(command.id, StreamName::Stdout, 0, true);
    let mut seen = 0;
    while let Some(piece) = reader.next().await? {
        match piece {
            RawPiece::Bytes(bytes) => seen += bytes.len() as u64,
            RawPiece::Gap { .. } => anyhow::bail!("a gap in the output"),
        }
    }
    ensure!(seen == bytes, "{seen} of {bytes} bytes arrived");
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// A line each 20 ms that says when it was written; measured when the reader has it.
async fn line_delays(client: &Client, agent: &Name, lines: usize) -> anyhow::Result<Sample> {
    let script = format!(
        "import sys,time\nfor _ in range({lines}):\n  sys.stdout.write('%d\\n' % (time.time_ns()))\n  sys.stdout.flush()\n  time.sleep(0.02)"
    );
    let command = client.start(agent, &run(&["python3", "-c", &script])).await?;
    let mut follower = client.follow(command.id, OutputCursor::default());
    let mut delays = Vec::with_capacity(lines);
    while let Some(event) = follower.next().await? {
        match event {
            OutputEvent::Bytes { bytes, .. } => {
                // The clock says whole milliseconds: rounded up, so that no delay looks shorter than it was.
                let now = u128::from(unix_ms()) * 1_000_000 + 999_999;
                for line in std::str::from_utf8(&bytes)?.lines() {
                    let written: u128 = line.parse().context("a line is no time")?;
                    let delay = u64::try_from(now.saturating_sub(written))?;
                    delays.push(Duration::from_nanos(delay));
                }
            }
            OutputEvent::End(command) => {
                ensure!(
                    command.phase == Phase::Succeeded,
                    "the writer ended as {}: {:?}",
                    command.phase,
                    command.error
                );
                break;
            }
            _ => {}
        }
    }
    ensure!(delays.len() == lines, "{} of {lines} lines arrived whole", delays.len());
    Ok(Sample::new(delays))
}

/// Cancels sleeping commands, each timed until it is final, while another command writes as fast as it can.
async fn cancel_under_flood(client: &Client, agent: &Name, rounds: usize) -> anyhow::Result<Sample> {
    // Bounded, so that a machine with a small disk survives the benchmark; ended as soon as the rounds are over.
    let flood = client.start(agent, &run(&["head", "-c", "8G", "/dev/zero"])).await?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let sleeper = client.start(agent, &run(&["sleep", "600"])).await?;
        loop {
            let now = client.command(sleeper.id).await?;
            if now.phase == Phase::Running {
                break;
            }
            ensure!(!now.phase.is_final(), "the sleeper ended as {}", now.phase);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        client.cancel(sleeper.id, &CancelRequest::default()).await?;
        let ended = client.wait_command(sleeper.id, Duration::from_secs(30)).await?;
        ensure!(ended.phase == Phase::Cancelled, "the sleeper ended as {}", ended.phase);
        times.push(start.elapsed());
    }
    let flooding = client.command(flood.id).await?;
    client.cancel(flood.id, &CancelRequest::default()).await?;
    client.wait_command(flood.id, Duration::from_secs(120)).await?;
    ensure!(!flooding.phase.is_final(), "the flood was over before the cancels were");
    Ok(Sample::new(times))
}
