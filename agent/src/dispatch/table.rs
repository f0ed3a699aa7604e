//! What this agent holds: one entry per command directory, and the moves between their steps. No I/O.
//!
//! ```text
//!   Accepting ─► Accepted ─► Spawning ─► Live ─────────────► Ended ─(ResultAck)─► forgotten (tombstone)
//!                 │ ▲ queue      ▲         │ shim gone          ▲
//!                 │ └────────────┴─────────┴─ recover ──────────┤
//!                 └─► Settling (cancelled, expired, answered without a process)
//! ```
//! Whoever is Spawning or Live has one of the places; the table counts them, so that none is ever lost.

use std::collections::HashMap;

use common::id::Uid;
use common::limits::MAX_TEXT_BYTES;
use common::model::{Flag, StreamName};
use common::wire::{CommandPause, CommandPhase, CommandResult, InventoryItem, StreamLength};

use super::jobs::Shim;
use super::places::{Turn, Waiting};
use super::ship::Ship;
use crate::commands::status::{ShimPhase, ShimStatus};

/// Where a command stands on this host.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The directory is being made: nothing was promised.
    Accepting,
    /// Durable; waits for its turn to be started, in the queue unless something has to be known or done first.
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

/// What the manager was told of a command that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) phase: CommandPhase,
    pub(super) current: u64,
    pub(super) total: u64,
    pub(super) text: String,
}

