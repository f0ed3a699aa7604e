//! What the end of a command means: the exit code for a script and the sentence for a person.

use api::commands::Command;
use common::model::{Flag, Phase};

use super::held;

/// Ended by `--timeout`, as `timeout(1)` says it.
pub(super) const TIMED_OUT: u8 = 124;
/// It never ran, its end is unknown, or we failed ourselves.
pub(super) const OUR_FAILURE: u8 = 125;
/// Cancelled, as a shell says it of Ctrl-C.
pub(super) const CANCELLED: u8 = 130;

/// The exit code that stands for a finished command.
#[must_use]
pub(super) fn exit_code(command: &Command) -> u8 {
    match command.phase {
        Phase::Succeeded => 0,
        Phase::TimedOut => TIMED_OUT,
        Phase::Cancelled => CANCELLED,
        Phase::Failed => match (command.exit_code, command.signal) {
            (_, Some(signal)) => {
                u8::try_from(signal).ok().and_then(|signal| signal.checked_add(128)).unwrap_or(OUR_FAILURE)
            }
            // Codes of a Linux process fit; a code that does not, or a failure with code 0, is not the program's own.
            (Some(code), None) => u8::try_from(code).ok().filter(|code| *code != 0).unwrap_or(OUR_FAILURE),
            (None, None) => OUR_FAILURE,
        },
        _ => OUR_FAILURE,
    }
}

/// The exit code that stands for several.
#[must_use]
pub(super) fn exit_code_of_all(codes: &[u8]) -> u8 {
    u8::from(codes.iter().any(|code| *code != 0))
}

/// Says in a few words how a command ended, or where it stands.
#[must_use]
pub(super) fn sentence(command: &Command) -> String {
    let mut words = match command.phase {
        Phase::Failed => match (command.exit_code, command.signal) {
            (_, Some(signal)) => format!("ended by signal {}", signal_name(signal)),
            (Some(code), None) => format!("failed with exit code {code}"),
            (None, None) => "failed".to_owned(),
        },
        Phase::TimedOut => match command.timeout {
            Some(timeout) => format!("stopped by its timeout of {timeout}"),
            None => "stopped by its timeout".to_owned(),
        },
        Phase::Cancelled => match &command.cancel {
            Some(cancel) => format!("cancelled by {}", cancel.by),
            None => "cancelled".to_owned(),
        },
        Phase::Expired => "expired before it could start".to_owned(),
        Phase::Refused => "refused by the agent".to_owned(),
        Phase::Interrupted => "interrupted: it was started and its end is not known".to_owned(),
        Phase::Waiting => held::waits(command).unwrap_or_else(|| "waiting".to_owned()),
        Phase::Succeeded => match skipped(command) {
            Some(why) => format!("skipped, nothing was run: {why}"),
            None => "succeeded".to_owned(),
        },
        phase => phase.to_string(),
    };
    if command.core_dumped {
        words.push_str(", core dumped");
    }
    if command.oom {
        words.push_str(", out of memory");
    }
    if let Some(reason) = command.cancel.as_ref().and_then(|cancel| cancel.reason.as_deref()) {
        words.push_str(&format!(" ({reason})"));
    }
    // That the timeout passed is what the phase says.
    if let Some(error) = command.error.as_ref().filter(|_| command.phase != Phase::TimedOut) {
        words.push_str(&format!(": {} [{}]", error.text, error.code));
    }
    if command.phase != Phase::Waiting
        && let Some(waits) = held::waits(command)
    {
        words.push_str(&format!("; it {waits}"));
    }
    words
}

/// A signal for people: `9 (KILL)`, `34`.
pub(super) fn signal_name(signal: u32) -> String {
    match api::signals::name(signal) {
        Some(name) => format!("{signal} ({name})"),
        None => signal.to_string(),
    }
}

