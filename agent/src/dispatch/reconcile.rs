//! What both sides say on every connect: the agent lists what it holds, page by page; the manager says what it wants.

use common::id::Uid;
use common::limits::INVENTORY_PAGE;
use common::link::Lane;
use common::model::StreamName;
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{Inventory, InventoryItem, Reconcile, ReconcileItem};
use tracing::{info, warn};

use super::deliver::QUEUE;
use super::dispatcher::Dispatcher;
use super::jobs;
use super::past::Question;
use super::table::{Cancel, Step};
use crate::clock::boot_ms;
use crate::limits::{DESCRIBE_MANY, MAX_ADDRESSES};

impl Dispatcher {
    /// Begins a session: everything that is durable here is listed. When the manager's store lives another life than
    /// the one heard last, the past is listed too: a restored store does not know it (protocol R-INV-4).
    pub(super) fn start_inventory(&mut self) {
        let Some(live) = &self.live else { return };
        let (number, incarnation) = (live.number, live.session.welcome.incarnation.0);
        let memory = self.memory();
        let told = memory.incarnation == incarnation && !memory.past_owed;
        drop(memory);
        if told {
            self.listed(number, Vec::new());
        } else {
            let generation = self.generation;
            self.job(move |home| jobs::list_tombstones(home, number, generation));
        }
    }

    /// Sends the first page.
    pub(super) fn listed(&mut self, session: u64, tombstones: Vec<InventoryItem>) {
        if self.session_number() != session {
            return;
        }
        let mut items: Vec<_> = self
            .table
            .iter()
            .filter(|(_, entry)| !matches!(entry.step(), Step::Accepting))
            .map(|(uid, entry)| entry.item(uid))
            .collect();
        let past: Vec<_> = tombstones
            .into_iter()
            .filter_map(|item| Some((Uid::from_wire(&item.uid).ok()?, item)))
            .filter(|(uid, _)| self.table.get(*uid).is_none())
            .collect();
        let Some(live) = &mut self.live else { return };
        live.past.list(past.iter().map(|(uid, _)| *uid));
        items.extend(past.into_iter().map(|(_, item)| item));
        live.pages = pages(items).into();
        if let Some(first) = live.pages.pop_front() {
            live.session.push(Lane::Control, Body::Inventory(first));
        }
    }

    /// Acts on the manager's answer to a page.
    pub(super) fn reconcile(&mut self, answer: Reconcile) {
        for item in answer.items {
            let Ok(uid) = Uid::from_wire(&item.uid) else {
                warn!("The manager answered for something that is no uid");
                continue;
            };
            let here = self.table.get(uid).is_some();
            if let Some(live) = &mut self.live {
                live.past.answered(uid);
            }
            match item.action() {
                Action::Continue | Action::Stop if here => self.attach(uid, &offsets(&item)),
                Action::Continue | Action::Stop => self.ask_past(uid, Question::Deliver(offsets(&item))),
                Action::Forget => self.delivered(uid),
                Action::Describe if here => {
                    if let Some(live) = &mut self.live {
                        live.describe.push_back(uid);
                    }
                }
                Action::Describe => self.ask_past(uid, Question::Describe),
                Action::NotMine => self.not_mine(uid),
                Action::Unspecified => warn!(task.id = %uid, "The manager wants something this agent does not know"),
            }
        }
        if answer.last {
            self.synced();
        } else if let Some(live) = &mut self.live
            && let Some(page) = live.pages.pop_front()
        {
            live.session.push(Lane::Control, Body::Inventory(page));
        }
    }

    /// Reads the next commands to describe when there is room for what they say.
    pub(super) fn pump_describe(&mut self) {
        let Some(live) = self.live.as_mut().filter(|live| !live.describing && !live.describe.is_empty()) else {
            return;
        };
        if live.session.queued_bytes() >= QUEUE {
            self.work.hungry = true;
            return;
        }
        live.describing = true;
        let count = live.describe.len().min(DESCRIBE_MANY);
        let (session, uids) = (live.number, live.describe.drain(..count).collect());
        self.job(move |home| jobs::describe(home, session, uids));
    }

    fn synced(&mut self) {
        let Some(live) = &mut self.live else { return };
        if live.synced {
            return;
        }
        live.synced = true;
        let owed = live.past.is_owed();
        let (incarnation, position) = (live.session.welcome.incarnation.0, live.session.welcome.store_position.0);
        let mut addresses = live.session.welcome.manager_addresses.clone();
        addresses.truncate(MAX_ADDRESSES);
        let now = self.clock.now(boot_ms());
        // Only now: had the agent died before, it would have to list the past again.
        let mut memory = self.memory();
        let changed = memory.hear_incarnation(incarnation, position, now)
            || memory.addresses != addresses
            || memory.past_owed != owed;
        memory.addresses = addresses;
        memory.past_owed = owed;
        drop(memory);
        if changed {
            self.save_memory_now();
        }
        info!(commands = self.table.len(), "The manager knows what is here");
    }

    /// A command of another bearer of this name: never started, and nobody waits for its end.
    fn not_mine(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return self.past_over(uid) };
        entry.acked = true;
        if matches!(entry.step(), Step::Accepted) {
            self.never_start(uid);
        } else {
            self.forget_if_possible(uid);
        }
    }

    /// Ends a command that was not started and that this bearer of the name must not start (protocol R-INV-3).
    pub(super) fn never_start(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        entry.cancel = Some(Cancel {
            by: "agent".to_owned(),
            reason: "it was made for another bearer of this agent's name".to_owned(),
            grace_ms: 0,
        });
        self.settle(uid);
    }
}

fn offsets(item: &ReconcileItem) -> Vec<(StreamName, u64)> {
    item.streams.iter().filter_map(|stream| Some((StreamName::from_wire(stream.stream)?, stream.length))).collect()
}

/// Cuts an inventory into pages; an empty one has one page (protocol R-INV-1).
fn pages(mut items: Vec<InventoryItem>) -> Vec<Inventory> {
    let mut pages = Vec::new();
    while items.len() > INVENTORY_PAGE {
        let rest = items.split_off(INVENTORY_PAGE);
        pages.push(Inventory { items, last: false });
        items = rest;
    }
    pages.push(Inventory { items, last: true });
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protocol R-INV-1.
    #[test]
    fn pages_are_full_but_the_last_which_says_so() {
        let shape = |count: usize| -> Vec<_> {
            pages(vec![InventoryItem::default(); count]).into_iter().map(|page| (page.items.len(), page.last)).collect()
        };
        assert_eq!(shape(0), [(0, true)]);
        assert_eq!(shape(INVENTORY_PAGE), [(INVENTORY_PAGE, true)]);
        assert_eq!(shape(INVENTORY_PAGE + 1), [(INVENTORY_PAGE, false), (1, true)]);
    }
}
