//! Thousands of emulated agents: memory of an idle session, fan-out of one command, reconnect after a restart.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::commands::{CommandQuery, JobRequest};
use common::id::Name;

use crate::commands::{join_all, run};
use crate::fleet::{Fleet, Member};
use crate::house::{House, name};
use crate::report::Figure;
use crate::stats::{anonymous_memory, millis};

/// Measures one fleet of 1,000 and one of 10,000.
pub async fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let sizes: &[(usize, u64)] = if quick { &[(200, 1)] } else { &[(1_000, 1), (10_000, 10)] };
    for (size, seconds) in sizes {
        figures.extend(one_fleet(*size, Duration::from_secs(*seconds)).await?);
    }
    Ok(figures)
}

async fn one_fleet(size: usize, goal: Duration) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let house = House::start(&folder.path().join("house"), 1)?;
    let (members, cluster) = enrol(&house, size).await?;
    let names: Vec<Name> = members.iter().map(|member| member.name.clone()).collect();
    let before = anonymous_memory(house.manager_pid()).context("the manager's memory")?;
    let fleet = Fleet::start(members, house.link, &house.ca_pem, &cluster)?;
    let connected = fleet.connected(size, Duration::from_secs(300)).await?;
    // Idle is measured when the storm is over and its buffers had time to go.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = anonymous_memory(house.manager_pid()).context("the manager's memory")?;
    let per_session = after.saturating_sub(before) as f64 / size as f64 / 1024.0;

    let client = house.client()?;
    let start = Instant::now();
    let answered = fleet.counters().answered.load(Ordering::Relaxed);
    let mut jobs = Vec::new();
    for part in names.chunks(1_000) {
        jobs.push(client.start_job(&JobRequest::new(part.to_vec(), run(&["true"]))).await?);
    }
    let submitted = start.elapsed();
    while fleet.counters().answered.load(Ordering::Relaxed) < answered + size as u64 {
        ensure!(start.elapsed() < Duration::from_secs(120), "the fan-out did not reach every agent within 120 s");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let reached = start.elapsed();
    for job in &jobs {
        wait_for_job(&client, job.job.context("several agents make a job")?).await?;
    }
    let took = start.elapsed();

    let house = house.restart()?;
    let restarted = Instant::now();
    fleet.connected(size, Duration::from_secs(300)).await?;
    let back = restarted.elapsed();
    drop(house);
    fleet.stop().await;
    let sessions = format!("{size} agents");
    Ok(vec![
        Figure::plain(format!("{sessions}: first connect of all"), millis(connected)),
        Figure::new(
            format!("{sessions}: memory of the manager per idle session"),
            format!("{per_session:.1} KiB"),
            "≤ 40 KiB",
            per_session <= 40.0,
        ),
        Figure::new(
            format!("{sessions}: one command to all, every result durable"),
            millis(took),
            if goal.as_secs() == 1 { "≤ 1 s" } else { "≤ 10 s" },
            took <= goal,
        )
        .beside(format!("submitted after {}, at every agent after {}", millis(submitted), millis(reached))),
        Figure::new(
            format!("{sessions}: all back after a restart of the manager"),
            millis(back),
            if size >= 10_000 { "≤ 60 s" } else { "" },
            back <= Duration::from_secs(60),
        ),
    ])
}

/// Makes a certificate for every member through the API.
async fn enrol(house: &House, size: usize) -> anyhow::Result<(Vec<Member>, Name)> {
    let client = house.client()?;
    let first = client.agent_certificate(&name("emulated-0")?).await?;
    let cluster = first.cluster.clone();
    let mut members = vec![Member { name: first.name, chain_pem: first.chain_pem, key_pem: first.key_pem }];
    // Room for every member: they are taken out when all are made.
    let (done, mut made) = tokio::sync::mpsc::channel(size);
    let mut running = Vec::new();
    for part in 0..8 {
        let (client, done) = (house.client()?, done.clone());
        running.push(async move {
            for number in (1..size).filter(|number| number % 8 == part) {
                let issued = client.agent_certificate(&name(&format!("emulated-{number}"))?).await?;
                done.send(Member { name: issued.name, chain_pem: issued.chain_pem, key_pem: issued.key_pem }).await?;
            }
            anyhow::Ok(())
        });
    }
    drop(done);
    join_all(running).await?;
    while let Some(member) = made.recv().await {
        members.push(member);
    }
    ensure!(members.len() == size, "{} of {size} certificates were made", members.len());
    Ok((members, cluster))
}

async fn wait_for_job(client: &api::client::Client, job: u64) -> anyhow::Result<()> {
    use common::model::Phase;
    let open: Vec<Phase> = Phase::ALL.into_iter().filter(|phase| !phase.is_final()).collect();
    let start = Instant::now();
    loop {
        let query = CommandQuery { job: Some(job), phases: open.clone(), limit: Some(1), ..CommandQuery::default() };
        if client.commands(&query).await?.items.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < Duration::from_secs(120), "job {job} is not done after 120 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
