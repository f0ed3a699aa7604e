//! Reads the streams of a command by offset, while they grow and afterwards.
//!
//! A stream is a row of files named by the offset of their first byte, 20 digits: `stdout.00000000000000000000`. Only
//! the last one grows, so one that has a successor is final. Where a file does not reach to its successor, or the
//! first one does not begin at 0, bytes are missing: a quota or a full disk took them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::model::StreamName;

use super::end::{GapRange, MAX_SEGMENTS, SegmentEnd, StreamEnd, narrow};
use super::file_error::{Context, FileError};

/// Digits of the offset in a file's name: every `u64` fits, and names sort like numbers.
const DIGITS: usize = 20;

/// What stands at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes, at least one.
    Bytes(Bytes),
    /// This many bytes are not kept.
    Gap(u64),
    /// Nothing yet.
    Nothing,
}

/// Reads one stream of one command; keeps the file of the last read open.
#[derive(Debug)]
pub struct StreamReader {
    dir: PathBuf,
    stream: StreamName,
    open: Option<(u64, File)>,
}

impl StreamReader {
    /// Reads in a command's directory.
    #[must_use]
    pub fn new(dir: &Path, stream: StreamName) -> Self {
        Self { dir: dir.to_owned(), stream, open: None }
    }

    /// Reads at most `max` bytes at `offset`.
    ///
    /// # Errors
    /// When a file that should be there cannot be read.
    pub fn read(&mut self, offset: u64, max: usize) -> Result<Piece, FileError> {
        // A read that ends where the open file ends is the usual case and costs one call.
        if let Some(bytes) = self.read_open(offset, max)? {
            return Ok(Piece::Bytes(bytes));
        }
        let starts = starts(&self.dir, self.stream)?;
        if let Some(start) = starts.iter().copied().rfind(|start| *start <= offset)
            && self.open.as_ref().is_none_or(|(open, _)| *open != start)
        {
            let path = self.dir.join(name(self.stream, start));
            match File::open(&path) {
                Ok(file) => self.open = Some((start, file)),
                // The quota took it after the listing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.open = None,
                Err(error) => return Err(error).context("open", &path),
            }
        }
        // Also for the file that was open: it may have grown between the first look and the listing, and bytes that
        // are there must not be called a gap.
        if let Some(bytes) = self.read_open(offset, max)? {
            return Ok(Piece::Bytes(bytes));
        }
        Ok(match starts.iter().find(|start| **start > offset) {
            Some(next) => Piece::Gap(next - offset),
            None => Piece::Nothing,
        })
    }

    /// Where the next file after `offset` begins; `None` when there is none.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn next_file(&self, offset: u64) -> Result<Option<u64>, FileError> {
        Ok(starts(&self.dir, self.stream)?.into_iter().find(|start| *start > offset))
    }

    /// The offset behind the last byte that is there.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn length(&self) -> Result<u64, FileError> {
        length(&self.dir, self.stream)
    }

    fn read_open(&self, offset: u64, max: usize) -> Result<Option<Bytes>, FileError> {
        let Some((start, file)) = &self.open else { return Ok(None) };
        let Some(within) = offset.checked_sub(*start) else { return Ok(None) };
        let mut buffer = vec![0; max];
        let got = file.read_at(&mut buffer, within).context("read", &self.dir.join(name(self.stream, *start)))?;
        buffer.truncate(got);
        Ok((got > 0).then(|| Bytes::from(buffer)))
    }
}

/// Reads at most `max` bytes at `offset` without keeping anything open.
///
/// # Errors
/// When a file that should be there cannot be read.
pub fn read(dir: &Path, stream: StreamName, offset: u64, max: usize) -> Result<Piece, FileError> {
    StreamReader::new(dir, stream).read(offset, max)
}

/// The offset behind the last byte of a stream that is there; 0 when there is none.
///
/// # Errors
/// When the directory cannot be read.
pub fn length(dir: &Path, stream: StreamName) -> Result<u64, FileError> {
    match starts(dir, stream)?.last() {
        Some(start) => {
            let path = dir.join(name(stream, *start));
            let found = fs::metadata(&path).context("look at", &path)?;
            Ok(start + found.len())
        }
        None => Ok(0),
    }
}

