//! Everything the dispatcher has done in the blocking pool: file work and process creation. Each function here (and in
//! `burial`) is one job, each variant of [`Done`] its answer. Nothing here decides what happens next.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use common::crash;
use common::id::{CommandId, Name, Uid};
use common::limits;
use common::model::{Outcome, StreamName};
use common::wire::{self, CommandResult};
use tracing::{error, warn};

use super::burial::{evict_all, with_room};
use super::past::{self, Question, Recalled};
use super::table::Cancel;
use crate::clock::{ManagerMemory, MemoryFiles, Saved};
use crate::commands::accept::{self, AcceptError, NewCommand, accept_many};
use crate::commands::kept::Kept;
use crate::commands::recover::{self, Recovered};
use crate::commands::request::{self, CancelRequest, PauseRequest};
use crate::commands::reserve::Reserve;
use crate::commands::segment::{self, Piece, StreamReader};
use crate::commands::status::{self, ShimStatus};
use crate::commands::tombstones::{Origin, Tombstone, Tombstones};
use crate::commands::{End, Evidence, FileError, RecordError, RecordLock, Start, StateDir, record};
use crate::limits::DESCRIBE_BYTES;
use crate::operation::{Operation, ping_answer};
use crate::shim::{Base, ShimCommand, ShimProcess};

/// Bytes that a look brings along, so that a short output needs no second job.
const PEEK: u64 = limits::MAX_OUTPUT_PAYLOAD as u64;

/// What all jobs work on.
pub(crate) struct Home {
    pub(crate) state: StateDir,
    pub(crate) shim: ShimCommand,
    pub(crate) base: Base,
    pub(crate) agent: Name,
    /// Used only inside of jobs: its files block.
    pub(crate) tombstones: Tombstones,
    pub(crate) files: MemoryFiles,
    /// Delivered directories that stay for a look.
    pub(crate) kept: Kept,
    /// Room for results on a full disk.
    pub(crate) reserve: Reserve,
}

impl Home {
    pub(super) fn dir(&self, uid: Uid) -> PathBuf {
        self.state.command(uid)
    }
}

/// A command on its way in.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) uid: Uid,
    pub(super) id: u64,
    pub(super) expires_ms: u64,
    pub(super) origin: Origin,
    pub(super) raw: Bytes,
    /// What of it is secret.
    pub(super) sealed: Bytes,
    /// `None`: its validity has passed.
    pub(super) operation: Option<Operation>,
}

impl Intake {
    /// Bytes of memory that it holds.
    pub(super) fn weight(&self) -> usize {
        self.raw.len() + self.sealed.len()
    }
}

/// What became of a command on its way in.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is durable.
    Accepted,
    /// It is durable together with its end.
    Answered(Box<CommandResult>),
    /// It is known, and over.
    Known(Box<CommandResult>),
    /// Its validity has passed; that is durable.
    Expired(Box<CommandResult>),
    /// Its id belongs to another command.
    Conflict,
    /// It has a directory already.
    Here,
    /// It could not be made durable; nothing of it is kept, and nothing of it can come back.
    Failed { full: bool, text: String },
    /// It cannot be said now whether it is known: nothing was done.
    Later,
    /// Its directory has its name, or may have it, and nobody can say whether that lasts: neither a yes nor a no.
    Unsettled,
}

/// What a look at a directory found.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) start: Option<Start>,
    pub(super) end: Option<End>,
    /// What the shim says beside that.
    pub(super) status: Option<ShimStatus>,
    pub(super) lengths: Vec<(StreamName, u64)>,
    /// The first bytes from the offsets that were asked for.
    pub(super) pieces: Vec<(StreamName, u64, Bytes)>,
}

/// A wish to pause or to go on is durable, or could not be made so.
#[derive(Debug)]
pub(super) struct Paused {
    pub(super) session: u64,
    pub(super) uid: Uid,
    /// The frames that wait for it.
    pub(super) seqs: Vec<u64>,
    pub(super) placed: Result<(), FileError>,
}

/// The answer to a cancel for a command without a directory.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) uid: Uid,
    pub(super) seq: u64,
    pub(super) session: u64,
    pub(super) result: Result<Box<CommandResult>, FileError>,
}

