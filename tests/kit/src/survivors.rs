//! Finds processes and cgroups that should be gone: by a mark in their environment or a text among their arguments,
//! never by name. It looks at all of `/proc` and knows nothing of what the agent believes.

use std::fs;
use std::path::{Path, PathBuf};

use common::id::Uid;
use rustix::process::{Pid, Signal, kill_process};

/// The variable that carries the mark of a test into the commands it starts.
pub const MARK: &str = "PAPRIKA_TEST_MARK";

/// A process that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Its id.
    pub pid: i32,
    /// Its arguments, for people.
    pub line: String,
}

/// Lists the processes whose environment holds `MARK=mark`. Processes that have ended hold none.
#[must_use]
pub fn marked(mark: &str) -> Vec<Survivor> {
    let wanted = format!("{MARK}={mark}");
    all(|folder| {
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    })
}

/// Lists the processes that have `text` in their arguments.
#[must_use]
pub fn with_argument(text: &str) -> Vec<Survivor> {
    all(|folder| arguments(folder).contains(text))
}

/// Lists what is left of a command: processes with its uid in their environment, or with `tag` among their arguments.
/// Processes that have ended have neither; shims have other arguments and no such variable.
#[must_use]
pub fn of_command(uid: Uid, tag: &str) -> Vec<Survivor> {
    let wanted = format!("PAPRIKA_COMMAND_UID={uid}");
    all(|folder| {
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
            || (!tag.is_empty() && arguments(folder).contains(tag))
    })
}

/// Lists the dead that nobody has collected although their parent lives and has `text` among its arguments.
#[must_use]
pub fn uncollected(text: &str) -> Vec<i32> {
    let parents = with_argument(text);
    let stat = |folder: &Path| fs::read_to_string(folder.join("stat")).unwrap_or_default();
    let dead = all(|folder| {
        let stat = stat(folder);
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        let (phase, parent) = (fields.next(), fields.next().and_then(|word| word.parse().ok()));
        phase == Some("Z") && parents.iter().any(|one| Some(one.pid) == parent)
    });
    dead.into_iter().map(|one| one.pid).collect()
}

/// Lists the cgroups of a command that are still there, in every hierarchy.
#[must_use]
pub fn groups(uid: Uid) -> Vec<PathBuf> {
    let name = uid.to_string();
    let mut found = Vec::new();
    for mount in cgroup_mounts() {
        // The place of a unit holds the commands themselves, a plain one a folder for each agent.
        let unit = mount.path.join("system.slice/paprika-commands.service");
        let plain = mount.path.join("paprika-commands");
        let agents = fs::read_dir(&plain).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(agents.chain([unit, plain]).map(|place| place.join(&name)).filter(|group| group.exists()));
    }
    found
}

/// A mounted tree of cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMount {
    /// Where.
    pub path: PathBuf,
    /// Version 2.
    pub unified: bool,
    /// The controllers of version 1.
    pub controllers: Vec<String>,
}

/// The trees of cgroups that are mounted here.
#[must_use]
pub fn cgroup_mounts() -> Vec<CgroupMount> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut words = kind.split(' ');
        let unified = match words.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let options = words.next_back().unwrap_or_default().split(',').map(str::to_owned);
        let controllers = if unified { Vec::new() } else { options.collect() };
        Some(CgroupMount { path: PathBuf::from(place.split(' ').nth(4)?), unified, controllers })
    });
    mounts.collect()
}

/// Kills these processes, each by its id.
pub fn end(survivors: &[Survivor]) {
    for survivor in survivors {
        if let Some(pid) = Pid::from_raw(survivor.pid) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn all(is_one: impl Fn(&Path) -> bool) -> Vec<Survivor> {
    let ourselves = i32::try_from(std::process::id()).unwrap_or_default();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    numbers
        .filter(|(pid, folder)| *pid != ourselves && is_one(folder))
        .map(|(pid, folder)| Survivor { pid, line: arguments(&folder) })
        .collect()
}

fn arguments(folder: &Path) -> String {
    let bytes = fs::read(folder.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_left_of_a_command_is_found_by_its_uid_and_by_its_tag() -> anyhow::Result<()> {
        let uid = Uid::random();
        let tag = Uid::random().to_string();
        let mut by_uid = Command::new("sleep").arg("1000").env("PAPRIKA_COMMAND_UID", uid.to_string()).spawn()?;
        // A shell that waits by itself, for the end of a pipe that is held here: a child of its own would outlive it.
        let mut by_tag = Command::new("sh").args(["-c", "read _", &tag]).env_clear().stdin(Stdio::piped()).spawn()?;
        let mut wanted = [i32::try_from(by_uid.id())?, i32::try_from(by_tag.id())?];
        wanted.sort_unstable();
        // Between fork and exec a child still shows what we are.
        let found = loop {
            let mut found = of_command(uid, &tag);
            found.sort_unstable_by_key(|one| one.pid);
            if found.iter().map(|one| one.pid).eq(wanted.iter().copied()) {
                break found;
            }
            assert!(by_uid.try_wait()?.is_none() && by_tag.try_wait()?.is_none(), "a child ended: {found:?}");
        };
        end(&found);
        by_uid.wait()?;
        by_tag.wait()?;
        assert_eq!(of_command(uid, &tag), []);
        assert!(groups(uid).is_empty());
        Ok(())
    }

    use super::*;

    #[test]
    fn a_process_is_found_by_its_mark_and_not_by_anybody_elses() -> anyhow::Result<()> {
        let mark = common::id::Uid::random().to_string();
        let mut child = Command::new("sleep").arg("1000").env(MARK, &mark).spawn()?;
        // Between fork and exec the child still shows our own environment.
        let found = loop {
            let found = marked(&mark);
            if !found.is_empty() {
                break found;
            }
            assert!(child.try_wait()?.is_none(), "the child ended");
        };
        assert_eq!(found.iter().map(|one| one.pid).collect::<Vec<_>>(), [i32::try_from(child.id())?]);
        end(&found);
        child.wait()?;
        assert_eq!(marked(&mark), []);
        Ok(())
    }
}
