//! Finds the operation of a name and has its arguments judged.

use common::limits::MAX_ARGS_BYTES;

use super::{ping, run};

/// An operation with arguments that were understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `command.run`: a process under a shim.
    Run,
    /// `agent.ping`: answered by the agent itself, as durably as any other command.
    Ping,
}

/// Why a command will never run here. The code is stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

impl Refused {
    pub(crate) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Names of all operations.
const NAMES: [&str; 2] = ["agent.ping", "command.run"];

/// Understands an operation and its arguments; one that is not known is refused by name (protocol R-CMD-7).
///
/// # Errors
/// A refusal with a code and a text that names the argument.
pub(crate) fn understand(name: &str, args: &[u8]) -> Result<Operation, Refused> {
    if args.len() > MAX_ARGS_BYTES {
        return Err(Refused::new("invalid_args", format!("the arguments have more than {MAX_ARGS_BYTES} bytes")));
    }
    match name {
        "command.run" => run::check(args).map(|()| Operation::Run),
        "agent.ping" => ping::check(args).map(|()| Operation::Ping),
        _ => {
            let mut text = format!("this agent has no operation `{}`", common::escape::text(name));
            if let Some(near) = common::suggest::nearest(name, NAMES) {
                text.push_str(&format!("; did you mean `{near}`?"));
            }
            Err(Refused::new("unknown_operation", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(name: &str, args: &str) -> Option<&'static str> {
        understand(name, args.as_bytes()).err().map(|refused| refused.code)
    }

    #[test]
    fn what_is_known_and_makes_sense_passes() {
        assert_eq!(understand("command.run", br#"{"run":["true"]}"#), Ok(Operation::Run));
        assert_eq!(understand("command.run", br#"{"shell":"a | b"}"#), Ok(Operation::Run));
        assert_eq!(understand("agent.ping", b"{}"), Ok(Operation::Ping));
        assert_eq!(understand("agent.ping", b""), Ok(Operation::Ping));
    }

    #[test]
    fn everything_else_is_refused_with_a_stable_code() {
        assert_eq!(code("command.rum", "{}"), Some("unknown_operation"));
        assert_eq!(code("", "{}"), Some("unknown_operation"));
        for args in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"run":[]}"#,
            r#"{"run":[""]}"#,
            r#"{"run":["a"],"shell":"b"}"#,
            r#"{"run":"a"}"#,
            r#"{"run":["a\u0000"]}"#,
            r#"{"shell":"a\u0000"}"#,
            r#"{"shell":""}"#,
            r#"{"rum":["a"]}"#,
            r#"{"run":[1]}"#,
        ] {
            assert_eq!(code("command.run", args), Some("invalid_args"), "{args}");
        }
        assert_eq!(code("agent.ping", r#"{"x":1}"#), Some("invalid_args"));
        let large = format!(r#"{{"shell":"{}"}}"#, "x".repeat(MAX_ARGS_BYTES));
        assert_eq!(code("command.run", &large), Some("invalid_args"));
    }

    #[test]
    fn a_slip_of_the_keyboard_gets_a_suggestion() {
        let refused = understand("command.rum", b"{}").err();
        assert!(refused.is_some_and(|refused| refused.text.contains("`command.run`")));
    }
}
