//! The last walk of delivered commands: a tombstone, then the directory goes or is kept for a look; and the room on the
//! disk that this needs or gives.
//!
//! On a full disk go, in this order: what is only kept for a look, the reserve, output that the manager has.

use std::time::Duration;

use common::crash;
use common::error::Chain;
use common::id::{CommandId, Uid};
use tracing::warn;

use super::jobs::{Done, Home};
use super::table::Entry;
use crate::commands::recover;
use crate::commands::reserve;
use crate::commands::tombstones::{Origin, Tombstone};
use crate::commands::{End, Evidence, FileError, History, RecordError, record, segment};
use crate::limits::{LOW_ROOM, ROOM_EACH};
use crate::shim::cgroup;

/// A command whose end is on the manager.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) uid: Uid,
    pub(super) id: u64,
    pub(super) generation: u64,
    pub(super) expires_ms: u64,
}

impl Delivered {
    pub(super) fn new(uid: Uid, entry: &Entry) -> Self {
        Self { uid, id: entry.id, generation: entry.generation, expires_ms: entry.expires_ms }
    }
}

/// Replaces directories by tombstones. One that fails is named and holds up no other.
pub(super) fn forget(home: &Home, delivered: Vec<Delivered>) -> Done {
    let (mut gone, mut failed, mut graves) = (Vec::new(), Vec::new(), Vec::with_capacity(delivered.len()));
    for one in delivered {
        match grave(home, &one) {
            Ok(grave) => graves.push(grave),
            Err(error) => failed.push((one.uid, error)),
        }
    }
    crash::point("agent.forget.before");
    let together = with_room(home, FileError::is_full, || home.tombstones.insert_many(&graves));
    let full = together.as_ref().is_err_and(FileError::is_full);
    if let Err(error) = &together
        && full
    {
        // The manager has every byte of them, and the record alone still prevents a second run: their output makes the
        // room for their tombstones.
        warn!(error = %Chain(error), "The disk is full: output that was delivered goes first");
        for grave in &graves {
            if let Err(error) = segment::remove_all(&home.dir(grave.uid)) {
                warn!(task.id = %grave.uid, error = %Chain(&error), "Delivered output stays");
            }
        }
    }
    for grave in graves {
        // What the whole batch did not take may be the fault of one: each for itself then.
        let buried = if together.is_ok() { Ok(()) } else { home.tombstones.insert_many(std::slice::from_ref(&grave)) };
        let removed = buried.and_then(|()| {
            crash::point("agent.forget.after");
            cgroup::remove(&home.base, grave.uid);
            if full { home.state.forget(&[grave.uid]) } else { put_away(home, grave.uid) }
        });
        match removed {
            Ok(()) => gone.push(grave.uid),
            Err(error) => failed.push((grave.uid, error)),
        }
    }
    if home.kept.is_wanted()
        && let Err(error) = home.kept.evict(common::clock::unix_ms())
    {
        warn!(error = %Chain(&error), "A kept directory cannot be removed");
    }
    Done::Forgot { gone, failed }
}

/// Removes the directory of a command that has a tombstone, or keeps it.
fn put_away(home: &Home, uid: Uid) -> Result<(), FileError> {
    if home.kept.is_wanted() {
        match home.kept.add(&home.dir(uid), uid, common::clock::unix_ms()) {
            Ok(()) => return Ok(()),
            Err(error) if error.is_missing() => {}
            Err(error) => warn!(task.id = %uid, error = %Chain(&error), "A delivered directory cannot be kept"),
        }
    }
    home.state.forget(&[uid])
}

/// What is to be kept of a delivered command.
fn grave(home: &Home, one: &Delivered) -> Result<Tombstone, FileError> {
    let (end, origin) = match record::read(&home.dir(one.uid)) {
        Ok(History { end: Some(end), spec, .. }) => (end, Origin::from(&spec.command)),
        // Not damage: the next try can read it.
        Err(RecordError::File(error)) if !error.is_missing() => return Err(error),
        // The end stands in the record or, when that is gone or damaged, was reported from nowhere else.
        _ => {
            let origin = Origin { generation: one.generation, operation: String::new(), created_ms: 0 };
            (End::interrupted(Evidence::RecordCorrupt, common::clock::unix_ms()), origin)
        }
    };
    let (uid, id, expires_ms) = (one.uid, CommandId(one.id), one.expires_ms);
    Ok(Tombstone { uid, id, expires_ms, end, origin: Some(origin) })
}

/// Removes the cgroups of forgotten commands in which nothing lives any more.
pub(super) fn sweep(home: &Home) -> Done {
    recover::sweep_cgroups(&home.state, &home.base);
    let folders = home.base.tree().and_then(|tree| std::fs::read_dir(&tree.path).ok());
    let left = folders.into_iter().flatten().flatten().any(|folder| {
        let uid = folder.file_name().to_str().and_then(|name| name.parse::<Uid>().ok());
        uid.is_some_and(|uid| !home.dir(uid).exists())
    });
    Done::Swept { left }
}

/// Does what must not fail for want of room: once more after everything was given up that can be.
pub(super) fn with_room<T, E>(
    home: &Home,
    is_full: impl Fn(&E) -> bool,
    work: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    match work() {
        Err(error) if is_full(&error) && make_room(home) => work(),
        done => done,
    }
}

/// Gives up what is only kept and the reserve; `false` when there was neither.
fn make_room(home: &Home) -> bool {
    let evicted = evict_all(home);
    home.reserve.give_up() || evicted
}

/// Removes all that is only kept for a look; tells whether that made room.
pub(super) fn evict_all(home: &Home) -> bool {
    match home.kept.evict_all() {
        Ok(0) => false,
        Ok(count) => {
            warn!(count, "The disk is full: kept directories of delivered commands are removed");
            true
        }
        Err(error) => {
            warn!(error = %Chain(&error), "A kept directory cannot be removed");
            false
        }
    }
}

/// Looks at the disk: what is too old goes, on a disk that runs full all that is kept, and the reserve comes back when
/// there is room.
pub(super) fn look_at_room(home: &Home) -> Done {
    let now = common::clock::unix_ms();
    if let Err(error) = home.kept.evict(now) {
        warn!(error = %Chain(&error), "A kept directory cannot be removed");
    }
    if !home.kept.is_empty() && reserve::free(home.state.path()).is_ok_and(|free| free < LOW_ROOM) {
        evict_all(home);
    }
    if home.reserve.is_missing() {
        home.reserve.take_back();
    }
    Done::Roomed { again: next_look(home, now) }
}

/// When the disk should be looked at again; none while nothing could be given up or taken back.
pub(super) fn next_look(home: &Home, now_ms: u64) -> Option<Duration> {
    if home.reserve.is_missing() {
        return Some(ROOM_EACH);
    }
    let due = home.kept.next_due_ms(now_ms)?;
    Some(ROOM_EACH.min(Duration::from_millis(due.max(1))))
}
