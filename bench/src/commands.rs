//! Round trips of one command and commands per second on one agent.

use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::client::Client;
use api::commands::CommandRequest;
use common::id::Name;
use common::model::Phase;
use serde_json::json;

use crate::baseline;
use crate::house::{House, name};
use crate::report::Figure;
use crate::stats::{Sample, millis};

/// How long one command may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that runs words.
pub fn run(words: &[&str]) -> CommandRequest {
    CommandRequest { operation: "command.run".into(), args: json!({ "run": words }), ..CommandRequest::default() }
}

/// Starts a command, waits for its end, and checks that it did what it should.
pub async fn round_trip(client: &Client, agent: &Name, request: &CommandRequest) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let command = client.start(agent, request).await?;
    let ended = client.wait_command(command.id, PATIENCE).await?;
    ensure!(ended.phase == Phase::Succeeded, "command {} ended as {}: {:?}", ended.id, ended.phase, ended.error);
    Ok(start.elapsed())
}

/// Runs `true` with some callers at once, so often each; answers commands per second.
pub async fn rate(house: &House, agent: &Name, callers: usize, each: usize) -> anyhow::Result<f64> {
    let request = run(&["true"]);
    let start = Instant::now();
    let mut running = Vec::new();
    for _ in 0..callers {
        let (client, agent, request) = (house.client()?, agent.clone(), request.clone());
        running.push(async move {
            for _ in 0..each {
                round_trip(&client, &agent, &request).await?;
            }
            anyhow::Ok(())
        });
    }
    join_all(running).await?;
    Ok((callers * each) as f64 / start.elapsed().as_secs_f64())
}

/// Measures round trips one after another, then with more and more callers.
pub async fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let house = House::start(&folder.path().join("house"), 1)?;
    let agent = name("dev-1")?;
    let client = house.client()?;
    let rounds = if quick { 100 } else { 1000 };
    let request = run(&["true"]);
    for _ in 0..20 {
        round_trip(&client, &agent, &request).await?;
    }
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        times.push(round_trip(&client, &agent, &request).await?);
    }
    let trip = Sample::new(times);
    let spawn = baseline::spawn_true(rounds)?;
    let ssh = baseline::kept_ssh(folder.path(), rounds.min(200))?;
    let ssh = ssh.map_or("ssh: no server on this machine".to_owned(), |sample| {
        format!("kept ssh {} / {}", millis(sample.p50()), millis(sample.p99()))
    });
    let mut figures = vec![
        Figure::new(
            format!("round trip of `true` over HTTP, durable, p50 / p99 (n={})", trip.len()),
            format!("{} / {}", millis(trip.p50()), millis(trip.p99())),
            "≤ 5 ms p50",
            trip.p50() <= Duration::from_millis(5),
        )
        .beside(format!("fork+exec {} / {}; {ssh}", millis(spawn.p50()), millis(spawn.p99()))),
    ];
    let mut best: f64 = 0.0;
    for callers in [1_usize, 4, 16, 64] {
        let rate = rate(&house, &agent, callers, if quick { 200 } else { 2000 } / callers).await?;
        let met = rate >= 500.0 && rate >= best * 0.9;
        best = best.max(rate);
        let goal = if callers == 1 { "" } else { "≥ 500/s, never falling" };
        let mut figure = Figure::new(
            format!("commands per second on one agent, {callers} callers"),
            format!("{rate:.0}/s"),
            goal,
            met,
        );
        if callers == 1 {
            figure.met = None;
            figure = figure.beside(format!("fork+exec loop {:.0}/s", 1.0 / spawn.p50().as_secs_f64()));
        }
        figures.push(figure);
    }
    figures.push(cold_run(&house, if quick { 10 } else { 50 })?);
    figures.push(unknown_agent(&client).await?);
    Ok(figures)
}

/// `paprika run dev-1 -- true` as a process of its own.
fn cold_run(house: &House, rounds: usize) -> anyhow::Result<Figure> {
    let env = house.client_env()?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        let status = Process::new(house.binary())
            .args(["run", "dev-1", "--", "true"])
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "paprika run failed: {status}");
        times.push(start.elapsed());
    }
    let sample = Sample::new(times);
    Ok(Figure::new(
        format!("cold `paprika run dev-1 -- true`, p50 / p99 (n={})", sample.len()),
        format!("{} / {}", millis(sample.p50()), millis(sample.p99())),
        "≤ 20 ms",
        sample.p50() <= Duration::from_millis(20),
    ))
}

async fn unknown_agent(client: &Client) -> anyhow::Result<Figure> {
    let (stranger, request) = (name("nobody")?, run(&["true"]));
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        client.start(&stranger, &request).await.err().context("an unknown agent was accepted")?;
        times.push(start.elapsed());
    }
    let sample = Sample::new(times);
    Ok(Figure::new(
        "an unknown agent is refused, p99",
        millis(sample.p99()),
        "< 50 ms",
        sample.p99() < Duration::from_millis(50),
    ))
}

/// Runs all futures at once, each as a task of its own, and fails when one fails.
pub async fn join_all<F>(futures: Vec<F>) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut set = tokio::task::JoinSet::new();
    for future in futures {
        set.spawn(future);
    }
    while let Some(done) = set.join_next().await {
        done??;
    }
    Ok(())
}
