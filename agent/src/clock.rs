//! Manager time on the agent: what expiry is judged by.
//!
//! It is heard from the manager, carried on by the boot-time clock (which also counts while the host sleeps), and never
//! goes back: the highest value is kept on disk, together with the boot it was heard in. Wall clocks of hosts are wrong
//! too often to decide whether a command may still start.
//!
//! After a reboot without contact the time is a lower bound; [`ManagerClock::is_certain`] says so, and whoever would
//! start something then waits for the first contact.

use std::io;
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Reads the boot-time clock as milliseconds.
pub(crate) fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1000 + nanos / 1_000_000
}

/// What is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    v: u32,
    boot_id: String,
    /// Boot-time clock when it was written.
    boot_ms: u64,
    /// Manager time at that moment, and the highest ever.
    manager_ms: u64,
}

/// Manager time. Pure: the boot-time clock is an argument.
#[derive(Debug, Clone)]
pub(crate) struct ManagerClock {
    boot_id: String,
    /// Manager time and boot-time clock when the manager was heard last.
    heard: Option<(u64, u64)>,
    highest: u64,
    heard_since_saved: bool,
}

impl ManagerClock {
    /// Goes on from what was saved.
    pub(crate) fn new(boot_id: &str, saved: Option<Saved>) -> Self {
        let heard =
            saved.as_ref().filter(|saved| saved.boot_id == boot_id).map(|saved| (saved.manager_ms, saved.boot_ms));
        Self {
            boot_id: boot_id.to_owned(),
            heard,
            highest: saved.map_or(0, |saved| saved.manager_ms),
            heard_since_saved: false,
        }
    }

    /// Tells manager time; 0 before any manager was ever heard.
    pub(crate) fn now(&mut self, boot_ms: u64) -> u64 {
        if let Some((manager, boot)) = self.heard {
            self.highest = self.highest.max(manager.saturating_add(boot_ms.saturating_sub(boot)));
        }
        self.highest
    }

    /// Tells whether the manager was heard in this boot: otherwise the time is only a lower bound.
    pub(crate) fn is_certain(&self) -> bool {
        self.heard.is_some()
    }

    /// Manager time and boot-time clock when the manager was heard last, if that was in this boot.
    pub(crate) fn heard(&self) -> Option<(u64, u64)> {
        self.heard
    }

    /// The latest manager time that is known of.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// Recalls a manager time that stands in a record: it was heard once.
    pub(crate) fn recall(&mut self, manager_ms: u64) {
        self.highest = self.highest.max(manager_ms);
    }

    /// Hears the manager's clock.
    pub(crate) fn hear(&mut self, manager_ms: u64, boot_ms: u64) {
        if manager_ms == 0 {
            return;
        }
        // Time that passed under the old reading stays passed.
        self.now(boot_ms);
        self.heard = Some((manager_ms, boot_ms));
        self.now(boot_ms);
        self.heard_since_saved = true;
    }

    /// What to save, if anything was heard since the last time.
    pub(crate) fn take_save(&mut self, boot_ms: u64) -> Option<Saved> {
        if !std::mem::take(&mut self.heard_since_saved) {
            return None;
        }
        Some(Saved { v: 1, boot_id: self.boot_id.clone(), boot_ms, manager_ms: self.now(boot_ms) })
    }
}

/// What the agent remembers of its manager's store: said in every hello, so that a restored store is found out
/// (protocol R-INV-6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManagerMemory {
    v: u32,
    /// The incarnation heard last; 0 at first contact.
    pub(crate) incarnation: u64,
    /// The highest store position heard in it.
    pub(crate) store_position: u64,
    /// Manager time when this incarnation was heard first: positions in older records belong to another one.
    #[serde(default)]
    pub(crate) since_ms: u64,
    /// The past was listed to this incarnation, and not all that it wanted to hear of it has arrived.
    #[serde(default)]
    pub(crate) past_owed: bool,
    /// Other addresses the manager named.
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
}

impl ManagerMemory {
    /// Hears a store position.
    pub(crate) fn hear_position(&mut self, position: u64) {
        self.store_position = self.store_position.max(position);
    }

    /// Takes up a position from a command's record, if it was accepted in the incarnation that is known.
    pub(crate) fn recall_position(&mut self, position: u64, accepted_ms: u64) {
        if self.incarnation != 0 && accepted_ms >= self.since_ms {
            self.hear_position(position);
        }
    }

