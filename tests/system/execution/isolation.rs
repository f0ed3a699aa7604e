//! How well commands are held is said before one runs, by its agent, and by each command; what cannot be held is refused.

use anyhow::{Context, ensure};
use common::model::Phase;
use serde_json::{Value, json};
use testkit::{House, soon, web};

use super::rungs::{AGENT, ALL, house, isolation};

/// Runs `true` over HTTP and answers its end as the API shows it.
async fn run(house: &House, limits: Value) -> anyhow::Result<Value> {
    let body = json!({"operation": "command.run", "args": {"run": ["true"]}, "limits": limits}).to_string();
    let started = web::call(house, "POST", &format!("/agents/{AGENT}/commands"), body.as_bytes()).await?;
    ensure!(started.status == 202, "{started:?}");
    let id = started.json().get("id").and_then(Value::as_u64).context("no id")?;
    house.finished(id).await?;
    Ok(web::call(house, "GET", &format!("/commands/{id}"), b"").await?.json())
}

#[tokio::test]
async fn an_agent_and_its_commands_say_how_well_they_are_held_on_each_rung() -> anyhow::Result<()> {
    for rung in ALL {
        let Some(house) = house(rung, "isolation").await? else { continue };
        let agent = web::call(&house, "GET", &format!("/agents/{AGENT}"), b"").await?.json();
        ensure!(agent.get("isolation") == Some(&json!(isolation(rung))), "{rung}: {agent}");
        let command = run(&house, json!({})).await?;
        ensure!(command.get("phase") == Some(&json!("succeeded")), "{rung}: {command}");
        ensure!(command.get("isolation") == Some(&json!(isolation(rung))), "{rung}: {command}");
        ensure!(command.get("flags") == Some(&json!([])), "{rung}: {command}");
        house.close().await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_cgroups_a_limited_command_is_refused_unless_it_takes_what_there_is() -> anyhow::Result<()> {
    let house = House::start(super::rungs::options("none")).await?;
    let refused = run(&house, json!({"tasks": 10})).await?;
    ensure!(refused.get("phase") == Some(&json!(Phase::Refused.to_string())), "{refused}");
    ensure!(refused.pointer("/error/code") == Some(&json!("limits")), "{refused}");
    ensure!(refused.get("exit_code") == Some(&Value::Null), "it ran: {refused}");
    let ran = run(&house, json!({"tasks": 10, "best_effort": true})).await?;
    ensure!(ran.get("phase") == Some(&json!("succeeded")), "{ran}");
    ensure!(ran.get("flags") == Some(&json!(["limits_not_enforced"])), "{ran}");
    ensure!(ran.get("isolation") == Some(&json!("best_effort")), "{ran}");
    house.close().await
}

#[tokio::test]
async fn an_agent_that_comes_back_on_another_rung_says_so() -> anyhow::Result<()> {
    let Some(mut house) = house("v1", "another_rung").await? else { return Ok(()) };
    let shown = async |house: &House| anyhow::Ok(house.client().agent(&AGENT.parse()?).await?.isolation);
    ensure!(shown(&house).await?.as_deref() == Some("cgroup"));
    house.stop_agent(AGENT).await?;
    let config = house.folder().join(AGENT).join("agent.yml");
    let text = std::fs::read_to_string(&config)?;
    ensure!(text.contains("cgroup: v1"), "{text}");
    std::fs::write(&config, text.replace("cgroup: v1", "cgroup: none"))?;
    house.start_agent(AGENT, &[])?;
    house.connected(AGENT).await?;
    soon("the weaker word", async || Ok((shown(&house).await?.as_deref() == Some("best_effort")).then_some(())))
        .await?;
    house.close().await
}
