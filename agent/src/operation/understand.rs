//! Finds the operation of a name and has its arguments judged.

use common::limits::MAX_ARGS_BYTES;

use super::{ping, run, script};

/// An operation with arguments that were understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `command.run` or `script.run`: a process under a shim.
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
const NAMES: [&str; 3] = ["agent.ping", "command.run", "script.run"];

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
        "script.run" => script::check(args).map(|()| Operation::Run),
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

    fn text(name: &str, args: &str) -> String {
        understand(name, args.as_bytes()).err().map(|refused| refused.text).unwrap_or_default()
    }

    #[test]
    fn what_is_known_and_makes_sense_passes() {
        for args in [
            r#"{"run":["true"]}"#,
            r#"{"run":["true", ""]}"#,
            r#"{"shell":"a | b"}"#,
            r#"{"shell":"a","run":null}"#,
            r#"{"run":["a"],"creates":"/x","removes":"/y","unless":"test -e z","only_if":["test","-e","z"]}"#,
        ] {
            assert_eq!(understand("command.run", args.as_bytes()), Ok(Operation::Run), "{args}");
        }
        for args in [
            r##"{"content":"#!/bin/sh\ntrue\n"}"##,
            r#"{"content":"x","interpreter":"python3"}"#,
            r#"{"content":"x","interpreter":["python3","-u"],"args":["a",""],"creates":"/x"}"#,
            r#"{"content":"x","args":[]}"#,
        ] {
            assert_eq!(understand("script.run", args.as_bytes()), Ok(Operation::Run), "{args}");
        }
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
            r#"{"run":["a"],"run":["b"]}"#,
            r#"{"run":"a"}"#,
            r#"{"run":["a\u0000"]}"#,
            r#"{"shell":"a\u0000"}"#,
            r#"{"shell":""}"#,
            r#"{"shell":1}"#,
            r#"{"rum":["a"]}"#,
            r#"{"run":[1]}"#,
            r#"{"run":["a"],"content":"b"}"#,
            r#"{"creates":"/x"}"#,
        ] {
            assert_eq!(code("command.run", args), Some("invalid_args"), "{args}");
        }
        for args in [
            "{}",
            r#"{"content":""}"#,
            r#"{"content":"a\u0000"}"#,
            r#"{"content":["a"]}"#,
            r#"{"content":"a","interpreter":""}"#,
            r#"{"content":"a","interpreter":[]}"#,
            r#"{"content":"a","interpreter":[""]}"#,
            r#"{"content":"a","interpreter":7}"#,
            r#"{"content":"a","args":"b"}"#,
            r#"{"content":"a","args":["\u0000"]}"#,
            r#"{"content":"a","run":["b"]}"#,
        ] {
            assert_eq!(code("script.run", args), Some("invalid_args"), "{args}");
        }
        assert_eq!(code("agent.ping", r#"{"x":1}"#), Some("invalid_args"));
        let large = format!(r#"{{"shell":"{}"}}"#, "x".repeat(MAX_ARGS_BYTES));
        assert_eq!(code("command.run", &large), Some("invalid_args"));
    }

    #[test]
    fn guards_are_judged_for_both_kinds_of_process() {
        for guard in [
            r#""creates":"x""#,
            r#""creates":"""#,
            r#""creates":["/x"]"#,
            r#""removes":"/x\u0000""#,
            r#""unless":"""#,
            r#""unless":[]"#,
            r#""unless":[1]"#,
            r#""only_if":true"#,
            r#""only_if":["a\u0000"]"#,
        ] {
            for (name, args) in [
                ("command.run", format!(r#"{{"run":["a"],{guard}}}"#)),
                ("script.run", format!(r#"{{"content":"a",{guard}}}"#)),
            ] {
                assert_eq!(code(name, &args), Some("invalid_args"), "{name} {args}");
            }
        }
    }

    #[test]
    fn a_refusal_says_where_and_what_was_probably_meant() {
        assert!(text("command.rum", "{}").contains("did you mean `command.run`?"));
        assert_eq!(text("command.run", r#"{"shel":"a"}"#), "args: there is no `shel`; did you mean `shell`?");
        assert_eq!(
            text("command.run", r#"{"run":["a"],"creats":"/x"}"#),
            "args: there is no `creats`; did you mean `creates`?"
        );
        assert_eq!(text("command.run", r#"{"run":["a", 1]}"#), "args.run[1]: must be a text");
        assert_eq!(text("script.run", r#"{"content":"a","creates":"x"}"#), "args.creates: must be an absolute path");
        assert_eq!(text("agent.ping", r#"{"banana":1}"#), "args: there is no `banana`; there are no arguments");
    }
}
