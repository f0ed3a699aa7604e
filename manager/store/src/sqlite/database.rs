//! The two files with their writers and readers, and what is known of them without asking.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use common::id::{CommandId, Generation, Name, StorePosition};
use rusqlite::Connection;
use tokio::sync::watch;

use super::open::{Durability, Files, writing};
use super::output;
use super::readers::Readers;
use super::writer::{Effects, Seal, Tx, Writer};
use super::{agents, joins, meta};
use crate::error::StoreError;
use crate::limits::{MAIN_QUEUE, OUTPUT_NICE, OUTPUT_QUEUE};
use crate::revocations::Revocations;
use crate::types::{Identity, Millis, Position};
use crate::watch::{CommandWatch, Hub};

/// Both files. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(super) shared: Arc<Shared>,
}

/// What all clones share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) files: Files,
    pub(super) main: Writer,
    pub(super) output: Writer,
    pub(super) readers: Arc<Readers>,
    pub(super) known: Arc<Known>,
    pub(super) revocations: Arc<Revocations>,
    /// When tokens were used, as far as it is not yet written.
    pub(super) token_uses: Mutex<HashMap<String, Millis>>,
    pub(super) token_uses_written: AtomicU64,
    /// What refused joins have left in the audit.
    pub(super) join_refusals: joins::Refusals,
}

/// What is known after each commit without a read.
#[derive(Debug)]
pub(super) struct Known {
    identity: Mutex<Identity>,
    position: AtomicU64,
    /// What an agent can have heard at the most that was not here since the store was opened.
    heard_before: AtomicU64,
    /// Agents that were here since, by generation: they may have heard everything.
    seen: Mutex<HashSet<Generation>>,
    events: watch::Sender<u64>,
    hub: Arc<Hub>,
    /// Commits of the output file, and how many of them are durable.
    pub(super) output_commits: AtomicU64,
    pub(super) output_synced: AtomicU64,
}

impl Known {
    /// Notes that an agent has a session: from now on it may hear every position.
    pub(super) fn saw(&self, generation: Generation) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(generation);
    }

    /// The highest position that an agent can have heard from this store.
    pub(super) fn could_hear(&self, generation: Generation) -> StorePosition {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&generation);
        let position = if seen { &self.position } else { &self.heard_before };
        StorePosition(position.load(Ordering::Acquire))
    }
}

impl Database {
    /// Opens both files and starts their writers.
    pub(crate) async fn open(folder: &Path) -> Result<Self, StoreError> {
        let files = Files::of(folder);
        let now = common::clock::unix_ms();
        let opened = tokio::task::spawn_blocking(move || Self::start(files, now)).await;
        let (database, to_remove) = opened.unwrap_or(Err(StoreError::Unavailable(None)))?;
        for name in to_remove {
            // With everything that belongs to a removal: its commands end, and it is written down who did it.
            database.remove_agent(&name, &agents::manager(), now).await?;
        }
        Ok(database)
    }

    fn start(files: Files, now: Millis) -> Result<(Self, Vec<Name>), StoreError> {
        let (main, output) = files.prepare()?;
        let revocations = Arc::new(Revocations::new(&files.folder));
        let begun = meta::begin(&main, &revocations.read()?, now)?;
        output::forget_beyond(&output, begun.last_command)?;
        let known = Arc::new(Known {
            identity: Mutex::new(begun.identity),
            position: AtomicU64::new(begun.position.position.0),
            heard_before: AtomicU64::new(begun.position.position.0),
            seen: Mutex::default(),
            events: watch::Sender::new(begun.position.last_event),
            hub: Arc::default(),
            // One ahead: a process that was killed may have left bytes in the log that no disk has seen.
            output_commits: AtomicU64::new(1),
            output_synced: AtomicU64::new(0),
        });
        let main_path = files.main.clone();
        let output_path = files.output.clone();
        let main = Writer::start(
            "store-main",
            MAIN_QUEUE,
            main,
            Box::new(move || writing(&main_path, Durability::Full)),
            MainSeal { known: Arc::clone(&known), position: begun.position.position.0 },
        )?;
        let output = Writer::start(
            "store-output",
            OUTPUT_QUEUE,
            output,
            Box::new(move || writing(&output_path, Durability::Normal)),
            OutputSeal { known: Arc::clone(&known), full: false },
        )?;
        let shared = Shared {
            readers: Arc::new(Readers::new(files.clone())),
            files,
            main,
            output,
            known,
            revocations,
            token_uses: Mutex::default(),
            token_uses_written: AtomicU64::new(0),
            join_refusals: joins::Refusals::default(),
        };
        Ok((Self { shared: Arc::new(shared) }, begun.to_remove))
    }

