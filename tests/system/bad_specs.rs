//! Requests that cannot be run: refused at submit where that can be known, else ended with a typed error. None hangs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use common::model::Phase;
use serde_json::{Value, json};
use testkit::{House, HouseOptions, web};

/// An answer, one way or the other, comes within this time.
const ANSWER: Duration = Duration::from_secs(30);

async fn house() -> anyhow::Result<House> {
    House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"])).await
}

/// What a submit may say that no host could run, with the field that the refusal names.
fn never_right() -> Vec<(Value, &'static str)> {
    let run = |extra: Value| {
        let mut request = json!({"operation": "command.run", "args": {"run": ["true"]}});
        for (key, value) in extra.as_object().into_iter().flatten() {
            request[key] = value.clone();
        }
        request
    };
    let args = |args: Value| json!({"operation": "command.run", "args": args});
    let script = |args: Value| json!({"operation": "script.run", "args": args});
    vec![
        (args(json!({"run": []})), "args.run"),
        (args(json!({"run": [""]})), "args.run[0]"),
        (args(json!({"run": ["a\u{0}b"]})), "args.run[0]"),
        (args(json!({"run": ["true", 7]})), "args.run[1]"),
        (args(json!({"shell": ""})), "args.shell"),
        (args(json!({"run": ["true"], "shell": "true"})), "args"),
        (args(json!({"run": ["true", "x".repeat(3 * 1024 * 1024)]})), ""),
        (args(json!({"run": ["true"], "creates": "relative"})), "args.creates"),
        (args(json!({"run": ["true"], "removes": 7})), "args.removes"),
        (args(json!({"run": ["true"], "unless": []})), "args.unless"),
        (args(json!({"run": ["true"], "only_if": "a\u{0}"})), "args.only_if"),
        (args(json!({"run": ["true"], "creats": "/x"})), "args.creats"),
        (script(json!({})), "args.content"),
        (script(json!({"content": ""})), "args.content"),
        (script(json!({"content": "true", "interpreter": []})), "args.interpreter"),
        (script(json!({"content": "true", "args": ["\u{0}"]})), "args.args[0]"),
        (run(json!({"env": {"A=B": "x"}})), "env.A=B"),
        (run(json!({"env": {"": "x"}})), "env."),
        (run(json!({"env": {"A": "\u{0}"}})), "env.A"),
        (run(json!({"cwd": "tmp"})), "cwd"),
        (run(json!({"cwd": "/\u{0}"})), "cwd"),
        (run(json!({"user": ""})), "user"),
        (run(json!({"user": "a:b"})), "user"),
        (run(json!({"user": "x".repeat(300)})), "user"),
        (run(json!({"umask": "999"})), "umask"),
        (run(json!({"umask": "01000"})), "umask"),
        (run(json!({"nice": 20})), "nice"),
        (run(json!({"nice": -21})), "nice"),
        (run(json!({"oom_score": 1001})), "oom_score"),
        (run(json!({"stop_signal": "TREM"})), "stop_signal"),
        (run(json!({"stop_signal": "0"})), "stop_signal"),
        (run(json!({"stop_signal": "65"})), "stop_signal"),
        (run(json!({"grace": "61m"})), "grace"),
        (run(json!({"timeout": "0s"})), "timeout"),
        (run(json!({"limits": {"memory": "0"}})), "limits.memory"),
        (run(json!({"limits": {"memory": "-1M"}})), "limits.memory"),
        (run(json!({"limits": {"cpu": "0%"}})), "limits.cpu"),
        (run(json!({"limits": {"cpu": "-50%"}})), "limits.cpu"),
        (run(json!({"limits": {"tasks": 0}})), "limits.tasks"),
        (run(json!({"limits": {"tasks": -1}})), "limits.tasks"),
        (run(json!({"limits": {"output": "1"}})), "limits.output"),
        (run(json!({"limits": {"memroy": "1M"}})), "limits.memroy"),
        (run(json!({"limits": {"disk": "1M"}})), "limits.disk"),
        (json!({"operation": "command.rum", "args": {}}), "operation"),
        (json!({"operation": "agent.ping", "args": {}, "user": "nobody"}), "user"),
    ]
}

#[tokio::test]
async fn what_no_host_could_run_is_refused_at_submit_with_the_field_that_is_wrong() -> anyhow::Result<()> {
    let house = house().await?;
    let mut wrong = Vec::new();
    for (request, field) in never_right() {
        let shown: String = request.to_string().chars().take(120).collect();
        let answer = post(&house, &request).await.with_context(|| shown.clone())?;
        let problem = &answer.1;
        let named = problem["field"].as_str().unwrap_or_default();
        if !(400..500).contains(&answer.0) || problem["code"].as_str().is_none_or(str::is_empty) {
            wrong.push(format!("{shown}: answered {} {problem}", answer.0));
        } else if named != field {
            wrong.push(format!("{shown}: names {named:?} instead of {field:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    house.close().await
}

#[tokio::test]
async fn what_only_the_host_can_know_ends_with_a_typed_error() -> anyhow::Result<()> {
    let house = house().await?;
    let file = house.folder().join("file");
    fs::write(&file, "no folder, and nobody may run it")?;
    let file = file.display().to_string();
    let run = |words: Value| json!({"operation": "command.run", "args": {"run": words}});
    let with = |key: &str, value: Value| {
        let mut request = run(json!(["true"]));
        request[key] = value;
        request
    };
    let guarded = json!({"operation": "command.run", "args": {"run": ["true"], "unless": ["/no/such/guard"]}});
    let script = json!({"operation": "script.run", "args": {"content": "x", "interpreter": "/no/such/interpreter"}});
    for (request, code, said) in [
        (run(json!(["/no/such/program"])), "exec", "ENOENT"),
        (run(json!(["no-such-program"])), "exec", "ENOENT"),
        (run(json!([file])), "exec", "EACCES"),
        (run(json!(["true", "x".repeat(200 * 1024)])), "exec", "E2BIG"),
        (with("cwd", json!("/no/such/folder")), "cwd", "/no/such/folder"),
        (with("cwd", json!(file)), "cwd", "ENOTDIR"),
        (with("user", json!("no-such-user")), "user", "no-such-user"),
        (guarded, "guard", "/no/such/guard"),
        (script, "exec", "/no/such/interpreter"),
    ] {
        let shown: String = request.to_string().chars().take(120).collect();
        let (status, answer) = post(&house, &request).await?;
        ensure!(status == 202, "{shown}: {status} {answer}");
        let id = answer["id"].as_u64().context("no id")?;
        let ended = house.finished_within(id, ANSWER).await.with_context(|| shown.clone())?;
        let error = ended.error.clone().with_context(|| format!("{shown}: {ended:?}"))?;
        ensure!(ended.phase == Phase::Failed, "{shown}: {ended:?}");
        ensure!(error.code == code && error.text.contains(said), "{shown}: {error:?}");
        ensure!(
            ended.exit_code.is_none() && ended.signal.is_none() && ended.changed == Some(false),
            "{shown}: {ended:?}"
        );
    }
    house.no_survivors().await?;
    house.close().await
}

async fn post(house: &House, request: &Value) -> anyhow::Result<(u16, Value)> {
    let answer = web::call(house, "POST", "/agents/web1/commands", request.to_string().as_bytes()).await?;
    Ok((answer.status, answer.json()))
}
