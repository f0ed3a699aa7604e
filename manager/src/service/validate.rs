//! Is a request right in itself? Pure: no store, no clock.
//!
//! What the next parts of the house will run (users, limits, guards) is refused by name instead of being ignored: a
//! command that silently ran as root without its limits would be worse than none.

use std::time::Duration;

use common::id::Name;
use common::limits;
use common::suggest;
use serde_json::{Map, Value};
use store::types::{Limits, Request};

use super::error::ServiceError;

/// Runs a program or a shell line.
pub const COMMAND_RUN: &str = "command.run";
/// Asks an agent whether it is there; runs no process.
pub const AGENT_PING: &str = "agent.ping";
/// Operations that this manager knows.
pub const OPERATIONS: [&str; 2] = [COMMAND_RUN, AGENT_PING];

/// Arguments of `command.run` that decide whether it runs at all.
const GUARDS: [&str; 4] = ["creates", "removes", "unless", "only_if"];
/// Longest timeout: anything above it is a typing mistake.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// Longest name of a token.
const MAX_TOKEN_NAME: usize = 64;

type Checked = Result<(), ServiceError>;

/// Checks the list of agents.
///
/// # Errors
/// When it is empty, too long, or names one twice.
pub fn agents(agents: &[Name], most: usize) -> Checked {
    if agents.is_empty() {
        return Err(ServiceError::invalid("agents", "names no agent"));
    }
    if agents.len() > most {
        return Err(ServiceError::invalid(
            "agents",
            format!("names {} agents, at most {most} are taken at once", agents.len()),
        ));
    }
    let mut seen = std::collections::HashSet::with_capacity(agents.len());
    match agents.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(ServiceError::invalid("agents", format!("names {twice} twice"))),
        None => Ok(()),
    }
}

/// Checks what is to be done.
///
/// # Errors
/// The first thing that is wrong, with the path of the value.
pub fn request(request: &Request) -> Checked {
    let args = arguments(&request.args)?;
    match request.operation.as_str() {
        COMMAND_RUN => command_run(&args)?,
        AGENT_PING => agent_ping(&args, request)?,
        other => return Err(unknown_operation(other)),
    }
    if request.timeout.is_some_and(|timeout| timeout.is_zero() || timeout > MAX_TIMEOUT) {
        return Err(ServiceError::invalid("timeout", "is more than 0 and at most 365 days"));
    }
    if let Some(cwd) = &request.cwd {
        check_path("cwd", cwd)?;
    }
    environment(request)?;
    if request.stdin.as_ref().is_some_and(|stdin| stdin.len() > limits::MAX_STDIN_BYTES) {
        return Err(ServiceError::invalid("stdin", format!("has at most {} bytes", limits::MAX_STDIN_BYTES)));
    }
    resource_limits(&request.limits)?;
    if request.user.is_some() {
        return Err(not_supported("user", "running as another user"));
    }
    Ok(())
}

/// Checks how long a request is valid.
///
/// # Errors
/// When it is never valid or valid for too long.
pub fn expiry(expires_in: Option<Duration>) -> Checked {
    match expires_in {
        Some(validity) if validity.is_zero() => Err(ServiceError::invalid("expires_in", "is more than 0")),
        Some(validity) if validity > limits::MAX_EXPIRY => {
            Err(ServiceError::invalid("expires_in", "is at most 30 days"))
        }
        _ => Ok(()),
    }
}

/// Checks the reason of a cancel.
///
/// # Errors
/// When it is longer than the link carries.
pub fn reason(reason: Option<&str>) -> Checked {
    match reason {
        Some(reason) if reason.len() > limits::MAX_TEXT_BYTES => {
            Err(ServiceError::invalid("reason", format!("has at most {} bytes", limits::MAX_TEXT_BYTES)))
        }
        _ => Ok(()),
    }
}

/// Checks the grace of a cancel.
///
/// # Errors
/// When it is longer than an hour.
pub fn grace(grace: Option<Duration>) -> Checked {
    match grace {
        Some(grace) if grace > limits::MAX_GRACE => Err(ServiceError::invalid("grace", "is at most 1 hour")),
        _ => Ok(()),
    }
}

