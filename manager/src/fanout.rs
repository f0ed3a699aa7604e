//! The way down: finds what is due for connected agents and hands it to their sessions.
//!
//! It is woken without a word about what changed and reads the truth again; a slow poll covers wake-ups that were
//! lost with a crash. A command for one agent that is here goes the short way: it is accepted, recorded as sent and
//! handed over with one commit. What is due is recorded as sent before it is handed over, so a command that may have reached an
//! agent is never taken for one that did not.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use common::crash;
use common::error::Chain;
use common::id::Name;
use common::shutdown::Shutdown;
use store::types::Due;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::limits::{AGENTS_AT_ONCE, DUE_AT_ONCE, DUE_POLL};
use crate::registry::Places;
use crate::service::Service;

/// Wakes the fanout. It holds each name at most once, so it never grows beyond the fleet.
#[derive(Debug, Clone, Default)]
pub struct Wake {
    inner: Arc<WakeInner>,
}

#[derive(Debug, Default)]
struct WakeInner {
    names: Mutex<HashSet<Name>>,
    woken: Notify,
}

impl Wake {
    /// Starts with nobody to look after.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to look after one agent.
    pub fn agent(&self, name: &Name) {
        self.inner.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        self.inner.woken.notify_one();
    }

    /// Asks to look after several agents.
    pub fn agents(&self, names: impl IntoIterator<Item = Name>) {
        self.inner.names.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
        self.inner.woken.notify_one();
    }

    fn take(&self) -> HashSet<Name> {
        std::mem::take(&mut *self.inner.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn woken(&self) {
        self.inner.woken.notified().await;
    }
}

/// Runs until shutdown.
pub async fn run(service: Service, shutdown: Shutdown) {
    let mut fanout =
        Fanout { service, asked: Vec::new(), again: HashSet::new(), busy: HashSet::new(), rounds: JoinSet::new() };
    let mut poll = interval(DUE_POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let wake = fanout.service.wake().clone();
        tokio::select! {
            () = shutdown.requested() => return,
            () = wake.woken() => fanout.ask(wake.take()),
            Some(ended) = fanout.rounds.join_next() => fanout.ended(ended.ok()),
            _ = poll.tick() => fanout.poll().await,
        }
        fanout.start();
    }
}

struct Fanout {
    service: Service,
    /// Who waits for a round.
    asked: Vec<Name>,
    /// Who was asked for while a round was under way: it may have read before the change.
    again: HashSet<Name>,
    /// Who has a round, or waits for one.
    busy: HashSet<Name>,
    rounds: JoinSet<Name>,
}

impl Fanout {
    fn ask(&mut self, names: HashSet<Name>) {
        for name in names {
            // Nothing can be done for an agent that is not here; its next connect asks again.
            if !self.service.registry().connected(&name) {
                continue;
            }
            if self.busy.insert(name.clone()) {
                self.asked.push(name);
            } else {
                self.again.insert(name);
            }
        }
    }

    async fn poll(&mut self) {
        match self.service.due_agents().await {
            Ok(names) => self.ask(names.into_iter().collect()),
            Err(error) => tracing::warn!(error = %Chain(&error), "what is due could not be read"),
        }
    }

    fn start(&mut self) {
        while self.rounds.len() < AGENTS_AT_ONCE {
            let Some(name) = self.asked.pop() else { return };
            let service = self.service.clone();
            self.rounds.spawn(async move {
                round(&service, &name).await;
                name
            });
        }
    }

    fn ended(&mut self, name: Option<Name>) {
        let Some(name) = name else {
            // A round panicked and took its name with it. The poll finds whatever it left.
            tracing::error!("a round of the fanout panicked");
            self.busy.clear();
            self.busy.extend(self.asked.iter().cloned());
            return;
        };
        self.busy.remove(&name);
        if self.again.remove(&name) {
            self.ask(HashSet::from([name]));
        }
    }
}

/// Hands over everything that is due for one agent.
async fn round(service: &Service, name: &Name) {
    loop {
        let Some(handle) = service.registry().handle(name).filter(|handle| handle.reconciled()) else {
            return;
        };
        let mut places = handle.reserve(DUE_AT_ONCE);
        if places.is_empty() {
            handle.set_starved();
            // The session may have made room between the look and the record.
            places = handle.reserve(DUE_AT_ONCE);
            if places.is_empty() {
                return;
            }
        }
        let room = places.len();
        let due = match service.due(name, &handle, room).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(agent.id = %name, error = %Chain(&error), "commands that are due could not be recorded as sent");
                return;
            }
        };
        let whole = due.len() >= room;
        if due.is_empty() || !hand_over(places, due) || !whole {
            return;
        }
    }
}

/// Hands over what was recorded as sent; `false` when it was lost with the session, which the next inventory settles.
pub(crate) fn hand_over(places: Places, due: Vec<Due>) -> bool {
    crash::point("manager.fanout.before-send");
    let delivered = places.deliver(due);
    crash::point("manager.fanout.after-send");
    delivered
}