    /// Hears an incarnation at manager time `now_ms`; answers whether it is a new one.
    pub(crate) fn hear_incarnation(&mut self, incarnation: u64, position: u64, now_ms: u64) -> bool {
        let changed = self.incarnation != incarnation;
        if changed {
            self.incarnation = incarnation;
            self.store_position = position;
            self.since_ms = now_ms;
        }
        self.hear_position(position);
        changed
    }
}

/// The two small files of the agent's memory.
#[derive(Debug, Clone)]
pub(crate) struct MemoryFiles {
    clock: PathBuf,
    manager: PathBuf,
}

impl MemoryFiles {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { clock: state_dir.join("clock"), manager: state_dir.join("manager") }
    }

    pub(crate) fn load_clock(&self) -> io::Result<Option<Saved>> {
        load(&self.clock)
    }

    pub(crate) fn load_manager(&self) -> io::Result<Option<ManagerMemory>> {
        load(&self.manager)
    }

    pub(crate) fn save_clock(&self, saved: &Saved) -> io::Result<()> {
        save(&self.clock, saved)
    }

    pub(crate) fn save_manager(&self, memory: &ManagerMemory) -> io::Result<()> {
        save(&self.manager, &ManagerMemory { v: 1, ..memory.clone() })
    }
}

fn load<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let text = serde_json::to_vec(value).map_err(io::Error::other)?;
    common::durable::replace(path, &text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Protocol R-CMD-5.
    #[test]
    fn time_goes_on_with_the_boot_clock_and_never_back() {
        let mut clock = ManagerClock::new("b", None);
        assert_eq!(clock.now(5), 0, "nothing expires before a manager was heard");
        assert!(!clock.is_certain());
        clock.hear(1_000, 10);
        assert_eq!(clock.now(15), 1_005);
        clock.hear(500, 20);
        assert_eq!(clock.now(25), 1_010, "a manager's clock that was set back does not take us back");
        assert_eq!(clock.now(20 + 505), 1_010, "it stands until the manager has caught up");
        assert_eq!(clock.now(20 + 600), 1_100);
        clock.hear(9_000, 700);
        assert_eq!(clock.now(700), 9_000);
        clock.hear(0, 700);
        assert_eq!(clock.now(700), 9_000, "a message without a clock says nothing");
    }

    #[test]
    fn it_goes_on_after_a_restart_and_is_a_lower_bound_after_a_reboot() {
        let mut clock = ManagerClock::new("b", None);
        clock.hear(1_000, 10);
        let saved = clock.take_save(20).unwrap();
        assert_eq!(clock.take_save(30), None, "nothing new was heard");
        let mut restarted = ManagerClock::new("b", Some(saved.clone()));
        assert!(restarted.is_certain());
        assert_eq!(restarted.now(50), 1_040);
        let mut rebooted = ManagerClock::new("c", Some(saved));
        assert!(!rebooted.is_certain());
        assert_eq!(rebooted.now(1), 1_010);
    }

    #[test]
    fn positions_only_grow_within_an_incarnation() {
        let mut memory = ManagerMemory::default();
        assert!(memory.hear_incarnation(1, 10, 100));
        memory.hear_position(5);
        assert_eq!(memory.store_position, 10);
        assert!(!memory.hear_incarnation(1, 12, 150));
        assert!(memory.hear_incarnation(2, 3, 200));
        assert_eq!(memory.store_position, 3, "another life counts its own positions");
        memory.recall_position(50, 199);
        assert_eq!(memory.store_position, 3, "a record of the other life says nothing about this one");
        memory.recall_position(50, 200);
        assert_eq!(memory.store_position, 50);
    }

    #[test]
    fn memory_survives_on_disk_and_damage_is_an_error_not_a_fresh_start() {
        let folder = tempfile::tempdir().unwrap();
        let files = MemoryFiles::new(folder.path());
        assert_eq!(files.load_manager().unwrap(), None);
        let memory = ManagerMemory {
            v: 1,
            incarnation: 3,
            store_position: 9,
            since_ms: 4,
            past_owed: true,
            addresses: vec!["m".into()],
        };
        files.save_manager(&memory).unwrap();
        assert_eq!(files.load_manager().unwrap(), Some(memory));
        std::fs::write(folder.path().join("clock"), b"{").unwrap();
        assert!(files.load_clock().is_err());
    }
}
