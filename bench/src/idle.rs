//! Memory and processor time of a house that has nothing to do.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::house::House;
use crate::report::Figure;
use crate::stats::{cpu_time, private_memory};

const MIB: f64 = 1024.0 * 1024.0;

/// Watches a manager with ten agents for a minute.
pub async fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let house = House::start(&folder.path().join("house"), 10)?;
    let agents = house.agent_pids()?;
    ensure!(agents.len() == 10, "{} agents run instead of 10", agents.len());
    let agent = *agents.first().context("an agent")?;
    let manager = house.manager_pid();
    let watch = Duration::from_secs(if quick { 10 } else { 60 });
    // What the start left to do is over by then.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let used = |pid| cpu_time(pid).context("the processor time of a process");
    let (manager_before, agent_before) = (used(manager)?, used(agent)?);
    tokio::time::sleep(watch).await;
    let share = |spent: Duration| spent.as_secs_f64() / watch.as_secs_f64() * 100.0;
    let manager_share = share(used(manager)?.saturating_sub(manager_before));
    let agent_share = share(used(agent)?.saturating_sub(agent_before));
    let memory = |pid| anyhow::Ok(private_memory(pid).context("the memory of a process")? as f64 / MIB);
    let (manager_memory, agent_memory) = (memory(manager)?, memory(agent)?);
    let seconds = watch.as_secs();
    Ok(vec![
        Figure::new("idle agent, private memory", format!("{agent_memory:.1} MiB"), "≤ 8 MiB", agent_memory <= 8.0),
        Figure::new(
            "idle manager with 10 agents, private memory",
            format!("{manager_memory:.1} MiB"),
            "≤ 25 MiB",
            manager_memory <= 25.0,
        ),
        Figure::new(
            format!("idle agent, share of a core over {seconds} s"),
            format!("{agent_share:.3} %"),
            "< 0.05 %",
            agent_share < 0.05,
        ),
        Figure::new(
            format!("idle manager with 10 agents, share of a core over {seconds} s"),
            format!("{manager_share:.3} %"),
            "< 0.05 %",
            manager_share < 0.05,
        ),
    ])
}
