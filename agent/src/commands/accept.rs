//! Makes commands durable: built in `staging`, synced, renamed into `commands`, that folder synced.
//!
//! Several at once share the sync of `commands/`; nothing is reported as accepted before it (protocol R-CMD-2).

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use bytes::Bytes;
use common::id::Uid;
use common::{crash, durable};

use super::file_error::{Context, FileError};
use super::layout::{self, StateDir};
use super::record::{self, End};

/// The FIFO in a command's directory that wakes its shim.
pub const WAKE: &str = "wake";

/// A command to be made durable.
#[derive(Debug, Clone)]
pub struct NewCommand {
    /// Its directory's name.
    pub uid: Uid,
    /// Manager time, Unix milliseconds.
    pub accepted_ms: u64,
    /// The `Command` message as received, but for the values of its secrets.
    pub raw: Bytes,
    /// Those, sealed; empty: it has none.
    pub sealed: Bytes,
    /// For operations without a process: the end that becomes durable together with the acceptance.
    pub end: Option<End>,
}

/// Why a command was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// There is a directory of this name.
    #[error("accept command {0}: it is already here")]
    Exists(Uid),
    /// A file step failed before the directory had its name: nothing of it stays behind.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory has its name, or may have it, and nobody can say whether that lasts. It must neither be promised
    /// nor refused before [`settle`] knows, because a crash may leave it there or not.
    #[error("accept command {0}: its place is not durable")]
    Unsettled(Uid, #[source] FileError),
}

/// Makes commands durable, in the order given; each gets its own answer.
///
/// After a failed sync of `commands/` no answer is good: every directory that has its name is unsettled.
#[must_use]
pub fn accept_many(state: &StateDir, commands: &[NewCommand]) -> Vec<Result<(), AcceptError>> {
    let mut answers: Vec<_> = commands.iter().map(|command| build(state, command)).collect();
    crash::point("agent.accept.before-rename");
    for (command, answer) in commands.iter().zip(&mut answers) {
        if answer.is_ok() {
            *answer = publish(state, command.uid);
        }
    }
    crash::point("agent.accept.after-rename");
    // One that was there before counts too: it may be there because an earlier sync failed.
    let has_name = |answer: &Result<_, _>| matches!(answer, Ok(()) | Err(AcceptError::Exists(_)));
    if answers.iter().any(has_name)
        && let Err(error) = state.sync_commands()
    {
        for (command, answer) in commands.iter().zip(&mut answers) {
            if has_name(answer) {
                let source = io::Error::new(error.source.kind(), error.source.to_string());
                let error = FileError { action: error.action, path: error.path.clone(), source };
                *answer = Err(AcceptError::Unsettled(command.uid, error));
            }
        }
    }
    crash::point("agent.accept.after-sync");
    answers
}

/// Tries again to give unsettled commands a durable place: `true` for one that has it now, `false` for one that is not
/// there and never will be.
///
/// # Errors
/// When that still cannot be said.
pub fn settle(state: &StateDir, uids: &[Uid]) -> Result<Vec<bool>, FileError> {
    state.sync_commands()?;
    let mut settled = Vec::with_capacity(uids.len());
    for uid in uids {
        let there = has_place(state, *uid)?;
        if !there {
            drop(fs::remove_dir_all(state.staging().join(uid.to_string())));
        }
        settled.push(there);
    }
    Ok(settled)
}

fn has_place(state: &StateDir, uid: Uid) -> Result<bool, FileError> {
    let path = state.command(uid);
    match fs::symlink_metadata(&path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("look at", &path),
    }
}

fn build(state: &StateDir, command: &NewCommand) -> Result<(), AcceptError> {
    let dir = state.staging().join(command.uid.to_string());
    let built = fill(&dir, command);
    if built.is_err() {
        drop(fs::remove_dir_all(&dir));
    }
    built.map_err(AcceptError::File)
}

fn fill(dir: &Path, command: &NewCommand) -> Result<(), FileError> {
    let make = || fs::DirBuilder::new().mode(0o700).create(dir);
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // The rest of a try whose clearing away failed; nothing in here was ever promised.
            fs::remove_dir_all(dir).and_then(|()| make()).context("make", dir)?;
        }
        made => made.context("make", dir)?,
    }
    if command.end.is_none() {
        layout::make_fifo(&dir.join(WAKE))?;
    }
    let path = dir.join(record::FILE);
    let mut file = durable::create_new(&path).context("make", &path)?;
    let content = record::initial(command.accepted_ms, &command.raw, &command.sealed, command.end.as_ref());
    file.write_all(&content).context("write", &path)?;
    file.sync_all().context("sync", &path)?;
    durable::sync_folder(dir).context("sync", dir)
}

