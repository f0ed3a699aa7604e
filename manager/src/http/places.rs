//! How many connections a door serves at the same time, all together and for one address. No sockets.
//!
//! The local socket has places of its own, and one address gets only some of the port's: a stranger with one host cannot
//! keep everybody else out, and nobody on the network can keep out the operator on this host.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::link::admission::group;

/// The places behind one door. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_address: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    address: Option<(IpAddr, Places)>,
}

impl Places {
    /// Makes so many, of which one address gets at most `per_address`.
    pub(super) fn new(all: usize, per_address: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))), per_address, taken: Arc::default() }
    }

    /// Takes a place for a peer on this host.
    pub(super) fn local(&self) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place { _permit: permit, address: None })
    }

    /// Takes a place for an address.
    pub(super) fn of(&self, address: IpAddr) -> Option<Place> {
        let address = group(address);
        let mut taken = self.taken();
        let of_address = taken.get(&address).copied().unwrap_or(0);
        if of_address >= self.per_address {
            return None;
        }
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        taken.insert(address, of_address + 1);
        Some(Place { _permit: permit, address: Some((address, self.clone())) })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((address, places)) = self.address.take() else { return };
        let mut taken = places.taken();
        match taken.get_mut(&address) {
            Some(of_address) if *of_address > 1 => *of_address -= 1,
            _ => {
                taken.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_gets_some_places_and_all_together_no_more_than_there_are() {
        let places = Places::new(3, 2);
        let (first, second) = (places.of(v4(1)), places.of(v4(1)));
        assert!(first.is_some() && second.is_some());
        assert!(places.of(v4(1)).is_none(), "the address has its share");
        let other = places.of(v4(2));
        assert!(other.is_some());
        assert!(places.of(v4(3)).is_none() && places.local().is_none(), "the house is full");
        drop(first);
        assert!(places.of(v4(1)).is_some());
    }

    #[test]
    fn nothing_is_kept_of_those_that_left() {
        let places = Places::new(10, 2);
        for last in 0..=255 {
            drop((places.of(v4(last)), places.of(v4(last))));
        }
        assert!(places.taken().is_empty());
        assert_eq!(places.all.available_permits(), 10);
    }
}