/// Checks the name of a token; it appears in audit rows and in `created_by`.
///
/// # Errors
/// When it is not a short name.
pub fn token_name(name: &str) -> Checked {
    let short = name.len() <= MAX_TOKEN_NAME && name.parse::<Name>().is_ok();
    if short {
        Ok(())
    } else {
        Err(ServiceError::invalid("name", "has 1 to 64 characters of letters, digits, '.', '-' and '_'"))
    }
}

fn arguments(text: &str) -> Result<Map<String, Value>, ServiceError> {
    if text.len() > limits::MAX_ARGS_BYTES {
        return Err(ServiceError::invalid("args", format!("has at most {} bytes", limits::MAX_ARGS_BYTES)));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(args)) => Ok(args),
        Ok(_) | Err(_) => Err(ServiceError::invalid("args", "is an object")),
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
    for key in args.keys() {
        if GUARDS.contains(&key.as_str()) {
            return Err(not_supported(&format!("args.{key}"), "a guard"));
        }
        if key != "run" && key != "shell" {
            return Err(unknown_key(key, &["run", "shell"]));
        }
    }
    match (args.get("run"), args.get("shell")) {
        (Some(run), None) => argv(run),
        (None, Some(shell)) => match shell.as_str() {
            Some(line) if !line.trim().is_empty() => no_nul("args.shell", line),
            Some(_) => Err(ServiceError::invalid("args.shell", "is empty")),
            None => Err(ServiceError::invalid("args.shell", "is a text")),
        },
        (Some(_), Some(_)) => Err(ServiceError::invalid("args", "has run and shell; exactly one is wanted")),
        (None, None) => Err(ServiceError::Invalid {
            code: "invalid",
            field: "args".to_owned(),
            text: "has neither run nor shell; exactly one is wanted".to_owned(),
            hint: Some(r#"for example {"run": ["uname", "-a"]}"#.to_owned()),
        }),
    }
}

fn argv(run: &Value) -> Checked {
    let Some(list) = run.as_array() else {
        return Err(ServiceError::Invalid {
            code: "invalid",
            field: "args.run".to_owned(),
            text: "is a list of texts".to_owned(),
            hint: Some("a line for the shell goes into args.shell".to_owned()),
        });
    };
    for (at, argument) in list.iter().enumerate() {
        let field = format!("args.run[{at}]");
        match argument.as_str() {
            Some(argument) => no_nul(&field, argument)?,
            None => return Err(ServiceError::invalid(field, "is a text")),
        }
    }
    match list.first().and_then(Value::as_str) {
        None => Err(ServiceError::invalid("args.run", "is empty")),
        Some("") => Err(ServiceError::invalid("args.run[0]", "is empty; it names the program")),
        Some(_) => Ok(()),
    }
}

fn agent_ping(args: &Map<String, Value>, request: &Request) -> Checked {
    if let Some(key) = args.keys().next() {
        return Err(unknown_key(key, &[]));
    }
    let odd = [("stdin", request.stdin.is_some()), ("cwd", request.cwd.is_some()), ("env", !request.env.is_empty())];
    match odd.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(ServiceError::invalid(field, "means nothing to agent.ping, which runs no process")),
        None => Ok(()),
    }
}

