//! The record of one command: a file that only grows, and only in the hands of who holds its lock.
//!
//! ```text
//! "PAPREC1\n"
//! SPEC   u32 LE length | u8 kind | first 8 bytes of BLAKE3(kind || payload) | payload
//!        of another kind where the command has secrets: they stand behind the rest, sealed, and an agent of an older
//!        release that finds it does not run the command without them
//! START  …
//! END    …
//! zeros  room that was written with SPEC: START and END overwrite it, so that they need no new blocks on a full disk
//!        and no journal commit of the file system
//! ```
//!
//! Recovery: an append is durable before anybody acts on it. So a last record that fails its checksum was never acted
//! on, and the next holder of the lock wipes it. A record that fails while a good one stands behind it, or while bytes
//! of output prove that the process ran, is damage: the file is not touched and reading it is an error.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes};
use common::wire;
use prost::Message;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

pub use super::end::End;
use super::end::VERSION;
use super::file_error::{Context, FileError};

/// First bytes of the file; the digit is the version of the framing.
const MAGIC: &[u8; 8] = b"PAPREC1\n";
/// Length, kind and checksum in front of a payload.
const HEAD: usize = 4 + 1 + CHECKSUM;
const CHECKSUM: usize = 8;
/// Room kept behind SPEC: START has about 500 bytes (1 KiB with folders of all controllers), END about 6 KiB with all
/// segments of two streams, and one that was cut less than 8 KiB. Written, not only asked of the file system: room that
/// was allocated but never written needs blocks of the journal when it is used.
const RESERVE: usize = 12 * 1024;
/// The size of the whole file is a multiple of this, so that the room ends with a block.
const BLOCK: usize = 4096;
/// No record is longer: a command fits one frame of the link, an END is far smaller.
const MAX_PAYLOAD: usize = 2 * 1024 * 1024;
/// The manager's time in front of the command in SPEC.
const SPEC_HEAD: usize = 8;
/// The length of the command behind it, where something sealed follows.
const SEALED_HEAD: usize = 4;

/// The file in a command's directory.
pub const FILE: &str = "record";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Spec = 1,
    Start = 2,
    End = 3,
    /// In the place of SPEC, for a command with secrets.
    SealedSpec = 4,
}

/// What the manager sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Manager time of the acceptance, Unix milliseconds.
    pub accepted_ms: u64,
    /// The command.
    pub command: wire::Command,
    /// The same as received, but for the values of its secrets.
    pub raw: Bytes,
    /// Those, sealed; empty: it has none.
    pub sealed: Bytes,
}

/// What was about to be started: durable before the process may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Version of this payload.
    pub v: u32,
    /// The boot in which the numbers below mean something.
    pub boot_id: String,
    /// The command's cgroup with the leaves `shim` and `work`; none without cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// Folders of controllers of version 1 that were made for the command and have to be removed with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<PathBuf>,
    /// The main process, or the first guard where the command has some.
    pub pid: u32,
    /// Its session and group.
    pub session: u32,
    /// When the kernel made it, in clock ticks since boot: tells it from a later process of the same number.
    pub start_time: u64,
    /// Wall clock, Unix milliseconds.
    pub at_ms: u64,
    /// `cgroup` or `best_effort`.
    pub isolation: String,
}

/// All that a record says.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// What to do.
    pub spec: Spec,
    /// What was started.
    pub start: Option<Start>,
    /// How it ended.
    pub end: Option<End>,
    /// A last record was being written when its writer died.
    pub torn: bool,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A step on the file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content is not what was written.
    #[error("read the record {}: damaged at byte {at}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

/// The right to append, held until dropped.
#[derive(Debug)]
pub struct RecordLock {
    file: File,
    path: PathBuf,
    at: usize,
    history: History,
}

/// Reads a record without the right to append; one that is being appended to shows what was complete.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn read(dir: &Path) -> Result<History, RecordError> {
    let path = dir.join(FILE);
    let content = fs::read(&path).context("read", &path)?;
    judge(dir, &path, &content).map(|parsed| parsed.history)
}

/// The id in a SPEC that can still be read although the rest cannot.
#[must_use]
pub fn salvage(dir: &Path) -> Option<Spec> {
    let content = fs::read(dir.join(FILE)).ok()?;
    match framed(content.get(MAGIC.len()..)?) {
        Framed::Record(Kind::Spec, payload) => spec(payload).ok(),
        Framed::Record(Kind::SealedSpec, payload) => sealed_spec(payload).ok(),
        _ => None,
    }
}

