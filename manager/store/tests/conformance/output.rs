//! Bytes of commands.

use bytes::Bytes;
use common::id::CommandId;
use common::model::{Outcome, Phase, StreamName};
use store::StoreError;
use store::types::{Chunk, Gap, OutputRead};

use crate::world::{Home, NOW, chunk, ended, gap, held, listed, name};

/// Reads a whole stream; gaps as zeros, counted.
async fn whole(home: &Home, id: CommandId, step: usize) -> (Vec<u8>, u64) {
    let (mut all, mut lost) = (Vec::new(), 0);
    loop {
        let offset = all.len() as u64;
        match home.store.read_output(id, StreamName::Stdout, offset, step).await.unwrap() {
            OutputRead::Bytes(bytes) => all.extend_from_slice(&bytes),
            OutputRead::Gap(gap) => {
                assert_eq!(gap.offset, offset);
                lost += gap.length;
                all.resize(all.len() + usize::try_from(gap.length).unwrap(), 0);
            }
            OutputRead::Nothing => return (all, lost),
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 7 + index / 256) % 251).unwrap()).collect()
}

pub async fn bytes_come_back_from_every_offset(home: &Home) {
    let id = home.in_phase("a", Phase::Running).await.id;
    let bytes = pattern(300_000);
    let mut offset = 0;
    for (index, size) in [1, 100, 8_191, 8_192, 32_768, 65_536, 70_000, 115_212].into_iter().enumerate() {
        let length = home.write(id, offset as u64, &bytes[offset..offset + size]).await.unwrap();
        offset += size;
        assert_eq!(length, offset as u64, "write {index}");
    }
    assert_eq!(offset, bytes.len());
    for step in [1_000, 65_536, 1 << 20] {
        assert_eq!(whole(home, id, step).await, (bytes.clone(), 0));
    }
    for from in [0_usize, 1, 101, 8_291, 8_292, 16_484, 299_999] {
        let read = home.store.read_output(id, StreamName::Stdout, from as u64, 50).await.unwrap();
        assert_eq!(read, OutputRead::Bytes(Bytes::copy_from_slice(&bytes[from..(from + 50).min(bytes.len())])));
    }
    let read = home.store.read_output(id, StreamName::Stdout, 300_000, 50).await.unwrap();
    assert_eq!(read, OutputRead::Nothing);
    assert_eq!(home.store.stored_lengths(id).await.unwrap(), [(StreamName::Stdout, 300_000)]);
}

/// Protocol R-OUT-1.
pub async fn repeats_and_overlaps_are_ignored(home: &Home) {
    let id = home.in_phase("a", Phase::Running).await.id;
    assert_eq!(home.write(id, 0, b"hello").await.unwrap(), 5);
    assert_eq!(home.write(id, 0, b"hello").await.unwrap(), 5);
    assert_eq!(home.write(id, 2, b"ll").await.unwrap(), 5);
    assert_eq!(home.write(id, 3, b"lo, world").await.unwrap(), 12);
    assert_eq!(home.write(id, 12, b"").await.unwrap(), 12);
    assert_eq!(whole(home, id, 100).await, (b"hello, world".to_vec(), 0));
}

/// Protocol R-OUT-2.
pub async fn a_hole_is_refused_and_nothing_of_the_call_stands(home: &Home) {
    let id = home.in_phase("a", Phase::Running).await.id;
    home.write(id, 0, b"abc").await.unwrap();
    let call = vec![chunk(id, 3, b"def"), chunk(id, 7, b"x")];
    let refused = home.store.append_output(call).unwrap().await;
    assert!(matches!(refused, Err(StoreError::Hole { command, expected: 6 }) if command == id));
    assert_eq!(whole(home, id, 100).await, (b"abc".to_vec(), 0));
    assert!(home.store.append_output(vec![gap(id, 9, 5)]).unwrap().await.is_err());
}

/// Protocol R-OUT-3.
pub async fn gaps_are_kept_and_read_as_gaps(home: &Home) {
    let id = home.in_phase("a", Phase::Running).await.id;
    let call = vec![chunk(id, 0, b"head"), gap(id, 4, 10), gap(id, 14, 6), chunk(id, 20, b"tail"), gap(id, 24, 1)];
    let appended = home.store.append_output(call.clone()).unwrap().await.unwrap();
    assert_eq!(appended[0].length, 25);
    // A repeat, also of a part and with more behind it, adds only what is new.
    assert_eq!(home.store.append_output(call).unwrap().await.unwrap()[0].length, 25);
    assert_eq!(home.store.append_output(vec![gap(id, 10, 20)]).unwrap().await.unwrap()[0].length, 30);
    let mut expected = b"head".to_vec();
    expected.resize(20, 0);
    expected.extend_from_slice(b"tail");
    expected.resize(30, 0);
    assert_eq!(whole(home, id, 100).await, (expected, 22));
    let inside = home.store.read_output(id, StreamName::Stdout, 7, 100).await.unwrap();
    assert_eq!(inside, OutputRead::Gap(Gap { offset: 7, length: 13 }));
    let stream = home.command(id).await.streams[0].clone();
    assert_eq!(stream.gaps, [Gap { offset: 4, length: 16 }, Gap { offset: 24, length: 6 }]);
}

pub async fn gaps_that_touch_are_one_row(home: &Home) {
    let id = home.in_phase("a", Phase::Running).await.id;
    for start in 0..100 {
        home.store.append_output(vec![gap(id, start * 2, 1), gap(id, start * 2 + 1, 1)]).unwrap().await.unwrap();
    }
    home.write(id, 200, b"tail").await.unwrap();
    assert_eq!(whole(home, id, 100).await.1, 200);
    assert_eq!(gap_rows(home), 1);
}

