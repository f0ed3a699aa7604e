//! What a machine cannot do is said out loud: a `NOT RUN:` line in the output and in a folder that the test command
//! prints in its summary.

use std::io::Write;
use std::path::Path;
use std::{fs, io};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_stands_where_the_summary_looks_for_it() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let place = folder.path().to_string_lossy().into_owned();
        not_run(&place, "x::y", "no\nroot")?;
        assert_eq!(fs::read_to_string(folder.path().join("not-run/x::y.txt"))?, "NOT RUN: x::y: no root\n");
        Ok(())
    }
}
