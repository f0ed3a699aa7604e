//! What this agent holds: one entry per command directory, and the moves between their steps. No I/O.
//!
//! ```text
//!   Accepting ─► Accepted ─► Spawning ─► Live ─────────────► Ended ─(ResultAck)─► forgotten (tombstone)
//!                   │            ▲         │ shim gone          ▲
//!                   │            └─────────┴─ recover ──────────┤
//!                   └─► Settling (cancelled, expired, answered without a process)
//! ```

use std::collections::HashMap;

use common::id::Uid;
use common::model::StreamName;
use common::wire::{CommandPhase, CommandResult, InventoryItem, StreamLength};

use super::jobs::Shim;
use super::ship::Ship;

/// Where a command stands on this host.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The directory is being made: nothing was promised.
    Accepting,
    /// Durable; waits for its turn to be started.
    Accepted,
    /// The agent itself writes the end.
    Settling,
    /// A shim is being started.
    Spawning,
    /// A shim has it, or had it until a moment ago.
    Live,
    /// END is durable.
    Ended(Box<CommandResult>),
}

/// What is known about a start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Started {
    pub(super) at_ms: u64,
    pub(super) isolation: String,
}

/// What was asked for with a cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cancel {
    pub(super) by: String,
    pub(super) reason: String,
    /// `limits::GRACE_UNSET` means the default.
    pub(super) grace_ms: u32,
}

/// What only counts in this session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The manager said from where it wants the rest.
    pub(super) attached: bool,
    /// The command had ended before the session began: its bytes are not followed by anybody yet.
    pub(super) backfill: bool,
    /// The manager was told that it runs.
    pub(super) running_told: bool,
    /// The result left in this session.
    pub(super) result_sent: bool,
    /// The number of the frame that carried it.
    pub(super) result_seq: u64,
    /// The manager refused it in this session: it is kept, and the next session tries again.
    pub(super) result_refused: bool,
}

/// One command.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) generation: u64,
    pub(super) expires_ms: u64,
    pub(super) step: Step,
    pub(super) started: Option<Started>,
    /// A stop was asked for; shown as the phase `stopping` while it lives.
    pub(super) cancel: Option<Cancel>,
    /// A shim lives, as far as we know: its end will be noticed.
    pub(super) watched: bool,
    /// Which shim would be started next.
    pub(super) shim: Shim,
    /// How often in a row its lock was held by a process that could not be watched.
    pub(super) adoptions: u8,
    /// The manager has END and every byte.
    pub(super) acked: bool,
    /// `Command` frames that wait for durability.
    pub(super) waiting_acks: Vec<u64>,
    /// `CommandCancel` frames that wait for durability.
    pub(super) waiting_cancels: Vec<u64>,
    /// A look at its directory is under way.
    pub(super) looking: bool,
    /// Something happened since that look began.
    pub(super) look_again: bool,
    /// It is on its way to a tombstone.
    pub(super) forgetting: bool,
    /// Recovery of its directory is under way.
    pub(super) recovering: bool,
    pub(super) delivery: Delivery,
    streams: Vec<(StreamName, Ship)>,
}

impl Entry {
    pub(super) fn new(id: u64, generation: u64, expires_ms: u64, step: Step) -> Self {
        Self {
            id,
            generation,
            expires_ms,
            step,
            started: None,
            cancel: None,
            watched: false,
            shim: Shim::First,
            adoptions: 0,
            acked: false,
            waiting_acks: Vec::new(),
            waiting_cancels: Vec::new(),
            forgetting: false,
            looking: false,
            look_again: false,
            recovering: false,
            delivery: Delivery::default(),
            streams: Vec::new(),
        }
    }

    /// The phase on the wire.
    pub(super) fn phase(&self) -> CommandPhase {
        match &self.step {
            Step::Accepting | Step::Accepted | Step::Settling | Step::Spawning => CommandPhase::Accepted,
            Step::Live if self.started.is_some() && self.cancel.is_some() => CommandPhase::Stopping,
            Step::Live if self.started.is_some() => CommandPhase::Running,
            Step::Live => CommandPhase::Accepted,
            Step::Ended(_) => CommandPhase::Ended,
        }
    }

    /// The stream of that name, made when it is new.
    pub(super) fn ship(&mut self, stream: StreamName) -> &mut Ship {
        let at = match self.streams.iter().position(|(name, _)| *name == stream) {
            Some(at) => at,
            None => {
                self.streams.push((stream, Ship::default()));
                self.streams.len() - 1
            }
        };
        &mut self.streams[at].1
    }

    /// All streams that have bytes.
    pub(super) fn streams(&self) -> impl Iterator<Item = (StreamName, &Ship)> {
        self.streams.iter().map(|(name, ship)| (*name, ship))
    }

    /// Takes the end: from here on only delivery is left.
    pub(super) fn end(&mut self, result: CommandResult) {
        for stream in &result.streams {
            if let Some(name) = StreamName::from_wire(stream.stream) {
                self.ship(name).finish(stream.length);
            }
        }
        if self.started.is_none() && result.started_ms > 0 {
            self.started = Some(Started { at_ms: result.started_ms, isolation: result.isolation.clone() });
        }
        self.step = Step::Ended(Box::new(result));
    }