/// A read of output.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) session: u64,
    pub(super) uid: Uid,
    pub(super) stream: StreamName,
    pub(super) from: u64,
    /// What was taken from the credit when it began.
    pub(super) reserved: u64,
    /// Where the next file begins when this one cannot be read; `None`: there is none, or that is not known either.
    pub(super) next_file: Option<u64>,
    pub(super) reader: StreamReader,
    pub(super) piece: Result<Piece, FileError>,
}

/// A job is done.
#[derive(Debug)]
pub(super) enum Done {
    Intake {
        answers: Vec<(Uid, Taken)>,
        /// Bytes of commands that are no longer held in memory for it.
        bytes: usize,
    },
    Spawned(Uid, io::Result<ShimProcess>),
    Looked(Uid, Result<Box<Looked>, RecordError>),
    Recovered(Uid, Result<Recovered, RecordError>),
    /// The agent tried to end it before it was started; `None`: a shim has it.
    Settled(Uid, Result<Option<Box<End>>, RecordError>),
    /// A request to cancel is durable, or could not be made so.
    Requested(Uid, Result<(), FileError>),
    Paused(Paused),
    Told(Told),
    Read(Box<Read>),
    /// Unsettled commands: what is known of their places now.
    Placed(Vec<(Uid, Taken)>),
    Forgot {
        gone: Vec<Uid>,
        failed: Vec<(Uid, FileError)>,
    },
    /// Which shims have read what wakes them, and which of them nobody wants to end.
    Deaf {
        hearing: Vec<Uid>,
        unasked: Vec<Uid>,
    },
    /// Cgroups of forgotten commands were removed where nothing lives in them.
    Swept {
        /// In some of them something does.
        left: bool,
    },
    /// The disk was looked at.
    Roomed {
        /// Whether it has to be looked at again, and when at the latest.
        again: Option<Duration>,
    },
    Listed(u64, Vec<wire::InventoryItem>),
    Described {
        session: u64,
        commands: Vec<(Uid, Bytes)>,
        /// Their directories are gone: only the past knows them.
        gone: Vec<Uid>,
        /// Those for which there was no room in memory yet.
        rest: Vec<Uid>,
    },
    Recalled(u64, Vec<Recalled>),
    Saved(io::Result<()>),
}

/// Makes commands durable, after a look at what is known of the past.
pub(super) fn intake(home: &Home, now_ms: u64, items: Vec<Intake>) -> Done {
    let wall = common::clock::unix_ms();
    let bytes = items.iter().map(Intake::weight).sum();
    let mut answers = Vec::with_capacity(items.len());
    let (mut fresh, mut expired) = (Vec::new(), Vec::new());
    let tombstones = &home.tombstones;
    let mut ids = HashSet::new();
    for item in items {
        match tombstones.get(item.uid) {
            Ok(Some(known)) => {
                let result = known.end.to_result(item.uid, known.id.0);
                answers.push((item.uid, Taken::Known(Box::new(result))));
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                // It is known, and how it ended cannot be read: to refuse it would be a second end.
                warn!(task.id = %item.uid, error = %common::error::Chain(&error), "A tombstone cannot be read");
                answers.push((item.uid, Taken::Later));
                continue;
            }
        }
        let taken = tombstones.uid_of(CommandId(item.id)).is_some_and(|known| known != item.uid);
        if taken || !ids.insert(item.id) {
            answers.push((item.uid, Taken::Conflict));
            continue;
        }
        match item.operation {
            Some(operation) => fresh.push((item, operation)),
            None => expired.push(Tombstone {
                uid: item.uid,
                id: CommandId(item.id),
                expires_ms: item.expires_ms,
                end: End::expired(wall),
                origin: Some(item.origin),
            }),
        }
    }
    if !expired.is_empty() {
        let kept = with_room(home, FileError::is_full, || tombstones.insert_many(&expired));
        answers.extend(expired.into_iter().map(|tombstone| {
            let taken = match &kept {
                Ok(()) => Taken::Expired(Box::new(tombstone.end.to_result(tombstone.uid, tombstone.id.0))),
                Err(error) => failed(error),
            };
            (tombstone.uid, taken)
        }));
    }
    accept(home, now_ms, wall, fresh, &mut answers);
    Done::Intake { answers, bytes }
}

