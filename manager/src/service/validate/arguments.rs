//! What each operation takes as its arguments.

use common::{limits, suggest};
use serde_json::{Map, Value};

use super::Checked;
use super::posture::{check_path, no_nul};
use crate::service::error::ServiceError;

/// Runs a program or a shell line.
pub const COMMAND_RUN: &str = "command.run";
/// Runs a script that travels with the command.
pub const SCRIPT_RUN: &str = "script.run";
/// Asks an agent whether it is there; runs no process.
pub const AGENT_PING: &str = "agent.ping";
/// Operations that this manager knows.
pub const OPERATIONS: [&str; 3] = [COMMAND_RUN, SCRIPT_RUN, AGENT_PING];

/// Arguments that decide by a path whether a process runs at all.
const PATHS: [&str; 2] = ["creates", "removes"];
/// Arguments that decide it by a program.
const PROGRAMS: [&str; 2] = ["unless", "only_if"];
/// All of them.
pub(crate) const GUARDS: [&str; 4] = [PATHS[0], PATHS[1], PROGRAMS[0], PROGRAMS[1]];

/// Checks the arguments of an operation, JSON text.
pub(super) fn check(operation: &str, args: &str) -> Checked {
    let args = object(args)?;
    match operation {
        COMMAND_RUN => command_run(&args),
        SCRIPT_RUN => script_run(&args),
        AGENT_PING => only(&args, &[]),
        other => Err(unknown_operation(other)),
    }
}

fn object(text: &str) -> Result<Map<String, Value>, ServiceError> {
    if text.len() > limits::MAX_ARGS_BYTES {
        return Err(ServiceError::invalid("args", format!("must have at most {} bytes", limits::MAX_ARGS_BYTES)));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(args)) => Ok(args),
        Ok(_) => Err(ServiceError::invalid("args", "must be an object")),
        Err(error) => Err(ServiceError::invalid("args", format!("is not JSON: {error}"))),
    }
}

fn unknown_operation(name: &str) -> ServiceError {
    let hint = suggest::nearest(name, OPERATIONS)
        .map(|known| format!("did you mean {known}?"))
        .or_else(|| Some(format!("known are {}", OPERATIONS.join(", "))));
    let text = format!("there is no operation {}", common::escape::text(name));
    ServiceError::Invalid { code: "unknown_operation", field: "operation".to_owned(), text, hint }
}

fn command_run(args: &Map<String, Value>) -> Checked {
    only_guarded(args, &["run", "shell"])?;
    match (args.get("run"), args.get("shell")) {
        (Some(run), None) => argv("args.run", run)?,
        (None, Some(shell)) => line("args.shell", shell)?,
        (Some(_), Some(_)) => {
            return Err(ServiceError::invalid("args", "has run and shell; exactly one is wanted"));
        }
        (None, None) => {
            let hint = r#"for example {"run": ["uname", "-a"]}"#;
            return Err(hinted("args", "has neither run nor shell; exactly one is wanted", hint));
        }
    }
    guards(args)
}

fn script_run(args: &Map<String, Value>) -> Checked {
    only_guarded(args, &["content", "interpreter", "args"])?;
    match args.get("content") {
        Some(content) => line("args.content", content)?,
        None => return Err(hinted("args.content", "is missing", "it is the text of the script")),
    }
    match args.get("interpreter") {
        None => {}
        Some(Value::String(word)) => {
            if word.is_empty() {
                return Err(ServiceError::invalid("args.interpreter", "is empty; it names the program"));
            }
            if word.contains(char::is_whitespace) {
                let hint = r#"its arguments make a list, for example ["python3", "-u"]"#;
                return Err(hinted("args.interpreter", "must be one word", hint));
            }
            no_nul("args.interpreter", word)?;
        }
        Some(list @ Value::Array(_)) => argv("args.interpreter", list)?,
        Some(_) => return Err(ServiceError::invalid("args.interpreter", "must be a text or a list of texts")),
    }
    match args.get("args") {
        None => {}
        Some(Value::Array(list)) => words("args.args", list)?,
        Some(_) => return Err(ServiceError::invalid("args.args", "must be a list of texts")),
    }
    guards(args)
}

fn guards(args: &Map<String, Value>) -> Checked {
    for key in PATHS {
        let field = format!("args.{key}");
        match args.get(key) {
            None => {}
            Some(Value::String(path)) => check_path(&field, path)?,
            Some(_) => return Err(ServiceError::invalid(field, "must be an absolute path")),
        }
    }
    for key in PROGRAMS {
        let field = format!("args.{key}");
        match args.get(key) {
            None => {}
            Some(list @ Value::Array(_)) => argv(&field, list)?,
            Some(text @ Value::String(_)) => line(&field, text)?,
            Some(_) => return Err(ServiceError::invalid(field, "must be a line for the shell or a list of texts")),
        }
    }
    Ok(())
}

/// A text with something in it.
fn line(field: &str, value: &Value) -> Checked {
    match value.as_str() {
        Some(line) if !line.trim().is_empty() => no_nul(field, line),
        Some(_) => Err(ServiceError::invalid(field, "is empty")),
        None => Err(ServiceError::invalid(field, "must be a text")),
    }
}

/// A program and its arguments.
fn argv(field: &str, value: &Value) -> Checked {
    let Some(list) = value.as_array() else {
        return Err(hinted(field, "must be a list of texts", "a line for the shell goes into args.shell"));
    };
    words(field, list)?;
    match list.first().and_then(Value::as_str) {
        None => Err(ServiceError::invalid(field, "is empty")),
        Some("") => Err(ServiceError::invalid(format!("{field}[0]"), "is empty; it names the program")),
        Some(_) => Ok(()),
    }
}

fn words(field: &str, list: &[Value]) -> Checked {
    for (at, word) in list.iter().enumerate() {
        let field = format!("{field}[{at}]");
        match word.as_str() {
            Some(word) => no_nul(&field, word)?,
            None => return Err(ServiceError::invalid(field, "must be a text")),
        }
    }
    Ok(())
}

/// Refuses arguments that an operation with guards does not take.
fn only_guarded(args: &Map<String, Value>, known: &[&'static str]) -> Checked {
    only(args, &[known, &GUARDS].concat())
}

/// Refuses arguments that an operation does not take.
fn only(args: &Map<String, Value>, known: &[&'static str]) -> Checked {
    let Some(key) = args.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let hint = suggest::nearest(key, known.iter().copied()).map(|known| format!("did you mean {known}?"));
    let hint = hint.or_else(|| match known {
        [] => Some("it takes no arguments".to_owned()),
        known => Some(format!("it takes {}", known.join(", "))),
    });
    Err(ServiceError::Invalid {
        code: "unknown_field",
        field: format!("args.{}", common::escape::text(key)),
        text: "is not an argument of this operation".to_owned(),
        hint,
    })
}

fn hinted(field: &str, text: &str, hint: &str) -> ServiceError {
    ServiceError::Invalid {
        code: "invalid",
        field: field.to_owned(),
        text: text.to_owned(),
        hint: Some(hint.to_owned()),
    }
}
