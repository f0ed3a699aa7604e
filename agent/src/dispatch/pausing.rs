//! Pause and go on: the wish becomes a file in the command's directory, and its shim obeys it.
//!
//! ```text
//! CommandPause ─► file durable ─► Ack          (protocol R-PAUSE-1; its shim says `paused` when it is)
//!             └► Nak: unknown or over, another generation's, or not now
//! ```
//! Wishes of one command are placed one after the other; of several that wait the newest is placed and answers for all.

use common::error::Chain;
use common::id::Uid;
use common::wire::frame::Body;
use common::wire::nak::Code;
use common::wire::{Ack, CommandPause};
use tracing::warn;

use super::admission;
use super::dispatcher::Dispatcher;
use super::jobs::{self, Paused};
use super::table::Step;
use crate::commands::request::PauseRequest;
use crate::limits::MAX_PAUSES;

impl Dispatcher {
    /// The manager wishes a command to pause or to go on.
    pub(super) fn pause(&mut self, seq: u64, message: CommandPause) {
        let uid = match admission::uid(&message.uid) {
            Ok(uid) => uid,
            Err(error) => return self.nak(seq, Code::Invalid, error.to_string()),
        };
        if message.generation != self.generation {
            return self.nak(seq, Code::NotMine, "the command belongs to another bearer of this agent's name");
        }
        let Some(entry) = self.table.get_mut(uid) else {
            return self.nak(seq, Code::Unknown, "this agent has no such command");
        };
        // Protocol R-PAUSE-3.
        if matches!(entry.step(), Step::Ended(_)) {
            return self.nak(seq, Code::Unknown, "the command has ended");
        }
        if matches!(entry.step(), Step::Settling) || entry.cancel.is_some() {
            return self.nak(seq, Code::Unknown, "the command is being ended");
        }
        if entry.waiting_pauses.len() >= MAX_PAUSES {
            return self.nak(seq, Code::Busy, "too many wishes for this command are being made durable");
        }
        entry.waiting_pauses.push((seq, message));
        // What is still being accepted has no directory yet.
        if !matches!(entry.step(), Step::Accepting) {
            self.place_pause(uid);
        }
    }

    /// Has the newest of the wishes that wait made durable; it answers for the older ones (protocol R-PAUSE-2).
    pub(super) fn place_pause(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid).filter(|entry| !entry.pausing) else { return };
        let waiting = std::mem::take(&mut entry.waiting_pauses);
        let Some((_, newest)) = waiting.iter().max_by_key(|(_, wish)| wish.wish) else { return };
        entry.pausing = true;
        let wish = PauseRequest { wish: newest.wish, paused: newest.paused, by: newest.by.clone() };
        let seqs = waiting.into_iter().map(|(seq, _)| seq).collect();
        let session = self.session_number();
        self.job(move |home| jobs::pause(home, session, uid, seqs, &wish));
    }

    /// A wish is durable, or could not be made so.
    pub(super) fn paused(&mut self, done: Paused) {
        let Paused { session, uid, seqs, placed } = done;
        let here = session == self.session_number();
        for seq in seqs.into_iter().filter(|_| here) {
            match &placed {
                Ok(()) => self.reply(seq, Body::Ack(Ack {})),
                Err(error) if error.is_missing() => self.nak(seq, Code::Unknown, "the command has ended"),
                Err(_) => self.nak(seq, Code::Busy, "the wish could not be stored"),
            }
        }
        if let Err(error) = &placed
            && !error.is_missing()
        {
            warn!(task.id = %uid, error = %Chain(error), "A wish to pause could not be placed");
        }
        let Some(entry) = self.table.get_mut(uid) else { return };
        entry.pausing = false;
        let starts = entry.waiting_pauses.is_empty() && std::mem::take(&mut entry.starts_after_pause);
        self.place_pause(uid);
        if starts {
            self.proceed(uid);
        }
    }

    /// Answers the wishes for a command that was not taken.
    pub(super) fn refuse_pauses(&mut self, pauses: Vec<(u64, CommandPause)>, code: Code) {
        for (seq, _) in pauses {
            self.nak(seq, code, "the command was not taken");
        }
    }
}