fn accept(home: &Home, now_ms: u64, wall: u64, fresh: Vec<(Intake, Operation)>, answers: &mut Vec<(Uid, Taken)>) {
    if fresh.is_empty() {
        return;
    }
    let commands: Vec<_> = fresh
        .iter()
        .map(|(item, operation)| NewCommand {
            uid: item.uid,
            accepted_ms: now_ms,
            raw: item.raw.clone(),
            sealed: item.sealed.clone(),
            end: (*operation == Operation::Ping).then(|| End {
                started_ms: wall,
                value: ping_answer(home.agent.as_str()),
                ..End::without_process(Outcome::Succeeded, wall)
            }),
        })
        .collect();
    let mut results = accept_many(&home.state, &commands);
    let is_full = |result: &Result<(), AcceptError>| matches!(result, Err(AcceptError::File(error)) if error.is_full());
    // What is only kept for a look makes room for what has to run; the reserve is for results.
    if results.iter().any(is_full) && evict_all(home) {
        for (command, result) in commands.iter().zip(&mut results) {
            if is_full(result)
                && let Some(again) = accept_many(&home.state, std::slice::from_ref(command)).pop()
            {
                *result = again;
            }
        }
    }
    for ((command, (item, _)), result) in commands.into_iter().zip(fresh).zip(results) {
        let taken = match (result, command.end) {
            (Ok(()), None) => Taken::Accepted,
            (Ok(()), Some(end)) => Taken::Answered(Box::new(end.to_result(item.uid, item.id))),
            // The agent lacks something for a moment, and nothing of the command is here.
            (Err(AcceptError::File(error)), _) if error.is_passing() => {
                warn!(error = %common::error::Chain(&error), "A command cannot be taken now");
                Taken::Later
            }
            (Err(AcceptError::File(error)), _) => failed(&error),
            (Err(AcceptError::Exists(_)), _) => Taken::Here,
            (Err(error @ AcceptError::Unsettled(..)), _) => {
                error!(error = %common::error::Chain(&error), "Nobody can say whether a command would survive a crash");
                Taken::Unsettled
            }
        };
        answers.push((item.uid, taken));
    }
}

/// Tries again to give unsettled commands a durable place.
pub(super) fn settle_places(home: &Home, uids: Vec<Uid>) -> Done {
    let settled = accept::settle(&home.state, &uids);
    if let Err(error) = &settled {
        let count = uids.len();
        error!(error = %common::error::Chain(error), count, "Nobody can say whether commands would survive a crash");
    }
    let taken = |index: usize| match settled.as_ref().map(|all| all.get(index)) {
        Ok(Some(true)) => Taken::Here,
        Ok(Some(false)) => Taken::Failed { full: false, text: "its directory could not be put in place".to_owned() },
        Ok(None) | Err(_) => Taken::Unsettled,
    };
    Done::Placed(uids.iter().enumerate().map(|(index, uid)| (*uid, taken(index))).collect())
}

fn failed(error: &FileError) -> Taken {
    warn!(error = %common::error::Chain(error), "A command could not be made durable");
    Taken::Failed { full: error.is_full(), text: error.source.to_string() }
}

/// Which shim of a command is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shim {
    /// The first since the command was accepted: leaves no note, most commands need no other.
    First,
    /// There was one before, or may have been.
    Again,
    /// The same, and the note of it is there: the host could not make the process.
    Noted,
}

/// Starts a shim.
pub(super) fn spawn(home: &Home, uid: Uid, shim: Shim, until_boot_ms: u64) -> Done {
    let dir = home.dir(uid);
    crash::point("agent.spawn.before");
    let noted = match shim {
        Shim::First | Shim::Noted => Ok(()),
        Shim::Again => recover::note_respawn(&dir).map(drop).map_err(|error| error.source),
    };
    let child = noted.and_then(|()| home.shim.spawn_until(&dir, &home.base, until_boot_ms));
    crash::point("agent.spawn.after");
    Done::Spawned(uid, child)
}

