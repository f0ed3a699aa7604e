//! Revisions of the site.

use super::{Result, Store};
use crate::types::{Actor, Millis, NewRevision, SiteFile, SiteRevision};

/// Revisions of the site.
impl Store {
    /// Adds a revision; one with the same files as the one in force, or as the newest of its source that is held or was
    /// rejected, is that one again.
    ///
    /// # Errors
    /// `Conflict` when another revision than the named base is in force.
    pub async fn revision_add(&self, new: NewRevision, actor: &Actor, now: Millis) -> Result<SiteRevision> {
        self.0.revision_add(new, actor, now).await
    }

    /// Finds the revision in force.
    pub async fn revision_live(&self) -> Result<Option<SiteRevision>> {
        self.0.revision_live().await
    }

    /// Finds a revision.
    pub async fn revision(&self, number: u64) -> Result<Option<SiteRevision>> {
        self.0.revision(number).await
    }

    /// Lists revisions, newest first.
    pub async fn revisions(&self, limit: usize) -> Result<Vec<SiteRevision>> {
        self.0.revisions(limit).await
    }

    /// Puts a held revision in force.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not held, or a newer one is in force.
    pub async fn revision_approve(&self, number: u64, actor: &Actor, now: Millis) -> Result<SiteRevision> {
        self.0.revision_decide(number, true, actor, now).await
    }

    /// Rejects a held revision.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not held.
    pub async fn revision_reject(&self, number: u64, actor: &Actor, now: Millis) -> Result<SiteRevision> {
        self.0.revision_decide(number, false, actor, now).await
    }

    /// Lists the files of a revision by path.
    pub async fn revision_files(&self, number: u64) -> Result<Vec<SiteFile>> {
        self.0.revision_files(number).await
    }

    /// Reads one file of a revision.
    pub async fn revision_file(&self, number: u64, path: &str) -> Result<Option<Vec<u8>>> {
        self.0.revision_file(number, path).await
    }

    /// Reads all files of a revision, by path.
    ///
    /// # Errors
    /// `NotFound` when there is no such revision, `Corrupt` when a content is missing or not what it was.
    pub async fn revision_tree(&self, number: u64) -> Result<Vec<(String, Vec<u8>)>> {
        self.0.revision_tree(number).await
    }
}
