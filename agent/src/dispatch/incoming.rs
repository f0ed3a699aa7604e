//! What the manager says, and what is done about it. Every request gets an answer; what must be durable first is
//! answered when its job is done.

use common::id::Uid;
use common::limits::{GRACE_UNSET, MAX_GRACE};
use common::link::Lane;
use common::model::StreamName;
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::nak::Code;
use common::wire::{Ack, Command, CommandAck, CommandCancel, CommandPhase, CommandProgress, OutputCredit, ResultAck};
use tracing::{debug, warn};

use super::admission::{self, Situation, Verdict};
use super::dispatcher::Dispatcher;
use super::jobs::{self, Intake};
use super::table::{Cancel, Entry, Said, Started, Step};
use crate::clock::boot_ms;
use crate::commands::seals::Kept;
use crate::commands::tombstones::Origin;
use crate::limits::{INTAKE_BYTES, MAX_INTAKE, SMALL_PING};
use crate::link::Incoming;
use crate::operation::{Operation, Refused};

/// When it makes sense to offer a command again that could not be taken now (protocol R-CMD-10).
const BUSY_MS: u64 = 1_000;

impl Dispatcher {
    /// Acts on a frame.
    pub(super) fn incoming(&mut self, frame: Incoming) {
        let Incoming { seq, reply_to, body } = frame;
        match body {
            Body::Command(command) => self.command(seq, command),
            Body::CommandCancel(cancel) => self.cancel(seq, cancel),
            Body::CommandPause(pause) => self.pause(seq, pause),
            Body::OutputCredit(credit) => self.credit(&credit),
            Body::ResultAck(ack) => self.result_ack(seq, &ack),
            Body::Reconcile(answer) => self.reconcile(answer),
            Body::Ping(ping) => self.hear(ping.clock_ms, ping.store_position),
            Body::Pong(pong) => self.hear(pong.clock_ms, 0),
            Body::Nak(nak) => self.refused(reply_to, &nak),
            Body::Ack(_) => debug!(reply_to, "Acknowledged"),
            // The table of the link lets nothing else through.
            _ => {}
        }
    }

    fn command(&mut self, seq: u64, command: Command) {
        let uid = match admission::uid(&command.uid) {
            Ok(uid) => uid,
            Err(error) => return self.nak(seq, Code::Invalid, error.to_string()),
        };
        let position = command.store_position;
        self.hear(0, position);
        if self.table.get(uid).is_some() {
            return self.known_command(seq, uid);
        }
        if self.telling.contains(&uid) {
            return self.nak(seq, Code::Busy, "a cancel of this command is being made durable");
        }
        // One id, one command (protocol R-CMD-4).
        if self.table.uid_of(command.id).is_some() {
            return self.nak(seq, Code::Conflict, "this id belongs to another command here");
        }
        if self.work.intake.len() >= MAX_INTAKE {
            let later = self.later(uid);
            return self.answer(seq, uid, later);
        }
        let situation = Situation { generation: self.generation, now_ms: self.clock.now(boot_ms()) };
        let operation = match admission::judge(&command, situation) {
            Verdict::Take(operation) => Some(operation),
            Verdict::Expired => None,
            Verdict::Refuse(refused) => return self.refuse(seq, uid, refused),
        };
        // From here on only the shim sees what is secret.
        let (id, generation, expires_ms) = (command.id, command.generation, command.expires_ms);
        let origin = Origin::from(&command);
        let Kept { raw, sealed } = match self.home.state.seals().keep(command) {
            Ok(kept) => kept,
            Err(error) => return self.refuse(seq, uid, Refused::new("no_secrets_key", error.to_string())),
        };
        let taken = Intake { uid, id, expires_ms, origin, raw, sealed, operation };
        if !fits(self.work.intake_bytes, taken.weight(), operation) {
            let later = self.later(uid);
            return self.answer(seq, uid, later);
        }
        self.work.intake_bytes += taken.weight();
        let mut entry = Entry::new(id, generation, expires_ms, Step::Accepting);
        entry.waiting_acks.push(seq);
        self.table.insert(uid, entry);
        self.work.intake.push(taken);
    }

