//! A command that writes far more than its quota: its watchers stay small, its ends are kept, the rest is counted.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::client::RawPiece;
use common::limits::{DEFAULT_OUTPUT_QUOTA, OUTPUT_HEAD};
use common::model::{Phase, StreamName};
use testkit::{House, HouseOptions, survivors, wait_for};

const MIB: u64 = 1024 * 1024;
/// What is written, in GiB. `PAPRIKA_TEST_FLOOD_GIB` changes it.
const FLOOD_GIB: u64 = 10;
/// Debug builds on two shared cores.
const FLOOD_TIME: Duration = Duration::from_secs(600);
/// Private memory of agent and shim together, at any time of the flood.
const MEMORY: u64 = 16 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_far_over_its_quota_keeps_both_ends_counts_the_rest_and_costs_no_memory() -> anyhow::Result<()> {
    let gib = std::env::var("PAPRIKA_TEST_FLOOD_GIB").ok().and_then(|text| text.parse().ok()).unwrap_or(FLOOD_GIB);
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"])).await?;
    let last = numbers_in(gib * 1024 * MIB);
    let total = length_of(last);
    let flood = house.shell("web1", &format!("exec seq 1 {last}")).await?;
    house.command_when(flood.id, "the flood to begin", |command| length(command, StreamName::Stdout) > MIB).await?;

    let agent = house.agent("web1")?.pid();
    let dir = house.state_dir("web1").join("commands").join(flood.uid.to_string());
    let shims = survivors::with_argument(&dir.display().to_string());
    let shim = shims.first().context("no shim is at work")?.pid;
    let (mut most, mut looks, mut failed) = (0, 0, 0);
    let ended = wait_for(FLOOD_TIME, "the end of the flood", async || {
        // Whoever is gone uses nothing.
        most = most.max(private(agent) + private(shim.unsigned_abs()));
        looks += 1;
        // Other work goes on beside it.
        let other = house.shell("web1", "echo here").await?;
        failed += u32::from(house.finished(other.id).await?.phase != Phase::Succeeded);
        let command = house.client().command(flood.id).await?;
        Ok((command.phase.is_final() && command.streams.values().all(|stream| stream.end)).then_some(command))
    });
    let ended = ended.await?;
    ensure!(ended.phase == Phase::Succeeded && ended.exit_code == Some(0), "{ended:?}");
    ensure!(looks > 3, "the flood was over before it was looked at");
    ensure!(failed == 0, "{failed} of {looks} other commands suffered");
    ensure!(most > 0 && most <= MEMORY, "agent and shim used {} KiB together", most / 1024);

    let kept = ended.streams.get(&StreamName::Stdout).context("stdout is missing")?;
    ensure!(kept.length == total, "{} bytes were written, {} are known", total, kept.length);
    let mut reader = house.client().raw_output(flood.id, StreamName::Stdout, 0, false);
    let (mut at, mut bytes, mut gaps) = (0_u64, 0_u64, Vec::new());
    while let Some(piece) = reader.next().await? {
        match piece {
            RawPiece::Bytes(more) => {
                // Whatever is kept stands where it was written.
                check(at, &more)?;
                at += more.len() as u64;
                bytes += more.len() as u64;
            }
            RawPiece::Gap { offset, length } => {
                ensure!(offset == at, "a gap at {offset} where {at} was expected");
                gaps.push((offset, length));
                at += length;
            }
        }
    }
    let lost: u64 = gaps.iter().map(|(_, length)| length).sum();
    ensure!(at == total && bytes + lost == total, "{bytes} bytes and {lost} in gaps are not {total}");
    ensure!(gaps.first().is_some_and(|(offset, _)| *offset >= OUTPUT_HEAD), "the head is not whole: {gaps:?}");
    let tail = gaps.last().map_or(0, |(offset, length)| total - offset - length);
    ensure!(tail >= DEFAULT_OUTPUT_QUOTA / 4, "only {tail} bytes of the tail are kept: {gaps:?}");
    // A quota, and no more than a few files above it.
    ensure!(bytes <= DEFAULT_OUTPUT_QUOTA * 3 / 2, "{bytes} bytes are kept");
    house.close().await
}

fn length(command: &api::commands::Command, stream: StreamName) -> u64 {
    command.streams.get(&stream).map_or(0, |stream| stream.length)
}

/// Private memory in bytes.
fn private(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// How many bytes `seq 1 last` writes.
fn length_of(last: u64) -> u64 {
    let (mut total, mut first, mut digits) = (0, 1, 1);
    while first <= last {
        let until = (first * 10 - 1).min(last);
        total += (until - first + 1) * (digits + 1);
        (first, digits) = (first * 10, digits + 1);
    }
    total
}

/// The smallest count whose numbers make at least so many bytes.
fn numbers_in(bytes: u64) -> u64 {
    let (mut low, mut high) = (1, bytes);
    while low < high {
        let middle = low.midpoint(high);
        if length_of(middle) < bytes { low = middle + 1 } else { high = middle }
    }
    low
}

/// The number that a byte of `seq` belongs to, and where that one begins.
fn number_at(offset: u64) -> (u64, u64) {
    let (mut low, mut high) = (1, offset + 2);
    while low < high {
        let middle = low.midpoint(high);
        if length_of(middle) <= offset { low = middle + 1 } else { high = middle }
    }
    (low, length_of(low - 1))
}

/// Compares bytes that stand at an offset with what `seq` writes there.
fn check(offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
    let (mut number, begin) = number_at(offset);
    let mut line = format!("{number}\n").into_bytes();
    let mut rest = bytes;
    let mut skip = usize::try_from(offset - begin)?;
    while !rest.is_empty() {
        let expected = line.get(skip..).unwrap_or_default();
        let count = expected.len().min(rest.len());
        ensure!(rest.get(..count) == expected.get(..count), "other bytes stand at the number {number}");
        rest = rest.get(count..).unwrap_or_default();
        skip = 0;
        number += 1;
        line.clear();
        use std::io::Write as _;
        writeln!(line, "{number}")?;
    }
    Ok(())
}

#[test]
fn the_reckoning_of_the_flood_is_that_of_seq() -> anyhow::Result<()> {
    let written: Vec<u8> = (1..=1_234).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    ensure!(length_of(1_234) == written.len() as u64);
    ensure!(numbers_in(written.len() as u64) == 1_234);
    for offset in 0..written.len() {
        check(offset as u64, written.get(offset..).unwrap_or_default())?;
    }
    ensure!(check(3, b"3\n").is_err());
    Ok(())
}
