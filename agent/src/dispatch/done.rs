//! Answers of jobs: what was done on disk, and what follows from it.

use bytes::Bytes;
use common::error::Chain;
use common::id::Uid;
use common::link::Lane;
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::nak::Code;
use common::wire::{Ack, CommandAck, CommandCancel, CommandPhase, CommandResult, Inventory, InventoryItem};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::dispatcher::Dispatcher;
use super::incoming::ack;
use super::jobs::{self, Done, Looked, Shim, Taken, Told};
use super::past::{Question, gaps};
use super::table::{Started, Step};
use crate::commands::recover::Recovered;
use crate::commands::request::WakeWatch;
use crate::commands::{End, FileError, RecordError};
use crate::limits::{DESCRIBE_PAGE, SWEEP_EACH};

impl Dispatcher {
    /// Acts on the answer of a job.
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Intake { answers, bytes } => {
                self.work.intakes -= 1;
                self.work.intake_bytes = self.work.intake_bytes.saturating_sub(bytes);
                for (uid, taken) in answers {
                    self.taken(uid, taken);
                }
                self.arm_rescan();
            }
            Done::Spawned(uid, child) => self.spawned(uid, child),
            Done::Looked(uid, found) => self.looked(uid, found),
            Done::Recovered(uid, found) => self.recovered(uid, found),
            Done::Settled(uid, end) => self.settled(uid, end),
            Done::Requested(uid, placed) => self.requested(uid, placed),
            Done::Paused(done) => self.paused(done),
            Done::Told(told) => self.told(told),
            Done::Read(read) => self.read(*read),
            Done::Placed(answers) => {
                for (uid, taken) in answers {
                    self.taken(uid, taken);
                }
                self.arm_rescan();
            }
            Done::Forgot { gone, failed } => {
                self.work.forgetting = false;
                for uid in gone {
                    self.table.remove(uid);
                }
                self.forget_later(failed);
            }
            Done::Deaf { hearing, unasked } => self.looked_for_deaf(hearing, &unasked),
            Done::Swept { left } => self.work.sweep_at = left.then(|| Instant::now() + SWEEP_EACH),
            Done::Roomed { again } => {
                self.work.looking_at_room = false;
                self.work.room_at = again.map(|pause| Instant::now() + pause);
            }
            Done::Listed(session, items) => self.listed(session, items),
            Done::Described { session, commands, gone, rest } => {
                if session == self.session_number() {
                    self.described(commands, gone, rest);
                }
            }
            Done::Recalled(session, found) => self.recalled(session, found),
            Done::Saved(kept) => {
                self.work.saving = false;
                if let Err(error) = kept {
                    warn!(error = %Chain(&error), "The memory of the manager could not be saved");
                }
            }
        }
    }

    fn taken(&mut self, uid: Uid, taken: Taken) {
        let (acks, cancels) = match self.table.get_mut(uid) {
            Some(entry) => (std::mem::take(&mut entry.waiting_acks), entry.waiting_cancels.clone()),
            None => return,
        };
        let reply = |this: &mut Self, answer: CommandAck| {
            for seq in &acks {
                this.answer(*seq, uid, answer.clone());
            }
        };
        // What will never be here is never paused; what may come later may be.
        let mut no_pause = Code::Unknown;
        let over = match taken {
            Taken::Accepted | Taken::Answered(_) => {
                reply(self, ack(uid, Answer::Accepted));
                self.table.step(uid, Step::Accepted);
                if !acks.is_empty() {
                    self.attach(uid, &[]);
                }
                match taken {
                    Taken::Answered(result) => self.ended(uid, *result),
                    _ => self.proceed(uid),
                }
                return;
            }
            Taken::Known(result) => {
                let phase = CommandPhase::Ended.into();
                reply(self, CommandAck { phase, ..ack(uid, Answer::Duplicate) });
                Some(result)
            }
            Taken::Expired(result) => {
                reply(self, ack(uid, Answer::Expired));
                Some(result)
            }
            Taken::Here => {
                // Its directory decides, as after a restart.
                reply(self, CommandAck { phase: CommandPhase::Accepted.into(), ..ack(uid, Answer::Duplicate) });
                self.table.step(uid, Step::Live);
                if !acks.is_empty() {
                    self.attach(uid, &[]);
                }
                self.place_pause(uid);
                return self.start_recover(uid);
            }
            Taken::Unsettled => {
                // It may come back after a crash, so it is not refused; it may be gone after one, so it is neither
                // promised nor started (protocol R-CMD-2).
                let later = self.later(uid);
                reply(self, later);
                self.refuse_cancels(uid);
                let pauses = self.table.get_mut(uid).map(|entry| std::mem::take(&mut entry.waiting_pauses));
                self.refuse_pauses(pauses.unwrap_or_default(), Code::Busy);
                return self.settle_later(uid);
            }
            Taken::Later => {
                let later = self.later(uid);
                reply(self, later);
                no_pause = Code::Busy;
                None
            }
            Taken::Conflict => {
                for seq in &acks {
                    self.nak(*seq, Code::Conflict, "this id belongs to another command here");
                }
                None
            }
            Taken::Failed { full, text } => {
                let code = if full { "no_space" } else { "storage" }.to_owned();
                let text = format!("the agent cannot store the command: {text}");
                reply(self, CommandAck { code, text, ..ack(uid, Answer::Refused) });
                None
            }
        };
        let mut entry = self.table.remove(uid);
        if let Some(entry) = &mut entry {
            self.refuse_pauses(std::mem::take(&mut entry.waiting_pauses), no_pause);
        }
        if let Some(result) = over {
            for seq in cancels {
                self.reply(seq, Body::Ack(Ack {}));
            }
            // Its bytes are gone with its directory; whoever sends it has none of them.
            let missing = gaps(uid, &result, &[]);
            self.push(Lane::Control, Body::CommandResult(*result));
            for gap in missing {
                self.push(Lane::Bulk, Body::CommandOutput(gap));
            }
        } else if let Some((entry, wish)) = entry.and_then(|entry| entry.cancel.clone().map(|wish| (entry, wish))) {
            // It never was here; the cancel still has to hold.
            let message = CommandCancel {
                uid: uid.to_wire(),
                id: entry.id,
                by: wish.by,
                reason: wish.reason,
                grace_ms: wish.grace_ms,
                expires_ms: entry.expires_ms,
                generation: entry.generation,
            };
            let session = self.session_number();
            for seq in cancels {
                self.telling.insert(uid);
                let message = message.clone();
                self.job(move |home| jobs::tell(home, session, seq, &message, uid));
            }
        }
    }

    /// Has an accepted command started, or ended if that was asked for meanwhile.
    pub(super) fn proceed(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        if entry.cancel.is_some() {
            return self.settle(uid);
        }
        if entry.pausing || !entry.waiting_pauses.is_empty() {
            // The wish first, so that it starts paused (protocol R-PAUSE-4).
            entry.starts_after_pause = true;
            self.table.step(uid, Step::Accepted);
            return self.place_pause(uid);
        }
        self.enqueue(uid);
    }

    fn looked(&mut self, uid: Uid, found: Result<Box<Looked>, RecordError>) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        entry.looking = false;
        let again = std::mem::take(&mut entry.look_again);
        if !entry.is_active() {
            return;
        }
        let looked = match found {
            Ok(looked) => *looked,
            Err(error) => {
                warn!(task.id = %uid, error = %Chain(&error), "A command's record cannot be read");
                return self.start_recover(uid);
            }
        };
        for (stream, length) in &looked.lengths {
            entry.ship(*stream).learn(*length);
        }
        let fresh = entry.started.is_none();
        if let Some(start) = looked.start {
            entry.started = Some(Started { at_ms: start.at_ms, isolation: start.isolation });
        }
        entry.word = looked.status.or(entry.word.take());
        let fresh = fresh && entry.started.is_some();
        match looked.end.map(|end| end.to_result(uid, entry.id)) {
            Some(result) => {
                self.table.end(uid, result);
                self.send_pieces(uid, looked.pieces);
                self.after_end(uid);
            }
            None => {
                if fresh {
                    self.tell_start(uid);
                }
                self.progress(uid);
                self.send_pieces(uid, looked.pieces);
                self.ring_all(uid);
                if again {
                    self.start_look(uid);
                }
            }
        }
    }

    fn recovered(&mut self, uid: Uid, found: Result<Recovered, RecordError>) {
        self.places.looked(uid);
        let Some(entry) = self.table.get_mut(uid) else { return };
        entry.recovering = false;
        if !entry.is_active() {
            return;
        }
        match found {
            Ok(Recovered::Held) => {
                // The shim has the lock. Watched by us already, or adopted now.
                let watched = entry.watched;
                self.table.step(uid, Step::Live);
                if !watched {
                    self.adopt(uid);
                }
                self.start_look(uid);
            }
            Ok(Recovered::Respawn) => {
                entry.watched = false;
                entry.adoptions = 0;
                entry.shim = Shim::Again;
                if entry.generation != self.generation {
                    // The certificate is another one than when this was accepted: the host has a new bearer's name.
                    self.never_start(uid);
                } else if self.clock.is_certain() {
                    self.proceed(uid);
                } else {
                    self.table.step(uid, Step::Accepted);
                    self.work.held.push(uid);
                }
            }
            Ok(Recovered::Ended(end)) => {
                entry.watched = false;
                let result = end.to_result(uid, entry.id);
                self.ended(uid, result);
            }
            Err(error) => {
                error!(task.id = %uid, error = %Chain(&error), "A command cannot be recovered");
            }
        }
        self.arm_rescan();
    }

    fn adopt(&mut self, uid: Uid) {
        match WakeWatch::open(&self.home.state.command(uid)) {
            Ok(Some(watch)) => {
                debug!(task.id = %uid, "Adopted a running command");
                if let Some(entry) = self.table.get_mut(uid) {
                    entry.watched = true;
                    entry.adoptions = 0;
                }
                self.watch_adopted(uid, watch);
                // An earlier agent may have placed a cancel.
                self.have_heard(uid);
            }
            // It holds the lock but does not read yet, or just went.
            Ok(None) => {
                if !self.adopt_soon(uid) {
                    debug!(task.id = %uid, "A process holds the lock of a command and cannot be watched");
                }
            }
            Err(error) => warn!(task.id = %uid, error = %error, "A shim cannot be watched"),
        }
    }

    fn settled(&mut self, uid: Uid, end: Result<Option<Box<End>>, RecordError>) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        match end {
            Ok(Some(end)) => {
                let result = end.to_result(uid, entry.id);
                self.answer_cancels(uid);
                self.ended(uid, result);
            }
            Ok(None) => {
                // A shim was faster: it is asked instead.
                let wish = entry.cancel.clone();
                self.table.step(uid, Step::Live);
                if let Some(wish) = wish {
                    self.job(move |home| jobs::request(home, uid, &wish));
                }
                self.start_recover(uid);
                self.arm_rescan();
            }
            Err(error) => {
                warn!(task.id = %uid, error = %Chain(&error), "A command could not be ended before its start");
                self.table.step(uid, Step::Live);
                self.refuse_cancels(uid);
                self.start_recover(uid);
                self.arm_rescan();
            }
        }
    }

    fn requested(&mut self, uid: Uid, placed: Result<(), FileError>) {
        match placed {
            Ok(()) => {
                self.answer_cancels(uid);
                self.progress(uid);
                self.have_heard(uid);
            }
            Err(error) => {
                warn!(task.id = %uid, error = %Chain(&error), "A request to cancel could not be placed");
                self.refuse_cancels(uid);
            }
        }
    }

    /// The cancels of a command are durable.
    fn answer_cancels(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        for seq in std::mem::take(&mut entry.waiting_cancels) {
            self.reply(seq, Body::Ack(Ack {}));
        }
    }

    /// The cancels of a command could not be made durable: the manager will ask again.
    fn refuse_cancels(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        for seq in std::mem::take(&mut entry.waiting_cancels) {
            self.nak(seq, Code::Busy, "the cancel could not be stored");
        }
    }

    fn told(&mut self, told: Told) {
        self.telling.remove(&told.uid);
        if told.session != self.session_number() {
            return;
        }
        match told.result {
            Ok(result) => {
                self.reply(told.seq, Body::Ack(Ack {}));
                self.push(Lane::Control, Body::CommandResult(*result));
            }
            Err(error) => {
                warn!(task.id = %told.uid, error = %Chain(&error), "A cancel could not be made durable");
                self.nak(told.seq, Code::Busy, "the cancel could not be stored");
            }
        }
    }

    fn described(&mut self, commands: Vec<(Uid, Bytes)>, gone: Vec<Uid>, rest: Vec<Uid>) {
        if let Some(live) = &mut self.live {
            live.describing = false;
            for uid in rest.into_iter().rev() {
                live.describe.push_front(uid);
            }
        }
        let mut items: Vec<InventoryItem> = Vec::new();
        let mut weight = 0;
        for (uid, command) in commands {
            let Some(entry) = self.table.get(uid) else { continue };
            let item = InventoryItem { command, ..entry.item(uid) };
            if weight > 0 && weight + item.command.len() > DESCRIBE_PAGE {
                let items = std::mem::take(&mut items);
                weight = 0;
                self.push(Lane::Control, Body::Inventory(Inventory { items, last: false }));
            }
            weight += item.command.len();
            items.push(item);
        }
        if !items.is_empty() {
            self.push(Lane::Control, Body::Inventory(Inventory { items, last: false }));
        }
        for uid in gone {
            self.ask_past(uid, Question::Describe);
        }
    }

    /// END is durable.
    pub(super) fn ended(&mut self, uid: Uid, result: CommandResult) {
        self.leave_queue(uid);
        self.table.end(uid, result);
        self.after_end(uid);
    }

    /// Delivers what an end completes.
    fn after_end(&mut self, uid: Uid) {
        self.answer_cancels(uid);
        self.ring_all(uid);
        self.deliver_result(uid);
        self.forget_if_possible(uid);
    }
}
