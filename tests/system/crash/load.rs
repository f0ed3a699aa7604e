//! The load of a storm: commands that leave a trace and print a known number of bytes, and the rules they must keep.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::client::{Client, ClientError};
use api::commands::{CancelRequest, CommandRequest};
use common::config::HumanDuration;
use common::model::{Phase, StreamName};
use common::shutdown::{Shutdown, Tasks};
use testkit::checker::{Interruptions, Witness, breaches};
use testkit::effects::Effects;
use testkit::{House, wait_for};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// After the last fault everything is final within this time.
pub(super) const CALM: Duration = Duration::from_secs(90);
/// Fewer accepted commands than this are no load.
const LEAST: usize = 100;
/// Commands that are under way at the same time: more than the agents of a storm run at once, so that some wait.
const OPEN: usize = 16;
/// Places of each agent.
pub(super) const PLACES: u32 = 2;
/// Commands that were asked to hold and not yet to go on.
const PAUSED: usize = 2;
/// What is valid for this long may expire while it waits for a place.
const BRIEF: HumanDuration = HumanDuration(Duration::from_millis(300));
/// Between two looks at what is under way.
const LOOK: Duration = Duration::from_millis(20);

/// What was asked for.
pub(super) struct Asked {
    effects: Effects,
    /// Accepted commands by id, with their tags and what they print.
    accepted: BTreeMap<u64, (String, usize)>,
    /// Requests whose answer never came: nobody knows whether they were accepted.
    unsure: BTreeSet<String>,
}

/// A load that goes on until it is stopped.
pub(super) struct Load {
    stop: Shutdown,
    result: oneshot::Receiver<Asked>,
    _tasks: Tasks,
}

impl Load {
    /// Begins to ask these agents for work.
    pub(super) fn start(house: &House, agents: &'static [&'static str]) -> anyhow::Result<Self> {
        let effects = Effects::create(house.folder().join("effects"))?;
        let (stop, tasks) = (Shutdown::new(), Tasks::new());
        let (sender, result) = oneshot::channel();
        let (client, template, heard) = (house.client().clone(), house.shell_request(""), stop.clone());
        tasks.spawn("load", async move {
            let asked = ask(client, template, effects, agents, heard).await;
            // The test may have failed meanwhile.
            let _ = sender.send(asked);
        });
        Ok(Self { stop, result, _tasks: tasks })
    }

    /// Stops asking; what was sent is waited for.
    pub(super) async fn stop(self) -> anyhow::Result<Asked> {
        self.stop.request();
        self.result.await.context("the load died")
    }
}

/// One caller: starts commands, cancels some, pauses some, lets some expire, keeps a number of them under way.
///
/// The client repeats what it got no answer to under the same idempotency key, so what was accepted is known here.
async fn ask(client: Client, template: CommandRequest, effects: Effects, agents: &[&str], stop: Shutdown) -> Asked {
    let mut asked = Asked { effects, accepted: BTreeMap::new(), unsure: BTreeSet::new() };
    let (mut open, mut paused, mut number) = (Vec::new(), Vec::new(), 0_usize);
    while !stop.is_requested() {
        if open.len() < OPEN {
            number += 1;
            let tag = format!("t{number}");
            let bytes = 1 + number * 977 % 90_000;
            let pause = if number.is_multiple_of(2) { "sleep 0.3; " } else { "" };
            let line = format!("{}; head -c {bytes} /dev/zero; {pause}:", asked.effects.line(&tag));
            let request = CommandRequest {
                args: serde_json::json!({ "shell": line }),
                // Some wait longer for their place than they are valid.
                expires_in: number.is_multiple_of(7).then_some(BRIEF),
                ..template.clone()
            };
            let Some(agent) = agents.get(number % agents.len()).and_then(|name| name.parse().ok()) else { break };
            match client.start(&agent, &request).await {
                Ok(command) => {
                    if number.is_multiple_of(3) {
                        // Whatever becomes of the wish, the rules hold.
                        let _ = client.cancel(command.id, &CancelRequest::default()).await;
                    }
                    asked.accepted.insert(command.id, (tag, bytes));
                    open.push(command.id);
                }
                // Nobody was there at this moment, or the client gave up: whether it arrived is not known.
                Err(_) => {
                    asked.unsure.insert(tag);
                    sleep(LOOK * 5).await;
                }
            }
            if number.is_multiple_of(4) && paused.len() < PAUSED {
                // The newest has a chance to be there and not to have ended. A wish that was refused holds nothing.
                if let Some(id) = open.last().copied() {
                    let _ = client.pause(id).await;
                    paused.push(id);
                }
            }
        }
        let mut held = Vec::new();
        for id in std::mem::take(&mut paused) {
            if !goes_on(&client, id).await {
                held.push(id);
            }
        }
        paused = held;
        let mut left = Vec::new();
        for id in std::mem::take(&mut open) {
            if !client.command(id).await.is_ok_and(|command| command.phase.is_final()) {
                left.push(id);
            }
        }
        open = left;
        if open.len() >= OPEN {
            sleep(LOOK).await;
        }
    }
    let until = Instant::now() + CALM;
    while let Some(id) = paused.pop() {
        // What cannot be freed in this time is not final either, and the rules name it.
        if !goes_on(&client, id).await && Instant::now() < until {
            paused.push(id);
            sleep(LOOK).await;
        }
    }
    asked
}

