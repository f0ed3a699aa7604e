//! Limits of one command: version 2 where its tree has the controller, else version 1, else named as missing.
//!
//! `memory` is memory and swap together, in both versions: with a limit on memory alone a hog would push the host into
//! its swap, which is what the limit was to prevent. So version 2 gets `memory.swap.max` 0, version 1 the same limit
//! for both. And `memory.oom.group` is set: a command of which the kernel killed one process is not half a command.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use common::wire::CommandLimits;

use super::base::{Place, Rung};
use super::tree::make;

/// The period of CPU quotas, in microseconds: what the kernel takes by default.
const PERIOD: u64 = 100_000;

/// What became of the limits.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Limited {
    /// Limits that nobody enforces: name and why.
    pub(crate) missed: Vec<(&'static str, String)>,
    /// Folders of version 1 that the processes of the command have to join.
    pub(crate) folders: Vec<PathBuf>,
}

/// One limit in the words of both versions: files and what to write, in order.
struct Wish {
    /// The name in a request.
    name: &'static str,
    controller: &'static str,
    /// The file without which the limit is not there, and its value.
    v2: (&'static str, String),
    /// What is set with it where the kernel has it.
    v2_with: &'static [(&'static str, &'static str)],
    /// None: version 1 has no such limit.
    v1: Option<(&'static str, String)>,
    /// Set before, where it is there.
    v1_before: Vec<(&'static str, String)>,
    /// Set after, where it is there.
    v1_after: Vec<(&'static str, String)>,
}

/// Sets the limits that were asked for.
pub(crate) fn limit(place: &Place, limits: &CommandLimits) -> Limited {
    let mut done = Limited::default();
    for wish in wishes(limits) {
        let by_v2 = match place.rung {
            Rung::V1 => Err("this host has no cgroups of version 2".to_owned()),
            Rung::V2 | Rung::V2Freezer => version2(&place.group, &wish),
        };
        let Err(why) = by_v2 else { continue };
        match version1(place, &wish) {
            None => done.missed.push((wish.name, why)),
            Some(Err(why)) => done.missed.push((wish.name, why)),
            Some(Ok(folder)) => {
                if !done.folders.contains(&folder) {
                    done.folders.push(folder);
                }
            }
        }
    }
    done
}

fn wishes(limits: &CommandLimits) -> Vec<Wish> {
    let mut found = Vec::new();
    let memory = limits.memory_max.to_string();
    if limits.memory_max > 0 {
        found.push(Wish {
            name: "memory",
            controller: "memory",
            v2: ("memory.max", memory.clone()),
            v2_with: &[("memory.swap.max", "0"), ("memory.oom.group", "1")],
            v1: Some(("memory.limit_in_bytes", memory.clone())),
            // A limit on both that is lower than the new one on memory would be in its way.
            v1_before: vec![("memory.memsw.limit_in_bytes", "-1".to_owned())],
            v1_after: vec![("memory.memsw.limit_in_bytes", memory)],
        });
    }
    if limits.memory_high > 0 {
        found.push(Wish {
            name: "memory_high",
            controller: "memory",
            v2: ("memory.high", limits.memory_high.to_string()),
            v2_with: &[],
            // `soft_limit_in_bytes` looks alike, but slows nobody down before the whole host is short of memory.
            v1: None,
            v1_before: Vec::new(),
            v1_after: Vec::new(),
        });
    }
    if limits.cpu_percent > 0 {
        let quota = u64::from(limits.cpu_percent) * (PERIOD / 100);
        found.push(Wish {
            name: "cpu",
            controller: "cpu",
            v2: ("cpu.max", format!("{quota} {PERIOD}")),
            v2_with: &[],
            v1: Some(("cpu.cfs_quota_us", quota.to_string())),
            v1_before: vec![("cpu.cfs_period_us", PERIOD.to_string())],
            v1_after: Vec::new(),
        });
    }
    if limits.tasks > 0 {
        found.push(Wish {
            name: "tasks",
            controller: "pids",
            v2: ("pids.max", limits.tasks.to_string()),
            v2_with: &[],
            v1: Some(("pids.max", limits.tasks.to_string())),
            v1_before: Vec::new(),
            v1_after: Vec::new(),
        });
    }
    found
}

fn version2(group: &Path, wish: &Wish) -> Result<(), String> {
    let work = group.join("work");
    let (file, value) = &wish.v2;
    let target = work.join(file);
    if !target.exists() {
        hand_down(group, wish.controller);
    }
    if !target.exists() {
        return Err(format!("the controller `{}` is not available to `{}`", wish.controller, group.display()));
    }
    fs::write(&target, value).map_err(|error| format!("{file}: {error}"))?;
    for (file, value) in wish.v2_with {
        let target = work.join(file);
        if target.exists() {
            fs::write(&target, value).map_err(|error| format!("{file}: {error}"))?;
        }
    }
    Ok(())
}

/// Lets every cgroup on the way down to the command's leaves hand the controller on, from the first that has it.
fn hand_down(group: &Path, controller: &str) {
    let mut way = Vec::new();
    for folder in group.ancestors() {
        let Ok(had) = fs::read_to_string(folder.join("cgroup.controllers")) else { break };
        way.push(folder);
        if had.split_ascii_whitespace().any(|name| name == controller) {
            break;
        }
    }
    for folder in way.into_iter().rev() {
        // One that may not: the limit's file will be missing, which says it.
        drop(fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}")));
    }
}

/// None: version 1 cannot do it here at all.
fn version1(place: &Place, wish: &Wish) -> Option<Result<PathBuf, String>> {
    let (file, value) = wish.v1.as_ref()?;
    let folder = &place.controllers.iter().find(|controller| controller.name == wish.controller)?.folder;
    let set = || -> Result<PathBuf, String> {
        let failed = |file: &str| {
            let place = folder.join(file);
            move |error: io::Error| format!("{}: {error}", place.display())
        };
        if wish.controller == "memory"
            && let Some(parent) = folder.parent()
        {
            make(parent).map_err(failed(""))?;
            // Kernels before 5.11 count what a command puts into a cgroup of its own to nobody else without it.
            drop(fs::write(parent.join("memory.use_hierarchy"), "1"));
        }
        make(folder).map_err(failed(""))?;
        if !folder.join(file).exists() {
            return Err(format!("{} has no {file}", folder.display()));
        }
        for (file, value) in wish.v1_before.iter().filter(|(file, _)| folder.join(file).exists()) {
            fs::write(folder.join(file), value).map_err(failed(file))?;
        }
        fs::write(folder.join(file), value).map_err(failed(file))?;
        for (file, value) in wish.v1_after.iter().filter(|(file, _)| folder.join(file).exists()) {
            fs::write(folder.join(file), value).map_err(failed(file))?;
        }
        Ok(folder.clone())
    };
    Some(set())
}