    /// Never.
    fn refuse(&mut self, seq: u64, uid: Uid, refused: Refused) {
        debug!(task.id = %uid, code = refused.code, "A command was refused");
        let mut text = refused.text;
        common::handshake::truncate(&mut text, common::limits::MAX_TEXT_BYTES);
        let refusal = CommandAck { code: refused.code.to_owned(), text, ..ack(uid, Answer::Refused) };
        self.answer(seq, uid, refusal);
    }

    /// Not now; soon, maybe.
    pub(super) fn later(&mut self, uid: Uid) -> CommandAck {
        let deferred_until_ms = self.clock.now(boot_ms()).saturating_add(BUSY_MS);
        CommandAck { deferred_until_ms, ..ack(uid, Answer::Deferred) }
    }

    /// A command that was sent before: it never starts a second time (protocol R-CMD-3).
    fn known_command(&mut self, seq: u64, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        if matches!(entry.step(), Step::Accepting) {
            entry.waiting_acks.push(seq);
            return;
        }
        let phase = entry.phase();
        // Somebody who sends it again has not got its end.
        entry.delivery.result_sent = false;
        let attached = entry.delivery.attached;
        self.answer(seq, uid, CommandAck { phase: phase.into(), ..ack(uid, Answer::Duplicate) });
        if attached {
            self.deliver_result(uid);
        } else {
            self.attach(uid, &[]);
        }
    }

    fn cancel(&mut self, seq: u64, message: CommandCancel) {
        let uid = match admission::uid(&message.uid) {
            Ok(uid) => uid,
            Err(error) => return self.nak(seq, Code::Invalid, error.to_string()),
        };
        if message.generation != self.generation {
            return self.nak(seq, Code::NotMine, "the command belongs to another bearer of this agent's name");
        }
        let wish = Cancel {
            by: message.by.clone(),
            reason: message.reason.clone(),
            grace_ms: match message.grace_ms {
                GRACE_UNSET => GRACE_UNSET,
                grace => grace.min(u32::try_from(MAX_GRACE.as_millis()).unwrap_or(u32::MAX)),
            },
        };
        let Some(entry) = self.table.get_mut(uid) else {
            self.telling.insert(uid);
            let session = self.session_number();
            return self.job(move |home| jobs::tell(home, session, seq, &message, uid));
        };
        match entry.step() {
            Step::Ended(_) => {
                entry.delivery.result_sent = false;
                self.reply(seq, Body::Ack(Ack {}));
                self.deliver_result(uid);
            }
            // Answered and done when the directory, or its end, is durable.
            Step::Accepting | Step::Settling => {
                entry.waiting_cancels.push(seq);
                entry.cancel = Some(wish);
            }
            Step::Accepted => {
                entry.waiting_cancels.push(seq);
                entry.cancel = Some(wish);
                self.settle(uid);
            }
            Step::Spawning | Step::Live => {
                entry.waiting_cancels.push(seq);
                entry.cancel = Some(wish.clone());
                self.job(move |home| jobs::request(home, uid, &wish));
            }
        }
    }

    /// Ends a command that was not started.
    pub(super) fn settle(&mut self, uid: Uid) {
        self.leave_queue(uid);
        let Some(wish) = self.table.get(uid).and_then(|entry| entry.cancel.clone()) else { return };
        self.table.step(uid, Step::Settling);
        self.job(move |home| jobs::settle(home, uid, &wish));
    }

    fn credit(&mut self, credit: &OutputCredit) {
        let Some(live) = &mut self.live else { return };
        if let (Ok(uid), Some(stream)) = (Uid::from_wire(&credit.uid), StreamName::from_wire(credit.stream)) {
            live.window.grant(uid, stream, credit.offset);
        }
        live.window.grant_session(credit.session_bytes);
        for one in std::mem::take(&mut self.work.starved) {
            self.ring(one.0, one.1);
        }
    }

    fn result_ack(&mut self, seq: u64, ack: &ResultAck) {
        let Ok(uid) = Uid::from_wire(&ack.uid) else {
            return self.nak(seq, Code::Invalid, "a uid has 16 bytes");
        };
        self.hear(0, ack.store_position);
        self.delivered(uid);
    }

