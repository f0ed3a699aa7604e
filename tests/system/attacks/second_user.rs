//! A second user of the same host reads no file of ours, uses no socket or pipe, and sends no signal.
//!
//! The folders above are opened on purpose: what protects must be ours, not the luck of a private temp folder.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use testkit::{House, HouseOptions, ground, survivors};

/// Nobody, and nobody's group.
const OTHER: u32 = 65_534;
const AGENT: &str = "web1";
/// Files that say nothing secret: certificates and configuration without secrets.
const OPEN: [&str; 4] = ["cert.pem", "ca.pem", "agent.yml", "manager.yml"];

/// Runs a program as the other user.
fn as_other(program: &str, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(program);
    command.args(args).uid(OTHER).gid(OTHER).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
    command.output().with_context(|| format!("{program} as another user"))
}

/// Everything below a folder, links not followed.
fn everything(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        found.push(entry.path());
        if entry.file_type()?.is_dir() {
            everything(&entry.path(), found)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn another_user_of_the_host_reads_nothing_and_reaches_nothing() -> anyhow::Result<()> {
    if !ground::is_root() {
        ground::not_run(env!("CARGO_TARGET_TMPDIR"), "attacks::second_user", "needs root, to be two users")?;
        return Ok(());
    }
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&[AGENT])).await?;
    fs::set_permissions(house.folder(), fs::Permissions::from_mode(0o755))?;
    let running = house.shell(AGENT, "echo secret-of-root; exec sleep 600").await?.id;
    house.command_when(running, "it runs", |command| command.streams.values().any(|stream| stream.length > 0)).await?;

    let mut all = Vec::new();
    for folder in [house.manager_dir(), house.folder().join(AGENT)] {
        everything(&folder, &mut all)?;
    }
    // The test would show nothing if it looked at nothing.
    for wanted in ["paprika.db", "admin.token", "ca.key", "api.sock", "record", "wake", "notify"] {
        let there = all.iter().any(|path| path.file_name().is_some_and(|name| name == wanted));
        ensure!(there, "{wanted} was expected among {all:#?}");
    }
    for path in &all {
        let shown = path.to_str().context("a path that is text")?;
        let meta = fs::symlink_metadata(path)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if meta.file_type().is_socket() {
            let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(5)\ns.connect(sys.argv[1])";
            let tried = as_other("python3", &["-c", script, shown])?;
            ensure!(!tried.status.success(), "another user may connect to {shown}");
            continue;
        }
        // A pipe that nobody reads would hold the test: the timeout is the answer "could be opened".
        let quick = |what: &str| as_other("timeout", &["5", "sh", "-c", what, "sh", shown]);
        let read = quick("exec 3<\"$1\"")?;
        ensure!(!read.status.success() || OPEN.contains(&name) || meta.is_dir(), "another user may read {shown}");
        if meta.is_dir() {
            let listed = as_other("ls", &[shown])?;
            let agents_own = path.as_path() == house.folder().join(AGENT);
            ensure!(!listed.status.success() || agents_own, "another user may list {shown}");
        }
        let written = quick("exec 3>>\"$1\"")?;
        ensure!(!written.status.success(), "another user may write {shown}");
    }

    let shims = survivors::with_argument(&house.state_dir(AGENT).display().to_string());
    ensure!(!shims.is_empty(), "the shim of the command was not found");
    let mut pids: Vec<u32> = vec![house.manager()?.pid(), house.agent(AGENT)?.pid()];
    pids.extend(shims.iter().filter_map(|shim| u32::try_from(shim.pid).ok()));
    pids.extend(survivors::marked(house.mark()).iter().filter_map(|one| u32::try_from(one.pid).ok()));
    for pid in pids {
        for signal in ["0", "TERM", "STOP", "HUP", "KILL"] {
            let sent = as_other("sh", &["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid.to_string()])?;
            ensure!(!sent.status.success(), "another user may send {signal} to {pid}");
        }
        for file in ["environ", "mem", "maps"] {
            let read = as_other("cat", &[&format!("/proc/{pid}/{file}")])?;
            ensure!(!read.status.success() && read.stdout.is_empty(), "another user may read {file} of {pid}");
        }
    }
    // All of it was without effect.
    let seen = house.client().command(running).await?;
    ensure!(!seen.phase.is_final(), "{seen:?}");
    house.client().cancel(running, &Default::default()).await?;
    house.finished(running).await?;
    house.close().await
}
