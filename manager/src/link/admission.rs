//! Who of those that have not said who they are may stay: pure, with bounded memory. No sockets.
//!
//! A newcomer is always let in. Where that breaks a cap, the oldest unauthenticated connection (of the same address
//! first, and of those the ones that have not sent a byte for a second) is to be closed. An attacker who holds sockets open
//! therefore only pushes out his own, and one who sends a byte on each does not push out those that are about to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use tokio::time::Instant;

use crate::limits::MAY_BE_SILENT;

/// A place among the unauthenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The caps.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// All addresses together.
    pub overall: usize,
    /// One address.
    pub per_address: usize,
}

/// Everybody who has not said who they are.
#[derive(Debug)]
pub struct Admission {
    caps: Caps,
    next: u64,
    silent: BTreeMap<Ticket, (IpAddr, Instant)>,
    spoken: BTreeMap<Ticket, IpAddr>,
    by_address: HashMap<IpAddr, Queues>,
}

/// Those of one address, oldest first.
#[derive(Debug, Default)]
struct Queues {
    /// Never sent a byte: they cost nothing to make, so they go first once they had the time to.
    silent: VecDeque<(Ticket, Instant)>,
    spoken: VecDeque<Ticket>,
}

impl Queues {
    fn len(&self) -> usize {
        self.silent.len() + self.spoken.len()
    }

    fn first_to_go(&self, now: Instant) -> Option<Ticket> {
        first_to_go(self.silent.front().copied(), self.spoken.front().copied(), now)
    }
}

