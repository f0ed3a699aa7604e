//! One animal, one end, one look at what is left.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use api::commands::{CancelRequest, Command, CommandRequest, LimitsRequest};
use common::config::HumanDuration;
use common::id::Uid;
use common::model::Phase;
use serde_json::json;
use testkit::survivors::{self, MARK};
use testkit::{House, soon};

use super::animals::{Animal, Last, Leaver};
use super::rungs::Rung;

/// From the first signal to the kill.
const GRACE: HumanDuration = HumanDuration(Duration::from_millis(200));
/// How long an animal that is to be timed out may run; nearly all stand by then.
const TIMEOUT: HumanDuration = HumanDuration(Duration::from_millis(1500));
/// Output that is kept: some animals write for ever.
const OUTPUT: &str = "1M";

/// The one that needs places to go to.
const ESCAPE: &str = "escape";

/// How an animal comes to its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Cancel(Animal),
    /// Cancelled while it is paused.
    Paused(Animal),
    /// Cancelled while it is asked whether the command is to run at all.
    Guard(Animal),
    Timeout(Animal),
    Itself(Leaver),
}

impl End {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Cancel(animal) => format!("{} cancelled", animal.name),
            Self::Paused(animal) => format!("{} cancelled while paused", animal.name),
            Self::Guard(animal) => format!("{} cancelled as a guard", animal.name),
            Self::Timeout(animal) => format!("{} timed out", animal.name),
            Self::Itself(leaver) => format!("{} left to itself", leaver.name),
        }
    }

    /// Its name in the zoo.
    fn animal(&self) -> &'static str {
        match self {
            Self::Cancel(animal) | Self::Paused(animal) | Self::Guard(animal) | Self::Timeout(animal) => animal.name,
            Self::Itself(leaver) => leaver.name,
        }
    }

    /// Who has to stand before it is cancelled.
    fn cancelled(&self) -> Option<Animal> {
        match self {
            Self::Cancel(animal) | Self::Paused(animal) | Self::Guard(animal) => Some(*animal),
            Self::Timeout(_) | Self::Itself(_) => None,
        }
    }
}

/// The cage of all rounds on one rung.
pub(super) struct Cage {
    pub(super) house: House,
    pub(super) zoo: PathBuf,
    pub(super) rung: Rung,
    /// How many animals stood complete when their end came.
    pub(super) stood: Cell<usize>,
    /// How many survivors were named, which only the last rung may.
    pub(super) named: Cell<usize>,
}

/// Places outside of every command, for those who go there; removed at the end.
struct Outside(Vec<PathBuf>);

impl Outside {
    fn make(tag: &str) -> Self {
        let trees = [Rung::V2, Rung::V1].into_iter().filter_map(Rung::tree);
        let places = trees.map(|tree| tree.join(format!("paprika-zoo-{tag}")));
        Self(places.filter(|place| fs::create_dir(place).is_ok()).collect())
    }

    /// Removes them, which the kernel refuses while anybody is in one.
    fn gone(&self) -> bool {
        self.0.iter().filter(|place| place.exists()).all(|place| fs::remove_dir(place).is_ok())
    }

    fn argument(&self) -> String {
        self.0.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(":")
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // After a failed round: one in which something still dies stays, and does no harm.
        self.gone();
    }
}

impl Cage {
    /// Lets one animal out and brings it to its end; answers the command's id.
    pub(super) async fn round(&self, end: End) -> anyhow::Result<u64> {
        let tag = Uid::random().to_string();
        let outside = if end.animal() == ESCAPE { Outside::make(&tag) } else { Outside(Vec::new()) };
        let result = self.watched(end, &tag, &outside).await;
        if result.is_err() {
            // Nothing that a failed round left behind may disturb the next.
            survivors::end(&survivors::with_argument(&tag));
        }
        result
    }

