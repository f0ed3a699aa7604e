//! The watched folder of a site: noticed when it changes, read when it is quiet, offered to the service.
//!
//! ```text
//! kernel (inotify) ──┐
//! poll ──────────────┼─► quiet for a moment ─► who can write there? ─► read ─► who can write there? ─► service
//! ```
//! It decides nothing: what a change means, and whether it is held, is the service's business.

mod folder;
mod ownership;
mod watch;

#[cfg(test)]
pub(crate) use folder::offer;
pub use folder::run;