pub async fn a_stream_keeps_a_thousand_gaps_and_is_one_gap_behind_them(home: &Home) {
    const MOST: u64 = 1_000;
    let id = home.in_phase("a", Phase::Running).await.id;
    // A byte behind each gap, so that none touches the next.
    let pairs = |from: u64, count: u64| -> Vec<Chunk> {
        (from..from + count).flat_map(|number| [gap(id, number * 2, 1), chunk(id, number * 2 + 1, b"x")]).collect()
    };
    home.store.append_output(pairs(0, MOST)).unwrap().await.unwrap();
    assert_eq!((whole(home, id, 100).await.1, gap_rows(home)), (MOST, MOST));
    home.store.append_output(pairs(MOST, 5)).unwrap().await.unwrap();
    // Also in the appends that follow, and for repeats of what is stored.
    home.store.append_output(pairs(MOST + 4, 6)).unwrap().await.unwrap();
    assert_eq!(gap_rows(home), MOST + 1);
    let (bytes, lost) = whole(home, id, 100).await;
    assert_eq!((bytes.len() as u64, lost), ((MOST + 10) * 2, MOST + 20));
    let stream = home.command(id).await.streams[0].clone();
    assert_eq!(stream.gaps.last(), Some(&Gap { offset: MOST * 2, length: 20 }));
}

fn gap_rows(home: &Home) -> u64 {
    let file = rusqlite::Connection::open(home.folder().join("output.db")).unwrap();
    let rows: i64 = file.query_row("SELECT count(*) FROM gaps", [], |row| row.get(0)).unwrap();
    u64::try_from(rows).unwrap()
}

pub async fn many_short_writes_make_few_rows(home: &Home) {
    let id = home.in_phase("a", Phase::Running).await.id;
    let bytes = pattern(20_000);
    for (index, line) in bytes.chunks(40).enumerate() {
        home.write(id, index as u64 * 40, line).await.unwrap();
    }
    assert_eq!(whole(home, id, 1 << 20).await, (bytes, 0));
    let file = rusqlite::Connection::open(home.folder().join("output.db")).unwrap();
    let rows: i64 = file.query_row("SELECT count(*) FROM chunks", [], |row| row.get(0)).unwrap();
    assert!(rows <= 4, "{rows} rows");
}

pub async fn streams_do_not_mix(home: &Home) {
    let one = home.in_phase("a", Phase::Running).await.id;
    let two = home.in_phase("a", Phase::Running).await.id;
    let stderr = Chunk { stream: StreamName::Stderr, ..chunk(one, 0, b"err") };
    let steps = Chunk { stream: StreamName::Steps, ..chunk(one, 0, b"{}") };
    let call = vec![chunk(one, 0, b"one"), stderr, chunk(two, 0, b"two"), chunk(one, 3, b"!"), steps];
    let appended = home.store.append_output(call).unwrap().await.unwrap();
    assert_eq!(appended.len(), 4);
    assert_eq!(whole(home, one, 10).await.0, b"one!");
    assert_eq!(whole(home, two, 10).await.0, b"two");
    let read = home.store.read_output(one, StreamName::Stderr, 0, 10).await.unwrap();
    assert_eq!(read, OutputRead::Bytes(Bytes::from_static(b"err")));
    assert_eq!(home.command(one).await.streams.len(), 3);
}

pub async fn a_lost_end_reads_as_a_gap(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    home.write(command.id, 0, b"abc").await.unwrap();
    let reported = ended(Outcome::Succeeded, &[(StreamName::Stdout, 10)]);
    home.store.result(&command.uid, &name("a"), reported, NOW).await.unwrap();
    let read = home.store.read_output(command.id, StreamName::Stdout, 3, 10).await.unwrap();
    assert_eq!(read, OutputRead::Nothing);
    // The agent comes back without it: the rest of the bytes is nowhere.
    let agent = name("a");
    let gone =
        home.store.reconcile_finish(&agent, command.generation, crate::world::JOURNAL, listed(&[]), NOW).await.unwrap();
    assert_eq!(gone, []);
    let read = home.store.read_output(command.id, StreamName::Stdout, 3, 10).await.unwrap();
    assert_eq!(read, OutputRead::Gap(Gap { offset: 3, length: 7 }));
    let stdout = home.command(command.id).await.streams[0].clone();
    assert_eq!((stdout.length, stdout.end, stdout.gaps), (10, true, vec![Gap { offset: 3, length: 7 }]));
    // And the phase is what the agent had said.
    assert_eq!(home.command(command.id).await.phase, Phase::Succeeded);
    let verdict = held(command.uid, command.generation, store::types::HeldPhase::Ended);
    home.store.reconcile_page(&agent, command.generation, crate::world::JOURNAL, vec![verdict], NOW).await.unwrap();
}

pub async fn followers_see_every_byte_while_it_is_written(home: &Home) {
    let id = home.in_phase("a", Phase::Running).await.id;
    let bytes = pattern(200_000);
    let (store, expected) = (home.store.clone(), bytes.clone());
    let follower = tokio::spawn(async move {
        let mut watch = store.watch_command(id);
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            match store.read_output(id, StreamName::Stdout, seen.len() as u64, 10_000).await.unwrap() {
                OutputRead::Bytes(bytes) => seen.extend_from_slice(&bytes),
                OutputRead::Nothing => watch.changed().await,
                OutputRead::Gap(gap) => panic!("{gap:?}"),
            }
        }
        assert!(seen == expected);
    });
    let mut waiting = Vec::new();
    for (index, part) in bytes.chunks(777).enumerate() {
        waiting.push(home.store.append_output(vec![chunk(id, index as u64 * 777, part)]).unwrap());
    }
    for appending in waiting {
        appending.await.unwrap();
    }
    follower.await.unwrap();
}
