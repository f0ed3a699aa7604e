//! Finds the program of the zoo, and builds it anew when its sources are younger.
//!
//! It belongs to this package, so that a test run of another one alone would otherwise use yesterday's animals, or none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};

/// Where its sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/zoo");

/// The program, beside the one binary (`program`) that is under test.
///
/// # Errors
/// When it is not there and cannot be built.
pub fn zoo(program: &Path) -> anyhow::Result<PathBuf> {
    let folder = program.parent().context("the program lies in no folder")?;
    let zoo = folder.join("zoo");
    if built(&zoo).is_some_and(|built| changed().is_ok_and(|changed| changed <= built)) {
        return Ok(zoo);
    }
    let target = folder.parent().context("the program lies in no target folder")?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--bin", "zoo"]);
    cargo.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().context("start cargo")?;
    if !output.status.success() {
        bail!("the zoo cannot be built: {}", String::from_utf8_lossy(&output.stderr));
    }
    ensure!(zoo.exists(), "cargo built the zoo somewhere else than {}", zoo.display());
    Ok(zoo)
}

/// A copy that every user may run: checkouts often lie where only their owner can look.
///
/// # Errors
/// When it cannot be built or copied.
pub fn zoo_for_everybody(program: &Path) -> anyhow::Result<(tempfile::TempDir, PathBuf)> {
    let original = zoo(program)?;
    let folder = tempfile::Builder::new().prefix("paprika-zoo-").tempdir()?;
    let copy = folder.path().join("zoo");
    fs::copy(original, &copy)?;
    for path in [folder.path(), &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok((folder, copy))
}

fn built(zoo: &Path) -> Option<SystemTime> {
    fs::metadata(zoo).ok()?.modified().ok()
}

/// When a source was last changed.
fn changed() -> anyhow::Result<SystemTime> {
    let mut last = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(SOURCES)? {
        last = last.max(entry?.metadata()?.modified()?);
    }
    Ok(last)
}
