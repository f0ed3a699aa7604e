//! Looks at a state directory. The only lock it ever asks for is a shared one on `lock`, without waiting and given back
//! at once; an agent that starts in that moment tries again. The locks of records are never touched: a shim that missed
//! its own would not start.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::id::Uid;
use common::model::StreamName;
use rustix::fs::{FlockOperation, OFlags};

use super::about::About;
use super::report::{AgentReport, CommandReport, Disk, Phase, Report, Unreadable};
use crate::commands::accept::WAKE;
use crate::commands::layout::SECTOR;
use crate::commands::status::{ShimPhase, ShimStatus};
use crate::commands::{RecordError, kept, layout, record, reserve, segment, status};

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error("there is no directory {}", .0.display())]
    Missing(PathBuf),
    #[error("{} is not the state directory of an agent: it has no `commands` in it", .0.display())]
    NotOne(PathBuf),
    #[error("{} belongs to user {owner}: run this as that user or as root", path.display())]
    NotAllowed { path: PathBuf, owner: u32 },
    #[error("{} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Looks once.
///
/// # Errors
/// When the directory is not there, is not ours to read, or is none of an agent.
pub(super) fn look(state_dir: &Path) -> Result<Report, LookError> {
    let unreadable = |source| LookError::Unreadable { path: state_dir.to_owned(), source };
    let found = match fs::metadata(state_dir) {
        Ok(found) if found.is_dir() => found,
        Ok(_) => return Err(LookError::NotOne(state_dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LookError::Missing(state_dir.to_owned()));
        }
        Err(error) => return Err(unreadable(error)),
    };
    let ours = rustix::process::geteuid();
    if found.uid() != ours.as_raw() && !ours.is_root() {
        return Err(LookError::NotAllowed { path: state_dir.to_owned(), owner: found.uid() });
    }
    let names = match names(&state_dir.join("commands")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LookError::NotOne(state_dir.to_owned())),
        listed => listed.map_err(unreadable)?,
    };
    let about = About::read(state_dir);
    let agent = agent(state_dir, about.as_ref());
    let (mut commands, mut failed) = (Vec::new(), Vec::new());
    for uid in names.iter().filter_map(|name| name.parse::<Uid>().ok()) {
        match command(&state_dir.join("commands").join(uid.to_string()), uid) {
            Ok(one) => commands.push(one),
            // Delivered and removed since it was listed.
            Err(RecordError::File(error)) if error.is_missing() => {}
            Err(error) => {
                let reason = common::error::Chain(&error).to_string();
                failed.push(Unreadable { uid: uid.to_string(), reason });
            }
        }
    }
    name_waiting(&mut commands, &agent);
    commands.sort_unstable_by_key(|one| (one.phase, one.since_ms, one.id));
    Ok(Report {
        state_dir: state_dir.to_owned(),
        journal: fs::read_to_string(state_dir.join("journal")).ok().map(|text| text.trim_end().to_owned()),
        disk: disk(state_dir, about.as_ref()),
        agent,
        commands,
        kept: count(state_dir, kept::FOLDER, |name| kept::parse(name).is_some()),
        quarantined: count(state_dir, "quarantine", |_| true),
        unreadable: failed,
    })
}

fn agent(state_dir: &Path, about: Option<&About>) -> AgentReport {
    let running = is_held(&state_dir.join("lock"));
    let Some(about) = about else { return AgentReport { running, ..AgentReport::default() } };
    AgentReport {
        running,
        pid: (running && about.is_alive()).then_some(about.pid),
        name: Some(about.agent.clone()),
        version: Some(about.version.clone()),
        since_ms: Some(about.since_ms),
        isolation: Some(about.isolation.clone()),
        rung: Some(about.rung.clone()),
        cgroup: about.cgroup.clone(),
        controllers: about.controllers.iter().cloned().collect(),
        max_running: Some(about.max_running),
    }
}

