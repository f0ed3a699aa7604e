//! How often somebody without a certificate may ask for one: pure, with bounded memory. No sockets.
//!
//! Asked before any signature is checked and before the store is asked, so that guessing costs the guesser more than us.
//! Nobody can take the turns of another address; all together are bounded too.

use std::collections::HashMap;
use std::net::IpAddr;

use common::id::Generation;
use tokio::time::Instant;

use super::admission::group;
use super::pace::{Meter, Pace};
use crate::limits::{JOINS_OF_ADDRESS, JOINS_OVERALL, KNOCKERS_KEPT, RECOVERIES, RECOVERIES_OVERALL};

/// Everybody who asked a moment ago.
#[derive(Debug)]
pub struct Knocks {
    overall: Meter,
    addresses: HashMap<IpAddr, Meter>,
    /// Of agents that have proven who they are.
    recoveries: Meter,
    agents: HashMap<Generation, Meter>,
    paces: Paces,
}

/// What is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Paces {
    /// One address.
    pub address: Pace,
    /// All of them together.
    pub overall: Pace,
}

impl Default for Paces {
    fn default() -> Self {
        Self { address: JOINS_OF_ADDRESS, overall: JOINS_OVERALL }
    }
}

impl Knocks {
    /// Starts with nobody.
    #[must_use]
    pub fn new(paces: Paces, now: Instant) -> Self {
        Self {
            overall: Meter::new(now),
            addresses: HashMap::new(),
            recoveries: Meter::new(now),
            agents: HashMap::new(),
            paces,
        }
    }

    /// Takes the turn of an address; `false` when it has to come back later.
    pub fn knock(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = group(address);
        let mut own = self.addresses.get(&address).copied().unwrap_or_else(|| Meter::new(now));
        // An address that was too often here takes no turn from the rest.
        if !own.take(self.paces.address, now) || !self.overall.take(self.paces.overall, now) {
            return false;
        }
        if self.addresses.len() >= KNOCKERS_KEPT {
            self.addresses.retain(|_, meter| !meter.is_rested(now));
        }
        self.addresses.insert(address, own);
        true
    }

    /// Takes the turn of an agent whose certificate was verified and whose key is bound; `false` when it has to come back
    /// later. Strangers use up none of it.
    pub fn recover(&mut self, agent: Generation, now: Instant) -> bool {
        let mut own = self.agents.get(&agent).copied().unwrap_or_else(|| Meter::new(now));
        if !own.take(RECOVERIES, now) || !self.recoveries.take(RECOVERIES_OVERALL, now) {
            return false;
        }
        if self.agents.len() >= KNOCKERS_KEPT {
            self.agents.retain(|_, meter| !meter.is_rested(now));
        }
        self.agents.insert(agent, own);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn v4(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn one_address_uses_up_its_own_turns_and_nobody_elses() {
        let paces =
            Paces { address: Pace { burst: 2, interval: SECOND }, overall: Pace { burst: 100, interval: SECOND } };
        let now = Instant::now();
        let mut knocks = Knocks::new(paces, now);
        assert!(knocks.knock(v4(1), now) && knocks.knock(v4(1), now));
        assert!((0..1_000).all(|_| !knocks.knock(v4(1), now)));
        assert!(knocks.knock(v4(2), now), "the thousand refused ones took nothing from the rest");
        assert!(knocks.knock(v4(1), now + SECOND));
    }

    #[test]
    fn all_addresses_together_are_bounded_too() {
        let paces =
            Paces { address: Pace { burst: 10, interval: SECOND }, overall: Pace { burst: 3, interval: SECOND } };
        let now = Instant::now();
        let mut knocks = Knocks::new(paces, now);
        let served = (0..100).filter(|number| knocks.knock(v4(*number), now)).count();
        assert_eq!(served, 3);
        assert!(knocks.knock(v4(200), now + SECOND));
    }

    #[test]
    fn an_agent_recovers_a_few_times_in_a_row_and_strangers_do_not_hold_it_up() {
        let paces = Paces { overall: Pace { burst: 1, interval: SECOND }, ..Paces::default() };
        let now = Instant::now();
        let mut knocks = Knocks::new(paces, now);
        assert!(knocks.knock(v4(1), now) && !knocks.knock(v4(2), now), "strangers have used up their share");
        let agent = Generation(1);
        let served = (0..100).filter(|_| knocks.recover(agent, now)).count();
        assert_eq!(served, RECOVERIES.burst as usize);
        assert!(knocks.recover(Generation(2), now), "nor does one agent hold up another");
        assert!(!knocks.recover(agent, now + RECOVERIES.interval - Duration::from_millis(1)));
        assert!(knocks.recover(agent, now + RECOVERIES.interval));
        assert!(knocks.knock(v4(2), now + SECOND), "nor agents strangers");
    }

    #[test]
    fn memory_is_bounded_by_what_all_together_may_do() {
        let now = Instant::now();
        let mut knocks = Knocks::new(Paces::default(), now);
        for step in 0..200_000u32 {
            let at = now + Duration::from_millis(step.into());
            knocks.knock(v4(step), at);
            knocks.recover(Generation(step.into()), at);
        }
        assert!(knocks.agents.len() <= KNOCKERS_KEPT, "{}", knocks.agents.len());
        assert!(knocks.addresses.len() <= KNOCKERS_KEPT, "{}", knocks.addresses.len());
    }

    #[test]
    fn a_fleet_behind_one_address_joins_within_a_minute() {
        let start = Instant::now();
        let mut knocks = Knocks::new(Paces::default(), start);
        let (mut joined, mut waited) = (0, Duration::ZERO);
        while joined < 2_000 {
            match knocks.knock(v4(1), start + waited) {
                true => joined += 1,
                false => waited += Duration::from_millis(10),
            }
        }
        assert!(waited < Duration::from_secs(60), "{waited:?}");
    }
}
