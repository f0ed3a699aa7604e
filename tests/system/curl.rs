//! The scripts in examples/curl, as an operator would call them.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use common::model::Phase;
use testkit::ground::is_root;
use testkit::{House, HouseOptions, survivors};

/// Runs a script with the environment that `paprika dev` writes.
async fn script(house: &House, name: &str, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/curl").join(name));
    command
        .args(args)
        .env("PAPRIKA_API", format!("https://{}", house.api()))
        .env("PAPRIKA_TOKEN", house.token()?)
        .env("PAPRIKA_CA", house.manager_dir().join("ca/ca.pem"));
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
    Ok(output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_curl_scripts_start_follow_and_cancel() -> anyhow::Result<()> {
    let house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"])).await?;
    let started = script(&house, "start.sh", &["web1", r#"printf '%s\n' "a \"quoted\" word" one\ two"#]).await?;
    let id = text(&started.stdout);
    let id = id.trim();
    let followed = script(&house, "follow.sh", &[id]).await?;
    ensure!(text(&followed.stdout) == "a \"quoted\" word\none two\n", "{}", text(&followed.stdout));
    let rest = script(&house, "follow.sh", &[id, "2"]).await?;
    ensure!(text(&rest.stdout).starts_with("\"quoted\""), "{}", text(&rest.stdout));

    let line = format!("export {}={}; trap '' TERM; (setsid sleep 1000 &); sleep 1000", survivors::MARK, house.mark());
    let id = text(&script(&house, "start.sh", &["web1", &line]).await?.stdout).trim().to_owned();
    house.command_when(id.parse()?, "it to run", |command| command.phase == Phase::Running).await?;
    let ended = text(&script(&house, "cancel.sh", &[&id, "seen \"enough\""]).await?.stdout);
    let command: api::commands::Command = serde_json::from_str(&ended).with_context(|| ended.clone())?;
    ensure!(command.phase == Phase::Cancelled, "{ended}");
    ensure!(command.cancel.is_some_and(|cancel| cancel.reason.as_deref() == Some("seen \"enough\"")), "{ended}");
    house.no_survivors().await?;
    house.close().await
}

#[tokio::test]
async fn the_curl_scripts_pause_and_run_a_file() -> anyhow::Result<()> {
    let house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"])).await?;
    let file = house.folder().join("hello");
    std::fs::write(&file, "#!/bin/sh\nprintf '%s \"quoted\"\\n' \"$(id -un)\"\n")?;
    let file = file.to_string_lossy().into_owned();
    // Without root nobody can become somebody else.
    let args: &[&str] = if is_root() { &["web1", &file, "nobody"] } else { &["web1", &file] };
    let said = text(&script(&house, "script.sh", args).await?.stdout);
    ensure!(said.ends_with(" \"quoted\"\n") && (!is_root() || said.starts_with("nobody ")), "{said}");

    let id = text(&script(&house, "start.sh", &["web1", "sleep 1000"]).await?.stdout).trim().to_owned();
    let number: u64 = id.parse()?;
    house.command_when(number, "it to run", |command| command.phase == Phase::Running).await?;
    let answer = text(&script(&house, "pause.sh", &[&id]).await?.stdout);
    let command: api::commands::Command = serde_json::from_str(&answer).with_context(|| answer.clone())?;
    ensure!(command.pause.is_some_and(|pause| pause.paused), "{answer}");
    house.command_when(number, "it to stand still", |command| command.phase == Phase::Paused).await?;
    script(&house, "pause.sh", &[&id, "resume"]).await?;
    house.command_when(number, "it to go on", |command| command.phase == Phase::Running).await?;
    script(&house, "cancel.sh", &[&id]).await?;
    house.close().await
}
