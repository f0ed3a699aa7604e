//! Shims that do not hear: what a command may do to its own shim (stop it, freeze it) must not make it immortal.
//!
//! ```text
//! cancel placed ─► each second: is `wake` read? ─yes─► one more byte, until the command has ended
//!                                   └─no─► CONT, thaw ─► for too long ─► KILL ─► recovery ends the command
//! ```
//! A shim that lives reads `wake` at each turn, whatever it waits for; so one that has left a byte there for a second is
//! stopped, frozen or hangs. Only commands that somebody wants to end are looked at.

use std::collections::HashMap;

use common::id::Uid;
use tokio::time::Instant;
use tracing::warn;

use super::dispatcher::Dispatcher;
use super::jobs::{Done, Home};
use super::table::Step;
use crate::commands::request;
use crate::limits::{DEAF_FOR, DEAF_LOOK};
use crate::shim::wakeful;

/// Those that are looked at.
#[derive(Debug, Default)]
pub(super) struct Deaf {
    /// When each was last seen to hear.
    heard: HashMap<Uid, Instant>,
    look_at: Option<Instant>,
    looking: bool,
}

impl Deaf {
    /// When the next look is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.look_at.filter(|_| !self.looking)
    }
}

impl Dispatcher {
    /// From now on it is made sure that the shim of a command hears.
    pub(super) fn have_heard(&mut self, uid: Uid) {
        let now = Instant::now();
        self.work.deaf.heard.entry(uid).or_insert(now);
        self.work.deaf.look_at.get_or_insert(now + DEAF_LOOK);
    }

    /// Looks whether the shims hear, if it is time for that.
    pub(super) fn look_for_deaf(&mut self, now: Instant) {
        if self.work.deaf.due().is_none_or(|at| at > now) {
            return;
        }
        self.work.deaf.look_at = None;
        let table = &self.table;
        let is_live = |uid: Uid| table.get(uid).is_some_and(|entry| matches!(entry.step(), Step::Live));
        self.work.deaf.heard.retain(|uid, _| is_live(*uid));
        if self.work.deaf.heard.is_empty() {
            return;
        }
        let all = self.work.deaf.heard.iter();
        let all: Vec<_> = all.map(|(uid, heard)| (*uid, now.saturating_duration_since(*heard) >= DEAF_FOR)).collect();
        self.work.deaf.looking = true;
        self.job(move |home| look(home, all));
    }

    /// Takes what was seen.
    pub(super) fn looked_for_deaf(&mut self, hearing: Vec<Uid>, unasked: &[Uid]) {
        let now = Instant::now();
        for uid in hearing {
            self.work.deaf.heard.insert(uid, now);
        }
        for uid in unasked {
            self.work.deaf.heard.remove(uid);
        }
        self.work.deaf.looking = false;
        self.work.deaf.look_at = (!self.work.deaf.heard.is_empty()).then(|| now + DEAF_LOOK);
    }
}

/// Looks at each, and sends those on that do not hear; kills the shims of which it is said that this was enough.
pub(super) fn look(home: &Home, all: Vec<(Uid, bool)>) -> Done {
    let (mut hearing, mut unasked) = (Vec::new(), Vec::new());
    for (uid, enough) in all {
        let dir = home.dir(uid);
        if request::cancels(&dir).is_empty() {
            unasked.push(uid);
            continue;
        }
        match request::unread(&dir) {
            Ok(0) => {
                // It is read within the second, or that is noticed then. Without a reader the shim is gone.
                if let Err(error) = request::wake(&dir) {
                    warn!(task.id = %uid, error = %error, "A shim cannot be woken");
                }
                hearing.push(uid);
            }
            Ok(_) => {
                // As it stands: sent on, it could be at anything when the signal comes.
                if enough && wakeful::kill(&dir) {
                    warn!(task.id = %uid, "A shim that did not hear a cancel was killed; its command is interrupted");
                } else {
                    wakeful::send_on(&dir, home.base.of(uid).as_deref());
                }
            }
            Err(error) => warn!(task.id = %uid, error = %error, "It cannot be seen whether a shim hears"),
        }
    }
    Done::Deaf { hearing, unasked }
}
