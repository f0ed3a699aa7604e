//! The past in a session: commands of which only the tombstone is left, for a manager whose store was restored and does
//! not know how they ended (protocol R-INV-4). It owns who still has to be told; the tombstones own what is said.
//!
//! ```text
//! listed ─► CONTINUE, STOP ─► result, and a gap for the bytes that are gone ─► ResultAck ─► over
//!        └► DESCRIBE ─► what the command was, and its result ─► CONTINUE ─► …
//! ```
//! Until all of them are over, the next session lists the past again: a lost connection loses nothing.

use std::collections::{HashMap, HashSet, VecDeque};

use common::error::Chain;
use common::id::Uid;
use common::link::Lane;
use common::model::StreamName;
use common::wire::frame::Body;
use common::wire::{Command, CommandOutput, CommandPhase, CommandResult, Inventory, InventoryItem, Nak};
use prost::Message;
use tracing::{debug, error, warn};

use super::deliver::{QUEUE, output};
use super::dispatcher::Dispatcher;
use super::jobs;
use crate::commands::FileError;
use crate::commands::tombstones::Tombstone;

/// Tombstones that one job reads: a batch is on its way while the next one is read.
const BATCH: usize = 64;

/// What the manager wants to hear of a command that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// What it was, and how it ended.
    Describe,
    /// How it ended, and what is missing from these offsets on.
    Deliver(Vec<(StreamName, u64)>),
}

/// One question and what is left to answer it with.
pub(super) type Recalled = (Uid, Question, Result<Option<Tombstone>, FileError>);

/// How far the manager is with one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nothing was said yet.
    Nothing,
    /// It was described; the result was in this frame, and is said again when the manager goes on with it.
    Described(u64),
    /// The result was in this frame.
    Result(u64),
    /// The manager has it, or does not want it.
    Over,
}

/// Who has to be told in this session.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Listed, and without any answer: what is too much for one session gets none, and the next one brings it again.
    unanswered: HashSet<Uid>,
    told: HashMap<Uid, Told>,
    /// Those that are not over.
    open: usize,
    questions: VecDeque<(Uid, Question)>,
    reading: bool,
}

impl Past {
    /// Tells whether the manager may still miss something.
    pub(super) fn is_owed(&self) -> bool {
        self.open > 0 || !self.unanswered.is_empty()
    }

    /// Learns what is listed in this session.
    pub(super) fn list(&mut self, uids: impl Iterator<Item = Uid>) {
        self.unanswered.extend(uids);
    }

    /// Learns that the manager said something about it.
    pub(super) fn answered(&mut self, uid: Uid) {
        self.unanswered.remove(&uid);
    }

    fn ask(&mut self, uid: Uid, question: Question) {
        match self.told.get(&uid) {
            Some(Told::Over) => return,
            Some(_) => {}
            None => {
                self.open += 1;
                self.told.insert(uid, Told::Nothing);
            }
        }
        self.questions.push_back((uid, question));
    }

    fn tell(&mut self, uid: Uid, told: Told) {
        if let Some(before) = self.told.get_mut(&uid).filter(|before| **before != Told::Over) {
            *before = told;
            if told == Told::Over {
                self.open -= 1;
            }
        }
    }
}

impl Dispatcher {
    /// The manager asks about a command that is not here any more.
    pub(super) fn ask_past(&mut self, uid: Uid, question: Question) {
        if let Some(live) = &mut self.live {
            live.past.ask(uid, question);
        }
    }

    /// Reads the next tombstones when there is room for what they say.
    pub(super) fn pump_past(&mut self) {
        let Some(live) = self.live.as_mut().filter(|live| !live.past.reading && !live.past.questions.is_empty()) else {
            return;
        };
        if live.session.queued_bytes() >= QUEUE {
            self.work.hungry = true;
            return;
        }
        live.past.reading = true;
        let count = live.past.questions.len().min(BATCH);
        let (session, questions) = (live.number, live.past.questions.drain(..count).collect());
        self.job(move |home| jobs::recall(home, session, questions));
    }

    /// Tombstones were read: descriptions first, so that the results behind them find what they belong to.
    pub(super) fn recalled(&mut self, session: u64, found: Vec<Recalled>) {
        let Some(live) = self.live.as_mut().filter(|live| live.number == session) else { return };
        live.past.reading = false;
        let mut known = Vec::with_capacity(found.len());
        for (uid, question, stone) in found {
            match stone {
                Ok(Some(stone)) => known.push((question, stone)),
                Ok(None) => {
                    warn!(task.id = %uid, "The manager asks for a command this agent does not know");
                    live.past.tell(uid, Told::Over);
                }
                // Not over: the next session lists it again.
                Err(error) => {
                    error!(task.id = %uid, error = %Chain(&error), "A tombstone cannot be read");
                }
            }
        }
        let items: Vec<_> = known
            .iter()
            .filter(|(question, _)| *question == Question::Describe)
            .map(|(_, stone)| describe(stone, self.generation))
            .collect();
        if !items.is_empty() {
            live.session.push(Lane::Control, Body::Inventory(Inventory { items, last: false }));
        }
        for (question, stone) in known {
            let (uid, result) = (stone.uid, stone.end.to_result(stone.uid, stone.id.0));
            let missing = match &question {
                Question::Describe => Vec::new(),
                Question::Deliver(from) => gaps(uid, &result, from),
            };
            let seq = live.session.push(Lane::Control, Body::CommandResult(result));
            live.past.tell(uid, if question == Question::Describe { Told::Described(seq) } else { Told::Result(seq) });
            for gap in missing {
                live.session.push(Lane::Bulk, Body::CommandOutput(gap));
            }
        }
        self.past_is_over();
    }

