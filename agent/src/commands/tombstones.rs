//! What stays of a command when its directory is gone: its uid, its id and how it ended (protocol R-RES-4).
//!
//! ```text
//! tombstones/<hour>   hour = (expiry + 1 h) in Unix hours; removed as a whole when that hour has passed
//!   "PAPTOM1\n"  then per tombstone: u32 LE length | 8 bytes of BLAKE3 | uid (16) | id (8 LE) | expiry (8 LE) | END
//! ```
//! END is the JSON object of the record with one more key, `of`: what the command was. Agents of before skip that key,
//! and tombstones of theirs have none.
//!
//! As long as a tombstone stands, the same command is a repeat; when it is gone, the command's validity has passed and
//! it is refused for that. Recovery: a torn end is cut at start; a damaged one in the middle is skipped.
//!
//! Two locks: one for whoever writes, held while the disk syncs; one for what is known, held for a moment. So a command
//! that comes in is looked up while others are being buried.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut};
use common::handshake::truncate;
use common::id::{CommandId, Uid};
use common::model::StreamName;
use common::{durable, limits, wire};
use serde::{Deserialize, Serialize};

use super::file_error::{Context, FileError};
use super::record::{self, End};

const MAGIC: &[u8; 8] = b"PAPTOM1\n";
const HEAD: usize = 4 + 8;
/// Uid, id and expiry in front of END.
const FIXED: usize = 16 + 8 + 8;
/// No END is longer.
const MAX_PAYLOAD: usize = 256 * 1024;
/// One that is longer than this keeps only the lengths of its streams: nobody has the bytes any more.
const LARGE: usize = 16 * 1024;
/// The kind byte in the checksum; those of the command record are 1 to 3.
const KIND: u8 = 16;
const HOUR_MS: u64 = 3_600_000;

/// What is kept of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Tombstone {
    /// What the machines know it by.
    pub uid: Uid,
    /// What people know it by.
    pub id: CommandId,
    /// Manager time, Unix milliseconds: when its validity ends.
    pub expires_ms: u64,
    /// How it ended; when that is very long, without lists or with its texts cut.
    pub end: End,
    /// What it was; `None` where that was not kept or is not known.
    pub origin: Option<Origin>,
}

/// What a command was, for a manager that has never heard of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The agent's generation it was made for.
    pub generation: u64,
    /// Empty when it was never seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// Manager time, Unix milliseconds; 0 when it was never seen.
    #[serde(default)]
    pub created_ms: u64,
}

impl From<&wire::Command> for Origin {
    fn from(command: &wire::Command) -> Self {
        let mut operation = command.operation.clone();
        truncate(&mut operation, limits::MAX_TEXT_BYTES);
        Self { generation: command.generation, operation, created_ms: command.created_ms }
    }
}

/// What an inventory says of a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What the machines know it by.
    pub uid: Uid,
    /// What people know it by.
    pub id: CommandId,
    /// The generation it was made for, where that is known.
    pub generation: Option<u64>,
    /// Wall clock when its process was let go, Unix milliseconds; 0: never, or not known.
    pub started_ms: u64,
    /// How long its streams were.
    pub streams: Vec<(StreamName, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    hour: u64,
    at: u64,
    id: CommandId,
}

/// All tombstones of this agent; the ends stay on disk, memory holds where.
#[derive(Debug)]
pub struct Tombstones {
    folder: PathBuf,
    index: Mutex<Index>,
    /// Who appends to the files or removes them; taken before the index, never after it.
    writer: Mutex<()>,
}

#[derive(Debug, Default)]
struct Index {
    by_uid: HashMap<Uid, Place>,
    by_id: HashMap<CommandId, Uid>,
}

impl Tombstones {
    /// Reads what is there and cuts torn ends. Files whose hour has passed at manager time `now_ms` are removed.
    ///
    /// # Errors
    /// When a file cannot be read or cut.
    pub fn open(folder: &Path, now_ms: u64) -> Result<Self, FileError> {
        let this = Self { folder: folder.to_owned(), index: Mutex::default(), writer: Mutex::default() };
        this.expire(now_ms)?;
        for hour in this.hours()? {
            let path = this.path(hour);
            let content = fs::read(&path).context("read", &path)?;
            let good = this.index().add(hour, &content);
            if good < content.len() {
                let file = OpenOptions::new().write(true).open(&path).context("open", &path)?;
                file.set_len(good as u64).context("cut the torn end of", &path)?;
                file.sync_data().context("sync", &path)?;
            }
        }
        Ok(this)
    }

