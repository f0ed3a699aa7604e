//! Streams that are longer than what is kept of them (protocol R-OUT-5).

use bytes::Bytes;
use common::id::{CommandId, Generation, Uid};
use common::limits::{DEFAULT_OUTPUT_QUOTA, MIN_OUTPUT_QUOTA};
use common::model::{Outcome, StreamName};
use store::Store;
use store::types::{AckAnswer, Chunk, Gap, HeldPhase, Import, Limits, OutputRead, Request, everybody};

use crate::world::{Home, JOURNAL, NOW, chunk, ended, gap, name, request, submit, taker};

const MIB: u64 = 1 << 20;
/// What an append may leave above the quota: the slack of a small quota, and a row that did not fit any more.
const ABOVE: u64 = 128 * 1024 + 96 * 1024;

/// A command of a new or present agent whose streams may keep so much.
async fn with_quota(home: &Home, quota: Option<u64>) -> CommandId {
    if home.store.agent(&name("a")).await.unwrap().is_none() {
        home.connected("a").await;
    }
    let mut submit = submit(&["a"]);
    submit.request.limits.output = quota;
    home.store.submit(submit).await.unwrap().commands[0]
}

/// The byte that every stream here has at an offset.
fn byte(offset: u64) -> u8 {
    u8::try_from((offset * 7 + offset / 256) % 251).unwrap()
}

fn bytes(offset: u64, length: u64) -> Vec<u8> {
    (offset..offset + length).map(byte).collect()
}

/// Everything that is there, in pieces.
struct Seen {
    kept: u64,
    /// Bytes before the first gap.
    head: u64,
    /// Bytes behind the last gap.
    tail: u64,
    gaps: Vec<Gap>,
    length: u64,
}

/// Reads a whole stream and compares each byte with what was written.
async fn look(store: &Store, id: CommandId) -> Seen {
    let mut seen = Seen { kept: 0, head: 0, tail: 0, gaps: Vec::new(), length: 0 };
    loop {
        match store.read_output(id, StreamName::Stdout, seen.length, 1 << 20).await.unwrap() {
            OutputRead::Bytes(found) => {
                let written = bytes(seen.length, found.len() as u64);
                assert!(found == written, "other bytes than were written behind {}", seen.length);
                seen.length += found.len() as u64;
                seen.kept += found.len() as u64;
                seen.tail += found.len() as u64;
            }
            OutputRead::Gap(gap) => {
                assert_eq!(gap.offset, seen.length);
                seen.length += gap.length;
                if seen.gaps.is_empty() {
                    seen.head = seen.tail;
                }
                seen.tail = 0;
                seen.gaps.push(gap);
            }
            OutputRead::Nothing => break,
        }
    }
    let lost: u64 = seen.gaps.iter().map(|gap| gap.length).sum();
    assert_eq!(seen.kept + lost, seen.length);
    let stream = store.command(id).await.unwrap().unwrap().streams[0].clone();
    assert_eq!((stream.length, stream.gaps), (seen.length, seen.gaps.clone()), "the row and the bytes disagree");
    let lengths = store.stored_lengths(id).await.unwrap();
    assert!(seen.length == 0 || lengths == [(StreamName::Stdout, seen.length)]);
    seen
}

pub async fn a_stream_keeps_its_head_and_its_tail_and_one_exact_gap(home: &Home) {
    let id = with_quota(home, Some(MIB)).await;
    let total = 5 * MIB + 12_345;
    let mut offset = 0;
    while offset < total {
        let length = 32_768.min(total - offset);
        home.write(id, offset, &bytes(offset, length)).await.unwrap();
        offset += length;
        if offset == MIB {
            // On the one side of the edge nothing is missing yet.
            assert_eq!(look(&home.store, id).await.gaps, []);
        }
    }
    let seen = look(&home.store, id).await;
    assert_eq!((seen.length, seen.gaps.len()), (total, 1));
    assert!(seen.kept >= MIB && seen.kept <= MIB + ABOVE, "{} bytes are kept", seen.kept);
    assert!(seen.head >= MIB / 8 && seen.head <= MIB / 8 + 96 * 1024, "{} bytes of the head", seen.head);
    assert!(seen.tail >= MIB * 3 / 4, "{} bytes of the tail", seen.tail);
}