/// The same for all streams that have files, with one look at the directory.
///
/// # Errors
/// When the directory or a file in it cannot be looked at.
pub(crate) fn lengths(dir: &Path) -> Result<Vec<(StreamName, u64)>, FileError> {
    let mut last: Vec<(StreamName, u64)> = Vec::new();
    for entry in fs::read_dir(dir).context("list", dir)? {
        let Some((stream, start)) = parse_name(&entry.context("list", dir)?.file_name()) else { continue };
        match last.iter_mut().find(|(of, _)| *of == stream) {
            Some((_, found)) => *found = start.max(*found),
            None => last.push((stream, start)),
        }
    }
    for (stream, length) in &mut last {
        let path = dir.join(name(*stream, *length));
        *length += fs::metadata(&path).context("look at", &path)?.len();
    }
    Ok(last)
}

/// What the files themselves say about all streams, for a command whose shim cannot say it any more; syncs them, so
/// that what is said stays true. Reads every byte that is kept, which the quota of the command bounds.
///
/// # Errors
/// When a file cannot be opened or synced.
pub(crate) fn survey(dir: &Path) -> Result<Vec<StreamEnd>, FileError> {
    let mut found = Vec::new();
    for stream in StreamName::ALL {
        let mut end = StreamEnd { stream, length: 0, gaps: Vec::new(), segments: Vec::new() };
        let starts = starts(dir, stream)?;
        if starts.is_empty() {
            continue;
        }
        for start in starts {
            let path = dir.join(name(stream, start));
            let file = File::open(&path).context("open", &path)?;
            file.sync_data().context("sync", &path)?;
            let length = file.metadata().context("look at", &path)?.len();
            if length == 0 {
                // Made, and its writer died before the first byte.
                continue;
            }
            if start > end.length {
                end.gaps.push(GapRange { offset: end.length, length: start - end.length });
            }
            // A bad block costs the evidence of one file, not the end of the command.
            let blake3 = hash(&file, length).map_or_else(|_| String::new(), |hash| hash.to_hex().to_string());
            end.segments.push(SegmentEnd { offset: start, length, blake3 });
            end.length = start + length;
        }
        if end.length == 0 {
            continue;
        }
        for lost in narrow(&mut end.gaps, &mut end.segments) {
            drop(fs::remove_file(dir.join(name(stream, lost.offset))));
        }
        end.segments.truncate(MAX_SEGMENTS);
        found.push(end);
    }
    Ok(found)
}

/// Removes the files of all streams; record and requests stay. Answers whether there were any.
///
/// # Errors
/// When the directory cannot be read or a file cannot be removed; one that is not there is fine.
pub(crate) fn remove_all(dir: &Path) -> Result<bool, FileError> {
    let mut found = false;
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.context("list", dir)?,
    };
    for entry in entries {
        let entry = entry.context("list", dir)?;
        if parse_name(&entry.file_name()).is_some() {
            let path = entry.path();
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("remove", &path),
                _ => found = true,
            }
        }
    }
    Ok(found)
}

/// The hash of the first `length` bytes.
fn hash(file: &File, length: u64) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let hashed = io::copy(&mut file.take(length), &mut hasher)?;
    if hashed < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(hasher.finalize()) }
}

/// The name of the file that begins at `start`.
pub(crate) fn name(stream: StreamName, start: u64) -> String {
    format!("{stream}.{start:0DIGITS$}")
}

/// Reads the name of a segment file.
pub(crate) fn parse_name(name: &OsStr) -> Option<(StreamName, u64)> {
    let (stream, digits) = name.to_str()?.split_once('.')?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain {
        return None;
    }
    Some((stream.parse().ok()?, digits.parse().ok()?))
}