    /// Adds tombstones; durable when it returns, with one sync per file that grew.
    ///
    /// # Errors
    /// The first file that could not be made to hold its tombstones; those of the other files stand and are known.
    pub fn insert_many(&self, tombstones: &[Tombstone]) -> Result<(), FileError> {
        let _writer = self.writer();
        let mut by_hour: HashMap<u64, Vec<&Tombstone>> = HashMap::new();
        {
            let index = self.index();
            for tombstone in tombstones.iter().filter(|tombstone| !index.by_uid.contains_key(&tombstone.uid)) {
                by_hour.entry(hour_of(tombstone.expires_ms)).or_default().push(tombstone);
            }
        }
        let mut first = Ok(());
        for (hour, group) in by_hour {
            let placed = self.append(hour, &group);
            // Known as soon as it is durable: a tombstone of another hour that fails must not have it written twice.
            match placed {
                Ok(placed) => {
                    let mut index = self.index();
                    for (uid, place) in placed {
                        index.by_id.insert(place.id, uid);
                        index.by_uid.insert(uid, place);
                    }
                }
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Adds tombstones to the file of their hour; all or none.
    fn append(&self, hour: u64, group: &[&Tombstone]) -> Result<Vec<(Uid, Place)>, FileError> {
        let path = self.path(hour);
        let (file, at) = open_for_append(&path, &self.folder)?;
        let (mut grown, mut placed) = (Vec::new(), Vec::with_capacity(group.len()));
        for tombstone in group {
            placed.push((tombstone.uid, Place { hour, at: at + grown.len() as u64, id: tombstone.id }));
            encode(tombstone, &mut grown);
        }
        if let Err(error) = file.write_all_at(&grown, at).and_then(|()| file.sync_data()) {
            // What was half written is cut again, so that the next one does not stand behind a bad one.
            drop(file.set_len(at));
            return Err(error).context("append to", &path);
        }
        Ok(placed)
    }

    /// Tells whether a command is known here.
    #[must_use]
    pub fn contains(&self, uid: Uid) -> bool {
        self.index().by_uid.contains_key(&uid)
    }

    /// The command that had this id.
    #[must_use]
    pub fn uid_of(&self, id: CommandId) -> Option<Uid> {
        self.index().by_id.get(&id).copied()
    }

    /// Reads one tombstone.
    ///
    /// # Errors
    /// When its file cannot be read, or is not what was written.
    pub fn get(&self, uid: Uid) -> Result<Option<Tombstone>, FileError> {
        let Some(place) = self.index().by_uid.get(&uid).copied() else { return Ok(None) };
        let path = self.path(place.hour);
        let file = match File::open(&path) {
            // Its hour passed between the two lines above.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.contains(uid) => return Ok(None),
            opened => opened.context("open", &path)?,
        };
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, place.at).context("read", &path)?;
        let length = (head.as_slice()).get_u32_le() as usize;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the tombstone is damaged");
        if length > MAX_PAYLOAD {
            return Err(damaged()).context("read", &path);
        }
        let mut bytes = vec![0; HEAD + length];
        file.read_exact_at(&mut bytes, place.at).context("read", &path)?;
        let (_, payload) = framed(&bytes).ok_or_else(damaged).context("read", &path)?;
        decode(payload).ok_or_else(damaged).context("read", &path).map(Some)
    }

    /// All commands that have one, by file. One that cannot be read is listed with what memory holds: what is not
    /// listed would be taken for lost.
    #[must_use]
    pub fn list(&self) -> Vec<Summary> {
        let mut places: Vec<_> = self.index().by_uid.iter().map(|(uid, place)| (*uid, *place)).collect();
        places.sort_unstable_by_key(|(_, place)| (place.hour, place.at));
        let mut content: (u64, Vec<u8>) = (u64::MAX, Vec::new());
        let mut all = Vec::with_capacity(places.len());
        for (uid, place) in places {
            if content.0 != place.hour {
                content = (place.hour, fs::read(self.path(place.hour)).unwrap_or_default());
            }
            let rest = usize::try_from(place.at).ok().and_then(|at| content.1.get(at..)).unwrap_or_default();
            let stone = framed(rest).and_then(|(_, payload)| decode(payload)).filter(|stone| stone.uid == uid);
            let mut summary = Summary { uid, id: place.id, generation: None, started_ms: 0, streams: Vec::new() };
            if let Some(stone) = stone {
                summary.generation = stone.origin.map(|origin| origin.generation);
                summary.started_ms = stone.end.started_ms;
                summary.streams = stone.end.streams.iter().map(|end| (end.stream, end.length)).collect();
            }
            all.push(summary);
        }
        all
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index().by_uid.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index().by_uid.is_empty()
    }

    /// Removes what nobody can ask for any more at manager time `now_ms`.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn expire(&self, now_ms: u64) -> Result<(), FileError> {
        let _writer = self.writer();
        let now = now_ms / HOUR_MS;
        for hour in self.hours()?.into_iter().filter(|hour| *hour < now) {
            // Forgotten first: nobody looks for a file that is known to be gone.
            self.index().remove(hour);
            let path = self.path(hour);
            fs::remove_file(&path).context("remove", &path)?;
        }
        Ok(())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, hour: u64) -> PathBuf {
        self.folder.join(hour.to_string())
    }

    fn hours(&self) -> Result<Vec<u64>, FileError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).context("list", &self.folder)? {
            let entry = entry.context("list", &self.folder)?;
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(found)
    }
}

