//! The link is cut at any byte, two hundred times, while output flows: in the TLS handshake, in the hello, in the middle of
//! frames, in either direction. What is stored and what followers read is what was written, to the byte.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::client::{Client, Endpoint, OutputEvent};
use api::commands::OutputCursor;
use common::model::{Phase, StreamName};
use common::shutdown::Tasks;
use testkit::proxy::Proxy;
use testkit::{House, HouseOptions, wait_for};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Cuts in one run.
const CUTS: usize = 200;
/// An agent waits longer after each cut, so the cuts are spread over many of them.
const AGENTS: usize = 48;
/// A connection of an agent carries less than this before it is cut: a few of the commands' writes, many frames.
const BYTES: u64 = 80_000;
/// Readers that follow over connections which are cut as well.
const FOLLOWERS: usize = 4;
/// Pauses between attempts double with each failure and are drawn at random: some agents come back late.
const PATIENCE: Duration = Duration::from_secs(200);

/// A command that writes random bytes on both streams, and what it wrote.
struct Writer {
    id: u64,
    copies: [PathBuf; 2],
}

const STREAMS: [StreamName; 2] = [StreamName::Stdout, StreamName::Stderr];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_cuts_of_the_link_at_any_byte_change_no_byte_of_the_output() -> anyhow::Result<()> {
    let names: Vec<_> = (0..AGENTS).map(|number| format!("web{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&names).proxied()).await?;
    let go = house.folder().join("go");
    let mut writers = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let copies = STREAMS.map(|stream| house.folder().join(format!("{name}.{stream}")));
        // Pieces of odd sizes, so that frames begin and end anywhere.
        let line = format!(
            "n={number}; while [ ! -e '{}' ]; do n=$(((n * 7 + 5) % 13)); \
             head -c $((n * 997 + 1)) /dev/urandom | tee -a '{}'; head -c $((n * 101 + 1)) /dev/urandom | tee -a '{}' >&2; \
             sleep 0.2; done",
            go.display(),
            copies[0].display(),
            copies[1].display(),
        );
        writers.push(Writer { id: house.shell(name, &line).await?.id, copies });
    }
    for writer in &writers {
        house.command_when(writer.id, "its output", |one| one.streams.values().any(|one| one.length > 0)).await?;
    }

    let doors = Proxy::start(house.api()).await?;
    doors.fray(4 * BYTES);
    let mut followers = Followers::start(&house, &doors, &writers)?;
    let link = house.proxy()?;
    link.fray(BYTES);
    // Those that are there were not drawn to be cut.
    link.cut();
    wait_for(PATIENCE, "two hundred cuts", async || {
        let count = link.frayed().len();
        ensure!(count >= CUTS, "{count} cuts");
        Ok(Some(()))
    })
    .await?;
    fs::write(&go, "")?;
    let places = link.frayed();
    link.fray(0);
    // Who was cut often waits for up to a minute now, which is not what this is about.
    for name in &names {
        if !house.client().agent(&name.parse()?).await?.connected {
            house.kill_agent(name)?;
            house.start_agent(name, &[])?;
        }
    }

    let in_handshake = places.iter().filter(|place| **place < 2_000).count();
    ensure!(in_handshake > 0 && in_handshake < places.len() / 2, "{in_handshake} of {} cuts", places.len());
    for writer in &writers {
        let command = house.finished_within(writer.id, PATIENCE).await?;
        ensure!(command.phase == Phase::Succeeded, "{command:?}");
        for (stream, copy) in STREAMS.into_iter().zip(&writer.copies) {
            let (stored, written) = (house.output(writer.id, stream).await?, fs::read(copy)?);
            ensure!(
                blake3::hash(&stored) == blake3::hash(&written),
                "{stream} of command {}: {} bytes are stored and {} were written, after {} cuts",
                writer.id,
                stored.len(),
                written.len(),
                places.len()
            );
        }
    }
    doors.fray(0);
    followers.compare(&writers).await?;
    ensure!(!doors.frayed().is_empty(), "no follower was cut");
    house.no_survivors().await?;
    house.close().await
}

/// What one reader got of both streams of a command.
struct Heard {
    id: u64,
    streams: anyhow::Result<[Vec<u8>; 2]>,
}

/// Readers that go on after each cut.
struct Followers {
    heard: mpsc::Receiver<Heard>,
    count: usize,
    _tasks: Tasks,
}

impl Followers {
    fn start(house: &House, doors: &Proxy, writers: &[Writer]) -> anyhow::Result<Self> {
        let endpoint = Endpoint::parse(&format!("https://{}", doors.address()))?;
        let client = Client::new(endpoint.ca_file(house.manager_dir().join("ca/ca.pem")).token(house.token()?))?;
        let tasks = Tasks::new();
        // One place for each: nobody waits to hand in what it heard.
        let (sender, heard) = mpsc::channel(FOLLOWERS);
        for writer in writers.iter().take(FOLLOWERS) {
            let (client, sender, id) = (client.clone(), sender.clone(), writer.id);
            tasks.spawn("follower", async move {
                let streams = follow(&client, id).await;
                // The test may have given up.
                let _ = sender.send(Heard { id, streams }).await;
            });
        }
        Ok(Self { heard, count: FOLLOWERS.min(writers.len()), _tasks: tasks })
    }

    async fn compare(&mut self, writers: &[Writer]) -> anyhow::Result<()> {
        for _ in 0..self.count {
            let heard = timeout(PATIENCE, self.heard.recv()).await?.context("a follower is missing")?;
            let writer = writers.iter().find(|one| one.id == heard.id).context("nobody asked for this")?;
            let streams = heard.streams.with_context(|| format!("the follower of command {}", heard.id))?;
            for ((stream, read), copy) in STREAMS.into_iter().zip(streams).zip(&writer.copies) {
                ensure!(read == fs::read(copy)?, "the follower of {stream} of command {} read otherwise", heard.id);
            }
        }
        Ok(())
    }
}

/// Follows both streams to their end. Each piece must begin where the last one ended.
async fn follow(client: &Client, id: u64) -> anyhow::Result<[Vec<u8>; 2]> {
    let mut read = [Vec::new(), Vec::new()];
    let mut follower = client.follow(id, OutputCursor::default());
    while let Some(event) = follower.next().await? {
        match event {
            OutputEvent::Bytes { stream, offset, bytes } => {
                let all = &mut read[usize::from(stream == StreamName::Stderr)];
                ensure!(offset == all.len() as u64, "{stream} goes on at {offset} after {}", all.len());
                all.extend_from_slice(&bytes);
            }
            OutputEvent::Gap { stream, offset, length } => {
                anyhow::bail!("{length} bytes of {stream} are missing from {offset} on")
            }
            _ => {}
        }
    }
    Ok(read)
}
