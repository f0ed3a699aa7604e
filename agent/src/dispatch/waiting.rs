//! The door: accepted commands are let in one by one while there are places, and whoever has to wait is told so.
//!
//! A command may start only while it is valid, and that is judged at the door: it may have stood in the queue for days
//! (protocol R-CMD-5, R-CMD-12).

use std::io;

use common::id::Uid;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::dispatcher::Dispatcher;
use super::jobs::{self, Shim};
use super::table::Step;
use crate::clock::boot_ms;
use crate::commands::is_shortage;
use crate::limits::{PLACES_EACH, PLACES_LINGER, PLACES_TOLD, SPAWNS};
use crate::shim::ShimProcess;

impl Dispatcher {
    /// Takes an accepted command into the queue.
    pub(super) fn enqueue(&mut self, uid: Uid) {
        self.table.step(uid, Step::Accepted);
        let Some(entry) = self.table.get_mut(uid) else { return };
        self.places.enter(entry.turn(uid), entry.expires_ms);
    }

    /// Takes a command out of the queue, if it stands there.
    pub(super) fn leave_queue(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        self.places.leave(entry.turn(uid));
        entry.waiting = None;
        entry.starts_after_pause = false;
    }

    /// Lets in whoever may start now.
    pub(super) fn open_door(&mut self) {
        let now = Instant::now();
        while self.work.spawning < SPAWNS
            && let Some(turn) = self.places.next(self.table.busy(), now)
        {
            self.places.leave(turn);
            self.leave_queue(turn.uid);
            let manager_now = self.clock.now(boot_ms());
            let Some(entry) = self.table.get(turn.uid).filter(|entry| matches!(entry.step(), Step::Accepted)) else {
                continue;
            };
            if entry.expires_ms <= manager_now {
                self.expire(turn.uid);
                continue;
            }
            let (uid, shim) = (turn.uid, entry.shim);
            // The shim, too, starts it only while it is valid.
            let until = boot_ms().saturating_add(entry.expires_ms.saturating_sub(manager_now));
            self.table.step(uid, Step::Spawning);
            self.work.spawning += 1;
            self.job(move |home| jobs::spawn(home, uid, shim, until));
        }
        if self.places.tell_at.is_none() && self.places.any_waits(self.table.busy()) {
            self.places.tell_at = Some(now + PLACES_LINGER);
        }
    }

    /// A shim was started, or was not.
    pub(super) fn spawned(&mut self, uid: Uid, child: io::Result<ShimProcess>) {
        self.work.spawning -= 1;
        let Some(entry) = self.table.get_mut(uid) else { return };
        let was_spawning = matches!(entry.step(), Step::Spawning);
        match child {
            Ok(child) => {
                entry.watched = true;
                self.places.thrive();
                self.watch_child(uid, child);
            }
            Err(error) if was_spawning && is_shortage(&error) => return self.back_to_queue(uid, &error),
            Err(error) => {
                // The next scan finds it without a shim and decides whether to try again.
                warn!(task.id = %uid, error = %error, "A shim could not be started");
            }
        }
        if was_spawning {
            self.table.step(uid, Step::Live);
        }
        self.arm_rescan();
    }

    /// The host could not make a process now: the command keeps its turn, and that was no try of its own.
    fn back_to_queue(&mut self, uid: Uid, error: &io::Error) {
        let pause = self.places.starve(Instant::now());
        warn!(task.id = %uid, error = %error, pause_ms = pause.as_millis(), "The host cannot make a process now");
        let Some(entry) = self.table.get_mut(uid) else { return };
        if entry.shim == Shim::Again {
            entry.shim = Shim::Noted;
        }
        if entry.cancel.is_some() {
            // The request that was placed for a shim is obeyed by the end that the agent writes itself.
            self.table.step(uid, Step::Accepted);
            return self.settle(uid);
        }
        self.enqueue(uid);
    }

    /// Ends a command whose validity passed before it was started.
    fn expire(&mut self, uid: Uid) {
        debug!(task.id = %uid, "A command expired before it could start");
        self.leave_queue(uid);
        self.table.step(uid, Step::Settling);
        self.job(move |home| jobs::expire(home, uid));
    }

    /// Ends what expired in the queue and tells whoever waits where it stands, if it is time for that.
    pub(super) fn tell_waiting(&mut self, now: Instant) {
        if self.places.tell_at.is_none_or(|at| at > now) {
            return;
        }
        let manager_now = self.clock.now(boot_ms());
        while let Some(turn) = self.places.expired(manager_now) {
            self.places.leave(turn);
            self.expire(turn.uid);
        }
        let busy = self.table.busy();
        let all = std::mem::take(&mut self.places.news);
        let most = if all { usize::MAX } else { PLACES_TOLD };
        let waiting: Vec<_> = self.places.waiting(busy).take(most).collect();
        for (index, (uid, waiting)) in waiting.into_iter().enumerate() {
            let Some(entry) = self.table.get_mut(uid) else { continue };
            let is_news = entry.waiting.is_none() || entry.delivery.said.is_none();
            entry.waiting = Some(waiting);
            if is_news || index < PLACES_TOLD {
                self.progress(uid);
            }
        }
        self.places.tell_at = self.places.any_waits(busy).then(|| now + PLACES_EACH);
    }

    /// A directory without START, as far as is known, is about to be looked at.
    pub(super) fn look_begins(&mut self, uid: Uid) {
        if let Some(entry) = self.table.get(uid).filter(|entry| entry.started.is_none() && entry.is_active()) {
            self.places.look(entry.turn(uid));
        }
    }
}