/// The content of a new record: SPEC, END too when the command ends with its acceptance, and room.
pub(crate) fn initial(accepted_ms: u64, command: &[u8], sealed: &[u8], end: Option<&End>) -> Vec<u8> {
    let mut payload = Vec::with_capacity(SPEC_HEAD + SEALED_HEAD + command.len() + sealed.len());
    payload.put_u64_le(accepted_ms);
    let kind = if sealed.is_empty() { Kind::Spec } else { Kind::SealedSpec };
    if kind == Kind::SealedSpec {
        // As for the frame: a command is at most one frame of the link.
        payload.put_u32_le(u32::try_from(command.len()).unwrap_or(u32::MAX));
    }
    payload.put_slice(command);
    payload.put_slice(sealed);
    let mut content = MAGIC.to_vec();
    frame(kind, &payload, &mut content);
    if let Some(end) = end {
        frame(Kind::End, &json(end), &mut content);
    } else {
        let size = (content.len() + RESERVE).next_multiple_of(BLOCK);
        content.resize(size, 0);
    }
    content
}

impl RecordLock {
    /// Takes the lock of a command's record and wipes a torn last record; `None` when somebody else holds it.
    ///
    /// # Errors
    /// When the record cannot be read or is damaged.
    pub fn try_take(dir: &Path) -> Result<Option<Self>, RecordError> {
        let path = dir.join(FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .context("open", &path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).context("lock", &path)?,
        }
        let content = fs::read(&path).context("read", &path)?;
        let Parsed { history, at } = judge(dir, &path, &content)?;
        if history.torn {
            // Zeros instead of a cut: the room for START and END stays ours on a full disk.
            let rest = vec![0; content.len().saturating_sub(at)];
            file.write_all_at(&rest, at as u64).context("wipe the torn end of", &path)?;
            file.sync_data().context("sync", &path)?;
        }
        Ok(Some(Self { file, path, at, history }))
    }

    /// What the record said when the lock was taken, and what was appended since.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Appends START; durable when it returns.
    ///
    /// # Errors
    /// When it could not be made durable: then it may or may not be there.
    pub fn append_start(&mut self, start: Start) -> Result<(), RecordError> {
        self.append(Kind::Start, &json(&start))?;
        self.history.start = Some(start);
        Ok(())
    }

    /// Appends END; durable when it returns. On a full disk it is one without the lists of what is kept and what is not,
    /// and if need be with its texts cut: that one fits the room which SPEC kept.
    ///
    /// # Errors
    /// When it could not be made durable: then it may or may not be there.
    pub fn append_end(&mut self, mut end: End) -> Result<(), RecordError> {
        let mut appended = self.append(Kind::End, &json(&end));
        for shorter in [End::lengths_only, End::cut] {
            if !appended.as_ref().is_err_and(FileError::is_full) {
                break;
            }
            // What was written of the long one stands behind the short one, where the next holder of the lock wipes it.
            end = shorter(end);
            appended = self.append(Kind::End, &json(&end));
        }
        appended?;
        self.history.end = Some(end);
        Ok(())
    }

    fn append(&mut self, kind: Kind, payload: &[u8]) -> Result<(), FileError> {
        let mut record = Vec::with_capacity(HEAD + payload.len());
        frame(kind, payload, &mut record);
        self.file.write_all_at(&record, self.at as u64).context("append to", &self.path)?;
        self.file.sync_data().context("sync", &self.path)?;
        self.at += record.len();
        Ok(())
    }
}

impl Drop for RecordLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread just forked has a copy until it execs, and the shim that
        // is started next would find the lock taken.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

impl Start {
    /// Names what is about to be let go.
    #[must_use]
    pub fn new(boot_id: String, pid: u32, start_time: u64, at_ms: u64) -> Self {
        Self {
            v: VERSION,
            boot_id,
            cgroup: None,
            controllers: Vec::new(),
            pid,
            session: pid,
            start_time,
            at_ms,
            isolation: String::new(),
        }
    }
}

struct Parsed {
    history: History,
    /// Where the next record goes.
    at: usize,
}

enum Framed<'a> {
    Record(Kind, &'a [u8]),
    /// Nothing but zeros, or nothing at all.
    Free,
    Bad,
}

/// Parses, and decides whether a bad end is the rest of an unfinished append or damage.
fn judge(dir: &Path, path: &Path, content: &[u8]) -> Result<Parsed, RecordError> {
    let parsed = parse(content).map_err(|(at, what)| RecordError::Corrupt { path: path.to_owned(), at, what })?;
    if parsed.history.torn && parsed.history.start.is_none() && has_output(dir) {
        let what = "there is output, but START cannot be read";
        return Err(RecordError::Corrupt { path: path.to_owned(), at: parsed.at, what });
    }
    Ok(parsed)
}

fn has_output(dir: &Path) -> bool {
    fs::read_dir(dir)
        .is_ok_and(|entries| entries.flatten().any(|entry| super::segment::parse_name(&entry.file_name()).is_some()))
}

