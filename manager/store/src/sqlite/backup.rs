//! A copy of both files that can be opened as a store, made while this one works.

use std::path::{Path, PathBuf};

use super::database::Database;
use super::open::{Durability, Files, writing};
use crate::error::StoreError;

impl Database {
    /// Writes a copy into a folder. The rows are copied before the bytes: whatever end the copy knows, its bytes are
    /// there as far as they were stored then.
    pub(crate) async fn backup(&self, folder: &Path) -> Result<(), StoreError> {
        let (from, to) = (self.shared.files.clone(), Files::of(folder));
        let copied = tokio::task::spawn_blocking(move || {
            common::durable::create_folder(&to.folder).map_err(failed(&to.folder))?;
            copy(&from.main, &to.main)?;
            copy(&from.output, &to.output)?;
            common::durable::sync_folder(&to.folder).map_err(failed(&to.folder))
        })
        .await;
        copied.unwrap_or(Err(StoreError::Unavailable(None)))
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    // Made first, so that it is private from its first byte; the database accepts an empty file as the place to write.
    let file = common::durable::create_new(to).map_err(failed(to))?;
    let connection = writing(from, Durability::Normal)?;
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    file.sync_all().map_err(failed(to))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path: PathBuf = path.to_owned();
    move |source| StoreError::File { path, source }
}
