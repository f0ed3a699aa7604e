//! What stands in the state directory when the agent starts: every command's directory becomes an entry of the table, so
//! that the first inventory is complete. Nothing is decided here; that is `recover`'s work.

use common::error::Chain;
use common::id::Uid;
use common::model::StreamName;
use tracing::warn;

use super::jobs::Home;
use super::table::{Entry, Started, Step};
use crate::commands::{FileError, RecordError, record, recover, segment, status};

/// One directory.
pub(super) struct Found {
    pub(super) uid: Uid,
    pub(super) entry: Entry,
    /// The manager's store position when the command was sent.
    pub(super) store_position: u64,
}

/// Reads every command directory.
///
/// # Errors
/// When they cannot be listed, or it cannot be said which of them would survive a crash.
pub(super) fn scan_all(home: &Home) -> Result<Vec<Found>, FileError> {
    recover::sweep_cgroups(&home.state, &home.base);
    // Whoever was here before may have died between a rename and its sync; what is found here is about to be started.
    home.state.sync_commands()?;
    if let Err(error) = home.kept.evict(common::clock::unix_ms()) {
        warn!(error = %Chain(&error), "A kept directory cannot be removed");
    }
    let mut found = Vec::new();
    for uid in home.state.list()? {
        found.extend(scan(home, uid));
    }
    // As they will stand in the queue, so that they are looked at in that order.
    found.sort_unstable_by_key(|one| (one.entry.started.is_some(), one.entry.turn(one.uid)));
    Ok(found)
}

fn scan(home: &Home, uid: Uid) -> Option<Found> {
    let dir = home.state.command(uid);
    let history = match record::read(&dir) {
        Ok(history) => history,
        Err(RecordError::File(error)) if error.is_missing() => return None,
        Err(error) => {
            warn!(task.id = %uid, error = %Chain(&error), "A command's record cannot be read");
            let command = record::salvage(&dir).map(|spec| spec.command).unwrap_or_default();
            let entry = Entry::new(command.id, command.generation, command.expires_ms, Step::Live);
            return Some(Found { uid, entry, store_position: 0 });
        }
    };
    let command = &history.spec.command;
    let mut entry = Entry::new(command.id, command.generation, command.expires_ms, Step::Live);
    entry.accepted_ms = history.spec.accepted_ms;
    entry.started =
        history.start.as_ref().map(|start| Started { at_ms: start.at_ms, isolation: start.isolation.clone() });
    match &history.end {
        Some(end) => entry = entry.with_end(end.to_result(uid, command.id)),
        None => {
            entry.word = status::read(&dir);
            for stream in [StreamName::Stdout, StreamName::Stderr] {
                if let Ok(length) = segment::length(&dir, stream)
                    && length > 0
                {
                    entry.ship(stream).learn(length);
                }
            }
        }
    }
    entry.detach();
    Some(Found { uid, entry, store_position: command.store_position })
}
