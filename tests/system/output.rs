//! Promise 2 from outside: every byte arrives, live, for any number of readers, from any offset.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::client::{Client, Endpoint, OutputEvent, RawOutput, RawPiece};
use api::commands::OutputCursor;
use common::model::{Phase, StreamName};
use common::shutdown::Tasks;
use testkit::proxy::Proxy;
use testkit::{House, HouseOptions, soon, wait_for};
use tokio::sync::{mpsc, oneshot};

const MIB: u64 = 1024 * 1024;
/// Random bytes on each of the two streams. `PAPRIKA_TEST_OUTPUT_MIB` changes it.
const FLOOD_MIB: u64 = 100;
/// Debug builds on two shared cores.
const FLOOD_TIME: Duration = Duration::from_secs(200);

async fn house() -> anyhow::Result<House> {
    House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_on_both_streams_reach_ten_readers_whole_though_one_of_them_stalls() -> anyhow::Result<()> {
    let mib = std::env::var("PAPRIKA_TEST_OUTPUT_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(FLOOD_MIB);
    let house = house().await?;
    let (out, err) = (house.folder().join("out"), house.folder().join("err"));
    let expected = [random_file(&out, mib * MIB)?, random_file(&err, mib * MIB)?];
    let line = format!("cat '{}' & cat '{}' >&2; wait", out.display(), err.display());
    let id = house.shell("web1", &line).await?.id;

    let tasks = Tasks::new();
    // One place for each reader: nobody waits to hand in a result.
    let (results, mut hashes) = mpsc::channel(10);
    let mut release = None;
    for number in 0..10_u64 {
        let stream = if number % 2 == 0 { StreamName::Stdout } else { StreamName::Stderr };
        // Each begins when the stream has come further than for the one before.
        let begin = number * mib * MIB / 12;
        let reached = house.command_when(id, "the output to grow", |command| {
            command.phase.is_final() || command.streams.get(&stream).is_some_and(|stream| stream.length >= begin)
        });
        reached.await?;
        let stall = (number == 9).then(|| {
            let (sender, receiver) = oneshot::channel::<()>();
            release = Some(sender);
            receiver
        });
        let (reader, results) = (house.client().raw_output(id, stream, 0, true), results.clone());
        tasks.spawn("reader", async move {
            let hash = read_to_end(reader, stall).await;
            // The test may have given up.
            let _ = results.send((stream, hash)).await;
        });
    }
    drop(results);
    let command = house.finished_within(id, FLOOD_TIME).await?;
    ensure!(command.phase == Phase::Succeeded, "{command:?}");
    for stream in [StreamName::Stdout, StreamName::Stderr] {
        let kept = command.streams.get(&stream).context("a stream is missing")?;
        ensure!(kept.length == mib * MIB && kept.gaps.is_empty(), "{stream}: {kept:?}");
    }
    // The others are done before the one that stalled goes on.
    for number in 0..10 {
        if number == 9 {
            release.take().context("nobody stalled")?.send(()).ok();
        }
        let (stream, hash) = tokio::time::timeout(FLOOD_TIME, hashes.recv()).await?.context("a reader is missing")?;
        ensure!(hash? == expected[usize::from(stream == StreamName::Stderr)], "a reader of {stream} got other bytes");
    }
    house.close().await
}

#[tokio::test]
async fn a_reader_goes_on_at_any_offset() -> anyhow::Result<()> {
    let house = house().await?;
    let path = house.folder().join("bytes");
    // More than one segment file of the agent, and an odd end.
    let length = 17 * MIB + 12_345;
    random_file(&path, length)?;
    let id = house.shell("web1", &format!("cat '{}'", path.display())).await?.id;
    ensure!(house.finished(id).await?.phase == Phase::Succeeded);
    let mut file = File::open(&path)?;
    for from in [length, length - 1, length - 70_000, 16 * MIB + 1, 16 * MIB, 16 * MIB - 1, 32 * 1024 + 1, 32 * 1024, 1]
    {
        let mut expected = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut expected)?;
        for follow in [false, true] {
            let mut reader = house.client().raw_output(id, StreamName::Stdout, from, follow);
            let mut bytes = Vec::new();
            while let Some(piece) = reader.next().await? {
                let RawPiece::Bytes(more) = piece else { anyhow::bail!("a gap at {from}") };
                bytes.extend_from_slice(&more);
            }
            ensure!(bytes == expected, "{} bytes instead of {} from {from}", bytes.len(), expected.len());
        }
    }
    house.close().await
}

#[tokio::test]
async fn a_follower_whose_connection_is_cut_again_and_again_misses_nothing() -> anyhow::Result<()> {
    let house = house().await?;
    let path = house.folder().join("bytes");
    random_file(&path, 3 * MIB)?;
    let id = house.shell("web1", &format!("cat '{0}' & cat '{0}' >&2; wait", path.display())).await?.id;
    let proxy = Proxy::start(house.api()).await?;
    let endpoint = Endpoint::parse(&format!("https://{}", proxy.address()))?;
    let endpoint = endpoint.ca_file(house.manager_dir().join("ca/ca.pem")).token(house.token()?);
    let client = Client::new(endpoint)?;
    client.status().await?;
    proxy.cut_after(100_000);
    let mut follower = client.follow(id, OutputCursor::default());
    let (mut read, mut seen) = ([Vec::new(), Vec::new()], 0);
    while let Some(event) = follower.next().await? {
        let OutputEvent::Bytes { stream, bytes, .. } = event else { continue };
        seen += bytes.len();
        read[usize::from(stream == StreamName::Stderr)].extend_from_slice(&bytes);
        if seen > 300_000 {
            seen = 0;
            proxy.cut_after(50_000);
        }
    }
    let expected = std::fs::read(&path)?;
    ensure!(read[0] == expected && read[1] == expected, "{} and {} bytes", read[0].len(), read[1].len());
    house.close().await
}

#[tokio::test]
async fn a_link_that_is_cut_again_and_again_loses_no_byte() -> anyhow::Result<()> {
    let house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"]).proxied()).await?;
    let path = house.folder().join("bytes");
    let hash = random_file(&path, 4 * MIB)?;
    let proxy = house.proxy()?;
    // Slow enough that it is not over before the last cut.
    proxy.throttle(2 * MIB);
    let id = house.shell("web1", &format!("cat '{}'", path.display())).await?.id;
    for bytes in [10_000, 200_000, 700_000] {
        let before = house.client().agent(&"web1".parse()?).await?.address;
        proxy.cut_after(bytes);
        soon("another session", async || {
            let agent = house.client().agent(&"web1".parse()?).await?;
            Ok((agent.connected && agent.address != before).then_some(()))
        })
        .await?;
    }
    let command = house.finished_within(id, Duration::from_secs(90)).await?;
    ensure!(command.phase == Phase::Succeeded, "{command:?}");
    ensure!(blake3::hash(&house.output(id, StreamName::Stdout).await?) == hash);
    house.close().await
}

#[tokio::test]
async fn each_line_is_seen_before_the_next_is_written() -> anyhow::Result<()> {
    let house = house().await?;
    let seen = house.folder().join("seen");
    std::fs::create_dir(&seen)?;
    // The command itself waits until its line was seen: output that comes at the end never comes.
    let line = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; while [ ! -e '{}'/$i ]; do sleep 0.01; done; done",
        seen.display()
    );
    let id = house.shell("web1", &line).await?.id;
    let mut follower = house.client().follow(id, OutputCursor::default());
    let mut text = String::new();
    while let Some(event) =
        tokio::time::timeout(testkit::wait::PATIENCE, follower.next()).await.context(text.clone())??
    {
        if let OutputEvent::Bytes { bytes, .. } = event {
            text.push_str(&String::from_utf8_lossy(&bytes));
            let number = text.lines().count();
            ensure!(
                !house.client().command(id).await?.phase.is_final() || number == 10,
                "line {number} came at the end"
            );
            std::fs::write(seen.join(number.to_string()), "")?;
        }
    }
    ensure!(text.lines().count() == 10 && text.ends_with("line 10\n"), "{text}");
    ensure!(house.finished(id).await?.exit_code == Some(0));
    house.close().await
}

