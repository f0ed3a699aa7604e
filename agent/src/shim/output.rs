//! Writes the streams of a command: pipe to file, hashed as it passes, never lost in silence.
//!
//! Files are cut at fixed sizes so that a quota can take whole ones: the head of a stream stays, then the oldest go.
//! What a full disk does not take is counted: the next file begins behind the gap. The command never waits for room.
//!
//! The page cache is left to the kernel: of a flood at most the quota is dirty, because files that the quota takes never
//! reach the disk. Writing them out earlier would only cost the disk bytes that nobody keeps.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::limits::{DEFAULT_OUTPUT_QUOTA, OUTPUT_HEAD_SHARE, output_head};
use common::model::StreamName;

use crate::commands::segment;
use crate::commands::{GapRange, MAX_SEGMENTS, SegmentEnd, StreamEnd, narrow};

/// A file of a stream.
const SEGMENT: u64 = 16 * 1024 * 1024;
/// Files are not smaller than this, whatever the quota.
const SEGMENT_MIN: u64 = 64 * 1024;
/// At most so many: the list of their hashes has to fit END.
const SEGMENTS_MAX: u64 = 16;
/// How long a full disk is left alone before the next try.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// One stream being written.
pub(super) struct StreamWriter {
    dir: PathBuf,
    stream: StreamName,
    sizes: Sizes,
    /// Bytes the command wrote, lost ones included.
    length: u64,
    open: Option<Open>,
    closed: Vec<SegmentEnd>,
    gaps: Vec<GapRange>,
    full_until: Option<Instant>,
    made_files: bool,
    /// Bytes were lost because they could not be written.
    pub(super) lost: bool,
}

/// What became of making a stream durable.
#[derive(Debug)]
pub(super) struct Synced {
    /// There are files whose names need a sync of the directory.
    pub(super) names: bool,
    /// Why some of it may not outlive a crash.
    pub(super) failed: Option<io::Error>,
}

/// How a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    head: u64,
    segment: u64,
    quota: u64,
}

struct Open {
    start: u64,
    length: u64,
    file: File,
    hasher: blake3::Hasher,
}

impl Sizes {
    fn of(quota: u64) -> Self {
        let quota = if quota == 0 { DEFAULT_OUTPUT_QUOTA } else { quota };
        let segment = SEGMENT.min(quota / OUTPUT_HEAD_SHARE).max(SEGMENT_MIN).max(quota / SEGMENTS_MAX);
        Self { head: output_head(quota).clamp(SEGMENT_MIN, segment), segment, quota }
    }
}

