//! Revisions of the site: what was pushed or found, and which one is in force.

use std::sync::Arc;

use super::fleet::{Actor, Millis};

/// A revision of the site, without its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRevision {
    pub number: u64,
    pub at: Millis,
    pub actor: Actor,
    /// Where it came from, such as `push` or the path of a folder.
    pub source: String,
    /// Of all paths and contents.
    pub hash: [u8; 32],
    pub status: SiteStatus,
    pub note: Option<String>,
    /// How many files it has.
    pub files: u64,
}

/// What became of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteStatus {
    /// In force, or was: the newest of these is.
    Live,
    /// Waits for an operator who may grant rights.
    Held,
    /// An operator would not have it.
    Rejected,
}

/// A revision that is to be added.
#[derive(Debug, Clone)]
pub struct NewRevision {
    pub source: String,
    pub hash: [u8; 32],
    /// Paths with contents; each path once.
    pub files: Vec<(String, Arc<[u8]>)>,
    /// `Live` or `Held`.
    pub status: SiteStatus,
    pub note: Option<String>,
    /// The revision that must be in force, 0 for none; `None`: whichever is.
    pub base: Option<u64>,
}

/// One file of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteFile {
    pub path: String,
    /// BLAKE3 of the content.
    pub hash: [u8; 32],
    pub size: u64,
}