#[tokio::test]
async fn output_is_never_text_to_us() -> anyhow::Result<()> {
    let house = house().await?;
    let odd: Vec<u8> = (0..=255).chain(*b"\x1b[31mred\x1b[0m\x1b]0;title\x07\0\xff\xfe\xc3\x28\r\n\xf0\x9f").collect();
    let path = house.folder().join("odd");
    std::fs::write(&path, &odd)?;
    let id = house.shell("web1", &format!("cat '{}'", path.display())).await?.id;
    house.finished(id).await?;
    ensure!(house.output(id, StreamName::Stdout).await? == odd);
    let answer = testkit::web::call(&house, "GET", &format!("/commands/{id}/output?stream=stdout"), b"").await?;
    ensure!(answer.status == 200 && answer.body == odd);
    // Nothing that looks at the bytes as text or shows them may run them.
    ensure!(answer.header("x-content-type-options") == Some("nosniff"), "{}", answer.head);
    ensure!(!house.manager_log().contains('\x1b') && !house.agent_log("web1").contains('\x1b'));
    house.close().await
}

#[tokio::test]
async fn a_hundred_megabytes_without_a_newline_arrive() -> anyhow::Result<()> {
    let house = house().await?;
    let id = house.shell("web1", "head -c 100000000 /dev/zero | tr '\\0' x").await?.id;
    let command = house.finished_within(id, FLOOD_TIME).await?;
    ensure!(command.phase == Phase::Succeeded, "{command:?}");
    let mut reader = house.client().raw_output(id, StreamName::Stdout, 0, false);
    let mut length = 0;
    while let Some(RawPiece::Bytes(bytes)) = reader.next().await? {
        ensure!(bytes.iter().all(|byte| *byte == b'x'));
        length += bytes.len();
    }
    ensure!(length == 100_000_000, "{length}");
    house.close().await
}

