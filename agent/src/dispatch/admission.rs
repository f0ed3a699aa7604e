//! May this command be taken? A pure judgement of the message against what the agent knows of itself and of time.

use std::time::Duration;

use common::id::{IdError, Uid};
use common::limits;
use common::version::capability;
use common::wire::Command;

use crate::operation::{self, Operation, Refused};

/// What a command is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    /// The generation in the agent's certificate: no other is served (protocol R-CMD-6).
    pub(super) generation: u64,
    /// Manager time; 0 when no manager was ever heard.
    pub(super) now_ms: u64,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Make it durable, then run it.
    Take(Operation),
    /// Its validity has passed in manager time (protocol R-CMD-5).
    Expired,
    /// It never runs here.
    Refuse(Refused),
}

/// Judges a command that is not known yet.
pub(super) fn judge(command: &Command, situation: Situation) -> Verdict {
    let refuse = |code, text: &str| Verdict::Refuse(Refused::new(code, text));
    if command.generation != situation.generation {
        return refuse("generation", "the command was made for another bearer of this agent's name");
    }
    if command.expires_ms == 0 {
        return refuse("invalid", "the command has no validity end");
    }
    if command.expires_ms <= situation.now_ms {
        return Verdict::Expired;
    }
    if let Some(refused) = unmet(&command.needs) {
        return Verdict::Refuse(refused);
    }
    let operation = match operation::understand(&command.operation, &command.args) {
        Ok(operation) => operation,
        Err(refused) => return Verdict::Refuse(refused),
    };
    if let Some(refused) = unusable(command) {
        return Verdict::Refuse(refused);
    }
    Verdict::Take(operation)
}

/// Finds what this agent would have to know and does not (protocol R-CMD-11).
fn unmet(needs: &[String]) -> Option<Refused> {
    if needs.len() > limits::MAX_NEEDS {
        return Some(Refused::new("invalid", format!("needs: more than {} words", limits::MAX_NEEDS)));
    }
    let missing = needs.iter().find(|word| !capability::NEEDS.contains(&word.as_str()))?;
    let word = common::escape::text(missing);
    Some(Refused::new("unsupported", format!("the command needs `{word}`, which this agent does not know: update it")))
}

/// Finds what makes no sense on any host. User and limits are the shim's to judge: it knows what this host can enforce,
/// and its refusal is an end like any other.
fn unusable(command: &Command) -> Option<Refused> {
    let invalid = |text: &str| Some(Refused::new("invalid", text));
    // What is secret counts like the rest (protocol R-SECRET-1).
    let secrets = command.secrets.as_ref();
    let plain = command.env.iter().map(|var| (&var.name, &var.value));
    let secret = secrets.map(|secrets| secrets.env.iter());
    let env = || plain.clone().chain(secret.clone().into_iter().flatten());
    if env().count() > limits::MAX_ENV {
        return invalid("env: too many variables");
    }
    let bytes: usize = env().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits::MAX_ENV_BYTES {
        return invalid("env: too large");
    }
    if env().any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains(&0)) {
        return invalid("env: a name is empty or holds `=` or NUL, or a value holds NUL");
    }
    if !command.cwd.is_empty() && !command.cwd.starts_with('/') || command.cwd.contains('\0') {
        return invalid("cwd: the path must be absolute");
    }
    if command.stdin.len() > limits::MAX_STDIN_BYTES
        || secrets.is_some_and(|secrets| secrets.stdin.len() > limits::MAX_STDIN_BYTES)
    {
        return invalid("stdin: too large");
    }
    if command.has_stdin && secrets.is_some_and(|secrets| secrets.has_stdin) {
        return invalid("stdin: given twice, once as a secret");
    }
    if secrets.is_some_and(|secrets| command.env.iter().any(|var| secrets.env.contains_key(&var.name))) {
        return invalid("env: a variable is given twice, once as a secret");
    }
    if command.user.contains('\0') {
        return invalid("user: the name holds a NUL");
    }
    if command.has_umask && command.umask > limits::MAX_UMASK {
        return invalid("umask: at most 0777");
    }
    if !limits::NICE.contains(&command.nice) {
        return invalid("nice: from -20 to 19");
    }
    if !limits::OOM_SCORE.contains(&command.oom_score) {
        return invalid("oom_score: from -1000 to 1000");
    }
    if command.stop_signal > limits::MAX_SIGNAL {
        return invalid("stop_signal: from 1 to 64");
    }
    if command.has_grace && Duration::from_millis(command.grace_ms.into()) > limits::MAX_GRACE {
        return invalid("grace: at most 1 hour");
    }
    None
}

/// Reads the uid of a message.
pub(super) fn uid(bytes: &[u8]) -> Result<Uid, IdError> {
    Uid::from_wire(bytes)
}

#[cfg(test)]
mod tests {
    use common::wire::{EnvVar, Secrets};

    use super::*;

    const HERE: Situation = Situation { generation: 3, now_ms: 1_000 };