impl Index {
    fn remove(&mut self, hour: u64) {
        self.by_uid.retain(|_, place| place.hour != hour);
        let by_uid = &self.by_uid;
        self.by_id.retain(|_, uid| by_uid.contains_key(uid));
    }

    /// Notes where the tombstones of a file are; answers how much of it is good.
    fn add(&mut self, hour: u64, content: &[u8]) -> usize {
        let mut good = 0;
        if content.starts_with(MAGIC) {
            good = MAGIC.len();
        }
        let mut at = good;
        while at < content.len() {
            let rest = content.get(at..).unwrap_or_default();
            match framed(rest) {
                Some((length, payload)) => {
                    if let Some((uid, id)) = keys(payload) {
                        self.by_uid.insert(uid, Place { hour, at: at as u64, id });
                        self.by_id.insert(id, uid);
                    }
                    at += length;
                    good = at;
                }
                None => at += 1,
            }
        }
        good
    }
}

/// The hour in which a command's tombstone may go.
fn hour_of(expires_ms: u64) -> u64 {
    let grace = u64::try_from(limits::TOMBSTONE_GRACE.as_millis()).unwrap_or(HOUR_MS);
    expires_ms.saturating_add(grace) / HOUR_MS
}

fn open_for_append(path: &Path, folder: &Path) -> Result<(File, u64), FileError> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).context("open", path)?;
    let length = file.metadata().context("look at", path)?.len();
    if length >= MAGIC.len() as u64 {
        return Ok((file, length));
    }
    file.write_all_at(MAGIC, 0).context("write", path)?;
    file.sync_data().context("sync", path)?;
    durable::sync_folder(folder).context("sync", folder)?;
    Ok((file, MAGIC.len() as u64))
}

/// Appends a tombstone; it always fits, if need be with less in it.
fn encode(tombstone: &Tombstone, into: &mut Vec<u8>) {
    let mut payload = payload(tombstone, &tombstone.end);
    if payload.len() > LARGE {
        payload = self::payload(tombstone, &tombstone.end.clone().lengths_only());
    }
    if payload.len() > MAX_PAYLOAD {
        payload = self::payload(tombstone, &tombstone.end.clone().cut());
    }
    into.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    into.put_slice(&record::checksum(KIND, &payload));
    into.put_slice(&payload);
}

fn payload(tombstone: &Tombstone, end: &End) -> Vec<u8> {
    #[derive(Serialize)]
    struct Kept<'a> {
        #[serde(flatten)]
        end: &'a End,
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<&'a Origin>,
    }
    let mut payload = Vec::with_capacity(512);
    payload.put_slice(&tombstone.uid.0);
    payload.put_u64_le(tombstone.id.0);
    payload.put_u64_le(tombstone.expires_ms);
    payload.put_slice(&record::json(&Kept { end, of: tombstone.origin.as_ref() }));
    payload
}

fn framed(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let [l0, l1, l2, l3, checksum @ ..] = head;
    let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
    if !(FIXED..=MAX_PAYLOAD).contains(&length) {
        return None;
    }
    let payload = rest.get(..length)?;
    (record::checksum(KIND, payload) == *checksum).then_some((HEAD + length, payload))
}

fn keys(payload: &[u8]) -> Option<(Uid, CommandId)> {
    let (uid, rest) = payload.split_first_chunk::<16>()?;
    let (id, _) = rest.split_first_chunk::<8>()?;
    Some((Uid(*uid), CommandId(u64::from_le_bytes(*id))))
}

fn decode(payload: &[u8]) -> Option<Tombstone> {
    let (uid, id) = keys(payload)?;
    let (expires, end) = payload.get(24..)?.split_first_chunk::<8>()?;
    // Read twice rather than flattened: numbers of any size and an unknown key stay no matter.
    #[derive(Default, Deserialize)]
    struct What {
        #[serde(default)]
        of: Option<Origin>,
    }
    let origin = serde_json::from_slice::<What>(end).unwrap_or_default().of;
    let end = serde_json::from_slice(end).ok()?;
    Some(Tombstone { uid, id, expires_ms: u64::from_le_bytes(*expires), end, origin })
}

#[cfg(test)]
#[path = "tombstones_tests.rs"]
mod tests;
