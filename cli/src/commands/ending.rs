//! What the end of a command means: the exit code for a script and the sentence for a person.

use api::commands::Command;
use common::model::Phase;

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
        phase => phase.to_string(),
    };
    if command.oom {
        words.push_str(", out of memory");
    }
    if let Some(reason) = command.cancel.as_ref().and_then(|cancel| cancel.reason.as_deref()) {
        words.push_str(&format!(" ({reason})"));
    }
    if let Some(error) = &command.error {
        words.push_str(&format!(": {} [{}]", error.text, error.code));
    }
    if let Some(waiting) = &command.waiting {
        words.push_str(&format!(", waiting: {waiting}"));
    }
    words
}

/// The name of a signal as `kill -l` prints it; the numbers of the architectures Rust runs Linux on agree on these.
fn signal_name(signal: u32) -> String {
    let name = match signal {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        6 => "ABRT",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        _ => return signal.to_string(),
    };
    format!("{signal} ({name})")
}

/// Commands for tests, made as the manager would write them.
#[cfg(test)]
pub(super) mod sample {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

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
    fn sentences_name_who_and_why() {
        let mut cancelled = command(Phase::Cancelled);
        cancelled.cancel =
            Some(Cancel { by: "admin".into(), reason: Some("wrong host".into()), at: None, pending: false });
        assert_eq!(sentence(&cancelled), "cancelled by admin (wrong host)");
        let mut killed = command(Phase::Failed);
        killed.signal = Some(9);
        killed.oom = true;
        assert_eq!(sentence(&killed), "ended by signal 9 (KILL), out of memory");
        let mut refused = command(Phase::Refused);
        refused.error =
            Some(CommandError { code: "unknown_operation".into(), text: "no operation is called fly".into() });
        assert_eq!(sentence(&refused), "refused by the agent: no operation is called fly [unknown_operation]");
    }
}