    /// Tells whether a process may still be at work.
    pub(super) fn is_active(&self) -> bool {
        !matches!(self.step, Step::Ended(_))
    }

    /// Forgets what only counted in the last session: the next one is told everything again (protocol R-BYE-1).
    pub(super) fn detach(&mut self) {
        self.delivery = Delivery { backfill: !self.is_active(), ..Delivery::default() };
        self.waiting_acks.clear();
        self.waiting_cancels.clear();
    }

    /// What an inventory says about it.
    pub(super) fn item(&self, uid: Uid) -> InventoryItem {
        InventoryItem {
            uid: uid.to_wire(),
            id: self.id,
            phase: self.phase().into(),
            generation: self.generation,
            streams: lengths(self.streams().map(|(name, ship)| (name, ship.known()))),
            tombstone: false,
            command: Default::default(),
            started_ms: self.started.as_ref().map_or(0, |started| started.at_ms),
        }
    }
}

/// Lengths of streams as they travel.
pub(super) fn lengths(streams: impl IntoIterator<Item = (StreamName, u64)>) -> Vec<StreamLength> {
    streams.into_iter().map(|(name, length)| StreamLength { stream: name.to_wire(), length }).collect()
}

/// All commands of this host.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Uid, Entry>,
    ids: HashMap<u64, Uid>,
}

impl Table {
    /// Adds a command that is not known.
    pub(super) fn insert(&mut self, uid: Uid, entry: Entry) {
        self.ids.insert(entry.id, uid);
        self.entries.insert(uid, entry);
    }

    /// Forgets a command.
    pub(super) fn remove(&mut self, uid: Uid) -> Option<Entry> {
        let entry = self.entries.remove(&uid)?;
        if self.ids.get(&entry.id) == Some(&uid) {
            self.ids.remove(&entry.id);
        }
        Some(entry)
    }

    pub(super) fn get(&self, uid: Uid) -> Option<&Entry> {
        self.entries.get(&uid)
    }

    pub(super) fn get_mut(&mut self, uid: Uid) -> Option<&mut Entry> {
        self.entries.get_mut(&uid)
    }

    /// The uid under which an id is known.
    pub(super) fn uid_of(&self, id: u64) -> Option<Uid> {
        self.ids.get(&id).copied()
    }

    /// The command whose result left in the frame of that number.
    pub(super) fn uid_of_result(&self, seq: u64) -> Option<Uid> {
        self.iter()
            .find(|(_, entry)| entry.delivery.result_sent && entry.delivery.result_seq == seq)
            .map(|(uid, _)| uid)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Uid, &Entry)> {
        self.entries.iter().map(|(uid, entry)| (*uid, entry))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Uid, &mut Entry)> {
        self.entries.iter_mut().map(|(uid, entry)| (*uid, entry))
    }

    /// Counts them.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether any process may be at work.
    pub(super) fn any_active(&self) -> bool {
        self.entries.values().any(Entry::is_active)
    }
}

#[cfg(test)]
mod tests {
    use common::wire::StreamEnd;

    use super::*;

    fn entry(step: Step) -> Entry {
        Entry::new(7, 1, 99, step)
    }

    #[test]
    fn the_phase_follows_step_start_and_cancel() {
        let mut live = entry(Step::Live);
        assert_eq!(live.phase(), CommandPhase::Accepted, "a shim without START has started nothing");
        live.started = Some(Started::default());
        assert_eq!(live.phase(), CommandPhase::Running);
        live.cancel = Some(Cancel { by: "a".into(), reason: String::new(), grace_ms: 0 });
        assert_eq!(live.phase(), CommandPhase::Stopping);
        live.end(CommandResult::default());
        assert_eq!(live.phase(), CommandPhase::Ended);
        for step in [Step::Accepting, Step::Accepted, Step::Settling, Step::Spawning] {
            assert_eq!(entry(step).phase(), CommandPhase::Accepted);
        }
    }

    #[test]
    fn an_end_fixes_the_lengths_and_a_new_session_makes_it_backfill() {
        let mut one = entry(Step::Live);
        let end = StreamEnd { stream: StreamName::Stdout.to_wire(), length: 5, ..StreamEnd::default() };
        one.end(CommandResult { streams: vec![end], started_ms: 3, ..CommandResult::default() });
        assert!(one.ship(StreamName::Stdout).has_more());
        one.delivery.result_sent = true;
        one.waiting_acks.push(4);
        one.detach();
        assert_eq!(one.delivery, Delivery { backfill: true, ..Delivery::default() });
        assert!(one.waiting_acks.is_empty(), "numbers of an old session mean nothing in a new one");
        let item = one.item(Uid([1; 16]));
        assert_eq!((item.started_ms, item.streams.len()), (3, 1));
    }

    #[test]
    fn an_id_leads_to_one_uid_until_it_is_forgotten() {
        let mut table = Table::default();
        let (uid, other) = (Uid([1; 16]), Uid([2; 16]));
        table.insert(uid, entry(Step::Live));
        assert_eq!(table.uid_of(7), Some(uid));
        assert!(table.any_active());
        assert!(table.remove(other).is_none());
        assert!(table.remove(uid).is_some());
        assert_eq!(table.uid_of(7), None);
        assert!(!table.any_active());
    }
}