impl StreamWriter {
    /// Writes below `dir`; 0 is the default quota. Nothing is made before the first byte.
    pub(super) fn new(dir: &Path, stream: StreamName, quota: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            stream,
            sizes: Sizes::of(quota),
            length: 0,
            open: None,
            closed: Vec::new(),
            gaps: Vec::new(),
            full_until: None,
            made_files: false,
            lost: false,
        }
    }

    /// Takes bytes from the command.
    pub(super) fn write(&mut self, mut bytes: &[u8], now: Instant) {
        while !bytes.is_empty() {
            if self.full_until.is_some_and(|until| now < until) {
                return self.lose(bytes.len() as u64);
            }
            match self.write_some(bytes) {
                Ok(taken) => {
                    self.full_until = None;
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
                Err(_) => {
                    self.close();
                    self.full_until = Some(now + FULL_PAUSE);
                    return self.lose(bytes.len() as u64);
                }
            }
        }
    }

    /// Makes what was written durable. What could not be has no hash afterwards: nobody vouches for it.
    pub(super) fn sync(&mut self) -> Synced {
        let open = self.open.as_ref().map(|open| (open.start, open.file.sync_data()));
        self.close();
        let mut failed = None;
        for segment in &mut self.closed {
            let synced = match &open {
                Some((start, synced)) if *start == segment.offset => {
                    synced.as_ref().map(drop).map_err(|error| io::Error::new(error.kind(), error.to_string()))
                }
                _ => File::open(self.dir.join(segment::name(self.stream, segment.offset)))
                    .and_then(|file| file.sync_data()),
            };
            if let Err(error) = synced {
                segment.blake3.clear();
                failed.get_or_insert(error);
            }
        }
        Synced { names: self.made_files, failed }
    }

    /// What END says about it; none when the command wrote nothing.
    pub(super) fn end(&self) -> Option<StreamEnd> {
        (self.length > 0).then(|| StreamEnd {
            stream: self.stream,
            length: self.length,
            gaps: self.gaps.clone(),
            segments: self.closed.iter().take(MAX_SEGMENTS).cloned().collect(),
        })
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let limit =
            if self.open.as_ref().is_some_and(|open| open.start == 0) { self.sizes.head } else { self.sizes.segment };
        if self.open.as_ref().is_some_and(|open| open.length >= limit) {
            self.close();
            self.evict();
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let path = self.dir.join(segment::name(self.stream, self.length));
                let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
                self.made_files = true;
                self.open.insert(Open { start: self.length, length: 0, file, hasher: blake3::Hasher::new() })
            }
        };
        let limit = if open.start == 0 { self.sizes.head } else { self.sizes.segment };
        let room = usize::try_from(limit - open.length).unwrap_or(usize::MAX);
        let fitting = bytes.get(..room).unwrap_or(bytes);
        let taken = match open.file.write_at(fitting, open.length) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        };
        open.hasher.update(fitting.get(..taken).unwrap_or_default());
        open.length += taken as u64;
        self.length += taken as u64;
        Ok(taken)
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.length == 0 {
            // A full disk often still gives a name; an empty file would only be in the way.
            drop(fs::remove_file(self.path(open.start)));
            return;
        }
        self.closed.push(SegmentEnd {
            offset: open.start,
            length: open.length,
            blake3: open.hasher.finalize().to_hex().to_string(),
        });
    }

    /// Takes the oldest files behind the head until one more fits the quota.
    fn evict(&mut self) {
        let mut kept: u64 = self.closed.iter().map(|segment| segment.length).sum();
        while kept + self.sizes.segment > self.sizes.quota && self.closed.len() > 2 {
            let oldest = self.closed.remove(1);
            drop(fs::remove_file(self.path(oldest.offset)));
            kept -= oldest.length;
            self.add_gap(GapRange { offset: oldest.offset, length: oldest.length });
        }
    }

    fn lose(&mut self, length: u64) {
        self.lost = true;
        self.add_gap(GapRange { offset: self.length, length });
        self.length += length;
    }

    fn add_gap(&mut self, gap: GapRange) {
        self.gaps.push(gap);
        self.gaps.sort_unstable_by_key(|gap| gap.offset);
        self.gaps = self.gaps.iter().fold(Vec::new(), |mut merged: Vec<GapRange>, gap| {
            match merged.last_mut() {
                Some(last) if last.offset + last.length == gap.offset => last.length += gap.length,
                _ => merged.push(*gap),
            }
            merged
        });
        // A disk that is full and not full in turn must not make an end that nobody can carry.
        for lost in narrow(&mut self.gaps, &mut self.closed) {
            drop(fs::remove_file(self.path(lost.offset)));
        }
    }

    fn path(&self, start: u64) -> PathBuf {
        self.dir.join(segment::name(self.stream, start))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::commands::end::MAX_GAPS;
    use crate::commands::segment::{Piece, StreamReader};

    fn back(dir: &Path, length: u64) -> Vec<(u64, Piece)> {
        let mut reader = StreamReader::new(dir, StreamName::Stdout);
        let (mut at, mut pieces) = (0, Vec::new());
        while at < length {
            let piece = reader.read(at, 1 << 30).unwrap();
            let step = match &piece {
                Piece::Bytes(bytes) => bytes.len() as u64,
                Piece::Gap(gap) => *gap,
                Piece::Nothing => break,
            };
            pieces.push((at, piece));
            at += step;
        }
        pieces
    }

    #[test]
    fn a_stream_without_bytes_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = StreamWriter::new(dir.path(), StreamName::Stdout, 0);
        assert!(!writer.sync().names);
        assert!(writer.end().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn over_quota_the_head_stays_and_the_gap_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = StreamWriter::new(dir.path(), StreamName::Stdout, 8 * SEGMENT_MIN);
        let content: Vec<u8> = (0..20 * SEGMENT_MIN + 5).map(|at| (at / 7) as u8).collect();
        for chunk in content.chunks(10_007) {
            writer.write(chunk, Instant::now());
        }
        assert!(writer.sync().failed.is_none());
        let end = writer.end().unwrap();
        assert_eq!(end.length, content.len() as u64);
        assert_eq!(end.gaps.len(), 1);
        let gap = end.gaps[0];
        assert_eq!(gap.offset, SEGMENT_MIN);
        let kept: u64 = end.segments.iter().map(|segment| segment.length).sum();
        assert_eq!(kept + gap.length, end.length);
        assert!(kept <= 8 * SEGMENT_MIN);
        for segment in &end.segments {
            let range = segment.offset as usize..(segment.offset + segment.length) as usize;
            assert_eq!(segment.blake3, blake3::hash(&content[range]).to_hex().to_string());
        }
        for (at, piece) in back(dir.path(), end.length) {
            match piece {
                Piece::Bytes(bytes) => assert_eq!(bytes, content[at as usize..at as usize + bytes.len()]),
                other => assert_eq!((at, other), (gap.offset, Piece::Gap(gap.length))),
            }
        }
    }

    #[test]
    fn what_cannot_be_written_becomes_a_counted_gap_and_writing_goes_on_later() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        let mut writer = StreamWriter::new(&real, StreamName::Stdout, 0);
        let start = Instant::now();
        writer.write(b"abc", start);
        // The file is closed and the directory gone: every new file fails, as on a disk without room for names.
        writer.close();
        let aside = dir.path().join("aside");
        fs::rename(&real, &aside).unwrap();
        writer.write(b"lost", start);
        fs::rename(&aside, &real).unwrap();
        writer.write(b"too early", start + FULL_PAUSE / 2);
        writer.write(b"def", start + FULL_PAUSE);
        assert!(writer.sync().failed.is_none());
        let end = writer.end().unwrap();
        assert!(writer.lost);
        assert_eq!(end.length, 19);
        assert_eq!(end.gaps, vec![GapRange { offset: 3, length: 13 }]);
        let pieces: Vec<_> = back(&real, end.length).into_iter().map(|(_, piece)| piece).collect();
        assert_eq!(pieces, [Piece::Bytes("abc".into()), Piece::Gap(13), Piece::Bytes("def".into())]);
    }

    #[test]
    fn what_could_not_be_synced_has_no_hash_that_vouches_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = StreamWriter::new(dir.path(), StreamName::Stdout, 8 * SEGMENT_MIN);
        writer.write(&vec![b'x'; 2 * SEGMENT_MIN as usize + 5], Instant::now());
        // As if its sync failed: the second file cannot be reached any more.
        fs::remove_file(dir.path().join(segment::name(StreamName::Stdout, SEGMENT_MIN))).unwrap();
        let synced = writer.sync();
        assert!(synced.names && synced.failed.is_some());
        let end = writer.end().unwrap();
        let vouched: Vec<_> = end.segments.iter().map(|segment| !segment.blake3.is_empty()).collect();
        assert_eq!((vouched, end.length), (vec![true, false, true], 2 * SEGMENT_MIN + 5));
    }

    #[test]
    fn a_disk_that_is_full_again_and_again_makes_an_end_of_a_bounded_size() {
        // In memory where that is possible: a thousand files are synced.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut writer = StreamWriter::new(dir.path(), StreamName::Stdout, 0);
        for round in 0..MAX_GAPS as u64 + 50 {
            writer.write(&[b'k'; 3], Instant::now());
            writer.close();
            writer.lose(1 + round % 2);
        }
        writer.write(b"last", Instant::now());
        assert!(writer.sync().failed.is_none());
        let end = writer.end().unwrap();
        assert_eq!(end.gaps.len(), MAX_GAPS);
        assert!(end.segments.len() <= MAX_SEGMENTS);
        // What END says is what the files say.
        let gaps: Vec<_> = back(dir.path(), end.length)
            .into_iter()
            .filter_map(|(offset, piece)| match piece {
                Piece::Gap(length) => Some(GapRange { offset, length }),
                _ => None,
            })
            .collect();
        assert_eq!(gaps, end.gaps);
    }

    proptest! {
        #[test]
        fn files_of_every_quota_are_within_it_and_at_most_a_few(quota in 0u64..1 << 40) {
            let sizes = Sizes::of(quota);
            prop_assert!(sizes.head <= sizes.segment);
            prop_assert!(sizes.segment >= SEGMENT_MIN);
            prop_assert!(sizes.quota / sizes.segment <= SEGMENTS_MAX);
        }
    }
}
