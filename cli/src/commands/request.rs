//! Turns the options that start a command into the request that the API takes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use api::commands::{CommandRequest, LimitsRequest};
use common::limits::MAX_STDIN_BYTES;
use serde_json::{Map, Value, json};

use crate::args::values::{Argument, Pair};
use crate::args::{OpArgs, RunArgs, Start};
use crate::error::{Failure, Kind};

/// The request of `run`.
pub(super) fn of_run(args: &RunArgs) -> Result<CommandRequest, Failure> {
    let what = match &args.shell {
        Some(line) => json!({ "shell": line }),
        None => json!({ "run": args.argv }),
    };
    with_options("command.run".to_owned(), what, &args.start)
}

/// The request of `op`.
pub(super) fn of_op(args: &OpArgs) -> Result<CommandRequest, Failure> {
    with_options(args.operation.clone(), arguments(&args.arguments)?, &args.start)
}

/// Builds the object of arguments; one that is given twice is a mistake, not a choice.
fn arguments(given: &[Argument]) -> Result<Value, Failure> {
    let mut object = Map::new();
    for Argument { key, value } in given {
        if object.insert(key.clone(), value.clone()).is_some() {
            return Err(Failure::new(Kind::Usage, format!("the argument {key:?} is given twice")));
        }
    }
    Ok(Value::Object(object))
}

fn with_options(operation: String, args: Value, start: &Start) -> Result<CommandRequest, Failure> {
    let mut request = CommandRequest {
        operation,
        args,
        timeout: start.timeout,
        expires_in: start.expires,
        user: start.user.clone(),
        cwd: start.cwd.clone(),
        limits: limits(&start.limits)?,
        idempotent: start.idempotent,
        ..CommandRequest::default()
    };
    for Pair { key, value } in &start.env {
        if request.env.insert(key.clone(), value.clone()).is_some() {
            return Err(Failure::new(Kind::Usage, format!("--env {key} is given twice")));
        }
    }
    if let Some(path) = &start.stdin {
        let bytes = read_stdin(path)?;
        match String::from_utf8(bytes) {
            Ok(text) => request.stdin = Some(text),
            Err(error) => request.stdin_b64 = Some(api::base64::encode(error.as_bytes())),
        }
    }
    Ok(request)
}

fn limits(given: &[Pair]) -> Result<Option<LimitsRequest>, Failure> {
    if given.is_empty() {
        return Ok(None);
    }
    let mut limits = LimitsRequest::default();
    for Pair { key, value } in given {
        let twice = match key.as_str() {
            "memory" => limits.memory.replace(value.clone()).is_some(),
            "memory_high" => limits.memory_high.replace(value.clone()).is_some(),
            "cpu" => limits.cpu.replace(value.clone()).is_some(),
            "output" => limits.output.replace(value.clone()).is_some(),
            _ => {
                let tasks = value
                    .parse()
                    .map_err(|error| Failure::new(Kind::Usage, format!("--limit {key}={value}")).because(error))?;
                limits.tasks.replace(tasks).is_some()
            }
        };
        if twice {
            return Err(Failure::new(Kind::Usage, format!("--limit {key} is given twice")));
        }
    }
    Ok(Some(limits))
}

/// Reads the standard input for a command from a file, or from ours for `-`.
fn read_stdin(path: &Path) -> Result<Vec<u8>, Failure> {
    let limit = MAX_STDIN_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| {
        Failure::new(Kind::Usage, format!("--stdin {} cannot be read", path.display())).because(error)
    })?;
    if bytes.len() > MAX_STDIN_BYTES {
        return Err(Failure::new(
            Kind::Usage,
            format!("--stdin {} is larger than {} KiB", path.display(), MAX_STDIN_BYTES / 1024),
        )
        .hint("put larger input into a file on the host"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;
    use crate::args::values;

    fn pairs(texts: &[&str]) -> Vec<Pair> {
        texts.iter().map(|text| values::pair(text).unwrap()).collect()
    }

    #[test]
    fn options_become_fields() {
        let start = Start {
            timeout: values::span("30s").ok(),
            limits: pairs(&["memory=256M", "tasks=64"]),
            env: pairs(&["K=V", "L="]),
            cwd: Some("/srv".into()),
            ..Start::default()
        };
        let request = with_options("command.run".into(), json!({"run": ["true"]}), &start).unwrap();
        let request = serde_json::to_value(request).unwrap();
        assert_eq!(
            request,
            json!({
                "operation": "command.run", "args": {"run": ["true"]}, "timeout": "30s", "cwd": "/srv",
                "env": {"K": "V", "L": ""}, "limits": {"memory": "256M", "tasks": 64}
            })
        );
    }

    #[test]
    fn what_is_given_twice_is_a_usage_error() {
        let twice = |texts: &[&str]| Start { env: pairs(texts), ..Start::default() };
        assert!(with_options("x".into(), json!({}), &twice(&["K=1", "K=2"])).is_err());
        assert!(limits(&pairs(&["cpu=1", "cpu=2"])).is_err());
        let arguments_twice = ["a=1", "a=2"].map(|text| values::argument(text).unwrap());
        assert_eq!(arguments(&arguments_twice).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn stdin_is_text_where_it_can_be_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        let given = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let start = Start { stdin: Some(path.clone()), ..Start::default() };
            with_options("x".into(), json!({}), &start)
        };
        assert_eq!(given("grün".as_bytes()).unwrap().stdin.as_deref(), Some("grün"));
        let binary = given(b"\xff\x00").unwrap();
        assert_eq!((binary.stdin, binary.stdin_b64.as_deref()), (None, Some("/wA=")));
        assert!(given(&vec![b'x'; MAX_STDIN_BYTES]).is_ok());
        let failure = given(&vec![b'x'; MAX_STDIN_BYTES + 1]).unwrap_err();
        assert!(failure.lines().contains("larger than 256 KiB"), "{}", failure.lines());
    }
}