/// Reads the record and how long the streams are, with the first bytes from the offsets in `wanted`.
pub(super) fn look(home: &Home, uid: Uid, wanted: &[(StreamName, u64)]) -> Done {
    let dir = home.dir(uid);
    // Lengths after the record: what END says was there before END.
    let found = record::read(&dir).and_then(|history| {
        let (mut lengths, mut pieces) = (Vec::new(), Vec::new());
        let found = match &history.end {
            Some(end) => end.streams.iter().map(|end| (end.stream, end.length)).collect(),
            None => segment::lengths(&dir).map_err(RecordError::File)?,
        };
        for (stream, end) in found.into_iter().filter(|(_, end)| *end > 0) {
            lengths.push((stream, end));
            let Some((_, from)) = wanted.iter().find(|(name, _)| *name == stream) else { continue };
            if *from < end && end - from <= PEEK {
                let max = usize::try_from(end - from).unwrap_or(0);
                if let Ok(Piece::Bytes(bytes)) = StreamReader::new(&dir, stream).read(*from, max) {
                    pieces.push((stream, *from, bytes));
                }
            }
        }
        // Only what is needed on: a large command must not wait in memory for its turn.
        let (status, record::History { start, end, .. }) = (status::read(&dir), history);
        Ok(Box::new(Looked { start, end, status, lengths, pieces }))
    });
    Done::Looked(uid, found)
}

/// Finds out what to do with a directory whose shim may be gone.
pub(super) fn recover(home: &Home, uid: Uid, now_ms: u64) -> Done {
    let found = with_room(home, is_full, || recover::recover(&home.state, &home.base, uid, now_ms));
    let found = match found {
        Err(error @ RecordError::Corrupt { .. }) => {
            warn!(task.id = %uid, error = %common::error::Chain(&error), "A damaged command is put aside");
            put_aside(home, uid, now_ms).map(|end| Recovered::Ended(Box::new(end))).map_err(RecordError::File)
        }
        other => other,
    };
    Done::Recovered(uid, found)
}

/// Ends a command whose record is damaged: its tombstone first, so that a crash in between forgets nothing.
fn put_aside(home: &Home, uid: Uid, now_ms: u64) -> Result<End, FileError> {
    let spec = recover::salvage(&home.state, uid);
    let (id, expires_ms) = match &spec {
        Some(spec) => (spec.command.id, spec.command.expires_ms),
        None => (0, now_ms.saturating_add(u64::try_from(limits::MAX_EXPIRY.as_millis()).unwrap_or(u64::MAX))),
    };
    let end = End::interrupted(Evidence::RecordCorrupt, common::clock::unix_ms());
    let origin = spec.as_ref().map(|spec| Origin::from(&spec.command));
    let tombstone = Tombstone { uid, id: CommandId(id), expires_ms, end: end.clone(), origin };
    with_room(home, FileError::is_full, || home.tombstones.insert_many(std::slice::from_ref(&tombstone)))?;
    home.state.quarantine(uid)?;
    Ok(end)
}

fn is_full(error: &RecordError) -> bool {
    matches!(error, RecordError::File(error) if error.is_full())
}

/// Ends a command before it was started.
pub(super) fn settle(home: &Home, uid: Uid, cancel: &Cancel) -> Done {
    let end = || recover::cancel_before_start(&home.dir(uid), &cancel.by, &cancel.reason);
    Done::Settled(uid, with_room(home, is_full, end).map(|end| end.map(Box::new)))
}

/// Ends a command whose validity passed while it waited for its start (protocol R-CMD-5).
pub(super) fn expire(home: &Home, uid: Uid) -> Done {
    let end = || {
        let Some(mut lock) = RecordLock::try_take(&home.dir(uid))? else { return Ok(None) };
        if lock.history().start.is_some() && lock.history().end.is_none() {
            return Ok(None);
        }
        if let Some(end) = &lock.history().end {
            return Ok(Some(end.clone()));
        }
        let end = End::expired(common::clock::unix_ms());
        crash::point("agent.expire-unstarted.before");
        lock.append_end(end.clone())?;
        crash::point("agent.expire-unstarted.after");
        Ok(Some(end))
    };
    Done::Settled(uid, with_room(home, is_full, end).map(|end| end.map(Box::new)))
}

/// Asks a shim to stop its command.
pub(super) fn request(home: &Home, uid: Uid, cancel: &Cancel) -> Done {
    let grace_ms = (cancel.grace_ms != limits::GRACE_UNSET).then_some(u64::from(cancel.grace_ms));
    let request = CancelRequest { by: cancel.by.clone(), reason: cancel.reason.clone(), grace_ms };
    let dir = home.dir(uid);
    Done::Requested(uid, with_room(home, FileError::is_full, || request::cancel(&dir, &request).map(drop)))
}