    /// Answers which store this is.
    pub(crate) fn identity(&self) -> Identity {
        self.shared.known.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers how far it has come.
    pub(crate) fn position(&self) -> Position {
        Position {
            position: StorePosition(self.shared.known.position.load(Ordering::Acquire)),
            last_event: *self.shared.known.events.borrow(),
        }
    }

    /// Wakes after commits with events.
    pub(crate) fn events_changed(&self) -> watch::Receiver<u64> {
        self.shared.known.events.subscribe()
    }

    /// Wakes after changes of one command.
    pub(crate) fn watch_command(&self, command: CommandId) -> CommandWatch {
        self.shared.known.hub.watch(command)
    }

    /// Runs a change of the main file.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.main.run(change).await
    }

    /// Runs a change of the main file that may wait a moment to share the commit of others.
    pub(super) async fn write_patiently<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.main.run_patiently(change).await
    }

    /// Runs a read of both files.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.readers.run(read).await
    }

    /// Ends readers and writers.
    pub(crate) async fn close(&self) {
        self.flush_token_uses();
        // Readers first: the writers can then leave tidy files behind.
        self.shared.readers.close().await;
        self.shared.main.close().await;
        self.shared.output.close().await;
    }
}

/// What belongs to every commit of the main file.
struct MainSeal {
    known: Arc<Known>,
    /// The position of the last commit.
    position: u64,
}

impl Seal for MainSeal {
    const POINTS: (&'static str, &'static str) = ("manager.commit.before", "manager.commit.after");

    fn seal(&mut self, connection: &Connection, _sync: bool) -> rusqlite::Result<()> {
        self.position = meta::advance_position(connection)?;
        Ok(())
    }

    fn committed(&mut self, effects: Effects, _sync: bool) {
        self.known.position.store(self.position, Ordering::Release);
        if let Some(identity) = effects.identity {
            // The jump went beyond everything that anybody had heard.
            self.known.heard_before.store(self.position, Ordering::Release);
            *self.known.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
        }
        if let Some(event) = effects.last_event {
            self.known.events.send_replace(event);
        }
        self.known.hub.wake(&effects.commands);
    }
}

/// What belongs to every commit of the output file.
struct OutputSeal {
    known: Arc<Known>,
    /// The connection is set to sync at the next commit.
    full: bool,
}

impl Seal for OutputSeal {
    const POINTS: (&'static str, &'static str) = ("manager.output.commit.before", "manager.output.commit.after");
    const NICE: i32 = OUTPUT_NICE;

    fn prepare(&mut self, connection: &Connection, sync: bool) -> rusqlite::Result<()> {
        // The setting cannot change inside a transaction. A connection that was opened anew starts at NORMAL, so the
        // wish to sync is always said again.
        if sync || self.full {
            connection.execute_batch(if sync { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" })?;
            self.full = sync;
        }
        Ok(())
    }

    fn seal(&mut self, connection: &Connection, sync: bool) -> rusqlite::Result<()> {
        if sync {
            // A commit without a change would not touch the disk.
            connection.prepare_cached("UPDATE marks SET syncs = syncs + 1")?.execute([])?;
        }
        // Counted before the commit: readers see the bytes the moment it is done, and whoever then asks whether they
        // are durable must not be told of the sync before.
        self.known.output_commits.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn committed(&mut self, effects: Effects, sync: bool) {
        if sync {
            // Only this thread counts, so this is the commit that was just made durable.
            let commits = self.known.output_commits.load(Ordering::Acquire);
            self.known.output_synced.store(commits, Ordering::Release);
        }
        self.known.hub.wake(&effects.commands);
    }
}
