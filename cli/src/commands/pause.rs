//! `pause` and `resume`: let commands stand still, and go on.

use api::client::Client;
use api::commands::Command;
use common::model::Phase;

use super::each::each;
use crate::args::{PauseArgs, ResumeArgs};
use crate::error::Failure;
use crate::output::Printer;

pub(super) async fn pause(client: &Client, printer: Printer, args: &PauseArgs) -> Result<u8, Failure> {
    each(printer, &args.ids, async |id| client.pause(id).await, sentence).await
}

pub(super) async fn resume(client: &Client, printer: Printer, args: &ResumeArgs) -> Result<u8, Failure> {
    each(printer, &args.ids, async |id| client.resume(id).await, sentence).await
}

/// Says what became of the wish; only what its agent has said is told as done.
fn sentence(command: &Command) -> String {
    let is_pending = command.pause.as_ref().is_some_and(|pause| pause.pending);
    let is_to_pause = command.pause.as_ref().is_some_and(|pause| pause.paused);
    let what = match (is_to_pause, is_pending) {
        (true, true) if !command.agent_reachable => "is paused when its agent is back",
        (true, _) if command.phase == Phase::Paused => "is paused",
        (true, _) => "is being paused",
        (false, true) if !command.agent_reachable => "goes on when its agent is back",
        (false, true) => "is being resumed",
        (false, false) => "goes on",
    };
    format!("{}  {}  {what}\n", command.id, command.agent)
}

#[cfg(test)]
mod tests {
    use api::commands::Pause;
    use api::time::Time;

    use super::super::ending::sample::command;
    use super::*;

    #[test]
    fn only_what_the_agent_said_is_told_as_done() {
        let wish = |paused, pending| Some(Pause { paused, by: "ann".into(), at: Time(0), pending, refused: None });
        for (phase, pause, reachable, says) in [
            (Phase::Running, wish(true, true), true, "is being paused"),
            (Phase::Running, wish(true, false), true, "is being paused"),
            (Phase::Running, wish(true, true), false, "is paused when its agent is back"),
            (Phase::Paused, wish(true, false), true, "is paused"),
            (Phase::Paused, wish(false, true), true, "is being resumed"),
            (Phase::Running, wish(false, false), true, "goes on"),
            (Phase::Paused, wish(false, true), false, "goes on when its agent is back"),
            (Phase::Running, None, true, "goes on"),
        ] {
            let mut command = command(phase);
            (command.pause, command.agent_reachable) = (pause, reachable);
            assert_eq!(sentence(&command), format!("42  web1  {says}\n"));
        }
    }
}