/// Says which guard kept a finished command from running, and what it saw.
#[must_use]
pub(super) fn skipped(command: &Command) -> Option<String> {
    if !Flag::Skipped.is_in(&command.flags) {
        return None;
    }
    let said = |key| command.value.as_ref().and_then(|value| value.get(key)).and_then(|text| text.as_str());
    Some(match (said("skipped"), said("text")) {
        (Some(guard), Some(text)) => format!("{text} ({guard})"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "a guard said so".to_owned(),
    })
}

/// Commands for tests, made as the manager would write them.
#[cfg(test)]
pub(super) mod sample {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    pub(crate) fn agent(name: &str) -> api::agents::Agent {
        serde_json::from_value(json!({
            "name": name, "generation": 1, "connected": true, "created_at": "2026-01-01T00:00:00.000Z",
            "drained": false
        }))
        .unwrap()
    }

    pub(crate) fn command(phase: Phase) -> Command {
        serde_json::from_value(json!({
            "id": 42, "uid": "00".repeat(16), "agent": "web1", "operation": "command.run",
            "args": {"run": ["uname", "-a"]}, "phase": phase, "waiting": null, "job": null, "attempt": 1,
            "created_at": "2026-01-01T00:00:00.000Z", "created_by": "admin",
            "expires_at": "2026-01-02T00:00:00.000Z", "timeout": null, "user": null, "cwd": null,
            "idempotent": false, "accepted_at": null, "started_at": null, "finished_at": null, "progress": null,
            "changed": null, "exit_code": null, "signal": null, "oom": false, "error": null, "cancel": null,
            "streams": {"stdout": {"length": 0, "end": true, "gaps": []}}, "usage": null, "isolation": null,
            "value": null, "flags": [], "agent_reachable": true
        }))
        .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use api::commands::{Cancel, CommandError};

    use super::sample::command;
    use super::*;

    #[test]
    fn the_exit_code_says_how_it_ended() {
        let mut table = Vec::new();
        for phase in Phase::ALL {
            for (code, signal) in [
                (None, None),
                (Some(0), None),
                (Some(7), None),
                (Some(256), None),
                (None, Some(9)),
                (None, Some(15)),
                (None, Some(999)),
            ] {
                let mut command = command(phase);
                (command.exit_code, command.signal) = (code, signal);
                table.push(((phase, code, signal), exit_code(&command)));
            }
        }
        let code = |key: (Phase, Option<i32>, Option<u32>)| table.iter().find(|(row, _)| *row == key).map(|row| row.1);
        assert_eq!(code((Phase::Succeeded, Some(0), None)), Some(0));
        assert_eq!(code((Phase::Succeeded, None, None)), Some(0), "operations without a process");
        assert_eq!(code((Phase::Failed, Some(7), None)), Some(7));
        assert_eq!(code((Phase::Failed, Some(256), None)), Some(125));
        assert_eq!(code((Phase::Failed, Some(0), None)), Some(125), "never 0 for a failure");
        assert_eq!(code((Phase::Failed, None, Some(9))), Some(137));
        assert_eq!(code((Phase::Failed, None, Some(15))), Some(143));
        assert_eq!(code((Phase::Failed, None, Some(999))), Some(125));
        assert_eq!(code((Phase::Failed, None, None)), Some(125));
        assert_eq!(code((Phase::TimedOut, None, Some(15))), Some(124));
        assert_eq!(code((Phase::Cancelled, None, Some(15))), Some(130));
        for ((phase, ..), exit) in &table {
            assert_eq!(*exit == 0, *phase == Phase::Succeeded, "{phase}");
            if matches!(phase, Phase::Expired | Phase::Refused | Phase::Interrupted) || !phase.is_final() {
                assert_eq!(*exit, 125, "{phase}");
            }
        }
    }

    #[test]
    fn several_give_zero_or_one() {
        assert_eq!(exit_code_of_all(&[0, 0]), 0);
        assert_eq!(exit_code_of_all(&[0, 137]), 1);
        assert_eq!(exit_code_of_all(&[]), 0);
    }

    #[test]
    fn a_skipped_command_says_which_guard_saw_what() {
        let mut done = command(Phase::Succeeded);
        assert_eq!((skipped(&done), sentence(&done)), (None, "succeeded".to_owned()));
        done.flags = vec!["skipped".into()];
        done.value = Some(serde_json::json!({"skipped": "creates", "text": "/srv/app exists"}));
        assert_eq!(sentence(&done), "skipped, nothing was run: /srv/app exists (creates)");
        assert_eq!(exit_code(&done), 0);
        done.value = None;
        assert_eq!(skipped(&done).as_deref(), Some("a guard said so"));
    }

    #[test]
    fn a_timeout_is_told_once() {
        let mut late = command(Phase::TimedOut);
        late.timeout = "300ms".parse().ok();
        late.error = Some(CommandError { code: "timeout".into(), text: "it did not end within 300 ms".into() });
        assert_eq!(sentence(&late), "stopped by its timeout of 300ms");
    }

    #[test]
    fn what_waits_says_for_what() {
        let mut waiting = command(Phase::Waiting);
        assert_eq!(sentence(&waiting), "waiting");
        waiting.waiting = Some("parallel_limit".into());
        waiting.progress = Some(api::commands::Progress { current: 3, total: 17, text: String::new() });
        assert_eq!(sentence(&waiting), "waits for a free place: 3rd of 17");
        let mut queued = command(Phase::Queued);
        queued.waiting = Some("deferred".into());
        assert_eq!(sentence(&queued), "queued; it was put off by its agent, which is asked again");
    }

    #[test]
    fn sentences_name_who_and_why() {
        let mut cancelled = command(Phase::Cancelled);
        cancelled.cancel =
            Some(Cancel { by: "admin".into(), reason: Some("wrong host".into()), at: None, pending: false });
        assert_eq!(sentence(&cancelled), "cancelled by admin (wrong host)");
        let mut killed = command(Phase::Failed);
        killed.signal = Some(9);
        killed.oom = true;
        assert_eq!(sentence(&killed), "ended by signal 9 (KILL), out of memory");
        killed.oom = false;
        (killed.signal, killed.core_dumped) = (Some(11), true);
        assert_eq!(sentence(&killed), "ended by signal 11 (SEGV), core dumped");
        let mut refused = command(Phase::Refused);
        refused.error =
            Some(CommandError { code: "unknown_operation".into(), text: "no operation is called fly".into() });
        assert_eq!(sentence(&refused), "refused by the agent: no operation is called fly [unknown_operation]");
    }
}
