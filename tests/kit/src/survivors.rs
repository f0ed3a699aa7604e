//! Finds processes that should be gone: by a mark in their environment or a path among their arguments, never by name.

use std::fs;
use std::path::Path;

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
    use std::process::Command;

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