    fn command() -> Command {
        Command {
            uid: vec![1; 16].into(),
            id: 7,
            operation: "command.run".into(),
            args: br#"{"run":["true"]}"#.to_vec().into(),
            expires_ms: 1_001,
            generation: 3,
            ..Command::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut Command)) -> Option<&'static str> {
        let mut command = command();
        change(&mut command);
        match judge(&command, HERE) {
            Verdict::Refuse(refused) => Some(refused.code),
            _ => None,
        }
    }

    #[test]
    fn validity_ends_exactly_at_its_edge() {
        assert_eq!(judge(&command(), HERE), Verdict::Take(Operation::Run));
        assert_eq!(judge(&command(), Situation { now_ms: 1_001, ..HERE }), Verdict::Expired);
        assert_eq!(judge(&command(), Situation { now_ms: 0, ..HERE }), Verdict::Take(Operation::Run));
    }

    #[test]
    fn another_generation_is_refused_before_anything_else_is_looked_at() {
        assert_eq!(refusal(|command| command.generation = 4), Some("generation"));
        assert_eq!(
            refusal(|command| {
                command.generation = 2;
                command.expires_ms = 1;
            }),
            Some("generation")
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_not_dropped() {
        let var = |name: &str, value: &[u8]| EnvVar { name: name.into(), value: value.to_vec().into() };
        assert_eq!(refusal(|command| command.expires_ms = 0), Some("invalid"));
        assert_eq!(refusal(|command| command.operation = "x".into()), Some("unknown_operation"));
        assert_eq!(refusal(|command| command.cwd = "tmp".into()), Some("invalid"));
        assert_eq!(refusal(|command| command.cwd = "/tmp".into()), None);
        assert_eq!(refusal(|command| command.env = vec![var("A=B", b"")]), Some("invalid"));
        assert_eq!(refusal(|command| command.env = vec![var("A", b"\0")]), Some("invalid"));
        assert_eq!(refusal(|command| command.env = vec![var("A", b"\xff")]), None);
        assert_eq!(refusal(|command| command.env = vec![var("A", b""); limits::MAX_ENV]), None);
        assert_eq!(refusal(|command| command.env = vec![var("A", b""); limits::MAX_ENV + 1]), Some("invalid"));
        assert_eq!(refusal(|command| command.stdin = vec![0; limits::MAX_STDIN_BYTES + 1].into()), Some("invalid"));
    }

    /// Protocol R-SECRET-1.
    #[test]
    fn secrets_are_judged_like_what_is_none_and_nothing_is_given_twice() {
        let secret = |name: &str, value: &[u8]| Secrets {
            env: [(name.to_owned(), value.to_vec().into())].into(),
            ..Secrets::default()
        };
        let input = |length: usize| Secrets { stdin: vec![0; length].into(), has_stdin: true, ..Secrets::default() };
        let var = |name: &str| EnvVar { name: name.into(), value: Vec::new().into() };
        let check = |secrets: Secrets| refusal(|command| command.secrets = Some(secrets));
        assert_eq!(check(secret("A", b"x")), None);
        assert_eq!(check(secret("", b"x")), Some("invalid"));
        assert_eq!(check(secret("A=B", b"x")), Some("invalid"));
        assert_eq!(check(secret("A", b"\0")), Some("invalid"));
        assert_eq!(check(secret("A", &vec![b'x'; limits::MAX_ENV_BYTES - 1])), None);
        assert_eq!(check(secret("A", &vec![b'x'; limits::MAX_ENV_BYTES])), Some("invalid"));
        assert_eq!(check(input(limits::MAX_STDIN_BYTES)), None);
        assert_eq!(check(input(limits::MAX_STDIN_BYTES + 1)), Some("invalid"));
        let both = |change: fn(&mut Command)| {
            refusal(|command| {
                command.secrets = Some(Secrets { has_stdin: true, ..secret("A", b"x") });
                command.env = vec![EnvVar { name: "B".into(), value: Vec::new().into() }];
                change(command);
            })
        };
        assert_eq!(both(|_| {}), None);
        assert_eq!(both(|command| command.has_stdin = true), Some("invalid"));
        assert_eq!(
            refusal(|command| {
                command.secrets = Some(secret("A", b"x"));
                command.env = vec![var("A")];
            }),
            Some("invalid")
        );
        assert_eq!(
            refusal(|command| {
                command.secrets = Some(secret("A", b"x"));
                command.env = vec![var("B"); limits::MAX_ENV];
            }),
            Some("invalid"),
            "they count together"
        );
    }

    #[test]
    fn what_a_process_is_given_has_two_edges() {
        for (fine, bad) in [
            (
                Command { has_umask: true, umask: 0o777, ..command() },
                Command { has_umask: true, umask: 0o1000, ..command() },
            ),
            (Command { umask: 0o1000, ..command() }, Command { has_umask: true, umask: u32::MAX, ..command() }),
            (Command { nice: -20, ..command() }, Command { nice: -21, ..command() }),
            (Command { nice: 19, ..command() }, Command { nice: 20, ..command() }),
            (Command { oom_score: -1000, ..command() }, Command { oom_score: -1001, ..command() }),
            (Command { oom_score: 1000, ..command() }, Command { oom_score: 1001, ..command() }),
            (Command { stop_signal: 64, ..command() }, Command { stop_signal: 65, ..command() }),
            (
                Command { has_grace: true, grace_ms: 3_600_000, ..command() },
                Command { has_grace: true, grace_ms: 3_600_001, ..command() },
            ),
            (Command { user: "nobody".into(), ..command() }, Command { user: "no\0body".into(), ..command() }),
        ] {
            assert_eq!(refusal(|command| *command = fine), None);
            assert_eq!(refusal(|command| *command = bad), Some("invalid"));
        }
    }

    /// Protocol R-CMD-11.
    #[test]
    fn a_word_that_is_not_known_refuses_the_command_before_its_operation_is_looked_at() {
        let needs = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(refusal(|command| command.needs = needs(&capability::NEEDS)), None);
        assert_eq!(refusal(|command| command.needs = needs(&["guards", "teleport"])), Some("unsupported"));
        assert_eq!(
            refusal(|command| {
                command.needs = needs(&["teleport"]);
                command.operation = "x".into();
            }),
            Some("unsupported")
        );
        assert_eq!(refusal(|command| command.needs = needs(&["guards"; limits::MAX_NEEDS])), None);
        assert_eq!(refusal(|command| command.needs = needs(&["guards"; limits::MAX_NEEDS + 1])), Some("invalid"));
    }
}