    /// The manager has END and every byte.
    pub(super) fn delivered(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return self.past_over(uid) };
        if entry.is_active() {
            warn!(task.id = %uid, "The manager has the end of a command that has not ended here");
            return;
        }
        entry.acked = true;
        if let Some(live) = &mut self.live {
            live.window.close(uid);
        }
        for stream in StreamName::ALL {
            // An open file would keep its room after its removal.
            self.readers.remove(&(uid, stream));
        }
        self.forget_if_possible(uid);
    }

    /// Tells the manager how a command is, when that is news in this session.
    pub(super) fn progress(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid).filter(|entry| entry.delivery.attached) else { return };
        let Some(said) = entry.to_say().filter(|said| entry.delivery.said.as_ref() != Some(said)) else { return };
        let at_ms = entry.since(said.phase).unwrap_or_else(common::clock::unix_ms);
        let isolation = entry.started.as_ref().map(|started| started.isolation.clone()).unwrap_or_default();
        let Said { phase, current, total, text } = said.clone();
        entry.delivery.said = Some(said);
        let (uid, phase) = (uid.to_wire(), phase.into());
        let progress = CommandProgress { uid, phase, current, total, text, at_ms, isolation };
        self.push(Lane::Control, Body::CommandProgress(progress));
    }

    /// Tells that a command was started, whatever became of it since: what comes next would hide when that was.
    pub(super) fn tell_start(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid).filter(|entry| entry.delivery.attached) else { return };
        let Some(started) = entry.started.clone() else { return };
        let phase = CommandPhase::Running;
        entry.delivery.said = Some(Said { phase, current: 0, total: 0, text: String::new() });
        let Started { at_ms, isolation } = started;
        let progress =
            CommandProgress { uid: uid.to_wire(), phase: phase.into(), at_ms, isolation, ..CommandProgress::default() };
        self.push(Lane::Control, Body::CommandProgress(progress));
    }

    /// Answers a command.
    pub(super) fn answer(&mut self, seq: u64, uid: Uid, ack: CommandAck) {
        common::crash::point("agent.ack.before");
        debug!(task.id = %uid, answer = ?ack.answer(), "Answering a command");
        self.reply(seq, Body::CommandAck(ack));
        common::crash::point("agent.ack.after");
    }

    pub(super) fn reply(&mut self, seq: u64, body: Body) {
        if let Some(live) = &mut self.live {
            live.session.reply(seq, body);
        }
    }

    pub(super) fn push(&mut self, lane: Lane, body: Body) {
        if let Some(live) = &mut self.live {
            live.session.push(lane, body);
        }
    }

    pub(super) fn nak(&mut self, seq: u64, code: Code, reason: impl Into<String>) {
        if let Some(live) = &mut self.live {
            live.session.nak(seq, code, reason);
        }
    }

    pub(super) fn session_number(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.number)
    }
}

/// Tells whether a command of that size may wait for the disk in this memory beside `held` bytes of others: many large
/// ones at once wait on the manager (protocol R-CMD-10). One alone always passes.
fn fits(held: usize, weight: usize, operation: Option<Operation>) -> bool {
    let small_ping = operation == Some(Operation::Ping) && weight <= SMALL_PING;
    held == 0 || held.saturating_add(weight) <= INTAKE_BYTES || small_ping
}

/// An answer without anything special.
pub(super) fn ack(uid: Uid, answer: Answer) -> CommandAck {
    CommandAck { uid: uid.to_wire(), answer: answer.into(), ..CommandAck::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protocol R-CMD-10.
    #[test]
    fn large_commands_wait_elsewhere_but_one_alone_and_a_ping_always_pass() {
        let run = Some(Operation::Run);
        assert!(fits(INTAKE_BYTES - 10, 10, run) && !fits(INTAKE_BYTES - 10, 11, run));
        assert!(fits(0, INTAKE_BYTES + 1, run), "else it would never be taken");
        assert!(!fits(INTAKE_BYTES, 1, None));
        let ping = Some(Operation::Ping);
        assert!(fits(INTAKE_BYTES, SMALL_PING, ping) && !fits(INTAKE_BYTES, SMALL_PING + 1, ping));
    }
}
