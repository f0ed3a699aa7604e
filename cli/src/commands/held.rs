//! Why a command does not go on, in words: what its phase, its agent and its operators have to do with it.

use std::time::Duration;

use api::agents::Agent;
use api::client::Client;
use api::commands::Command;
use common::model::Phase;

/// What holds a command up. Each is told once to whoever follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Its agent is not connected.
    Away,
    /// Its agent is sent nothing new.
    Drained,
    /// Two hosts have used its agent's name.
    Quarantined,
    /// It waits for something that `waiting` names.
    Waiting,
    /// Somebody paused it.
    Paused,
    /// It was killed and does not die.
    Stuck,
}

/// What holds a command up, and the words that go on behind its id.
pub(super) type Reason = (Hold, String);

/// What holds a command up, as far as the command itself tells.
pub(super) fn reason(command: &Command) -> Option<Reason> {
    let phase = command.phase;
    if phase.is_final() {
        return None;
    }
    if let Some(words) = waits(command) {
        return Some((Hold::Waiting, words));
    }
    if !command.agent_reachable && phase < Phase::Running {
        let until = command.expires_at;
        return Some((
            Hold::Away,
            format!("starts when its agent {} is connected again, until {until}", command.agent),
        ));
    }
    match phase {
        Phase::Paused => {
            let by = command.pause.as_ref().map(|pause| format!(" by {}", pause.by)).unwrap_or_default();
            Some((Hold::Paused, format!("is paused{by}; it goes on after `paprika resume {}`", command.id)))
        }
        Phase::Stopping => stuck(command).map(|pids| (Hold::Stuck, format!("was killed and does not end: {pids}"))),
        _ => None,
    }
}

/// What holds a command up that its agent has not heard of yet.
fn reason_at_the_agent(command: &Command, agent: &Agent) -> Option<Reason> {
    let name = &agent.name;
    let until = command.expires_at;
    if command.phase != Phase::Queued {
        return None;
    }
    if agent.quarantined.is_some() {
        let words =
            format!("its agent {name} is in quarantine; it starts after `paprika agent accept {name}`, until {until}");
        return Some((Hold::Quarantined, words));
    }
    if agent.drained {
        let words =
            format!("its agent {name} is drained; it starts after `paprika agent undrain {name}`, until {until}");
        return Some((Hold::Drained, words));
    }
    None
}

/// Says what a command waits for: the word of its agent or manager, with its place in the queue.
pub(super) fn waits(command: &Command) -> Option<String> {
    let id = command.id;
    Some(match command.waiting.as_deref()? {
        "parallel_limit" => match place(command) {
            Some((place, all)) => format!("waits for a free place: {} of {all}", ordinal(place)),
            None => "waits for a free place".to_owned(),
        },
        "no_resources" => "waits until its host can start another process".to_owned(),
        "restored" => {
            format!("is held back since the manager's store was restored; it starts after `paprika release {id}`")
        }
        "deferred" => "was put off by its agent, which is asked again".to_owned(),
        other => format!("waits: {other}"),
    })
}

/// The place of a waiting command, and how many wait.
pub(super) fn place(command: &Command) -> Option<(u64, u64)> {
    let progress = command.progress.as_ref().filter(|_| command.phase == Phase::Waiting)?;
    (progress.current > 0 && progress.total > 0).then_some((progress.current, progress.total))
}

/// What does not die of a command that is being stopped.
fn stuck(command: &Command) -> Option<&str> {
    let text = &command.progress.as_ref().filter(|_| command.phase == Phase::Stopping)?.text;
    text.strip_prefix("stuck:").map(str::trim)
}

/// 1st, 2nd, 3rd, 4th, 11th.
fn ordinal(number: u64) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Looks at commands that nothing was heard of, and at their agents; answers the indexes with what holds them up.
///
/// What cannot be asked about is left out: the next look may answer, and the follower tells of real trouble.
pub(super) async fn look(client: Client, silent: Vec<(usize, u64)>) -> Vec<(usize, Reason)> {
    let mut found = Vec::new();
    for (index, id) in silent {
        let Ok(command) = client.command(id).await else { continue };
        let agent = match command.phase {
            Phase::Queued => client.agent(&command.agent).await.ok(),
            _ => None,
        };
        let at_the_agent = agent.and_then(|agent| reason_at_the_agent(&command, &agent));
        found.extend(at_the_agent.or_else(|| reason(&command)).map(|reason| (index, reason)));
    }
    found
}

