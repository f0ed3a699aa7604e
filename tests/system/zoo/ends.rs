//! All animals on one rung: cancelled, timed out, left to themselves, several at a time and several times over.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::Write as _;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use anyhow::ensure;
use common::model::Phase;
use testkit::survivors;
use testkit::{House, keeper, soon};

use super::animals::{LEAVING, STAYING, TRICKY};
use super::round::{Cage, End};
use super::rungs::Rung;

/// Rounds that go on at the same time: two cores, and three rungs beside this one.
const OPEN: usize = 10;
/// How often each animal comes to each of its ends.
const RUNS: usize = 5;
/// Failures that are told.
const TOLD: usize = 10;

#[tokio::test]
async fn v2_kill_nothing_survives_where_cgroups_can_be_killed() -> anyhow::Result<()> {
    all_ends(Rung::V2, "zoo::v2").await
}

#[tokio::test]
async fn v2_freezer_nothing_survives_where_cgroups_can_only_be_frozen() -> anyhow::Result<()> {
    all_ends(Rung::V2Freezer, "zoo::v2-freezer").await
}

#[tokio::test]
async fn v1_nothing_survives_where_there_is_only_the_freezer_of_version_1() -> anyhow::Result<()> {
    all_ends(Rung::V1, "zoo::v1").await
}

#[tokio::test]
async fn none_survives_unnamed_where_there_are_no_cgroups() -> anyhow::Result<()> {
    all_ends(Rung::None, "zoo::none").await
}

fn runs() -> usize {
    std::env::var("PAPRIKA_ZOO_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS)
}

async fn all_ends(rung: Rung, test: &str) -> anyhow::Result<()> {
    let zoo = keeper::zoo(Path::new(env!("CARGO_BIN_EXE_paprika")))?;
    let Some(house) = rung.house(test).await? else { return Ok(()) };
    let started = Instant::now();
    let cage = Cage { house, zoo, rung, stood: Cell::new(0), named: Cell::new(0) };
    // Different animals at the same time, so that they meet each other.
    let once = STAYING.iter().flat_map(|animal| [End::Cancel(*animal), End::Timeout(*animal)]);
    let tricky = STAYING.iter().filter(|animal| TRICKY.contains(&animal.name));
    let once = once.chain(tricky.flat_map(|animal| [End::Paused(*animal), End::Guard(*animal)]));
    let once: Vec<_> = once.chain(LEAVING.iter().map(|leaver| End::Itself(*leaver))).collect();
    let wanted = once.len() * runs();
    let rounds = RefCell::new((0..runs()).flat_map(|_| once.iter().copied()));
    let ids = RefCell::new(Vec::new());
    let failures = RefCell::new(Vec::new());
    let keepers: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = (0..OPEN)
        .map(|_| -> Pin<Box<dyn Future<Output = ()> + '_>> {
            Box::pin(async {
                loop {
                    let Some(end) = rounds.borrow_mut().next() else { return };
                    match cage.round(end).await {
                        Ok(id) => ids.borrow_mut().push(id),
                        Err(error) => failures.borrow_mut().push(format!("{}: {error:#}", end.name())),
                    }
                }
            })
        })
        .collect();
    together(keepers).await;
    let failures = failures.into_inner();
    let ids = ids.into_inner();
    let told = failures.iter().take(TOLD).cloned().collect::<Vec<_>>().join("\n");
    ensure!(failures.is_empty(), "{} of {wanted} rounds failed:\n{told}", failures.len());
    ended_once(&cage.house, &ids).await?;
    // Most have to stand when their end comes, else nothing was proved.
    ensure!(cage.stood.get() * 10 >= wanted * 9, "only {} of {wanted} stood", cage.stood.get());
    let line = format!(
        "zoo on {}: {wanted} rounds, 0 survivors unnamed, {} named, {} stood, {:.1} s\n",
        rung.choice(),
        cage.named.get(),
        cage.stood.get(),
        started.elapsed().as_secs_f64()
    );
    std::io::stderr().write_all(line.as_bytes())?;
    cage.house.no_survivors().await?;
    let folder = cage.house.folder().display().to_string();
    let collected =
        soon("the dead to be collected", async || Ok(survivors::uncollected(&folder).is_empty().then_some(())));
    collected.await?;
    cage.house.close().await?;
    let left = survivors::with_argument(&folder);
    ensure!(left.is_empty(), "shims are left: {left:?}");
    Ok(())
}

/// Each of these commands has exactly one final phase among the events.
async fn ended_once(house: &House, ids: &[u64]) -> anyhow::Result<()> {
    let mut ends: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = house.client().events(after, Some(1000)).await?.items;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for event in page {
            if let Some(id) = event.command.filter(|_| is_end(&event.kind)) {
                ends.entry(id).or_default().push(event.kind);
            }
        }
    }
    let of_each = ids.iter().map(|id| (id, ends.get(id)));
    let wrong: Vec<_> = of_each.filter(|(_, ends)| ends.is_none_or(|ends| ends.len() != 1)).collect();
    ensure!(wrong.is_empty(), "not one final phase: {wrong:?}");
    Ok(())
}

fn is_end(kind: &str) -> bool {
    Phase::ALL.iter().any(|phase| phase.is_final() && kind == format!("command.{phase}"))
}

/// Runs these side by side in this task until all are done.
async fn together(mut all: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