/// Tells whether somebody holds the lock of the directory.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let held = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
    // Given back before the file is closed, should a process that is just being forked have a copy.
    let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
    held == Err(rustix::io::Errno::WOULDBLOCK)
}

fn disk(state_dir: &Path, about: Option<&About>) -> Disk {
    let found = rustix::fs::statvfs(state_dir).ok();
    let taken = fs::symlink_metadata(state_dir.join(reserve::FILE)).ok();
    Disk {
        free: found.as_ref().map(|found| found.f_bavail.saturating_mul(found.f_frsize)),
        total: found.as_ref().map(|found| found.f_blocks.saturating_mul(found.f_frsize)),
        reserve: taken.map_or(0, |file| file.blocks().saturating_mul(SECTOR).min(file.len())),
        reserve_wanted: about.map(|about| about.reserve),
    }
}

/// What a command's directory says.
fn command(dir: &Path, uid: Uid) -> Result<CommandReport, RecordError> {
    // Before the record: a shim that goes meanwhile has written its end by then.
    let shim_alive = has_reader(dir);
    let history = record::read(dir)?;
    let word = status::read(dir).filter(|_| shim_alive);
    let command = &history.spec.command;
    let (phase, since_ms) = match (&history.start, &history.end) {
        (_, Some(end)) => (Phase::Ended, end.finished_ms),
        (Some(start), None) => (started(word.as_ref()), word.as_ref().map_or(start.at_ms, |word| word.at_ms)),
        (None, None) => (Phase::Accepted, history.spec.accepted_ms),
    };
    let live = history.start.as_ref().filter(|_| history.end.is_none());
    let named = word.as_ref().map(|word| word.pid).filter(|pid| *pid != 0);
    let lengths: Vec<(StreamName, u64)> = match &history.end {
        Some(end) => end.streams.iter().map(|end| (end.stream, end.length)).collect(),
        None => segment::lengths(dir).map_err(RecordError::File)?,
    };
    Ok(CommandReport {
        id: command.id,
        uid: uid.to_string(),
        operation: command.operation.clone(),
        phase,
        since_ms,
        pid: live.map(|start| named.unwrap_or(start.pid)),
        cgroup: live.and_then(|start| start.cgroup.clone()),
        isolation: history.start.as_ref().map(|start| start.isolation.clone()),
        streams: lengths.into_iter().map(|(name, length)| (name.as_str(), length)).collect(),
        shim_alive,
        stuck: word.map(|word| word.stuck).unwrap_or_default(),
        outcome: history.end.as_ref().map(|end| common::model::Phase::from(end.outcome).as_str()),
    })
}

fn started(word: Option<&ShimStatus>) -> Phase {
    match word.map(|word| word.phase) {
        Some(ShimPhase::Paused) => Phase::Paused,
        Some(ShimPhase::Stopping) => Phase::Stopping,
        Some(ShimPhase::Running) | None => Phase::Running,
    }
}

/// Tells whether a shim reads `wake`. To open it wakes nobody.
fn has_reader(dir: &Path) -> bool {
    layout::open_fifo(&dir.join(WAKE), OFlags::WRONLY).is_ok()
}

/// Who waits is known to the agent alone; from outside it is seen when all places are taken.
fn name_waiting(commands: &mut [CommandReport], agent: &AgentReport) {
    let Some(max) = agent.max_running.filter(|_| agent.running) else { return };
    let busy = commands.iter().filter(|one| one.phase < Phase::Accepted || one.shim_alive && one.phase < Phase::Ended);
    if u64::try_from(busy.count()).unwrap_or(u64::MAX) < u64::from(max) {
        return;
    }
    for one in commands.iter_mut().filter(|one| one.phase == Phase::Accepted && !one.shim_alive) {
        one.phase = Phase::Waiting;
    }
}

fn count(state_dir: &Path, folder: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let found = names(&state_dir.join(folder)).unwrap_or_default();
    found.iter().filter(|name| wanted(name)).count() as u64
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        found.extend(entry?.file_name().into_string().ok());
    }
    Ok(found)
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