fn starts(dir: &Path, stream: StreamName) -> Result<Vec<u64>, FileError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).context("list", dir)? {
        let entry = entry.context("list", dir)?;
        if let Some((of, start)) = parse_name(&entry.file_name())
            && of == stream
        {
            found.push(start);
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::commands::end::MAX_GAPS;

    fn put(dir: &Path, start: u64, bytes: &[u8]) {
        fs::write(dir.join(name(StreamName::Stdout, start)), bytes).unwrap();
    }

    fn bytes(text: &str) -> Piece {
        Piece::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn reading_goes_on_from_file_to_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = StreamReader::new(dir.path(), StreamName::Stdout);
        assert_eq!(reader.read(0, 10).unwrap(), Piece::Nothing);
        put(dir.path(), 0, b"abc");
        assert_eq!(reader.read(0, 10).unwrap(), bytes("abc"));
        assert_eq!(reader.read(1, 1).unwrap(), bytes("b"));
        assert_eq!(reader.read(3, 10).unwrap(), Piece::Nothing);
        put(dir.path(), 3, b"de");
        assert_eq!(reader.read(3, 10).unwrap(), bytes("de"));
        assert_eq!(reader.read(2, 10).unwrap(), bytes("c"));
        assert_eq!(reader.length().unwrap(), 5);
        assert_eq!(length(dir.path(), StreamName::Stderr).unwrap(), 0);
        assert_eq!(lengths(dir.path()).unwrap(), vec![(StreamName::Stdout, 5)]);
    }

    #[test]
    fn what_is_missing_is_a_gap_of_the_exact_size() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), 0, b"abc");
        put(dir.path(), 10, b"k");
        let mut reader = StreamReader::new(dir.path(), StreamName::Stdout);
        assert_eq!(reader.read(0, 10).unwrap(), bytes("abc"));
        assert_eq!(reader.read(3, 10).unwrap(), Piece::Gap(7));
        assert_eq!(reader.read(10, 10).unwrap(), bytes("k"));
        assert_eq!(reader.read(11, 10).unwrap(), Piece::Nothing);
        let survey = survey(dir.path()).unwrap();
        assert_eq!(survey.len(), 1);
        assert_eq!(survey[0].gaps, vec![GapRange { offset: 3, length: 7 }]);
        assert_eq!(survey[0].length, 11);
    }

    #[test]
    fn a_survey_hashes_what_is_kept_and_does_not_speak_of_empty_files() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), 0, b"abc");
        put(dir.path(), 10, &[b'k'; 100_000]);
        put(dir.path(), 100_010, b"");
        fs::write(dir.path().join(name(StreamName::Stderr, 0)), b"").unwrap();
        let survey = survey(dir.path()).unwrap();
        assert_eq!(survey.len(), 1);
        let segment = |offset, bytes: &[u8]| SegmentEnd {
            offset,
            length: bytes.len() as u64,
            blake3: blake3::hash(bytes).to_hex().to_string(),
        };
        assert_eq!(survey[0].segments, vec![segment(0, b"abc"), segment(10, &[b'k'; 100_000])]);
        assert_eq!(survey[0].length, 100_010);
    }

    #[test]
    fn a_survey_of_more_gaps_than_an_end_may_name_says_what_the_files_say_then() {
        // In memory where that is possible: a thousand files are synced.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let files = MAX_GAPS as u64 + 2;
        for number in 0..files {
            put(dir.path(), number * 10, &b"abcdefgh"[..if number == 2 { 1 } else { 8 }]);
        }
        let survey = survey(dir.path()).unwrap();
        let said = &survey[0];
        assert_eq!((said.gaps.len(), said.length), (MAX_GAPS, files * 10 - 2));
        assert!(said.gaps.contains(&GapRange { offset: 18, length: 12 }), "the fewest bytes were given up");
        let mut reader = StreamReader::new(dir.path(), StreamName::Stdout);
        assert_eq!(reader.read(18, 10).unwrap(), Piece::Gap(12));
        assert_eq!(said.segments.len(), MAX_SEGMENTS);
    }

    #[test]
    fn removing_the_streams_leaves_everything_else() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), 0, b"abc");
        put(dir.path(), 10, b"k");
        fs::write(dir.path().join("record"), b"r").unwrap();
        assert!(remove_all(dir.path()).unwrap());
        assert!(!remove_all(dir.path()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(!remove_all(&dir.path().join("gone")).unwrap());
    }

    #[test]
    fn only_whole_names_are_segments() {
        assert_eq!(parse_name(OsStr::new("stderr.00000000000000000042")), Some((StreamName::Stderr, 42)));
        for bad in [
            "stdout",
            "stdout.1",
            "stdout.0000000000000000000x",
            "other.00000000000000000000",
            "stdout.99999999999999999999",
        ] {
            assert_eq!(parse_name(OsStr::new(bad)), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_into_files_reads_back_the_same(content in prop::collection::vec(any::<u8>(), 1..300), cuts in prop::collection::vec(0usize..300, 0..6), step in 1usize..70) {
            let dir = tempfile::tempdir().unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < content.len()).chain([0, content.len()]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            for pair in cuts.windows(2) {
                put(dir.path(), pair[0] as u64, &content[pair[0]..pair[1]]);
            }
            let mut reader = StreamReader::new(dir.path(), StreamName::Stdout);
            let mut back = Vec::new();
            while let Piece::Bytes(bytes) = reader.read(back.len() as u64, step).unwrap() {
                back.extend_from_slice(&bytes);
            }
            prop_assert_eq!(back, content);
        }
    }
}
