//! The inventory of one session as it comes in: which page is next, what was listed, and what the agent was asked to
//! describe. No store, no log.
//!
//! Only what was asked for is taken in as history, and only so much of it in one session: an agent cannot fill the store
//! with commands that nobody ever started.

use std::collections::{HashSet, VecDeque};

use common::id::{Name, Uid};
use common::limits;
use common::wire;
use store::types::{Held, Import};

use super::inbound::Violation;
use super::messages::{self, Malformed};
use crate::limits::{MAX_DESCRIBED, MAX_LISTED, MAX_PAGES};

/// A page that is ready to be judged.
pub(super) struct Listed {
    pub(super) reply_to: u64,
    pub(super) held: Vec<Held>,
    pub(super) described: Vec<Import>,
    /// Set for the last page: everything that was listed, unless a line named nobody. Then nothing can be missing.
    pub(super) all: Option<HashSet<Uid>>,
    pub(super) last: bool,
}

/// What came in so far.
#[derive(Default)]
pub(super) struct Listing {
    pages: VecDeque<Listed>,
    judging: bool,
    named: HashSet<Uid>,
    /// A line named nobody: it cannot be said that any command is missing.
    unreadable: bool,
    settled: bool,
    asked: HashSet<Uid>,
    asked_in_all: usize,
    /// Described, and not taken in yet.
    importing: HashSet<Uid>,
}

impl Listing {
    /// Tells whether another page may be read.
    pub(super) fn has_room(&self) -> bool {
        self.pages.len() < MAX_PAGES
    }

    /// Takes a page. Answers how many of its lines are malformed, and why one of them is.
    pub(super) fn take(
        &mut self,
        (agent, journal): (&Name, Uid),
        reply_to: u64,
        page: &wire::Inventory,
    ) -> Result<Option<(usize, Malformed)>, Violation> {
        if page.items.len() > limits::INVENTORY_PAGE {
            return Err(Violation("a page of the inventory has too many items"));
        }
        if self.settled && page.items.iter().any(|item| item.command.is_empty()) {
            return Err(Violation("the inventory was over; only described commands may follow"));
        }
        if self.named.len() + page.items.len() > MAX_LISTED {
            return Err(Violation("the inventory is too long"));
        }
        let mut malformed = None;
        let (mut held, mut described) = (Vec::new(), Vec::new());
        for item in &page.items {
            // A line gets no answer then, and nothing is concluded about what it may have named (protocol R-RES-6).
            if let Err(reason) = self.line(agent, journal, item, &mut held, &mut described) {
                let (count, first) = malformed.unwrap_or((0, reason));
                malformed = Some((count + 1, first));
            }
        }
        // Only the first last page ends the inventory; described commands follow in pages of their own.
        let last = page.last && !self.settled;
        let all = last.then(|| std::mem::take(&mut self.named)).filter(|_| !self.unreadable);
        self.settled |= last;
        self.pages.push_back(Listed { reply_to, held, described, all, last });
        Ok(malformed)
    }

    fn line(
        &mut self,
        agent: &Name,
        journal: Uid,
        item: &wire::InventoryItem,
        held: &mut Vec<Held>,
        described: &mut Vec<Import>,
    ) -> Result<(), Malformed> {
        let uid = messages::uid(&item.uid).inspect_err(|_| self.unreadable = true)?;
        if !self.settled {
            self.named.insert(uid);
        }
        let line = messages::held(item)?;
        if item.command.is_empty() {
            held.push(line);
            return Ok(());
        }
        if !self.asked.remove(&uid) {
            return Err(Malformed("a command is described that was not asked for"));
        }
        described.push(messages::import(agent, journal, &line, &item.command)?);
        self.importing.insert(uid);
        Ok(())
    }

    /// Hands out the next page, unless one is under judgement: the last one must see all others.
    pub(super) fn next(&mut self) -> Option<Listed> {
        if self.judging {
            return None;
        }
        let page = self.pages.pop_front()?;
        self.judging = true;
        Some(page)
    }

    /// Learns that the page under judgement was judged; these were described in it.
    pub(super) fn judged(&mut self, described: &[Uid]) {
        self.judging = false;
        for uid in described {
            self.importing.remove(uid);
        }
    }

    /// Asks for a description; `false` when this session was asked for enough.
    pub(super) fn ask(&mut self, uid: Uid) -> bool {
        if self.asked_in_all >= MAX_DESCRIBED {
            return false;
        }
        if self.asked.insert(uid) {
            self.asked_in_all += 1;
        }
        true
    }

    /// Tells whether a command is on its way into the store: its end has to wait for it.
    pub(super) fn importing(&self, uid: &Uid) -> bool {
        self.importing.contains(uid)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use prost::Message;

    use super::*;

    const JOURNAL: Uid = Uid([7; 16]);

    fn described(uid: Uid) -> wire::Inventory {
        let command = wire::Command { uid: uid.to_wire(), ..Default::default() };
        let item = wire::InventoryItem {
            uid: uid.to_wire(),
            phase: wire::CommandPhase::Ended.into(),
            command: command.encode_to_vec().into(),
            ..Default::default()
        };
        wire::Inventory { items: vec![item], last: false }
    }

    #[test]
    fn only_what_was_asked_for_is_taken_in_and_only_once() {
        let (mut listing, agent) = (Listing::default(), "a".parse().unwrap());
        let uid = Uid([1; 16]);
        let take = |listing: &mut Listing| {
            let malformed = listing.take((&agent, JOURNAL), 1, &described(uid)).unwrap();
            let page = listing.next().unwrap();
            let uids: Vec<_> = page.described.iter().map(|import| import.uid).collect();
            let importing = listing.importing(&uid);
            listing.judged(&uids);
            assert!(!listing.importing(&uid));
            (malformed.is_some(), uids.len(), importing)
        };
        assert_eq!(take(&mut listing), (true, 0, false));
        assert!(listing.ask(uid));
        assert_eq!(take(&mut listing), (false, 1, true));
        assert_eq!(take(&mut listing), (true, 0, false));
    }

    #[test]
    fn one_session_brings_so_many_unknown_commands_and_no_more() {
        let mut listing = Listing::default();
        let uid = |number: usize| Uid((number as u128).to_be_bytes());
        assert!((0..MAX_DESCRIBED).all(|number| listing.ask(uid(number))));
        assert!(!listing.ask(uid(MAX_DESCRIBED)));
    }
}