impl Admission {
    /// Starts with nobody.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, next: 0, silent: BTreeMap::new(), spoken: BTreeMap::new(), by_address: HashMap::new() }
    }

    /// Lets a newcomer in; answers its ticket and who must go for it.
    pub fn enter(&mut self, address: IpAddr, now: Instant) -> (Ticket, Option<Ticket>) {
        let address = group(address);
        let evicted = match self.by_address.get(&address) {
            Some(queues) if queues.len() >= self.caps.per_address => queues.first_to_go(now),
            _ if self.len() >= self.caps.overall => {
                let silent = self.silent.first_key_value().map(|(ticket, (_, since))| (*ticket, *since));
                first_to_go(silent, self.spoken.keys().next().copied(), now)
            }
            _ => None,
        };
        if let Some(ticket) = evicted {
            self.leave(ticket);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.silent.insert(ticket, (address, now));
        self.by_address.entry(address).or_default().silent.push_back((ticket, now));
        (ticket, evicted)
    }

    /// Records that the peer sent its first bytes: it is evicted after those that never did.
    pub fn spoke(&mut self, ticket: Ticket) {
        let Some((address, _)) = self.silent.remove(&ticket) else { return };
        self.spoken.insert(ticket, address);
        let queues = self.by_address.entry(address).or_default();
        queues.silent.retain(|(other, _)| *other != ticket);
        queues.spoken.push_back(ticket);
    }

    /// Takes one out: it said who it is, or it is gone. Unknown tickets are ignored, since the evicted leave twice.
    pub fn leave(&mut self, ticket: Ticket) {
        let silent = self.silent.remove(&ticket).map(|(address, _)| address);
        let Some(address) = silent.or_else(|| self.spoken.remove(&ticket)) else { return };
        if let Some(queues) = self.by_address.get_mut(&address) {
            queues.silent.retain(|(other, _)| *other != ticket);
            queues.spoken.retain(|other| *other != ticket);
            if queues.len() == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// Counts those inside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.silent.len() + self.spoken.len()
    }

    /// Tells whether nobody is inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Of the oldest silent one and the oldest one that spoke.
fn first_to_go(silent: Option<(Ticket, Instant)>, spoken: Option<Ticket>, now: Instant) -> Option<Ticket> {
    match (silent, spoken) {
        // It is new here: it goes only when it is the oldest all the same.
        (Some((silent, since)), Some(spoken)) if now.duration_since(since) < MAY_BE_SILENT => Some(silent.min(spoken)),
        (Some((silent, _)), _) => Some(silent),
        (None, spoken) => spoken,
    }
}

/// What counts as one address: a host has a whole /64 of IPv6, and IPv4 may come mapped into IPv6.
pub(crate) fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { overall: 5, per_address: 3 };

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Protocol R-LIMIT-1, as are the two below.
    #[test]
    fn one_address_pushes_out_only_its_own_oldest() {
        let (mut admission, now) = (Admission::new(CAPS), Instant::now());
        let (honest, _) = admission.enter(v4(1), now);
        let (first, none) = admission.enter(v4(2), now);
        assert_eq!(none, None);
        let (second, _) = admission.enter(v4(2), now);
        admission.enter(v4(2), now);
        assert_eq!(admission.enter(v4(2), now).1, Some(first));
        assert_eq!(admission.enter(v4(2), now).1, Some(second));
        assert_eq!(admission.len(), 4);
        admission.leave(honest);
        assert_eq!(admission.len(), 3, "the honest one was still inside");
    }

    #[test]
    fn the_overall_cap_takes_the_oldest_of_all() {
        let (mut admission, now) = (Admission::new(CAPS), Instant::now());
        let (oldest, _) = admission.enter(v4(1), now);
        for last in 2..=5 {
            assert_eq!(admission.enter(v4(last), now).1, None);
        }
        assert_eq!(admission.enter(v4(6), now).1, Some(oldest));
        assert_eq!(admission.len(), CAPS.overall);
    }

    #[test]
    fn those_that_never_sent_a_byte_go_before_those_that_did() {
        let (mut admission, now) = (Admission::new(CAPS), Instant::now());
        let (speaker, _) = admission.enter(v4(1), now);
        admission.spoke(speaker);
        let (silent, _) = admission.enter(v4(1), now);
        let (later, _) = admission.enter(v4(1), now);
        let now = now + MAY_BE_SILENT;
        assert_eq!(admission.enter(v4(1), now).1, Some(silent));
        assert_eq!(admission.enter(v4(1), now).1, Some(later));
        admission.enter(v4(2), now);
        admission.enter(v4(3), now);
        let now = now + MAY_BE_SILENT;
        assert_ne!(admission.enter(v4(4), now).1, Some(speaker), "nor does it go for somebody else's sake");
    }

    #[test]
    fn who_is_about_to_speak_is_not_pushed_out_by_those_that_sent_one_byte() {
        let (mut admission, now) = (Admission::new(CAPS), Instant::now());
        let mut spoken = Vec::new();
        for last in 2..=5 {
            let (ticket, _) = admission.enter(v4(last), now);
            admission.spoke(ticket);
            spoken.push(ticket);
        }
        let (honest, _) = admission.enter(v4(1), now);
        for ticket in spoken {
            let (newcomer, evicted) = admission.enter(v4(9), now + MAY_BE_SILENT / 2);
            assert_eq!(evicted, Some(ticket), "the oldest goes");
            admission.leave(newcomer);
            let (ticket, _) = admission.enter(v4(8), now);
            admission.spoke(ticket);
        }
        admission.enter(v4(7), now);
        let late = admission.enter(v4(6), now + MAY_BE_SILENT);
        assert_eq!(late.1, Some(honest), "it had its time");
    }

    #[test]
    fn leaving_twice_is_harmless_and_nothing_is_kept_of_the_gone() {
        let (mut admission, now) = (Admission::new(CAPS), Instant::now());
        for round in 0..1000u32 {
            let (ticket, _) = admission.enter(IpAddr::from(round.to_be_bytes()), now);
            admission.leave(ticket);
            admission.leave(ticket);
        }
        assert!(admission.is_empty() && admission.by_address.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_and_a_mapped_address_count_as_one() {
        let at = |text: &str| text.parse::<IpAddr>().map(group).ok();
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), Some(v4(1)));
    }
}
