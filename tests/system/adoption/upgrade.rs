//! The agent dies, is replaced, and goes back to what it was, while a hundred commands write.

use testkit::{House, HouseOptions};

use super::crowd::Crowd;
use super::programs::{Programs, Version};

const AGENT: &str = "web1";
/// As many as promise 1 is about.
const CROWD: usize = 100;

/// A house whose agent was made and not started yet.
async fn house() -> anyhow::Result<House> {
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    house.make_agent(AGENT).await?;
    Ok(house)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_commands_of_an_older_agent_are_adopted_whole_by_the_newer_one() -> anyhow::Result<()> {
    let mut house = house().await?;
    let programs = Programs::find(&house, "upgrade")?;
    programs.start(&mut house, AGENT, Version::Old)?;
    house.connected(AGENT).await?;
    let mut crowd = Crowd::new(&house, "crowd")?;
    crowd.start(&house, AGENT, CROWD).await?;
    crowd.flow(&house, "the start").await?;

    programs.install(Version::New)?;
    crowd.flow(&house, "replacement of the program under the older agent").await?;
    house.kill_agent(AGENT)?;
    crowd.write_on("nobody listens").await?;
    programs.start(&mut house, AGENT, Version::New)?;
    crowd.flow(&house, "kill -9 and start of the newer agent").await?;
    crowd.is_there_once(&house)?;

    house.kill_agent(AGENT)?;
    programs.start(&mut house, AGENT, Version::New)?;
    crowd.flow(&house, "kill -9 of the newer agent").await?;
    house.stop_agent(AGENT).await?;
    crowd.write_on("the newer agent was stopped").await?;
    programs.start(&mut house, AGENT, Version::New)?;
    crowd.flow(&house, "a restart of the newer agent").await?;
    crowd.is_there_once(&house)?;
    crowd.end(&house).await?;
    house.no_survivors().await?;
    house.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_both_agents_end_right_when_an_upgrade_is_rolled_back() -> anyhow::Result<()> {
    let mut house = house().await?;
    let programs = Programs::find(&house, "rollback")?;
    let mut crowd = Crowd::new(&house, "crowd")?;
    // Half of them under each, and each half lives under the other.
    for (version, count) in [(Version::Old, CROWD / 4), (Version::New, CROWD / 2), (Version::Old, CROWD / 4)] {
        programs.start(&mut house, AGENT, version)?;
        house.connected(AGENT).await?;
        crowd.start(&house, AGENT, count).await?;
        crowd.flow(&house, &format!("start of the {version:?} one")).await?;
        house.kill_agent(AGENT)?;
    }
    // What ends while no agent is there is told by whoever comes first: here the older one.
    let mut ended = Crowd::new(&house, "ended")?;
    programs.start(&mut house, AGENT, Version::New)?;
    house.connected(AGENT).await?;
    ended.start(&house, AGENT, CROWD / 10).await?;
    ended.flow(&house, "their start").await?;
    house.kill_agent(AGENT)?;
    ended.leave(&house).await?;
    programs.start(&mut house, AGENT, Version::Old)?;
    ended.end(&house).await?;
    crowd.flow(&house, "the roll back").await?;
    crowd.is_there_once(&house)?;
    crowd.end(&house).await?;
    house.no_survivors().await?;

    // And the newer one finds nothing amiss in what the older one left.
    house.kill_agent(AGENT)?;
    programs.start(&mut house, AGENT, Version::New)?;
    let mut last = Crowd::new(&house, "last")?;
    last.start(&house, AGENT, 2).await?;
    last.flow(&house, "the second upgrade").await?;
    last.end(&house).await?;
    house.close().await
}