    /// The manager has one of them, or does not want it.
    pub(super) fn past_over(&mut self, uid: Uid) {
        if let Some(live) = &mut self.live {
            live.past.tell(uid, Told::Over);
            self.past_is_over();
        }
    }

    /// The manager refused a frame; answers whether it was about one of them.
    pub(super) fn past_refused(&mut self, seq: u64, nak: &Nak) -> bool {
        let Some(live) = &mut self.live else { return false };
        let found = live.past.told.iter().find_map(|(uid, told)| match told {
            Told::Described(of) | Told::Result(of) if *of == seq => Some((*uid, *told)),
            _ => None,
        });
        let Some((uid, told)) = found else { return false };
        let (code, reason) = (nak.code(), common::escape::text(&nak.reason));
        if matches!(told, Told::Described(_)) {
            // It overtook its own description, which has an answer of its own.
            debug!(task.id = %uid, ?code, %reason, "The manager did not take a result yet");
            live.past.tell(uid, Told::Nothing);
        } else {
            error!(task.id = %uid, ?code, %reason, "The manager refused a result of the past");
            self.past_over(uid);
        }
        true
    }

    /// Remembers that the manager knows the past, once it does.
    fn past_is_over(&mut self) {
        let Some(live) = self.live.as_ref().filter(|live| live.synced && !live.past.is_owed()) else { return };
        debug_assert!(live.past.questions.iter().all(|(uid, _)| live.past.told.contains_key(uid)));
        if std::mem::take(&mut self.memory().past_owed) {
            self.save_memory_now();
        }
    }
}

/// What a tombstone says as a line of an inventory, with as much of its Command as is known.
fn describe(stone: &Tombstone, generation: u64) -> InventoryItem {
    let origin = stone.origin.clone();
    let generation = origin.as_ref().map_or(generation, |origin| origin.generation);
    let (operation, created_ms) = origin.map_or_else(Default::default, |origin| (origin.operation, origin.created_ms));
    let command = Command {
        uid: stone.uid.to_wire(),
        id: stone.id.0,
        operation,
        args: "{}".into(),
        expires_ms: stone.expires_ms,
        generation,
        created_ms,
        ..Command::default()
    };
    let streams = stone.end.streams.iter().map(|end| (end.stream, end.length)).collect();
    InventoryItem {
        command: command.encode_to_vec().into(),
        ..item(stone.uid, stone.id.0, generation, stone.end.started_ms, streams)
    }
}

/// A tombstone as a line of an inventory.
pub(super) fn item(
    uid: Uid,
    id: u64,
    generation: u64,
    started_ms: u64,
    streams: Vec<(StreamName, u64)>,
) -> InventoryItem {
    InventoryItem {
        uid: uid.to_wire(),
        id,
        phase: CommandPhase::Ended.into(),
        generation,
        streams: super::table::lengths(streams),
        tombstone: true,
        command: Default::default(),
        started_ms,
    }
}

/// The bytes of an ended command that the manager misses from these offsets on: all gone, one gap for each stream.
pub(super) fn gaps(uid: Uid, result: &CommandResult, from: &[(StreamName, u64)]) -> Vec<CommandOutput> {
    let mut gaps = Vec::new();
    for end in &result.streams {
        let Some(stream) = StreamName::from_wire(end.stream) else { continue };
        let first = from.iter().find(|(name, _)| *name == stream).map_or(0, |(_, offset)| *offset);
        // Longer bytes on the manager stand; an empty stream needs no chunk (protocol R-OUT-4).
        if let Some(gap) = end.length.checked_sub(first).filter(|_| end.length > 0) {
            gaps.push(CommandOutput { gap, end: true, ..output(uid, stream, first) });
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use common::wire::StreamEnd;

    use super::*;

    #[test]
    fn what_is_missing_is_one_gap_up_to_the_final_length() {
        let uid = Uid([1; 16]);
        let end = |stream: StreamName, length| StreamEnd { stream: stream.to_wire(), length, ..StreamEnd::default() };
        let streams = vec![end(StreamName::Stdout, 100), end(StreamName::Stderr, 7)];
        let result = CommandResult { streams, ..CommandResult::default() };
        let said = |from: &[(StreamName, u64)]| -> Vec<_> {
            gaps(uid, &result, from).into_iter().map(|gap| (gap.offset, gap.gap, gap.data.len(), gap.end)).collect()
        };
        assert_eq!(said(&[]), [(0, 100, 0, true), (0, 7, 0, true)]);
        assert_eq!(said(&[(StreamName::Stdout, 60), (StreamName::Stderr, 7)]), [(60, 40, 0, true), (7, 0, 0, true)]);
        assert_eq!(said(&[(StreamName::Stdout, 101)]), [(0, 7, 0, true)], "longer bytes on the manager stand");
    }

    #[test]
    fn one_that_is_over_is_not_asked_for_again_and_counts_once() {
        let (uid, mut past) = (Uid([1; 16]), Past::default());
        past.ask(uid, Question::Describe);
        past.ask(uid, Question::Deliver(Vec::new()));
        assert!(past.is_owed());
        assert_eq!(past.questions.len(), 2);
        past.tell(uid, Told::Over);
        past.tell(uid, Told::Over);
        past.tell(uid, Told::Result(3));
        assert!(!past.is_owed());
        past.ask(uid, Question::Describe);
        assert_eq!((past.questions.len(), past.open), (2, 0));
        past.tell(Uid([2; 16]), Told::Over);
        assert_eq!(past.open, 0, "nobody asked for that one");
        past.list([uid].into_iter());
        assert!(past.is_owed(), "the manager has not said what it thinks of it");
        past.answered(uid);
        assert!(!past.is_owed());
    }
}
