//! Whether this machine can boot a guest, and everything the guest needs: the tree, the programs, the units.
#![expect(clippy::expect_used, reason = "a test ends where its ground is missing")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::guest::{Disk, Guest};

/// Boots a guest with the programs under test in `/opt/paprika`; what it writes is gone with it.
///
/// # Errors
/// Why this machine cannot.
pub fn boot() -> Result<Guest, String> {
    let (tree, share) = prepare()?;
    Guest::boot(&tree, &share)
}

/// A disk from which such a guest can be booted again and again.
///
/// # Errors
/// Why this machine cannot.
pub fn disk() -> Result<Disk, String> {
    let (tree, share) = prepare()?;
    Disk::new(&tree, &share)
}

/// The tree, and the folder of what is to be installed in it.
fn prepare() -> Result<(PathBuf, PathBuf), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    for (program, package) in
        [("debootstrap", "debootstrap"), ("systemd-nspawn", "systemd-container"), ("nsenter", "util-linux")]
    {
        if !in_path(program) {
            return Err(format!("`{program}` is missing (package {package})"));
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Beside the folder that cargo gives to tests, because that one may be swept.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder has a parent");
    let tree = target.join("nspawn/tree");
    let prepared = Command::new(root.join("tests/system/nspawn/prepare-tree.sh")).arg(&tree).output();
    let prepared = prepared.map_err(|error| format!("cannot prepare the tree: {error}"))?;
    if !prepared.status.success() {
        return Err(format!("cannot prepare the tree: {}", String::from_utf8_lossy(&prepared.stderr).trim()));
    }
    let collected = target.join("nspawn/share");
    share(root, &collected);
    Ok((tree, collected))
}

/// Collects what the guest gets to see, read-only.
fn share(root: &Path, share: &Path) {
    let programs = Path::new(env!("CARGO_BIN_EXE_paprika")).parent().expect("a program lies in a folder");
    let build = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--locked", "--quiet", "--workspace", "--bins"])
        .args(programs.ends_with("release").then_some("--release"))
        .current_dir(root)
        .status();
    assert!(build.is_ok_and(|status| status.success()), "the agent's own program builds");
    let copy = |from: &Path, to: &str| {
        let to = share.join(to);
        fs::create_dir_all(to.parent().expect("a file lies in a folder")).expect("the share is writable");
        fs::copy(from, &to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    };
    copy(Path::new(env!("CARGO_BIN_EXE_paprika")), "bin/paprika");
    copy(&programs.join("paprika-agent"), "bin/paprika-agent");
    copy(&root.join("tests/system/nspawn/install.sh"), "install.sh");
    for unit in
        ["paprika-manager.service", "paprika-agent.service", "paprika-commands.service", "paprika.sysusers.conf"]
    {
        copy(&root.join("packaging/systemd").join(unit), &format!("systemd/{unit}"));
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