/// Asks a shim to hold its command or to let it go on, also one that is not there yet.
pub(super) fn pause(home: &Home, session: u64, uid: Uid, seqs: Vec<u64>, wish: &PauseRequest) -> Done {
    let dir = home.dir(uid);
    crash::point("agent.pause.before");
    let placed = with_room(home, FileError::is_full, || request::pause(&dir, wish).map(drop));
    crash::point("agent.pause.after");
    Done::Paused(Paused { session, uid, seqs, placed })
}

/// Answers a cancel for a command that has no directory: its end is known, or becomes known now (protocol R-CMD-8).
pub(super) fn tell(home: &Home, session: u64, seq: u64, cancel: &wire::CommandCancel, uid: Uid) -> Done {
    let tombstones = &home.tombstones;
    let found = tombstones.get(uid).and_then(|known| match known {
        Some(known) => Ok(known.end.to_result(uid, known.id.0)),
        None => {
            let end = End::cancelled(&cancel.by, &cancel.reason, common::clock::unix_ms());
            let result = end.to_result(uid, cancel.id);
            let origin = Some(Origin { generation: cancel.generation, operation: String::new(), created_ms: 0 });
            let tombstone = Tombstone { uid, id: CommandId(cancel.id), expires_ms: cancel.expires_ms, end, origin };
            crash::point("agent.cancel.before");
            with_room(home, FileError::is_full, || tombstones.insert_many(std::slice::from_ref(&tombstone)))?;
            crash::point("agent.cancel.after");
            Ok(result)
        }
    });
    Done::Told(Told { uid, seq, session, result: found.map(Box::new) })
}

/// What a read is to bring.
#[derive(Debug)]
pub(super) struct ReadOrder {
    pub(super) session: u64,
    pub(super) uid: Uid,
    pub(super) stream: StreamName,
    pub(super) from: u64,
    pub(super) max: u64,
    pub(super) reader: Option<StreamReader>,
}

/// Reads output.
pub(super) fn read(home: &Home, order: ReadOrder) -> Done {
    let ReadOrder { session, uid, stream, from, max, reader } = order;
    let mut reader = reader.unwrap_or_else(|| StreamReader::new(&home.dir(uid), stream));
    let piece = reader.read(from, usize::try_from(max).unwrap_or(usize::MAX));
    let next_file = if piece.is_err() { reader.next_file(from).ok().flatten() } else { None };
    Done::Read(Box::new(Read { session, uid, stream, from, reserved: max, next_file, reader, piece }))
}

/// Reads the commands as they were received, as many as fit into memory at once.
pub(super) fn describe(home: &Home, session: u64, mut uids: Vec<Uid>) -> Done {
    let (mut commands, mut gone, mut weight) = (Vec::new(), Vec::new(), 0);
    uids.reverse();
    while weight < DESCRIBE_BYTES
        && let Some(uid) = uids.pop()
    {
        match record::read(&home.dir(uid)) {
            Ok(history) => {
                weight += history.spec.raw.len();
                commands.push((uid, history.spec.raw));
            }
            Err(_) => gone.push(uid),
        }
    }
    uids.reverse();
    Done::Described { session, commands, gone, rest: uids }
}

/// Reads what is left of commands that are gone.
pub(super) fn recall(home: &Home, session: u64, questions: Vec<(Uid, Question)>) -> Done {
    let found = questions.into_iter().map(|(uid, question)| (uid, question, home.tombstones.get(uid))).collect();
    Done::Recalled(session, found)
}

/// Makes the agent's memory of time and manager durable, and drops tombstones nobody can ask for any more.
pub(super) fn save(home: &Home, now_ms: u64, clock: Option<&Saved>, memory: Option<&ManagerMemory>) -> Done {
    let kept = clock
        .map_or(Ok(()), |clock| home.files.save_clock(clock))
        .and_then(|()| memory.map_or(Ok(()), |memory| home.files.save_manager(memory)));
    if let Err(error) = home.tombstones.expire(now_ms) {
        warn!(error = %common::error::Chain(&error), "Old tombstones could not be removed");
    }
    Done::Saved(kept)
}

/// All tombstones as items of an inventory; those that do not say for which generation they were made count as this
/// agent's.
pub(super) fn list_tombstones(home: &Home, session: u64, generation: u64) -> Done {
    let listed =
        home.tombstones.list().into_iter().map(|one| {
            past::item(one.uid, one.id.0, one.generation.unwrap_or(generation), one.started_ms, one.streams)
        });
    Done::Listed(session, listed.collect())
}