fn unknown_key(key: &str, known: &[&'static str]) -> ServiceError {
    let hint = suggest::nearest(key, known.iter().copied())
        .map(|known| format!("did you mean {known}?"))
        .or_else(|| known.is_empty().then(|| "it takes no arguments".to_owned()));
    let field = format!("args.{}", common::escape::text(key));
    ServiceError::Invalid {
        code: "unknown_field",
        field,
        text: "is not an argument of this operation".to_owned(),
        hint,
    }
}

fn environment(request: &Request) -> Checked {
    if request.env.len() > limits::MAX_ENV {
        return Err(ServiceError::invalid("env", format!("has at most {} variables", limits::MAX_ENV)));
    }
    let bytes: usize = request.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits::MAX_ENV_BYTES {
        return Err(ServiceError::invalid("env", format!("has at most {} bytes", limits::MAX_ENV_BYTES)));
    }
    for (name, value) in &request.env {
        let field = format!("env.{}", common::escape::text(name));
        if name.is_empty() || name.contains('=') {
            return Err(ServiceError::invalid(field, "a variable has a name without '='"));
        }
        no_nul(&field, name)?;
        no_nul(&field, value)?;
    }
    Ok(())
}

fn check_path(field: &str, path: &str) -> Checked {
    if !path.starts_with('/') {
        return Err(ServiceError::invalid(field, "is an absolute path"));
    }
    if path.len() >= 4096 {
        return Err(ServiceError::invalid(field, "is longer than a path can be"));
    }
    no_nul(field, path)
}

fn no_nul(field: &str, text: &str) -> Checked {
    if text.contains('\0') { Err(ServiceError::invalid(field, "contains a NUL")) } else { Ok(()) }
}

fn resource_limits(limits: &Limits) -> Checked {
    let zero = [
        ("limits.memory", limits.memory == Some(0)),
        ("limits.memory_high", limits.memory_high == Some(0)),
        ("limits.cpu", limits.cpu_percent == Some(0)),
        ("limits.tasks", limits.tasks == Some(0)),
        ("limits.output", limits.output == Some(0)),
    ];
    if let Some((field, _)) = zero.into_iter().find(|(_, zero)| *zero) {
        return Err(ServiceError::invalid(field, "is more than 0"));
    }
    let given = [
        ("limits.memory", limits.memory.is_some()),
        ("limits.memory_high", limits.memory_high.is_some()),
        ("limits.cpu", limits.cpu_percent.is_some()),
        ("limits.tasks", limits.tasks.is_some()),
        ("limits.output", limits.output.is_some()),
        ("limits.best_effort", limits.best_effort),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(not_supported(field, "a limit")),
        None => Ok(()),
    }
}

fn not_supported(field: &str, what: &str) -> ServiceError {
    ServiceError::Invalid {
        code: "not_supported_yet",
        field: field.to_owned(),
        text: format!("{what} is not supported by this version; the command was not started"),
        hint: Some("leave it out".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use super::*;

    fn run(args: &str) -> Request {
        Request {
            operation: COMMAND_RUN.to_owned(),
            args: args.to_owned(),
            timeout: None,
            user: None,
            env: BTreeMap::new(),
            cwd: None,
            stdin: None,
            limits: Limits::default(),
            idempotent: false,
        }
    }

    fn verdict(request: &Request) -> String {
        match super::request(request) {
            Ok(()) => "ok".to_owned(),
            Err(ServiceError::Invalid { code, field, .. }) => format!("{code} {field}"),
            Err(other) => other.to_string(),
        }
    }

    #[test]
    fn arguments_of_command_run_are_judged_one_by_one() {
        let table = [
            (r#"{"run":["true"]}"#, "ok"),
            (r#"{"run":["echo",""]}"#, "ok"),
            (r#"{"shell":"echo a | cat"}"#, "ok"),
            (r#"{}"#, "invalid args"),
            (r#"{"run":["true"],"shell":"true"}"#, "invalid args"),
            (r#"{"run":[]}"#, "invalid args.run"),
            (r#"{"run":[""]}"#, "invalid args.run[0]"),
            (r#"{"run":"true"}"#, "invalid args.run"),
            (r#"{"run":["a",1]}"#, "invalid args.run[1]"),
            (r#"{"run":["a","b\u0000c"]}"#, "invalid args.run[1]"),
            (r#"{"shell":""}"#, "invalid args.shell"),
            (r#"{"shell":["a"]}"#, "invalid args.shell"),
            (r#"{"shell":"a\u0000"}"#, "invalid args.shell"),
            (r#"{"run":["a"],"creates":"/x"}"#, "not_supported_yet args.creates"),
            (r#"{"run":["a"],"only_if":"x"}"#, "not_supported_yet args.only_if"),
            (r#"{"rum":["a"]}"#, "unknown_field args.rum"),
            (r#"[]"#, "invalid args"),
            ("{", "invalid args"),
        ];
        for (args, expected) in table {
            assert_eq!(verdict(&run(args)), expected, "{args}");
        }
    }

    #[test]
    fn everything_around_the_arguments_is_judged_too() {
        let good = r#"{"run":["true"]}"#;
        let check = |change: &dyn Fn(&mut Request)| {
            let mut request = run(good);
            change(&mut request);
            verdict(&request)
        };
        assert_eq!(check(&|r| r.operation = "agent.ping".into()), "unknown_field args.run");
        assert_eq!(check(&|r| (r.operation, r.args) = ("agent.ping".into(), "{}".into())), "ok");
        assert_eq!(
            check(&|r| (r.operation, r.args, r.stdin) = ("agent.ping".into(), "{}".into(), Some(vec![]))),
            "invalid stdin"
        );
        assert_eq!(check(&|r| r.operation = "comand.run".into()), "unknown_operation operation");
        assert_eq!(check(&|r| r.timeout = Some(Duration::ZERO)), "invalid timeout");
        assert_eq!(check(&|r| r.timeout = Some(Duration::from_millis(1))), "ok");
        assert_eq!(check(&|r| r.cwd = Some("tmp".into())), "invalid cwd");
        assert_eq!(check(&|r| r.cwd = Some("/t\0".into())), "invalid cwd");
        assert_eq!(check(&|r| r.cwd = Some("/tmp".into())), "ok");
        assert_eq!(check(&|r| r.user = Some("nobody".into())), "not_supported_yet user");
        assert_eq!(check(&|r| r.limits.memory = Some(0)), "invalid limits.memory");
        assert_eq!(check(&|r| r.limits.tasks = Some(1)), "not_supported_yet limits.tasks");
        for bad in ["", "A=B"] {
            assert!(check(&|r| drop(r.env.insert(bad.into(), "x".into()))).starts_with("invalid env."), "{bad:?}");
        }
        assert_eq!(check(&|r| drop(r.env.insert("A".into(), "a\0".into()))), "invalid env.A");
        assert_eq!(check(&|r| drop(r.env.insert("A".into(), "=".into()))), "ok");
    }

    #[test]
    fn sizes_hold_on_both_sides_of_their_edges() {
        let mut request = run(r#"{"run":["true"]}"#);
        request.stdin = Some(vec![0; limits::MAX_STDIN_BYTES]);
        assert_eq!(verdict(&request), "ok");
        request.stdin = Some(vec![0; limits::MAX_STDIN_BYTES + 1]);
        assert_eq!(verdict(&request), "invalid stdin");
        let frame = r#"{"shell":""}"#.len();
        let long = |bytes: usize| run(&format!(r#"{{"shell":"{}"}}"#, "x".repeat(bytes - frame)));
        assert_eq!(verdict(&long(limits::MAX_ARGS_BYTES)), "ok");
        assert_eq!(verdict(&long(limits::MAX_ARGS_BYTES + 1)), "invalid args");
        let mut request = run(r#"{"run":["true"]}"#);
        request.env = (0..limits::MAX_ENV).map(|n| (format!("V{n}"), String::new())).collect();
        assert_eq!(verdict(&request), "ok");
        request.env.insert("ONE_MORE".to_owned(), String::new());
        assert_eq!(verdict(&request), "invalid env");
        assert!(expiry(Some(limits::MAX_EXPIRY)).is_ok());
        assert!(expiry(Some(limits::MAX_EXPIRY + Duration::from_millis(1))).is_err());
        assert!(expiry(Some(Duration::ZERO)).is_err());
        assert!(grace(Some(Duration::ZERO)).is_ok());
        assert!(grace(Some(limits::MAX_GRACE + Duration::from_millis(1))).is_err());
    }

    #[test]
    fn a_list_of_agents_has_at_least_one_and_none_twice() {
        let names = |list: &[&str]| list.iter().map(|name| name.parse().unwrap()).collect::<Vec<Name>>();
        assert!(agents(&names(&[]), 2).is_err());
        assert!(agents(&names(&["a", "b"]), 2).is_ok());
        assert!(agents(&names(&["a", "a"]), 2).is_err());
        assert!(agents(&names(&["a", "b", "c"]), 2).is_err());
    }
}
