//! The agent's state directory is lost while commands run: the manager says what it knows, `interrupted`, and the
//! processes run on without anybody, as docs/execution.md says.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::commands::{CancelOutcome, CancelRequest, Command, CommandRequest};
use common::config::HumanDuration;
use common::id::Uid;
use common::model::{Phase, StreamName};
use testkit::effects::Effects;
use testkit::{House, soon, survivors};

use super::rungs::{AGENT, options};

/// Long enough that the directory is gone before it is over.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Moved,
    Removed,
}

/// A command that leaves a mark all the time until it may end.
struct Marker {
    id: u64,
    uid: Uid,
    marks: PathBuf,
}

impl Marker {
    async fn start(house: &House, name: &str, timeout: Option<Duration>) -> anyhow::Result<Self> {
        let marks = house.folder().join(name);
        let line = format!(
            "trap '' TERM; echo up; while [ ! -e {} ]; do echo x >>{}; sleep 0.03; done",
            house.folder().join("go").display(),
            marks.display()
        );
        let request = CommandRequest {
            timeout: timeout.map(HumanDuration),
            grace: Some(HumanDuration(Duration::from_millis(100))),
            ..house.shell_request(&line)
        };
        let command = house.client().start(&AGENT.parse()?, &request).await?;
        house
            .command_when(command.id, "its output", |command| command.streams.values().any(|one| one.length > 0))
            .await?;
        Ok(Self { id: command.id, uid: command.uid, marks })
    }

    fn written(&self) -> u64 {
        fs::metadata(&self.marks).map_or(0, |file| file.len())
    }

    async fn runs_on(&self, after: &str) -> anyhow::Result<()> {
        let before = self.written();
        let more = soon("more marks", async || Ok((self.written() > before).then_some(()))).await;
        more.with_context(|| format!("after {after}"))
    }

    async fn has_gone(&self) -> anyhow::Result<()> {
        soon("its processes to be gone", async || Ok(survivors::of_command(self.uid, "").is_empty().then_some(())))
            .await
    }

    async fn interrupted(&self, house: &House) -> anyhow::Result<Command> {
        let command = house.finished(self.id).await?;
        ensure!(command.phase == Phase::Interrupted, "{command:?}");
        let error = command.error.as_ref().context("no evidence")?;
        ensure!(error.code == "journal_lost", "{error:?}");
        ensure!(house.output(self.id, StreamName::Stdout).await? == b"up\n", "what was heard of it is kept");
        Ok(command)
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        // Its agent is no more: nobody else removes these. What lives keeps its own.
        for group in survivors::groups(self.uid) {
            let leaves = [group.join("shim"), group.join("work")];
            let place = group.parent().map(PathBuf::from);
            for folder in leaves.into_iter().chain([group]).chain(place) {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

async fn lose(cgroup: &str, loss: Loss) -> anyhow::Result<()> {
    let mut house = House::start(options(cgroup)).await?;
    let effects = Effects::create(house.folder().join("effects"))?;
    let ended = house.shell(AGENT, &format!("{}; exit 3", effects.line("ended"))).await?.id;
    let ended = house.finished(ended).await?;
    let endless = Marker::start(&house, "endless", None).await?;
    let timed = Marker::start(&house, "timed", Some(TIMEOUT)).await?;
    house.stop_agent(AGENT).await?;
    house.away(AGENT).await?;
    let state = house.state_dir(AGENT);
    match loss {
        Loss::Moved => fs::rename(&state, house.folder().join("moved"))?,
        Loss::Removed => fs::remove_dir_all(&state)?,
    }
    let waits = house.shell(AGENT, &effects.line("waits")).await?.id;
    ensure!(
        house.client().command(endless.id).await?.phase == Phase::Running,
        "nothing is known before the agent is heard"
    );
    house.start_agent(AGENT, &[])?;
    house.connected(AGENT).await?;

    // What the manager says, once, and for ever.
    endless.interrupted(&house).await?;
    timed.interrupted(&house).await?;
    ensure!(house.finished(waits).await?.phase == Phase::Succeeded, "what had not been sent is not lost");
    let after = house.client().command(ended.id).await?;
    ensure!((after.phase, after.exit_code) == (Phase::Failed, Some(3)), "what was delivered is not touched: {after:?}");

    // What is true: they run on, and a cancel does not reach them.
    endless.runs_on("the loss").await?;
    let wish = CancelRequest { reason: Some("gone?".to_owned()), grace: Some(HumanDuration(Duration::ZERO)) };
    let answer = house.client().cancel(endless.id, &wish).await?;
    ensure!(answer.answer == CancelOutcome::AlreadyFinal, "{answer:?}");
    endless.runs_on("a cancel").await?;
    house.stop_agent(AGENT).await?;
    house.start_agent(AGENT, &[])?;
    house.connected(AGENT).await?;
    endless.runs_on("a restart of the agent").await?;
    // A timeout still ends them, deaf to TERM or not.
    timed.has_gone().await?;
    endless.runs_on("the end of the other").await?;

    // New work is done as ever, beside them, and their late end changes nothing.
    let fresh = house.shell(AGENT, &effects.line("fresh")).await?.id;
    ensure!(house.finished(fresh).await?.phase == Phase::Succeeded);
    fs::write(house.folder().join("go"), "")?;
    endless.has_gone().await?;
    house.no_survivors().await?;
    endless.interrupted(&house).await?;
    timed.interrupted(&house).await?;
    for tag in ["ended", "waits", "fresh"] {
        ensure!(effects.count(tag)? == 1, "{tag}: {:?}", effects.counts()?);
    }
    house.close().await
}

#[tokio::test]
async fn commands_whose_state_directory_was_moved_are_interrupted_and_run_on() -> anyhow::Result<()> {
    lose("auto", Loss::Moved).await
}

#[tokio::test]
async fn commands_whose_state_directory_was_removed_are_interrupted_and_run_on() -> anyhow::Result<()> {
    lose("none", Loss::Removed).await
}
