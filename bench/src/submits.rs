//! Durable submits per second: `POST` until the answer says that the command is on disk.

use std::time::Instant;

use crate::baseline;
use crate::commands::{join_all, run};
use crate::house::{House, name};
use crate::report::Figure;

/// Submits to an agent that exists and is away, so that nothing but the submit is measured.
pub async fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let house = House::start(&folder.path().join("house"), 1)?;
    let away = name("away")?;
    house.client()?.agent_certificate(&away).await?;
    let (callers, each) = if quick { (32, 50) } else { (64, 400) };
    let start = Instant::now();
    let mut running = Vec::new();
    for _ in 0..callers {
        let (client, away, request) = (house.client()?, away.clone(), run(&["true"]));
        running.push(async move {
            for _ in 0..each {
                client.start(&away, &request).await?;
            }
            anyhow::Ok(())
        });
    }
    join_all(running).await?;
    let rate = f64::from(callers * each) / start.elapsed().as_secs_f64();
    let store = store_submits(folder.path(), if quick { 4_000 } else { 40_000 }).await?;
    let raw = baseline::sqlite_commits(folder.path(), if quick { 500 } else { 5000 })?;
    let beside = format!("raw SQLite, one row a commit {raw:.0}/s");
    Ok(vec![
        Figure::new("durable submits per second into the store", format!("{store:.0}/s"), "≥ 5,000/s", store >= 5000.0)
            .beside(beside),
        Figure::plain(
            format!("durable submits per second over HTTPS, {callers} callers on the same cores"),
            format!("{rate:.0}/s"),
        ),
    ])
}

/// The same without HTTP: the service's own call into the store, many at once.
async fn store_submits(folder: &std::path::Path, count: usize) -> anyhow::Result<f64> {
    use store::Store;
    use store::types::{Actor, Request, Submit};
    let place = folder.join("store");
    std::fs::create_dir_all(&place)?;
    let store = Store::open(&place).await?;
    let (agent, actor) = (name("away")?, Actor("bench".into()));
    store.ensure_agent(&agent, &actor, 1).await?;
    let callers = 64;
    let each = count / callers;
    let start = Instant::now();
    let mut running = Vec::new();
    for _ in 0..callers {
        let (store, agent, actor) = (store.clone(), agent.clone(), actor.clone());
        running.push(async move {
            for _ in 0..each {
                let request = Request {
                    operation: "command.run".into(),
                    args: r#"{"run":["true"]}"#.into(),
                    ..Request::default()
                };
                store
                    .submit(Submit {
                        agents: vec![agent.clone()],
                        request,
                        expires_at: u64::MAX / 4,
                        actor: actor.clone(),
                        authority: None,
                        as_job: false,
                        idempotency: None,
                        now: 2,
                    })
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    join_all(running).await?;
    let rate = (callers * each) as f64 / start.elapsed().as_secs_f64();
    store.close().await;
    Ok(rate)
}
