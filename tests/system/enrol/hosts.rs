//! Hosts that join a house: `paprika agent join` with the words that a test wants.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use api::joins::JoinTokenRequest;
use testkit::House;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a join said and how it ended.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) code: Option<i32>,
    pub(super) said: String,
}

/// A line that lets hosts in, made by the first operator.
pub(super) async fn token(house: &House, wish: JoinTokenRequest) -> anyhow::Result<String> {
    Ok(house.client().create_join_token(&wish).await?.text)
}

/// Where a host that joined under this name keeps its files, in the way a house finds them.
pub(super) fn config(house: &House, name: &str) -> PathBuf {
    house.folder().join(name).join("agent.yml")
}

/// A join as a host would do it, with more words if a test wants them.
pub(super) fn host(house: &House, name: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paprika"));
    command.args(["agent", "join", "--no-start", "--name", name, "--config"]).arg(config(house, name));
    command.arg("--state-dir").arg(house.state_dir(name)).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub(super) async fn run(mut command: Command) -> anyhow::Result<Joined> {
    let output = command.output().await.context("paprika agent join")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.stdout.is_empty(), "nothing of it is data: {}", String::from_utf8_lossy(&output.stdout));
    Ok(Joined { code: output.status.code(), said })
}

/// Joins with the token as an argument.
pub(super) async fn join(house: &House, name: &str, token: &str) -> anyhow::Result<Joined> {
    run(host(house, name, &[token])).await
}

/// Joins with this on standard input.
pub(super) async fn join_piped(house: &House, name: &str, token: &str, more: &[&str]) -> anyhow::Result<Joined> {
    let mut command = host(house, name, more);
    command.stdin(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(token.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    Ok(Joined { code: output.status.code(), said: String::from_utf8_lossy(&output.stderr).into_owned() })
}
