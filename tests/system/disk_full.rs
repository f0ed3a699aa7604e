//! A full disk on either side: a clear refusal, nothing corrupted, and recovery without a restart.
//!
//! Needs root for small tmpfs mounts; without it the tests say that they did not run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use common::model::{Phase, StreamName};
use testkit::effects::Effects;
use testkit::ground;
use testkit::{House, HouseOptions, soon, wait_for, web};

/// A file system of a few megabytes that is unmounted at the end.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(megabytes: u32) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).status()?;
        ensure!(mounted.success(), "mount ended with {mounted}");
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves not a single block free.
    fn fill(&self) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path("ballast"))?;
        for size in [1 << 20, 4096, 1] {
            let block = vec![0; size];
            loop {
                match file.write(&block) {
                    Ok(1..) => {}
                    Ok(0) => break,
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn free(&self) -> io::Result<()> {
        fs::remove_file(self.path("ballast"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached: somebody may still be leaving it.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// A disk to fill, or a line that says why there is none.
fn disk(test: &str, megabytes: u32) -> anyhow::Result<Option<SmallDisk>> {
    let reason = if ground::is_root() {
        match SmallDisk::mount(megabytes) {
            Ok(disk) => return Ok(Some(disk)),
            Err(error) => format!("{error:#}"),
        }
    } else {
        "needs root to mount a small file system".to_owned()
    };
    ground::not_run(env!("CARGO_TARGET_TMPDIR"), test, &reason)?;
    Ok(None)
}

#[tokio::test]
async fn a_manager_without_space_refuses_new_work_keeps_reading_and_recovers_by_itself() -> anyhow::Result<()> {
    let Some(disk) = disk("disk_full::manager", 24)? else { return Ok(()) };
    let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"]);
    options.manager_dir = Some(disk.path("manager"));
    let mut house = House::start(options).await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    let before = house.shell("web1", &format!("echo kept; {}", effects.line("before"))).await?.id;
    house.finished(before).await?;

    disk.fill()?;
    let body = br#"{"operation": "command.run", "args": {"run": ["true"]}}"#;
    // The journal of the database may have room for a few more.
    let refused = wait_for(Duration::from_secs(30), "a refusal", async || {
        let answer = web::call(&house, "POST", "/agents/web1/commands", body).await?;
        Ok((answer.status != 202).then_some(answer))
    });
    let refused = refused.await?;
    ensure!(refused.status == 507 || refused.status == 503, "{refused:?}");
    ensure!(refused.code() == "store_full" && refused.json().get("retryable") == Some(&true.into()), "{refused:?}");
    // Reading goes on.
    ensure!(house.client().command(before).await?.phase == Phase::Succeeded);
    ensure!(house.output(before, StreamName::Stdout).await? == b"kept\n");
    ensure!(web::call(&house, "GET", "/healthz", b"").await?.status == 200);

    disk.free()?;
    let after =
        soon("new work to be taken", async || Ok(Some(house.shell("web1", &effects.line("after")).await?.id))).await?;
    ensure!(house.finished(after).await?.phase == Phase::Succeeded);
    // Whatever was accepted meanwhile has come to its end.
    soon("everything to be final", async || {
        let page = house.client().commands(&Default::default()).await?;
        Ok(page.items.iter().all(|command| command.phase == Phase::Succeeded).then_some(()))
    })
    .await?;
    ensure!(effects.count("before")? == 1 && effects.count("after")? == 1, "{:?}", effects.counts()?);
    ensure!(house.manager()?.status()?.is_none(), "the manager did not live through it");
    // The store opens again, and is whole.
    house.stop_manager().await?;
    house.start_manager(&[]).await?;
    ensure!(house.output(before, StreamName::Stdout).await? == b"kept\n");
    house.close().await
}

#[tokio::test]
async fn output_that_the_manager_has_no_space_for_waits_at_the_agent() -> anyhow::Result<()> {
    let Some(disk) = disk("disk_full::manager_output", 32)? else { return Ok(()) };
    let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"]);
    options.manager_dir = Some(disk.path("manager"));
    let house = House::start(options).await?;
    let go = house.folder().join("go");
    let line = format!("echo begin; while [ ! -e '{}' ]; do sleep 0.02; done; head -c 4000000 /dev/zero", go.display());
    let id = house.shell("web1", &line).await?.id;
    house.command_when(id, "its first line", |command| command.streams.values().any(|one| one.length > 0)).await?;
    disk.fill()?;
    fs::write(&go, "")?;
    // The process ends on its host, whatever the manager can keep.
    soon("its end at the host", async || Ok(testkit::survivors::marked(house.mark()).is_empty().then_some(()))).await?;
    ensure!(web::call(&house, "GET", "/healthz", b"").await?.status == 200);
    disk.free()?;
    let command = house.finished_within(id, Duration::from_secs(90)).await?;
    ensure!(command.phase == Phase::Succeeded, "{command:?}");
    let output = house.output(id, StreamName::Stdout).await?;
    ensure!(output.len() == 4_000_006 && output.starts_with(b"begin\n\0"), "{} bytes", output.len());
    house.close().await
}

#[tokio::test]
async fn an_agent_without_space_takes_nothing_it_cannot_keep_and_recovers_by_itself() -> anyhow::Result<()> {
    let Some(disk) = disk("disk_full::agent", 12)? else { return Ok(()) };
    let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"]);
    options.state_dirs.insert("web1".to_owned(), disk.path("state"));
    let mut house = House::start(options).await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    let before = house.shell("web1", &effects.line("before")).await?.id;
    house.finished(before).await?;
    disk.fill()?;
    let during = house.shell("web1", &effects.line("during")).await?.id;
    // R-CMD-10: it is deferred, or refused with a code that says why; it has not run without a record.
    let seen = house.command_when(during, "an answer of the agent", |command| {
        command.phase.is_final() || command.waiting.is_some()
    });
    let seen = seen.await?;
    if seen.phase.is_final() {
        ensure!(seen.phase == Phase::Refused, "{seen:?}");
        ensure!(seen.error.as_ref().is_some_and(|error| error.code == "no_space"), "{seen:?}");
    }
    ensure!(effects.count("during")? == 0, "it ran without a record");
    disk.free()?;
    let after = house.shell("web1", &effects.line("after")).await?.id;
    ensure!(house.finished_within(after, Duration::from_secs(90)).await?.phase == Phase::Succeeded);
    let during = house.finished_within(during, Duration::from_secs(90)).await?;
    let ran = usize::from(during.phase == Phase::Succeeded);
    ensure!(effects.count("during")? == ran && (ran == 1 || during.phase == Phase::Refused), "{during:?}");
    ensure!(effects.count("before")? == 1 && effects.count("after")? == 1);
    ensure!(house.agent("web1")?.status()?.is_none(), "the agent did not live through it");
    house.close().await
}

#[tokio::test]
async fn a_command_that_fills_the_agents_disk_ends_with_its_result_and_an_exact_gap() -> anyhow::Result<()> {
    let Some(disk) = disk("disk_full::agent_output", 8)? else { return Ok(()) };
    let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"]);
    options.state_dirs.insert("web1".to_owned(), disk.path("state"));
    let mut house = House::start(options).await?;
    let written: u64 = 20_000_000;
    let id = house.shell("web1", &format!("head -c {written} /dev/zero; exit 7")).await?.id;
    let command = house.finished_within(id, Duration::from_secs(90)).await?;
    ensure!(command.phase == Phase::Failed && command.exit_code == Some(7), "{command:?}");
    let stream = command.streams.get(&StreamName::Stdout).context("no stdout")?;
    let lost: u64 = stream.gaps.iter().map(|gap| gap.length).sum();
    ensure!(stream.length == written && lost > 0, "{stream:?}");
    // Recovery: the bytes are on the manager now, and the agent works on.
    let next = soon("work to go on", async || {
        let id = house.shell("web1", "echo well").await?.id;
        let command = house.finished(id).await?;
        if command.phase == Phase::Succeeded { Ok(Some(id)) } else { bail!("{command:?}") }
    });
    ensure!(house.output(next.await?, StreamName::Stdout).await? == b"well\n");
    ensure!(house.agent("web1")?.status()?.is_none());
    house.close().await
}

#[test]
fn a_small_disk_is_really_full() -> anyhow::Result<()> {
    let Some(disk) = disk("disk_full::ground", 1)? else { return Ok(()) };
    disk.fill()?;
    let file: &Path = &disk.path("more");
    let written = File::create(file).and_then(|mut file| file.write_all(b"x"));
    ensure!(written.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull));
    disk.free()?;
    fs::write(file, "x")?;
    Ok(())
}