/// When to look at silent commands: soon, then ever more rarely.
#[derive(Debug)]
pub(super) struct Patience(Duration);

impl Patience {
    /// Longer than any command takes that nothing holds up, shorter than a person wonders.
    const FIRST: Duration = Duration::from_secs(1);
    /// An agent may be drained at any time; finding out costs two reads.
    const LONGEST: Duration = Duration::from_secs(30);

    pub(super) fn new() -> Self {
        Self(Self::FIRST)
    }

    /// How long until the next look.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use api::commands::{Pause, Progress};
    use api::time::Time;

    use super::super::ending::sample::{agent, command};
    use super::*;

    fn words(command: &Command) -> String {
        reason(command).map(|(_, words)| words).unwrap_or_default()
    }

    fn progress(current: u64, total: u64, text: &str) -> Option<Progress> {
        Some(Progress { current, total, text: text.into() })
    }

    #[test]
    fn a_place_in_the_queue_is_told_in_words() {
        let mut waiting = command(Phase::Waiting);
        waiting.waiting = Some("parallel_limit".into());
        assert_eq!(words(&waiting), "waits for a free place");
        for (place, shown) in [
            (1, "1st"),
            (2, "2nd"),
            (3, "3rd"),
            (4, "4th"),
            (11, "11th"),
            (12, "12th"),
            (13, "13th"),
            (21, "21st"),
            (112, "112th"),
            (122, "122nd"),
        ] {
            waiting.progress = progress(place, 130, "parallel_limit");
            assert_eq!(words(&waiting), format!("waits for a free place: {shown} of 130"));
        }
        waiting.waiting = Some("no_resources".into());
        assert_eq!(words(&waiting), "waits until its host can start another process");
        waiting.waiting = Some("the moon".into());
        assert_eq!(reason(&waiting), Some((Hold::Waiting, "waits: the moon".to_owned())));
    }

    #[test]
    fn what_holds_a_command_up_comes_with_the_way_on() {
        let mut queued = command(Phase::Queued);
        assert_eq!(reason(&queued), None);
        queued.waiting = Some("restored".into());
        assert!(words(&queued).ends_with("it starts after `paprika release 42`"));
        queued.waiting = None;
        queued.agent_reachable = false;
        assert_eq!(words(&queued), "starts when its agent web1 is connected again, until 2026-01-02T00:00:00.000Z");
        let mut paused = command(Phase::Paused);
        assert_eq!(words(&paused), "is paused; it goes on after `paprika resume 42`");
        paused.pause = Some(Pause { paused: true, by: "ann".into(), at: Time(0), pending: false, refused: None });
        assert_eq!(words(&paused), "is paused by ann; it goes on after `paprika resume 42`");
        let mut stopping = command(Phase::Stopping);
        assert_eq!(reason(&stopping), None);
        stopping.progress = progress(0, 0, "stuck: pids 12 13");
        assert_eq!(reason(&stopping), Some((Hold::Stuck, "was killed and does not end: pids 12 13".to_owned())));
    }

    #[test]
    fn what_runs_or_is_over_is_held_up_by_nothing() {
        for phase in Phase::ALL.into_iter().filter(|phase| phase.is_final() || *phase == Phase::Running) {
            let mut any = command(phase);
            any.agent_reachable = false;
            any.progress = progress(3, 17, "stuck: pids 1");
            assert_eq!(reason(&any), None, "{phase}");
        }
    }

    #[test]
    fn a_drained_or_quarantined_agent_explains_a_queued_command() {
        let mut drained = agent("web1");
        assert_eq!(reason_at_the_agent(&command(Phase::Queued), &drained), None);
        drained.drained = true;
        let (hold, words) =
            reason_at_the_agent(&command(Phase::Queued), &drained).unwrap_or((Hold::Away, String::new()));
        assert_eq!(hold, Hold::Drained);
        assert!(words.contains("it starts after `paprika agent undrain web1`"), "{words}");
        assert_eq!(reason_at_the_agent(&command(Phase::Accepted), &drained), None, "what it has, it runs");
        drained.quarantined = Some("two hosts".into());
        let hold = reason_at_the_agent(&command(Phase::Queued), &drained).map(|(hold, _)| hold);
        assert_eq!(hold, Some(Hold::Quarantined));
    }

    #[test]
    fn looks_become_rarer_and_never_stop() {
        let mut patience = Patience::new();
        let pauses: Vec<u64> = (0..8).map(|_| patience.next().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