fn publish(state: &StateDir, uid: Uid) -> Result<(), AcceptError> {
    let from = state.staging().join(uid.to_string());
    let to = state.command(uid);
    match fs::rename(&from, &to) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
            drop(fs::remove_dir_all(&from));
            Err(AcceptError::Exists(uid))
        }
        Err(source) => {
            let failed = FileError { action: "rename", path: from.clone(), source };
            // A disk with errors may have done what it says it has not.
            match has_place(state, uid) {
                Ok(false) => {
                    drop(fs::remove_dir_all(&from));
                    Err(failed.into())
                }
                _ => Err(AcceptError::Unsettled(uid, failed)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use common::model::Outcome;
    use common::wire;
    use prost::Message;

    use super::*;

    fn command(uid: Uid) -> NewCommand {
        let message =
            wire::Command { uid: uid.to_wire(), id: 7, operation: "command.run".into(), ..Default::default() };
        NewCommand { uid, accepted_ms: 5, raw: message.encode_to_vec().into(), sealed: Bytes::new(), end: None }
    }

    #[test]
    fn accepted_commands_can_be_read_back_as_they_came() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (a, b) = (command(Uid::random()), command(Uid::random()));
        assert!(accept_many(&state, &[a.clone(), b.clone()]).iter().all(Result::is_ok));
        for new in [&a, &b] {
            let history = record::read(&state.command(new.uid)).unwrap();
            assert_eq!((history.spec.raw, history.spec.accepted_ms), (new.raw.clone(), 5));
            assert!(history.start.is_none() && history.end.is_none() && !history.torn);
        }
        assert_eq!(fs::read_dir(state.staging()).unwrap().count(), 0);
    }

    #[test]
    fn the_same_uid_is_accepted_once_and_leaves_the_first_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let first = command(Uid::random());
        let other = command(Uid::random());
        assert!(accept_many(&state, std::slice::from_ref(&first)).iter().all(Result::is_ok));
        let answers = accept_many(&state, &[NewCommand { accepted_ms: 9, ..first.clone() }, other.clone()]);
        assert!(matches!(answers.as_slice(), [Err(AcceptError::Exists(uid)), Ok(())] if *uid == first.uid));
        assert_eq!(record::read(&state.command(first.uid)).unwrap().spec.accepted_ms, 5);
        assert_eq!(fs::read_dir(state.staging()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_that_is_not_durable_is_neither_a_yes_nor_a_no() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (first, other) = (command(Uid::random()), command(Uid::random()));
        state.break_sync(true);
        for _ in 0..2 {
            let answers = accept_many(&state, std::slice::from_ref(&first));
            assert!(matches!(answers.as_slice(), [Err(AcceptError::Unsettled(uid, _))] if *uid == first.uid));
            assert!(state.command(first.uid).exists(), "the second time it is there already");
        }
        assert!(settle(&state, &[first.uid]).is_err());
        state.break_sync(false);
        assert_eq!(settle(&state, &[first.uid, other.uid]).unwrap(), [true, false]);
    }

    #[test]
    fn what_never_had_its_name_is_a_clear_no() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        fs::remove_dir(state.commands()).unwrap();
        let answers = accept_many(&state, &[command(Uid::random())]);
        assert!(matches!(answers.as_slice(), [Err(AcceptError::File(_))]), "{answers:?}");
        assert_eq!(fs::read_dir(state.staging()).unwrap().count(), 0);
    }

    #[test]
    fn an_end_can_come_with_the_acceptance() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let mut end = End::without_process(Outcome::Succeeded, 6);
        end.value = r#"{"pong":true}"#.into();
        let new = NewCommand { end: Some(end.clone()), ..command(Uid::random()) };
        assert!(accept_many(&state, std::slice::from_ref(&new)).iter().all(Result::is_ok));
        assert_eq!(record::read(&state.command(new.uid)).unwrap().end, Some(end));
    }
}
