//! A small pool of reading connections, used on the runtime's blocking threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::open::Files;
use crate::error::StoreError;
use crate::limits::READERS;

/// The pool.
#[derive(Debug)]
pub(super) struct Readers {
    files: Files,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Makes a pool without connections; each is opened when it is first needed.
    pub(super) fn new(files: Files) -> Self {
        Self { files, idle: Mutex::default(), permits: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs a read.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Unavailable(None))?;
        let pool = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let result = pool.run_here(read);
            drop(permit);
            result
        })
        .await
        .unwrap_or(Err(StoreError::Unavailable(None)))
    }

    /// Runs a read on the calling thread, which may block, without waiting for its turn.
    pub(super) fn run_here<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let taken = self.idle().pop();
        let connection = taken.map_or_else(|| self.files.reading(), Ok)?;
        let result = read(&connection);
        // A connection that met a bad disk or file is not trusted again.
        if !matches!(result, Err(StoreError::Full(_) | StoreError::Corrupt { .. } | StoreError::Unavailable(_))) {
            self.idle().push(connection);
        }
        result
    }

    /// Ends the pool: waits for reads that run, and lets no new ones in.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(u32::try_from(READERS).unwrap_or(u32::MAX)).await {
            self.permits.close();
            drop(all);
        }
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A panic between pop and push loses a connection and nothing else.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