    async fn watched(&self, end: End, tag: &str, outside: &Outside) -> anyhow::Result<u64> {
        let ready = self.house.folder().join(tag);
        let name = end.animal();
        let argument = match end {
            End::Itself(leaver) => leaver.argument.to_owned(),
            _ => outside.argument(),
        };
        let words = json!([self.zoo, name, tag, ready, argument]);
        let request = CommandRequest {
            operation: "command.run".to_owned(),
            args: match end {
                End::Guard(_) => json!({ "run": ["true"], "only_if": words }),
                _ => json!({ "run": words }),
            },
            env: BTreeMap::from([(MARK.to_owned(), self.house.mark().into())]),
            limits: Some(LimitsRequest { output: Some(OUTPUT.to_owned()), ..LimitsRequest::default() }),
            timeout: matches!(end, End::Timeout(_)).then_some(TIMEOUT),
            grace: matches!(end, End::Timeout(_)).then_some(GRACE),
            ..CommandRequest::default()
        };
        let client = self.house.client();
        let Command { id, uid, .. } = client.start(&"web1".parse()?, &request).await?;
        if let Some(animal) = end.cancelled() {
            let what = format!("{name} to stand");
            let stands = soon(&what, async || {
                if ready.exists() {
                    return Ok(Some(Ok(())));
                }
                let command = client.command(id).await?;
                Ok(command.phase.is_final().then(|| Err(anyhow!("it ended before: {command:?}"))))
            });
            stands.await??;
            // The search sees what stands: else it would prove nothing that it sees nothing afterwards. In the middle of
            // an exec a process shows neither its environment nor its arguments.
            let what = format!("the search to see {} processes of {name}", animal.processes);
            soon(&what, async || Ok((survivors::of_command(uid, tag).len() >= animal.processes).then_some(()))).await?;
            let fenced = survivors::groups(uid);
            let in_its_tree = match self.rung.tree() {
                Some(tree) => fenced.iter().any(|group| group.starts_with(&tree)),
                None => fenced.is_empty(),
            };
            ensure!(in_its_tree, "the cgroups of a living command: {fenced:?}");
            if let End::Paused(_) = end {
                client.pause(id).await?;
                self.house.command_when(id, "the pause", |command| command.phase == Phase::Paused).await?;
            }
            client.cancel(id, &CancelRequest { reason: Some(tag.to_owned()), grace: Some(GRACE) }).await?;
        }
        let command = self.house.finished(id).await?;
        // At this very moment: an end that is told before it is true would be found here.
        let left = survivors::of_command(command.uid, tag);
        let told = format!("{} {:?}", command.flags.join(" "), command.error);
        let named = |pid: i32| told.split(|sign: char| !sign.is_ascii_digit()).any(|word| word == pid.to_string());
        let may_be_named = self.rung == Rung::None && left.iter().all(|one| named(one.pid));
        ensure!(left.is_empty() || may_be_named, "survivors: {left:?}; it said {told}");
        self.named.set(self.named.get() + left.len());
        self.stood.set(self.stood.get() + usize::from(ready.exists() || matches!(end, End::Itself(_))));
        check(&command, end, tag).with_context(|| serde_json::to_string(&command).unwrap_or_default())?;
        ensure!(command.isolation.as_deref() == Some(self.rung.isolation()), "isolation {:?}", command.isolation);
        let escaped = command.flags.iter().any(|flag| flag == "escaped");
        let away = name == ESCAPE && ready.exists() && self.rung != Rung::None;
        ensure!(escaped == away, "escaped: {away}, and the flags say {:?}", command.flags);
        let gone = soon("its cgroups to be gone", async || Ok(survivors::groups(command.uid).is_empty().then_some(())));
        gone.await.with_context(|| format!("still there: {:?}", survivors::groups(command.uid)))?;
        soon("the places outside to be left", async || Ok(outside.gone().then_some(()))).await?;
        Ok(id)
    }
}

/// The one final phase, by whom and why, and how the main process ended.
fn check(command: &Command, end: End, tag: &str) -> anyhow::Result<()> {
    ensure!(!command.oom, "nothing was short of memory");
    let last = match end {
        End::Cancel(animal) | End::Paused(animal) | End::Guard(animal) => {
            ensure!(command.phase == Phase::Cancelled, "not cancelled");
            let cancel = command.cancel.as_ref().context("nobody wanted it")?;
            ensure!(!cancel.by.is_empty() && cancel.reason.as_deref() == Some(tag) && !cancel.pending, "{cancel:?}");
            if let End::Guard(_) = end {
                ensure!(command.changed == Some(false), "the command itself never began");
                return Ok(());
            }
            animal.last
        }
        End::Timeout(animal) => {
            ensure!(command.phase == Phase::TimedOut && command.cancel.is_none(), "not timed out");
            animal.last
        }
        End::Itself(leaver) => {
            let phase = if leaver.code == 0 { Phase::Succeeded } else { Phase::Failed };
            ensure!(command.phase == phase && command.cancel.is_none(), "not {phase}");
            ensure!((command.exit_code, command.signal) == (Some(leaver.code), None), "not the code {}", leaver.code);
            let flagged = command.flags.iter().any(|flag| flag == "strays_killed");
            ensure!(leaver.strays.is_none_or(|strays| strays == flagged), "strays: {:?}", leaver.strays);
            return Ok(());
        }
    };
    let signal = |number: i32| (None, u32::try_from(number).ok());
    let ended = (command.exit_code, command.signal);
    let fits = match last {
        Last::Asked => ended == signal(15),
        Last::Killed => ended == signal(9),
        Last::Either => ended == signal(15) || ended == signal(9),
        Last::Exits(code) => ended == (Some(code), None),
    };
    ensure!(fits, "the main process ended as {ended:?}, not as {last:?}");
    Ok(())
}