/// What only counts in this session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The manager said from where it wants the rest.
    pub(super) attached: bool,
    /// The command had ended before the session began: its bytes are not followed by anybody yet.
    pub(super) backfill: bool,
    /// What the manager was told last of how it is.
    pub(super) said: Option<Said>,
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
    /// Manager time of the acceptance: its place in the queue.
    pub(super) accepted_ms: u64,
    step: Step,
    /// It is in the queue, and not about to be started.
    pub(super) waiting: Option<Waiting>,
    pub(super) started: Option<Started>,
    /// What its shim said last; none: nothing beside the record.
    pub(super) word: Option<ShimStatus>,
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
    /// `CommandPause` frames that wait for durability, with the numbers of the frames.
    pub(super) waiting_pauses: Vec<(u64, CommandPause)>,
    /// Some of them are on their way to the disk.
    pub(super) pausing: bool,
    /// It is started when they are there: so it starts paused.
    pub(super) starts_after_pause: bool,
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
            accepted_ms: 0,
            step,
            waiting: None,
            started: None,
            word: None,
            cancel: None,
            watched: false,
            shim: Shim::First,
            adoptions: 0,
            acked: false,
            waiting_acks: Vec::new(),
            waiting_cancels: Vec::new(),
            waiting_pauses: Vec::new(),
            pausing: false,
            starts_after_pause: false,
            forgetting: false,
            looking: false,
            look_again: false,
            recovering: false,
            delivery: Delivery::default(),
            streams: Vec::new(),
        }
    }

    /// Where it stands.
    pub(super) fn step(&self) -> &Step {
        &self.step
    }

    /// Its turn in the queue.
    pub(super) fn turn(&self, uid: Uid) -> Turn {
        Turn { accepted_ms: self.accepted_ms, id: self.id, uid }
    }

    /// The phase on the wire.
    pub(super) fn phase(&self) -> CommandPhase {
        match &self.step {
            Step::Accepted if self.waiting.is_some() => CommandPhase::Waiting,
            Step::Accepting | Step::Accepted | Step::Settling | Step::Spawning => CommandPhase::Accepted,
            Step::Live if self.started.is_none() => CommandPhase::Accepted,
            Step::Live => match self.word.as_ref().map(|word| word.phase) {
                Some(ShimPhase::Stopping) => CommandPhase::Stopping,
                _ if self.cancel.is_some() => CommandPhase::Stopping,
                Some(ShimPhase::Paused) => CommandPhase::Paused,
                Some(ShimPhase::Running) | None => CommandPhase::Running,
            },
            Step::Ended(_) => CommandPhase::Ended,
        }
    }

    /// What the manager should know of how it is; none while there is nothing beside its acceptance or its end.
    pub(super) fn to_say(&self) -> Option<Said> {
        let phase = self.phase();
        let said = |current, total, text| Some(Said { phase, current, total, text });
        match phase {
            CommandPhase::Waiting => {
                let waiting = self.waiting?;
                said(waiting.place, waiting.total, waiting.reason.to_owned())
            }
            CommandPhase::Stopping => said(0, 0, self.word.as_ref().map(stuck).unwrap_or_default()),
            CommandPhase::Running | CommandPhase::Paused => said(0, 0, String::new()),
            _ => None,
        }
    }

    /// When it came into the phase that it is in, as far as its shim said so.
    pub(super) fn since(&self, phase: CommandPhase) -> Option<u64> {
        let word = self.word.as_ref().filter(|word| {
            matches!(
                (word.phase, phase),
                (ShimPhase::Running, CommandPhase::Running)
                    | (ShimPhase::Paused, CommandPhase::Paused)
                    | (ShimPhase::Stopping, CommandPhase::Stopping)
            )
        });
        match (word, &self.started) {
            (Some(word), _) => Some(word.at_ms),
            (None, Some(started)) if phase == CommandPhase::Running => Some(started.at_ms),
            _ => None,
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

    /// The same with an end that was found.
    pub(super) fn with_end(mut self, result: CommandResult) -> Self {
        self.end(result);
        self
    }

    /// Takes the end: from here on only delivery is left.
    fn end(&mut self, result: CommandResult) {
        for stream in &result.streams {
            if let Some(name) = StreamName::from_wire(stream.stream) {
                self.ship(name).finish(stream.length);
            }
        }
        if self.started.is_none() && result.started_ms > 0 {
            self.started = Some(Started { at_ms: result.started_ms, isolation: result.isolation.clone() });
        }
        self.waiting = None;
        self.step = Step::Ended(Box::new(result));
    }

    /// Tells whether it has one of the places.
    fn is_busy(&self) -> bool {
        matches!(self.step, Step::Spawning | Step::Live)
    }

    /// Tells whether a process may still be at work.
    pub(super) fn is_active(&self) -> bool {
        !matches!(self.step, Step::Ended(_))
    }

    /// Tells whether it has ended and left processes that go on.
    pub(super) fn keeps_strays(&self) -> bool {
        let Step::Ended(result) = &self.step else { return false };
        Flag::StraysKept.is_in(&result.flags) || Flag::OutputCut.is_in(&result.flags)
    }

    /// Forgets what only counted in the last session: the next one is told everything again (protocol R-BYE-1).
    pub(super) fn detach(&mut self) {
        self.delivery = Delivery { backfill: !self.is_active(), ..Delivery::default() };
        self.waiting_acks.clear();
        self.waiting_cancels.clear();
        self.waiting_pauses.clear();
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

/// What does not die, within what a text may have.
fn stuck(word: &ShimStatus) -> String {
    let mut text = String::new();
    for pid in &word.stuck {
        let next = if text.is_empty() { format!("stuck: pids {pid}") } else { format!(" {pid}") };
        if text.len() + next.len() + " …".len() > MAX_TEXT_BYTES {
            text.push_str(" …");
            break;
        }
        text.push_str(&next);
    }
    text
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
    /// How many of them have a place.
    busy: usize,
}

impl Table {
    /// Adds a command that is not known.
    pub(super) fn insert(&mut self, uid: Uid, entry: Entry) {
        self.ids.insert(entry.id, uid);
        self.busy += usize::from(entry.is_busy());
        if let Some(before) = self.entries.insert(uid, entry) {
            self.busy -= usize::from(before.is_busy());
        }
    }

    /// Moves a command to another step; its end has [`Self::end`].
    pub(super) fn step(&mut self, uid: Uid, step: Step) {
        self.change(uid, |entry| entry.step = step);
    }

    /// Ends a command.
    pub(super) fn end(&mut self, uid: Uid, result: CommandResult) {
        self.change(uid, |entry| entry.end(result));
    }

    fn change(&mut self, uid: Uid, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entries.get_mut(&uid) else { return };
        let before = entry.is_busy();
        change(entry);
        self.busy = self.busy + usize::from(entry.is_busy()) - usize::from(before);
    }

    /// Counts those that have a place.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// Forgets a command.
    pub(super) fn remove(&mut self, uid: Uid) -> Option<Entry> {
        let entry = self.entries.remove(&uid)?;
        self.busy -= usize::from(entry.is_busy());
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
    fn the_phase_follows_step_start_word_and_cancel() {
        let mut live = entry(Step::Live);
        assert_eq!(live.phase(), CommandPhase::Accepted, "a shim without START has started nothing");
        live.started = Some(Started { at_ms: 3, ..Started::default() });
        assert_eq!(live.phase(), CommandPhase::Running);
        assert_eq!(live.since(CommandPhase::Running), Some(3));
        let word = |phase| Some(ShimStatus::new(phase, 9));
        for (own, phase) in [
            (ShimPhase::Paused, CommandPhase::Paused),
            (ShimPhase::Running, CommandPhase::Running),
            (ShimPhase::Stopping, CommandPhase::Stopping),
        ] {
            live.word = word(own);
            assert_eq!((live.phase(), live.since(phase)), (phase, Some(9)));
        }
        live.word = word(ShimPhase::Paused);
        live.cancel = Some(Cancel { by: "a".into(), reason: String::new(), grace_ms: 0 });
        assert_eq!(live.phase(), CommandPhase::Stopping);
        assert_eq!(live.since(CommandPhase::Stopping), None, "its shim has not said so yet");
        let live = live.with_end(CommandResult::default());
        assert_eq!((live.phase(), live.to_say()), (CommandPhase::Ended, None));
        for step in [Step::Accepting, Step::Accepted, Step::Settling, Step::Spawning] {
            let one = entry(step);
            assert_eq!((one.phase(), one.to_say()), (CommandPhase::Accepted, None));
        }
    }

    #[test]
    fn what_waits_says_where_and_what_does_not_die_is_named_within_the_limit() {
        let mut waits = entry(Step::Accepted);
        waits.waiting = Some(Waiting { reason: "parallel_limit", place: 3, total: 17 });
        let said = Said { phase: CommandPhase::Waiting, current: 3, total: 17, text: "parallel_limit".into() };
        assert_eq!(waits.to_say(), Some(said));
        let mut dying = entry(Step::Live);
        dying.started = Some(Started::default());
        let word = |stuck| Some(ShimStatus { stuck, ..ShimStatus::new(ShimPhase::Stopping, 1) });
        dying.word = word(vec![12, 13]);
        assert_eq!(dying.to_say().map(|said| said.text).as_deref(), Some("stuck: pids 12 13"));
        dying.word = word((1_000_000..1_000_200).collect());
        let text = dying.to_say().map(|said| said.text).unwrap_or_default();
        assert!(text.len() <= MAX_TEXT_BYTES && text.ends_with(" …"), "{text}");
    }

    #[test]
    fn places_are_counted_through_every_move() {
        let mut table = Table::default();
        let (uid, other) = (Uid([1; 16]), Uid([2; 16]));
        table.insert(uid, entry(Step::Accepted));
        table.insert(other, Entry::new(8, 1, 99, Step::Live));
        assert_eq!(table.busy(), 1);
        for (step, busy) in [(Step::Spawning, 2), (Step::Live, 2), (Step::Accepted, 1), (Step::Live, 2)] {
            table.step(uid, step);
            assert_eq!(table.busy(), busy);
        }
        table.end(uid, CommandResult::default());
        table.end(uid, CommandResult::default());
        assert_eq!(table.busy(), 1);
        table.insert(other, Entry::new(8, 1, 99, Step::Spawning));
        assert_eq!(table.busy(), 1);
        table.remove(other);
        table.remove(uid);
        table.step(uid, Step::Live);
        assert_eq!(table.busy(), 0);
    }

    #[test]
    fn an_end_fixes_the_lengths_and_a_new_session_makes_it_backfill() {
        let end = StreamEnd { stream: StreamName::Stdout.to_wire(), length: 5, ..StreamEnd::default() };
        let mut one =
            entry(Step::Live).with_end(CommandResult { streams: vec![end], started_ms: 3, ..CommandResult::default() });
        assert!(one.ship(StreamName::Stdout).has_more());
        one.delivery.result_sent = true;
        one.waiting_acks.push(4);
        one.waiting_pauses.push((5, CommandPause::default()));
        one.detach();
        assert_eq!(one.delivery, Delivery { backfill: true, ..Delivery::default() });
        let waiting = (one.waiting_acks.len(), one.waiting_pauses.len());
        assert_eq!(waiting, (0, 0), "numbers of an old session mean nothing in a new one");
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
