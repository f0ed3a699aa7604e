//! Opens connections with the settings that each kind needs. Files are readable by their owner alone.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::migrate::{self, Migration};
use crate::error::StoreError;

/// Statements that a connection keeps prepared: more than the store has.
const STATEMENTS: usize = 128;
/// How long a connection waits for another one; only opening, closing and copying ever compete.
const BUSY: Duration = Duration::from_secs(5);

/// Where the two files are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) folder: PathBuf,
    pub(super) main: PathBuf,
    pub(super) output: PathBuf,
}

impl Files {
    /// Names the files of a folder.
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), main: folder.join("paprika.db"), output: folder.join("output.db") }
    }

    /// Makes what is missing and brings both schemas up to date; answers the writing connections.
    pub(super) fn prepare(&self) -> Result<(Connection, Connection), StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { path, source }
        };
        common::durable::create_folder(&self.folder).map_err(failed(&self.folder))?;
        for path in [&self.main, &self.output] {
            match common::durable::create_new(path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(path)(error)),
                _ => {}
            }
        }
        let main = self.migrated(&self.main, Durability::Full, migrate::MAIN)?;
        let output = self.migrated(&self.output, Durability::Normal, migrate::OUTPUT)?;
        common::durable::sync_folder(&self.folder).map_err(failed(&self.folder))?;
        Ok((main, output))
    }

    fn migrated(&self, path: &Path, durability: Durability, known: &[Migration]) -> Result<Connection, StoreError> {
        let mut connection = writing(path, durability)?;
        migrate::migrate(&mut connection, path, known)?;
        Ok(connection)
    }

    /// Opens a connection that reads both files; the bytes are in the schema `output`.
    pub(super) fn reading(&self) -> Result<Connection, StoreError> {
        let connection = open(&self.main)?;
        // Small caches: the pages are in the page cache of the system anyway.
        connection.execute_batch("PRAGMA cache_size = -1024")?;
        connection.execute("ATTACH DATABASE ?1 AS output", [self.output.to_string_lossy()])?;
        connection.execute_batch("PRAGMA output.cache_size = -256; PRAGMA query_only = ON")?;
        Ok(connection)
    }
}

/// When a commit is on the disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Durability {
    /// When it returns.
    Full,
    /// At the next sync or checkpoint.
    Normal,
}

/// Opens a connection that writes.
pub(super) fn writing(path: &Path, durability: Durability) -> Result<Connection, StoreError> {
    let connection = open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA cache_size = -8192;
         PRAGMA journal_size_limit = 67108864",
    )?;
    connection.execute_batch(match durability {
        // The log is checkpointed at 16 MiB instead of 4: fewer pauses of the writer under load.
        Durability::Full => "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4096",
        // At 2 MiB: a checkpoint syncs the log and then the file, and whoever syncs anything on the same disk meanwhile, the
        // main file or the agent beside it, waits for all of these bytes.
        Durability::Normal => "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 512",
    })?;
    Ok(connection)
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    // The file exists: it was made with the right mode before.
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch("PRAGMA temp_store = MEMORY")?;
    Ok(connection)
}