pub async fn a_stream_below_the_default_quota_keeps_every_byte(home: &Home) {
    let id = with_quota(home, None).await;
    for number in 0..20 {
        home.write(id, number * MIB, &bytes(number * MIB, MIB)).await.unwrap();
    }
    let seen = look(&home.store, id).await;
    assert_eq!((seen.kept, seen.gaps), (20 * MIB, vec![]));
}

pub async fn each_stream_has_a_quota_of_its_own(home: &Home) {
    let id = with_quota(home, Some(MIN_OUTPUT_QUOTA)).await;
    let other = with_quota(home, Some(4 * MIB)).await;
    for number in 0..4 {
        let data = Bytes::from(bytes(number * MIB, MIB));
        let out = Chunk { command: id, stream: StreamName::Stdout, offset: number * MIB, data, gap: 0 };
        let err = Chunk { stream: StreamName::Stderr, ..out.clone() };
        let free = Chunk { command: other, ..out.clone() };
        home.store.append_output(vec![out, err, free]).unwrap().await.unwrap();
    }
    let streams = home.command(id).await.streams;
    assert!(streams.iter().all(|stream| stream.length == 4 * MIB && stream.gaps.len() == 1), "{streams:?}");
    assert_eq!(look(&home.store, other).await.gaps, []);
}

/// The gaps of the agent, repeats, appends of every size and reopened stores in any order.
pub async fn kept_bytes_and_gaps_are_always_the_whole_length(home: &Home) {
    for seed in 1..=6 {
        any_order(home, seed).await;
    }
}

async fn any_order(home: &Home, seed: u64) {
    let mut random = Random(seed);
    let quota = MIN_OUTPUT_QUOTA << (seed % 2);
    let id = with_quota(home, Some(quota)).await;
    let mut length = 0;
    // What the agent itself never had: nobody can read it later.
    let mut lost: Vec<(u64, u64)> = Vec::new();
    for turn in 0..120 {
        let mut call = Vec::new();
        for _ in 0..=random.below(4) {
            match random.below(10) {
                0 => {
                    let gap_length = 1 + random.below(200_000);
                    call.push(gap(id, length, gap_length));
                    lost.push((length, length + gap_length));
                    length += gap_length;
                }
                1 => {
                    // A repeat of what came long ago, and a little more behind the end.
                    let from = random.below(length + 1).max(length.saturating_sub(400_000));
                    let until = (from + random.below(60_000)).max(length.min(from + 20_000));
                    if lost.iter().all(|(start, end)| *end <= from || until <= *start) {
                        call.push(chunk(id, from, &bytes(from, until - from)));
                        length = length.max(until);
                    }
                }
                2 => {
                    let from = random.below(length + 1);
                    call.push(gap(id, from, random.below(length - from + 1)));
                }
                _ => {
                    let most = if random.below(2) == 0 { 200 } else { 90_000 };
                    let added = 1 + random.below(most);
                    call.push(chunk(id, length, &bytes(length, added)));
                    length += added;
                }
            }
        }
        let appended = home.store.append_output(call).unwrap().await.unwrap();
        assert!(appended.iter().all(|one| one.length == length), "seed {seed}, turn {turn}: {appended:?}");
        if turn % 4 == 0 || turn == 119 {
            let seen = look(&home.store, id).await;
            assert_eq!(seen.length, length, "seed {seed}, turn {turn}");
            assert!(seen.kept <= quota + ABOVE, "seed {seed}, turn {turn}: {} bytes are kept", seen.kept);
            for pair in seen.gaps.windows(2) {
                assert!(pair[0].offset + pair[0].length < pair[1].offset, "seed {seed}, turn {turn}: {:?}", seen.gaps);
            }
            for (start, end) in &lost {
                let covered = seen.gaps.iter().any(|gap| gap.offset <= *start && *end <= gap.offset + gap.length);
                assert!(covered, "seed {seed}, turn {turn}: {start}..{end} was never there");
            }
        }
    }
    let total: u64 = lost.iter().map(|(start, end)| end - start).sum();
    assert!(length - total > 2 * quota, "seed {seed} wrote too little to see anything taken");
}

/// Numbers without a pattern, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

