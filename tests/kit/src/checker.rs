//! Promise 1 as rules over what the API says and what really happened.
//!
//! Each accepted command has exactly one final phase; none ran twice; what succeeded left its effect; what was refused,
//! expired or cancelled before it was sent left none; output is complete. The rules take plain values, so that they
//! are tested without a house.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::commands::Command;
use common::model::Phase;

/// Everything known about one accepted command after the storm.
#[derive(Debug, Clone)]
pub struct Witness {
    /// The tag it leaves in the record of effects.
    pub tag: String,
    /// What the API says about it at last.
    pub command: Command,
    /// Its standard output as the API gives it.
    pub stdout: Vec<u8>,
    /// What its standard output is when it runs to its end.
    pub expected: Vec<u8>,
}

/// What a run may legitimately have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruptions {
    /// A shim was killed, so that the end of its command could not be observed.
    Allowed,
    /// Only managers and agents were killed: every end was observed.
    None,
}

/// Lists every breach of the promise, one line each.
#[must_use]
pub fn breaches(witnesses: &[Witness], effects: &BTreeMap<String, usize>, interruptions: Interruptions) -> Vec<String> {
    let mut found = Vec::new();
    for witness in witnesses {
        let Witness { tag, command, stdout, expected } = witness;
        let ran = effects.get(tag).copied().unwrap_or(0);
        let mut say = |text: &str| {
            let mut line = format!("command {} ({tag}, {}): {text}", command.id, command.phase);
            // Writing into a String cannot fail.
            let _ = write!(line, "; effects {ran}, error {:?}", command.error.as_ref().map(|error| &error.code));
            found.push(line);
        };
        if !command.phase.is_final() {
            say("has no final phase");
        }
        if ran > 1 {
            say("ran twice");
        }
        match command.phase {
            Phase::Succeeded => {
                if ran == 0 {
                    say("succeeded without its effect");
                }
                if stdout != expected {
                    say(&format!("has {} bytes of output instead of {}", stdout.len(), expected.len()));
                }
            }
            Phase::Expired | Phase::Refused if ran > 0 => say("never started and has an effect"),
            Phase::Interrupted if interruptions == Interruptions::None => {
                say("was interrupted though no shim was killed")
            }
            Phase::Interrupted if command.error.is_none() => say("was interrupted without evidence"),
            _ => {}
        }
        if command.phase.is_final() && !command.streams.values().all(|stream| stream.end) {
            say("is final and its output never became complete");
        }
        if !expected.starts_with(stdout) {
            say("has output that it never wrote");
        }
    }
    for tag in effects.keys() {
        if !witnesses.iter().any(|witness| witness.tag == *tag) {
            found.push(format!("{tag}: an effect of a command that was never accepted"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(phase: &str, stdout: &str) -> anyhow::Result<Witness> {
        let command = serde_json::json!({
            "id": 1, "uid": "00".repeat(16), "agent": "a", "operation": "command.run", "args": {}, "phase": phase,
            "waiting": null, "job": null, "attempt": 1, "created_at": "2026-01-01T00:00:00.000Z", "created_by": "x",
            "expires_at": "2026-01-01T00:00:00.000Z", "timeout": null, "user": null, "cwd": null, "idempotent": false,
            "oom": false, "streams": {"stdout": {"length": 2, "end": true, "gaps": []}}, "agent_reachable": true,
        });
        Ok(Witness {
            tag: "t".to_owned(),
            command: serde_json::from_value(command)?,
            stdout: stdout.into(),
            expected: "ok".into(),
        })
    }

    #[test]
    fn each_breach_is_found_and_what_is_right_is_not() -> anyhow::Result<()> {
        let once = BTreeMap::from([("t".to_owned(), 1)]);
        let twice = BTreeMap::from([("t".to_owned(), 2)]);
        let none = BTreeMap::new();
        let strict = Interruptions::None;
        let count = |one: &Witness, effects, mode| breaches(std::slice::from_ref(one), effects, mode).len();
        assert_eq!(count(&witness("succeeded", "ok")?, &once, strict), 0);
        assert_eq!(count(&witness("succeeded", "ok")?, &twice, strict), 1);
        assert_eq!(count(&witness("succeeded", "ok")?, &none, strict), 1);
        assert_eq!(count(&witness("succeeded", "o")?, &once, strict), 1);
        assert_eq!(count(&witness("running", "")?, &none, strict), 1);
        assert_eq!(count(&witness("expired", "")?, &once, strict), 1);
        assert_eq!(count(&witness("cancelled", "o")?, &once, strict), 0);
        assert_eq!(count(&witness("failed", "no")?, &once, strict), 1);
        assert_eq!(count(&witness("interrupted", "")?, &once, strict), 1);
        assert_eq!(count(&witness("interrupted", "")?, &once, Interruptions::Allowed), 1, "no evidence");
        assert_eq!(breaches(&[], &once, strict).len(), 1);
        Ok(())
    }
}