#[tokio::test]
async fn a_flood_of_one_command_does_not_delay_the_cancel_of_another() -> anyhow::Result<()> {
    let house = house().await?;
    let flood = house.shell("web1", "cat /dev/zero").await?.id;
    let quiet = house.shell("web1", "sleep 1000").await?.id;
    for id in [flood, quiet] {
        house.command_when(id, "both to run", |command| command.phase == Phase::Running).await?;
    }
    let moving = |least: u64| {
        house.command_when(flood, "the flood", move |command| command.streams.values().any(|one| one.length > least))
    };
    moving(2 * MIB).await?;
    for id in [quiet, flood] {
        house.client().cancel(id, &Default::default()).await?;
        let phase = wait_for(Duration::from_secs(30), "the cancel", async || {
            let phase = house.client().command(id).await?.phase;
            Ok(phase.is_final().then_some(phase))
        });
        ensure!(phase.await? == Phase::Cancelled);
    }
    house.finished_within(flood, FLOOD_TIME).await?;
    house.no_survivors().await?;
    house.close().await
}

/// Fills a file with random bytes; answers their hash.
fn random_file(path: &Path, length: u64) -> anyhow::Result<blake3::Hash> {
    let mut source = File::open("/dev/urandom")?.take(length);
    std::io::copy(&mut source, &mut File::create(path)?)?;
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize())
}

/// Hashes everything a reader gets; with `stall` it takes one piece and then nothing until it is told to go on.
async fn read_to_end(mut reader: RawOutput, stall: Option<oneshot::Receiver<()>>) -> anyhow::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut stall = stall;
    while let Some(piece) = reader.next().await? {
        let RawPiece::Bytes(bytes) = piece else { anyhow::bail!("a gap at {}", reader.offset()) };
        hasher.update(&bytes);
        if let Some(stall) = stall.take() {
            stall.await?;
        }
    }
    Ok(hasher.finalize())
}