/// Lets a command go on; `false` when nobody took the wish.
async fn goes_on(client: &Client, id: u64) -> bool {
    match client.resume(id).await {
        Ok(_) => true,
        // It ended, or it never began to be paused.
        Err(ClientError::Problem(problem)) => problem.status == 409,
        Err(_) => false,
    }
}

impl Asked {
    /// Waits for calm and applies the rules of promise 1; answers how many ended in which phase.
    pub(super) async fn judge(&self, house: &House, interruptions: Interruptions) -> anyhow::Result<String> {
        let (mut commands, mut phases) = (Vec::new(), BTreeMap::<String, usize>::new());
        let until = Instant::now() + CALM;
        for id in self.accepted.keys() {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            // What is not final by now is a breach that the rules name.
            let command = house.client().wait_command(*id, left).await?;
            *phases.entry(command.phase.to_string()).or_default() += 1;
            commands.push(command);
        }
        let (mut found, effects) = (Vec::new(), self.effects.counts()?);
        // One by one: the output of all of them together would not fit the memory after a long storm.
        for (command, (tag, bytes)) in commands.into_iter().zip(self.accepted.values()) {
            let own: BTreeMap<_, _> = effects.get(tag).map(|count| (tag.clone(), *count)).into_iter().collect();
            let stdout = house.output(command.id, StreamName::Stdout).await?;
            let witness = Witness { tag: tag.clone(), command, stdout, expected: vec![0; *bytes] };
            found.extend(breaches(&[witness], &own, interruptions));
        }
        found.extend(self.twice_or_never_asked_for(&effects));
        found.extend(self.ended_not_once(house).await?);
        let summary = format!("{phases:?}, {} unsure", self.unsure.len());
        ensure!(found.is_empty(), "{} breaches among {summary}:\n{}", found.len(), found.join("\n"));
        ensure!(self.accepted.len() >= LEAST, "hardly anything was accepted: {summary}");
        let succeeded = phases.get("succeeded").copied().unwrap_or(0);
        ensure!(succeeded * 3 > self.accepted.len(), "hardly anything succeeded: {summary}");
        Ok(summary)
    }

    /// What nobody knows to be accepted may have run, but not twice; and nothing else may have run at all.
    fn twice_or_never_asked_for(&self, effects: &BTreeMap<String, usize>) -> Vec<String> {
        let known: BTreeSet<_> = self.accepted.values().map(|(tag, _)| tag).collect();
        let odd = |(tag, count): &(&String, &usize)| {
            let is_unsure = self.unsure.contains(tag.as_str());
            if is_unsure { **count > 1 } else { !known.contains(tag) }
        };
        effects.iter().filter(odd).map(|(tag, count)| format!("{tag}: {count} effects")).collect()
    }

    /// The record of events: each command that was accepted came to one end and was told of once.
    async fn ended_not_once(&self, house: &House) -> anyhow::Result<Vec<String>> {
        let (mut ends, mut after) = (BTreeMap::<u64, usize>::new(), 0);
        loop {
            let page = house.client().events(after, Some(1000)).await?;
            let Some(last) = page.items.last() else { break };
            after = last.seq;
            for event in page.items {
                let is_end = event.kind.strip_prefix("command.").and_then(|phase| phase.parse::<Phase>().ok());
                if let (Some(id), Some(true)) = (event.command, is_end.map(Phase::is_final)) {
                    *ends.entry(id).or_default() += 1;
                }
            }
        }
        let count = |id: &u64| ends.get(id).copied().unwrap_or(0);
        let wrong = self.accepted.keys().filter(|id| count(id) != 1);
        Ok(wrong.map(|id| format!("command {id}: {} events say that it ended", count(id))).collect())
    }

    /// The records on the hosts: everything was handed over, so nothing is held any more.
    pub(super) async fn is_handed_over(house: &House, agents: &[&str]) -> anyhow::Result<()> {
        for agent in agents {
            let folder = house.state_dir(agent).join("commands");
            let mut left = Vec::new();
            let empty = wait_for(CALM, "the records to be handed over", async || {
                left = fs::read_dir(&folder)?.flatten().map(|entry| entry.file_name()).collect();
                Ok(left.is_empty().then_some(()))
            });
            empty.await.with_context(|| format!("{agent} still holds {left:?}"))?;
        }
        Ok(())
    }
}
