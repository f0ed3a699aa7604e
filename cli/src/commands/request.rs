//! Turns the options that start a command into the request that the API takes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use api::commands::{CommandRequest, LimitsRequest};
use common::limits::{MAX_ARGS_BYTES, MAX_STDIN_BYTES};
use serde_json::{Map, Value, json};

use super::secrets::{self, Input};
use crate::args::values::{Argument, Limit, Pair, Words};
use crate::args::{Bounds, Guards, OpArgs, RunArgs, Start};
use crate::error::{Failure, Kind};

/// The request of `run`.
pub(super) fn of_run(args: &RunArgs) -> Result<CommandRequest, Failure> {
    let (operation, what) = match (&args.shell, &args.script) {
        (Some(line), _) => ("command.run", object(json!({ "shell": line }))),
        (None, Some(path)) => {
            secrets::one_reader(Some(path), &args.start)?;
            ("script.run", script(path, args)?)
        }
        (None, None) => ("command.run", object(json!({ "run": args.argv }))),
    };
    with_options(operation.to_owned(), what, &args.start)
}

/// The request of `op`.
pub(super) fn of_op(args: &OpArgs) -> Result<CommandRequest, Failure> {
    with_options(args.operation.clone(), arguments(&args.arguments)?, &args.start)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// The arguments of `script.run`: its text travels, and stands in the record of the command.
fn script(path: &Path, args: &RunArgs) -> Result<Map<String, Value>, Failure> {
    let bad = |why: &str| Failure::new(Kind::Usage, format!("--script {} {why}", path.display()));
    let most = MAX_ARGS_BYTES / 1024;
    let Some(bytes) = read(path, MAX_ARGS_BYTES).map_err(|error| bad("cannot be read").because(error))? else {
        return Err(bad(&format!("is larger than {most} KiB")).hint("put a larger program into a file on the host"));
    };
    if bytes.is_empty() {
        return Err(bad("is empty"));
    }
    if bytes.contains(&0) {
        return Err(bad("holds a NUL: it is no script").hint("put a program into a file on the host and run that"));
    }
    let content = String::from_utf8(bytes)
        .map_err(|error| bad("is not UTF-8 text").because(error).hint("put it into a file on the host and run that"))?;
    let mut script = object(json!({ "content": content }));
    if let Some(Words(words)) = &args.interpreter {
        let interpreter = match words.as_slice() {
            [word] => json!(word),
            words => json!(words),
        };
        script.insert("interpreter".to_owned(), interpreter);
    }
    if !args.argv.is_empty() {
        script.insert("args".to_owned(), json!(args.argv));
    }
    // Quotes and newlines take two bytes each on their way.
    if serde_json::to_vec(&script).map_err(Failure::unprintable)?.len() > MAX_ARGS_BYTES {
        return Err(bad(&format!("and its arguments are larger than {most} KiB as JSON"))
            .hint("put a larger program into a file on the host"));
    }
    Ok(script)
}

/// Builds the object of arguments; one that is given twice is a mistake, not a choice.
fn arguments(given: &[Argument]) -> Result<Map<String, Value>, Failure> {
    let mut object = Map::new();
    for Argument { key, value } in given {
        if object.insert(key.clone(), value.clone()).is_some() {
            return Err(Failure::new(Kind::Usage, format!("the argument {key:?} is given twice")));
        }
    }
    Ok(object)
}

fn with_options(operation: String, mut args: Map<String, Value>, start: &Start) -> Result<CommandRequest, Failure> {
    secrets::one_reader(None, start)?;
    guard(&mut args, &start.guards)?;
    let posture = &start.posture;
    let mut request = CommandRequest {
        operation,
        args: Value::Object(args),
        timeout: start.timeout,
        expires_in: start.expires,
        user: start.user.clone(),
        cwd: start.cwd.clone(),
        limits: limits(&start.bounds)?,
        umask: posture.umask.clone(),
        nice: posture.nice,
        oom_score: posture.oom_score,
        keep_strays: posture.keep_strays,
        stop_signal: posture.stop_signal.clone(),
        stop_only_main: posture.stop_only_main,
        grace: posture.grace,
        idempotent: start.idempotent,
        ..CommandRequest::default()
    };
    for Pair { key, value } in &start.env {
        if request.env.insert(key.clone(), value.as_str().into()).is_some() {
            return Err(Failure::new(Kind::Usage, format!("--env {key} is given twice")));
        }
    }
    for var in &start.secret_env {
        if request.env.insert(var.name.clone(), secrets::variable(var)?).is_some() {
            return Err(Failure::new(Kind::Usage, format!("the variable {} is given twice", var.name)));
        }
    }
    if let Some(path) = &start.stdin {
        let bytes = read_stdin(path)?;
        match String::from_utf8(bytes) {
            Ok(text) => request.stdin = Some(text.into()),
            Err(error) => request.stdin_b64 = Some(api::base64::encode(error.as_bytes()).into()),
        }
    }
    match start.secret_stdin.as_deref().map(secrets::input).transpose()? {
        Some(Input::Text(text)) => request.stdin = Some(text),
        Some(Input::Base64(text)) => request.stdin_b64 = Some(text),
        None => {}
    }
    Ok(request)
}

/// Adds the guards to the arguments of the operation, which is where they belong.
fn guard(args: &mut Map<String, Value>, guards: &Guards) -> Result<(), Failure> {
    let given = [
        ("creates", "--creates", &guards.creates),
        ("removes", "--removes", &guards.removes),
        ("unless", "--unless", &guards.unless),
        ("only_if", "--only-if", &guards.only_if),
    ];
    for (key, flag, value) in given {
        let Some(value) = value else { continue };
        if args.insert(key.to_owned(), json!(value)).is_some() {
            return Err(Failure::new(Kind::Usage, format!("{key} is given twice: as {flag} and as an argument")));
        }
    }
    Ok(())
}

fn limits(bounds: &Bounds) -> Result<Option<LimitsRequest>, Failure> {
    if bounds.limits.is_empty() {
        return Ok(None);
    }
    let mut limits = LimitsRequest { best_effort: bounds.best_effort, ..LimitsRequest::default() };
    for limit in &bounds.limits {
        let (name, is_again) = match limit {
            Limit::Memory(size) => ("memory", limits.memory.replace(size.clone()).is_some()),
            Limit::MemoryHigh(size) => ("memory_high", limits.memory_high.replace(size.clone()).is_some()),
            Limit::Cpu(share) => ("cpu", limits.cpu.replace(share.clone()).is_some()),
            Limit::Tasks(count) => ("tasks", limits.tasks.replace(*count).is_some()),
            Limit::Output(size) => ("output", limits.output.replace(size.clone()).is_some()),
        };
        if is_again {
            return Err(Failure::new(Kind::Usage, format!("--limit {name} is given twice")));
        }
    }
    Ok(Some(limits))
}

/// Reads the standard input for a command from a file, or from ours for `-`.
fn read_stdin(path: &Path) -> Result<Vec<u8>, Failure> {
    let bad = |why: &str| Failure::new(Kind::Usage, format!("--stdin {} {why}", path.display()));
    match read(path, MAX_STDIN_BYTES).map_err(|error| bad("cannot be read").because(error))? {
        Some(bytes) => Ok(bytes),
        None => Err(bad(&format!("is larger than {} KiB", MAX_STDIN_BYTES / 1024))
            .hint("put larger input into a file on the host")),
    }
}

/// Reads a file, or our standard input for `-`; nothing when it is larger than `most`.
fn read(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let limit = most as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok((bytes.len() <= most).then_some(bytes))
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

    fn bounds(texts: &[&str]) -> Bounds {
        Bounds { limits: texts.iter().map(|text| values::limit(text).unwrap()).collect(), best_effort: true }
    }

    fn run() -> Map<String, Value> {
        object(json!({"run": ["true"]}))
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn of_line(words: &[&str]) -> Result<CommandRequest, Failure> {
        use clap::Parser as _;
        of_run(&Line::parse_from(["run", "web1"].iter().chain(words)).run)
    }

    #[test]
    fn every_option_becomes_its_field() {
        let request = of_line(&[
            "--timeout",
            "30s",
            "--expires",
            "1h",
            "--user",
            "nobody",
            "--env",
            "K=V",
            "--env",
            "L=",
            "--cwd",
            "/srv",
            "--limit",
            "memory=256M",
            "--limit",
            "memory_high=200M",
            "--limit",
            "cpu=50%",
            "--limit",
            "tasks=64",
            "--limit",
            "output=1M",
            "--best-effort",
            "--umask",
            "27",
            "--nice",
            "-5",
            "--oom-score",
            "500",
            "--keep-strays",
            "--stop-signal",
            "SIGINT",
            "--stop-only-main",
            "--grace",
            "200ms",
            "--idempotent",
            "--creates",
            "/a",
            "--removes",
            "/b",
            "--unless",
            "test -e /c",
            "--only-if",
            "test -e /d",
            "--",
            "true",
        ])
        .unwrap();
        assert_eq!(
            serde_json::to_value(request).unwrap(),
            json!({
                "operation": "command.run",
                "args": {
                    "run": ["true"], "creates": "/a", "removes": "/b", "unless": "test -e /c", "only_if": "test -e /d"
                },
                "timeout": "30s", "expires_in": "1h", "user": "nobody", "env": {"K": "V", "L": ""}, "cwd": "/srv",
                "limits": {
                    "memory": "256M", "memory_high": "200M", "cpu": "50%", "tasks": 64, "output": "1M",
                    "best_effort": true
                },
                "umask": "0027", "nice": -5, "oom_score": 500, "keep_strays": true, "stop_signal": "INT",
                "stop_only_main": true, "grace": "200ms", "idempotent": true
            })
        );
        let plain = serde_json::to_value(of_line(&["--", "true"]).unwrap()).unwrap();
        assert_eq!(plain, json!({"operation": "command.run", "args": {"run": ["true"]}}), "nothing is sent unasked");
    }

    #[test]
    fn what_is_given_twice_is_a_usage_error() {
        let twice = |texts: &[&str]| Start { env: pairs(texts), ..Start::default() };
        assert!(with_options("x".into(), run(), &twice(&["K=1", "K=2"])).is_err());
        let failure = limits(&bounds(&["cpu=1%", "cpu=2%"])).unwrap_err();
        assert!(failure.lines().contains("--limit cpu is given twice"), "{}", failure.lines());
        let arguments_twice = ["a=1", "a=2"].map(|text| values::argument(text).unwrap());
        assert_eq!(arguments(&arguments_twice).unwrap_err().kind(), Kind::Usage);
        let guards = Guards { creates: Some("/x".into()), ..Guards::default() };
        let mut args = object(json!({"creates": "/y"}));
        let told = guard(&mut args, &guards).unwrap_err().lines();
        assert!(told.contains("--creates"), "{told}");
    }

    #[test]
    fn secrets_travel_as_such_and_are_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let name = path.to_str().unwrap();
        fs::write(&path, "hunter2\n").unwrap();
        let token = format!("TOKEN={name}");
        let request = of_line(&["--secret-env", &token, "--env", "K=V", "--secret-stdin", name, "--", "true"]).unwrap();
        assert!(!format!("{request:?}").contains("hunter2"));
        assert_eq!(
            serde_json::to_value(request).unwrap(),
            json!({
                "operation": "command.run", "args": {"run": ["true"]},
                "env": {"K": "V", "TOKEN": {"secret": "hunter2"}}, "stdin": {"secret": "hunter2\n"}
            })
        );
        for twice in [&["--env", "TOKEN=x", "--secret-env", &token], &["--secret-env", &token, "--secret-env", &token]]
        {
            let told = of_line(&[twice.as_slice(), &["--", "true"]].concat()).unwrap_err().lines();
            assert!(told.contains("TOKEN is given twice") && !told.contains("hunter2"), "{told}");
        }
        let both = of_line(&["--secret-env", "A=-", "--secret-env", "B=-", "--", "true"]).unwrap_err().lines();
        assert!(both.contains("--secret-env A=- and --secret-env B=-"), "{both}");
    }

    #[test]
    fn stdin_is_text_where_it_can_be_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        let given = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let start = Start { stdin: Some(path.clone()), ..Start::default() };
            with_options("x".into(), Map::new(), &start)
        };
        assert_eq!(given("grün".as_bytes()).unwrap().stdin, Some("grün".into()));
        let binary = given(b"\xff\x00").unwrap();
        assert_eq!((binary.stdin, binary.stdin_b64), (None, Some("/wA=".into())));
        assert!(given(&vec![b'x'; MAX_STDIN_BYTES]).is_ok());
        let failure = given(&vec![b'x'; MAX_STDIN_BYTES + 1]).unwrap_err();
        assert!(failure.lines().contains("larger than 256 KiB"), "{}", failure.lines());
    }

    #[test]
    fn a_script_travels_with_its_interpreter_and_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy");
        let name = path.to_str().unwrap();
        fs::write(&path, "#!/bin/sh\necho \"$1\"\n").unwrap();
        let request = of_line(&["--script", name, "--", "v1", "--x"]).unwrap();
        assert_eq!(request.operation, "script.run");
        assert_eq!(request.args, json!({"content": "#!/bin/sh\necho \"$1\"\n", "args": ["v1", "--x"]}));
        let request = of_line(&["--script", name, "--interpreter", "python3 -u", "--creates", "/x"]).unwrap();
        assert_eq!(request.args["interpreter"], json!(["python3", "-u"]));
        assert_eq!((request.args.get("args"), &request.args["creates"]), (None, &json!("/x")));
        let request = of_line(&["--script", name, "--interpreter", "perl"]).unwrap();
        assert_eq!(request.args["interpreter"], json!("perl"));
    }

    #[test]
    fn what_is_no_script_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad");
        let name = path.to_str().unwrap();
        let told = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            of_line(&["--script", name]).map_err(|failure| failure.lines()).err().unwrap_or_default()
        };
        for (bytes, says) in [
            (&b""[..], "is empty"),
            (b"\x7fELF\0", "holds a NUL"),
            (b"echo \xff", "is not UTF-8"),
            (&[b'x'; MAX_ARGS_BYTES + 1], "is larger than 512 KiB"),
            (&[b'\n'; MAX_ARGS_BYTES / 2], "larger than 512 KiB as JSON"),
        ] {
            let told = told(bytes);
            assert!(told.contains(says) && told.contains(name), "{says}: {told}");
        }
        assert_eq!(told(&[b'x'; MAX_ARGS_BYTES - 20]), "", "just fits");
        let missing = of_line(&["--script", "/no/such/file"]).unwrap_err().lines();
        assert!(missing.contains("--script /no/such/file cannot be read"), "{missing}");
        for other in [&["--stdin", "-"], &["--secret-stdin", "-"], &["--secret-env", "T=-"]] {
            let both = of_line(&[&["--script", "-"], other.as_slice()].concat()).unwrap_err().lines();
            assert!(both.contains("--script - and --") && both.contains("both read our standard input"), "{both}");
        }
    }
}
