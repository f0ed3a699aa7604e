//! What a machine cannot do is said out loud: a `NOT RUN:` line in the output and in a folder that the test command
//! prints in its summary.

use std::io::Write;
use std::path::Path;
use std::{fs, io};

use crate::survivors::{CgroupMount, cgroup_mounts};

/// Says that a test, or a part of it, did not run. `target_tmp` is the test's `CARGO_TARGET_TMPDIR`.
///
/// # Errors
/// When the line cannot be written down.
pub fn not_run(target_tmp: &str, test: &str, reason: &str) -> io::Result<()> {
    let line = format!("NOT RUN: {test}: {}\n", reason.replace('\n', " "));
    io::stderr().lock().write_all(line.as_bytes())?;
    let folder = Path::new(target_tmp).join("not-run");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{test}.txt")), line)
}

/// Tells whether the test runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Why this machine cannot hold commands in that way (`v2`, `v2-freezer`, `v1` or `none`); nothing when it can.
#[must_use]
pub fn lacks(cgroup: &str) -> Option<&'static str> {
    let fits = |mount: &CgroupMount| match cgroup {
        "v1" => mount.controllers.iter().any(|name| name == "freezer"),
        _ => mount.unified,
    };
    if cgroup == "none" {
        None
    } else if !is_root() {
        Some("needs root to make cgroups")
    } else if !cgroup_mounts().iter().any(fits) {
        Some("no such tree of cgroups is mounted here")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_needed_to_hold_commands_without_cgroups() {
        assert_eq!(lacks("none"), None);
        assert_eq!(lacks("v2"), lacks("v2-freezer"), "both are in the same tree");
    }

    #[test]
    fn the_line_stands_where_the_summary_looks_for_it() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let place = folder.path().to_string_lossy().into_owned();
        not_run(&place, "x::y", "no\nroot")?;
        assert_eq!(fs::read_to_string(folder.path().join("not-run/x::y.txt"))?, "NOT RUN: x::y: no root\n");
        Ok(())
    }
}
