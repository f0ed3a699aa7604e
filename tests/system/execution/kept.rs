//! What a command was allowed to leave behind: its end does not wait for it, nothing that happens to the ended command or
//! to the agent touches it, and when it has gone nothing is left of its cgroup.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::commands::{CancelOutcome, CancelRequest, CommandRequest};
use common::config::HumanDuration;
use common::model::Phase;
use testkit::{House, soon, survivors};

use super::rungs::{AGENT, ALL, house};

async fn restart(house: &mut House) -> anyhow::Result<()> {
    house.stop_agent(AGENT).await?;
    house.away(AGENT).await?;
    house.start_agent(AGENT, &[])?;
    house.connected(AGENT).await
}

#[tokio::test]
async fn what_was_kept_outlives_the_end_a_cancel_and_restarts_of_the_agent_on_each_rung() -> anyhow::Result<()> {
    for rung in ALL {
        let Some(mut house) = house(rung, "kept").await? else { continue };
        let (go, marks) = (house.folder().join("go"), house.folder().join("marks"));
        // It writes into a file: a stream that it held would be waited for.
        let line = format!(
            "(setsid sh -c 'while [ ! -e {} ]; do echo x >>{}; sleep 0.02; done' >/dev/null 2>&1 &); echo done; exit 4",
            go.display(),
            marks.display()
        );
        let request = CommandRequest { keep_strays: true, ..house.shell_request(&line) };
        let id = house.client().start(&AGENT.parse()?, &request).await?.id;
        let ended = house.finished(id).await?;
        ensure!(ended.phase == Phase::Failed && ended.exit_code == Some(4), "{rung}: {ended:?}");
        ensure!(ended.flags == ["strays_kept"], "{rung}: {:?}", ended.flags);

        let written = || fs::metadata(&marks).map_or(0, |file| file.len());
        let lives_on = async |after: &str| {
            let before = written();
            let more = soon("it to write on", async || Ok((written() > before).then_some(()))).await;
            more.with_context(|| format!("{rung}: after {after}"))
        };
        lives_on("the end").await?;
        let left = survivors::marked(house.mark());
        ensure!(!left.is_empty(), "{rung}: it carries no mark");
        ensure!(survivors::groups(ended.uid).is_empty() == (rung == "none"), "{rung}: it lives in no cgroup");

        let wish = CancelRequest { reason: Some("late".to_owned()), grace: Some(HumanDuration(Duration::ZERO)) };
        let answer = house.client().cancel(id, &wish).await?;
        ensure!(answer.answer == CancelOutcome::AlreadyFinal, "{rung}: {answer:?}");
        lives_on("a cancel of the ended command").await?;
        restart(&mut house).await?;
        lives_on("a restart of the agent").await?;
        house.kill_agent(AGENT)?;
        house.start_agent(AGENT, &[])?;
        house.connected(AGENT).await?;
        lives_on("kill -9 of the agent").await?;
        ensure!(house.client().command(id).await?.phase == Phase::Failed);

        fs::write(&go, "")?;
        house.no_survivors().await?;
        restart(&mut house).await?;
        let gone = soon("its cgroup to be gone", async || Ok(survivors::groups(ended.uid).is_empty().then_some(())));
        gone.await.with_context(|| format!("{rung}: {:?}", survivors::groups(ended.uid)))?;
        house.close().await?;
    }
    Ok(())
}