/// An agent that was away sends again what the manager has taken in the meantime from the bytes of before.
pub async fn bytes_that_were_taken_do_not_come_back(home: &Home) {
    let id = with_quota(home, Some(MIN_OUTPUT_QUOTA)).await;
    for number in 0..4 {
        home.write(id, number * MIB, &bytes(number * MIB, MIB)).await.unwrap();
    }
    let before = look(&home.store, id).await;
    let reopened = home.reopened().await;
    for offset in (0..4 * MIB).step_by(65_536) {
        reopened.append_output(vec![chunk(id, offset, &bytes(offset, 65_536))]).unwrap().await.unwrap();
    }
    let after = look(&reopened, id).await;
    assert_eq!((after.kept, after.gaps), (before.kept, before.gaps));
    // The quota goes on where it was.
    reopened.append_output(vec![chunk(id, 4 * MIB, &bytes(4 * MIB, MIB))]).unwrap().await.unwrap();
    let longer = look(&reopened, id).await;
    assert!(longer.length == 5 * MIB && longer.kept <= MIN_OUTPUT_QUOTA + MIB + ABOVE && longer.gaps.len() == 1);
    reopened.close().await;
}

pub async fn a_reader_that_falls_behind_finds_the_gap_and_goes_on_behind_it(home: &Home) {
    let id = with_quota(home, Some(MIN_OUTPUT_QUOTA)).await;
    for offset in (0..400_000).step_by(20_000) {
        home.write(id, offset, &bytes(offset, 20_000)).await.unwrap();
    }
    // So far the reader has come when the flood begins.
    let OutputRead::Bytes(first) = home.store.read_output(id, StreamName::Stdout, 0, 200_000).await.unwrap() else {
        panic!("the head is there");
    };
    let mut offset = first.len() as u64;
    let mut at = 400_000;
    while at < 3 * MIB {
        home.write(id, at, &bytes(at, 32_768)).await.unwrap();
        at += 32_768;
    }
    let read = home.store.read_output(id, StreamName::Stdout, offset, 1 << 20).await.unwrap();
    let OutputRead::Gap(gap) = read else { panic!("bytes that were taken: {offset}") };
    assert_eq!(gap.offset, offset);
    offset += gap.length;
    let mut rest = 0;
    while let OutputRead::Bytes(more) = home.store.read_output(id, StreamName::Stdout, offset, 1 << 20).await.unwrap() {
        assert!(more == bytes(offset, more.len() as u64));
        offset += more.len() as u64;
        rest += more.len() as u64;
    }
    assert_eq!(offset, at);
    assert!(rest >= MIN_OUTPUT_QUOTA * 3 / 4 - 96 * 1024, "{rest} bytes of the tail");
}

/// Readers and the writer do not wait for each other, and what a reader sees is always whole.
pub async fn followers_of_a_flood_see_bytes_and_gaps_that_fit(home: &Home) {
    let id = with_quota(home, Some(MIN_OUTPUT_QUOTA)).await;
    let total = 16 * MIB;
    let store = home.store.clone();
    let follower = tokio::spawn(async move {
        let (mut watch, mut offset, mut lost) = (store.watch_command(id), 0, 0);
        while offset < total {
            match store.read_output(id, StreamName::Stdout, offset, 20_000).await.unwrap() {
                OutputRead::Bytes(found) => {
                    assert!(found == bytes(offset, found.len() as u64), "at {offset}");
                    offset += found.len() as u64;
                }
                OutputRead::Gap(gap) => {
                    assert!(gap.offset == offset && gap.length > 0);
                    offset += gap.length;
                    lost += gap.length;
                }
                OutputRead::Nothing => watch.changed().await,
            }
            // The row says nothing of what is behind the length that it names.
            let stream = store.command(id).await.unwrap().unwrap().streams[0].clone();
            assert!(stream.gaps.iter().all(|gap| gap.offset + gap.length <= stream.length), "{stream:?}");
        }
        assert_eq!(offset, total);
        lost
    });
    for offset in (0..total).step_by(65_536) {
        home.write(id, offset, &bytes(offset, 65_536)).await.unwrap();
    }
    let lost = follower.await.unwrap();
    assert!(lost <= total - MIN_OUTPUT_QUOTA);
    let reported = ended(Outcome::Succeeded, &[(StreamName::Stdout, total)]);
    let agent = home.store.agent(&name("a")).await.unwrap().unwrap();
    home.store.due(taker("a", agent.generation, 10), &everybody(), NOW).await.unwrap();
    let uid = home.command(id).await.uid;
    home.store.acked(&uid, &name("a"), AckAnswer::Accepted, NOW).await.unwrap();
    home.store.result(&uid, &name("a"), reported, NOW).await.unwrap();
    // What the quota took is not awaited.
    assert!(home.store.ready_for_ack(id).await.unwrap());
    let stdout = home.command(id).await.streams[0].clone();
    assert!(stdout.end && stdout.length == total && stdout.gaps.len() == 1, "{stdout:?}");
}

