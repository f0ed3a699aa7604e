//! The names of all crash points, from the sources, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::ensure;

/// The variable that arms a process.
pub(super) const CRASH: &str = "PAPRIKA_CRASH_POINT";

/// All names in the sources that begin with `prefix`.
pub(super) fn names(prefix: &str) -> anyhow::Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for folder in ["agent/src", "manager/src", "manager/store/src"] {
        search(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found)?;
    }
    let names: Vec<_> = found.into_iter().filter(|name| name.starts_with(prefix)).collect();
    ensure!(!names.is_empty(), "no crash point begins with {prefix}");
    Ok(names)
}

fn search(folder: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            search(&path, found)?;
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path)?;
            // Not every name stands at its call: some come from constants. Their form gives them away.
            found.extend(text.split('"').filter(|literal| is_point(literal)).map(str::to_owned));
        }
    }
    Ok(())
}

/// `process.step.before` or `process.step.after`, with more words behind a dash.
fn is_point(literal: &str) -> bool {
    let parts: Vec<_> = literal.split('.').collect();
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let [process, .., last] = parts.as_slice() else { return false };
    let side = last.split('-').next().unwrap_or_default();
    ["agent", "manager", "shim"].contains(process)
        && parts.len() >= 3
        && parts.iter().all(|part| word(part))
        && ["before", "after"].contains(&side)
}

/// Gives out crash points in turn; what was never hit comes first again.
pub(super) struct Turns {
    names: Vec<String>,
    next: usize,
    hit: BTreeMap<String, usize>,
}

impl Turns {
    /// The points that begin with `prefix`, without those that need a situation of their own.
    pub(super) fn new(prefix: &str, without: &[&str]) -> anyhow::Result<Self> {
        let mut names = names(prefix)?;
        names.retain(|name| !without.iter().any(|rare| name.starts_with(rare)));
        Ok(Self { names, next: 0, hit: BTreeMap::new() })
    }

    /// A value for the environment, and the name in it.
    pub(super) fn take(&mut self) -> (String, String) {
        let count = self.names.len();
        let mut order = (self.next..self.next + count).map(|at| at % count);
        let at = order.find(|at| !self.hit.contains_key(&self.names[*at])).unwrap_or(self.next % count);
        self.next = at + 1;
        let name = self.names[at].clone();
        // Met at the first visit at first, later also after the process has worked for a while.
        let visit = 1 + self.hit.get(&name).copied().unwrap_or(0) % 3;
        (format!("{name}@{visit}"), name)
    }

    /// Notes that a process died at its point.
    pub(super) fn hit(&mut self, name: &str) {
        *self.hit.entry(name.to_owned()).or_default() += 1;
    }

    /// The points at which nobody died yet.
    pub(super) fn missed(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).filter(|name| !self.hit.contains_key(*name)).collect()
    }
}

#[test]
fn the_names_are_found_in_the_sources() -> anyhow::Result<()> {
    for (prefix, known) in [
        ("agent.", "agent.accept.before-rename"),
        ("manager.", "manager.fanout.before-send"),
        ("shim.", "shim.end.before"),
    ] {
        let names = names(prefix)?;
        ensure!(names.iter().any(|name| name == known), "{known} is not among {names:?}");
        ensure!(names.len() >= 4, "{names:?}");
    }
    ensure!(
        !is_point("manager.paprika.internal") && !is_point("agent.before") && is_point("manager.output.commit.after")
    );
    Ok(())
}