fn parse(content: &[u8]) -> Result<Parsed, (usize, &'static str)> {
    if content.get(..MAGIC.len()) != Some(MAGIC.as_slice()) {
        return Err((0, "not a command record of this version"));
    }
    let mut at = MAGIC.len();
    let (mut found, mut start, mut end, mut torn) = (None, None, None, false);
    loop {
        let rest = content.get(at..).unwrap_or_default();
        match framed(rest) {
            Framed::Free => break,
            Framed::Bad => {
                if good_record_behind(rest) {
                    return Err((at, "a good record stands behind a bad one"));
                }
                torn = true;
                break;
            }
            Framed::Record(kind, payload) => {
                match kind {
                    Kind::Spec if found.is_none() => found = Some(spec(payload).map_err(|what| (at, what))?),
                    Kind::SealedSpec if found.is_none() => {
                        found = Some(sealed_spec(payload).map_err(|what| (at, what))?);
                    }
                    Kind::Start if found.is_some() && start.is_none() && end.is_none() => {
                        start = Some(serde_json::from_slice(payload).map_err(|_| (at, "START is not readable"))?);
                    }
                    Kind::End if found.is_some() && end.is_none() => {
                        end = Some(serde_json::from_slice(payload).map_err(|_| (at, "END is not readable"))?);
                    }
                    _ => return Err((at, "a record in a wrong place")),
                }
                at += HEAD + payload.len();
            }
        }
    }
    // SPEC was durable before the directory had its name: without it nothing can be told.
    let spec = found.ok_or((MAGIC.len(), "SPEC is not readable"))?;
    Ok(Parsed { history: History { spec, start, end, torn }, at })
}

fn spec(payload: &[u8]) -> Result<Spec, &'static str> {
    let (time, raw) = payload.split_first_chunk::<SPEC_HEAD>().ok_or("SPEC is too short")?;
    let command = wire::Command::decode(raw).map_err(|_| "SPEC holds no command")?;
    let raw = Bytes::copy_from_slice(raw);
    Ok(Spec { accepted_ms: u64::from_le_bytes(*time), command, raw, sealed: Bytes::new() })
}

fn sealed_spec(payload: &[u8]) -> Result<Spec, &'static str> {
    const SHORT: &str = "SPEC is too short";
    let (time, rest) = payload.split_first_chunk::<SPEC_HEAD>().ok_or(SHORT)?;
    let (length, rest) = rest.split_first_chunk::<SEALED_HEAD>().ok_or(SHORT)?;
    let (raw, sealed) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(SHORT)?;
    if sealed.is_empty() {
        return Err(SHORT);
    }
    let command = wire::Command::decode(raw).map_err(|_| "SPEC holds no command")?;
    let (raw, sealed) = (Bytes::copy_from_slice(raw), Bytes::copy_from_slice(sealed));
    Ok(Spec { accepted_ms: u64::from_le_bytes(*time), command, raw, sealed })
}

fn framed(bytes: &[u8]) -> Framed<'_> {
    match whole(bytes) {
        Some((kind, payload)) => Framed::Record(kind, payload),
        None if bytes.iter().all(|byte| *byte == 0) => Framed::Free,
        None => Framed::Bad,
    }
}

fn whole(bytes: &[u8]) -> Option<(Kind, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let [l0, l1, l2, l3, kind, checksum @ ..] = head;
    let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
    let kind = match kind {
        1 => Kind::Spec,
        2 => Kind::Start,
        3 => Kind::End,
        4 => Kind::SealedSpec,
        _ => return None,
    };
    if !(1..=MAX_PAYLOAD).contains(&length) {
        return None;
    }
    let payload = rest.get(..length)?;
    (self::checksum(kind as u8, payload) == *checksum).then_some((kind, payload))
}

/// Looks for a whole record anywhere behind the first byte: a flipped length must not hide what follows it.
fn good_record_behind(bytes: &[u8]) -> bool {
    // The room at the end is zeros, and neither START nor END ends with one.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (1..used).any(|skip| bytes.get(skip..used).and_then(whole).is_some())
}

fn frame(kind: Kind, payload: &[u8], into: &mut Vec<u8>) {
    // A payload is at most one frame of the link; the parser refuses what is longer than MAX_PAYLOAD.
    into.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    into.put_u8(kind as u8);
    into.put_slice(&checksum(kind as u8, payload));
    into.put_slice(payload);
}

/// The first bytes of BLAKE3 over kind and payload.
pub(super) fn checksum(kind: u8, payload: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(payload);
    let mut short = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut short);
    short
}

pub(super) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "structs of numbers and strings, no maps with other keys")]
    serde_json::to_vec(value).expect("START and END can always be written as JSON")
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