pub async fn the_file_stays_small_whatever_a_command_writes(home: &Home) {
    let id = with_quota(home, Some(MIB)).await;
    let block = Bytes::from(vec![0x5a; 32 * 1024]);
    let file = home.folder().join("output.db");
    let mut largest = 0;
    for part in 0..200 {
        let call = (0..32)
            .map(|number| Chunk {
                command: id,
                stream: StreamName::Stdout,
                offset: part * MIB + number * 32 * 1024,
                data: block.clone(),
                gap: 0,
            })
            .collect();
        home.store.append_output(call).unwrap().await.unwrap();
        largest = largest.max(std::fs::metadata(&file).unwrap().len());
    }
    let stream = home.command(id).await.streams[0].clone();
    assert_eq!((stream.length, stream.gaps.len()), (200 * MIB, 1));
    assert!(largest <= 4 * MIB, "the file grew to {largest} bytes");
    let log = std::fs::metadata(home.folder().join("output.db-wal")).unwrap().len();
    assert!(log <= 32 * MIB, "the log grew to {log} bytes");
}

/// What an agent claims of a command that only it knows does not decide how much of this disk it gets.
pub async fn an_imported_command_keeps_the_default_at_the_most(home: &Home) {
    let (generation, _) = home.connected("a").await;
    let import = |output: u64, uid: u8| Import {
        agent: name("a"),
        uid: Uid([uid; 16]),
        id: CommandId(77),
        generation: Generation(generation.0),
        job: None,
        attempt: 1,
        request: Request { limits: Limits { output: Some(output), ..Limits::default() }, ..request() },
        created_at: NOW,
        expires_at: NOW + 1000,
        phase: HeldPhase::Running,
        tombstone: false,
        journal: JOURNAL,
    };
    for (wish, quota, uid) in [(u64::MAX, DEFAULT_OUTPUT_QUOTA, 1), (2 * MIB, 2 * MIB, 2)] {
        let id = home.store.import(import(wish, uid), NOW).await.unwrap();
        home.write(id, 0, &vec![0; usize::try_from(MIB).unwrap()]).await.unwrap();
        assert_eq!(noted_quota(home, id), quota);
    }
}

/// The quota that stands beside the stream.
fn noted_quota(home: &Home, id: CommandId) -> u64 {
    let file = rusqlite::Connection::open(home.folder().join("output.db")).unwrap();
    file.query_row("SELECT quota FROM streams WHERE command = ?1", [i64::try_from(id.0).unwrap()], |row| {
        row.get::<_, i64>(0)
    })
    .map(|quota| u64::try_from(quota).unwrap())
    .unwrap()
}

pub async fn a_file_of_the_release_before_is_taken_over_with_its_bytes_counted(home: &Home) {
    let id = with_quota(home, Some(MIN_OUTPUT_QUOTA)).await;
    home.store.append_output(vec![chunk(id, 0, &bytes(0, 400_000)), gap(id, 400_000, 600_000)]).unwrap().await.unwrap();
    home.store.close().await;
    let file = rusqlite::Connection::open(home.folder().join("output.db")).unwrap();
    file.execute_batch(
        "ALTER TABLE streams DROP COLUMN kept; ALTER TABLE streams DROP COLUMN quota;
         DELETE FROM migrations WHERE version = 2",
    )
    .unwrap();
    drop(file);
    let store = Store::open(home.folder()).await.unwrap();
    store.append_output(vec![chunk(id, 1_000_000, &bytes(1_000_000, 500_000))]).unwrap().await.unwrap();
    let seen = look(&store, id).await;
    assert_eq!((seen.length, seen.gaps.len()), (1_500_000, 1));
    assert!(seen.kept >= MIN_OUTPUT_QUOTA && seen.kept <= MIN_OUTPUT_QUOTA + 500_000, "{} bytes", seen.kept);
    store.close().await;
}
