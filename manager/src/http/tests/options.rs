//! How a command is to run: each field on both sides of its edge, and the calls that pause it and let it go on.

use http::Method;
use serde_json::{Value, json};

use super::house::{AGENT, House};

fn path() -> String {
    format!("/agents/{AGENT}/commands")
}

/// A request for `true` with more fields.
fn with(fields: &str) -> String {
    format!(r#"{{"operation":"command.run","args":{{"run":["true"]}},{fields}}}"#)
}

#[tokio::test]
async fn everything_that_was_asked_for_is_shown() {
    let house = House::new().await;
    let body = with(
        r#""user":"nobody","limits":{"memory":"256M","memory_high":"128MiB","cpu":"150%","tasks":64,"output":"1M","best_effort":true},
           "umask":"27","nice":-5,"oom_score":500,"keep_strays":true,"stop_signal":"SIGINT","stop_only_main":true,"grace":"200ms""#,
    );
    let started = house.post(&path(), &body).await;
    assert_eq!(started.status, 202, "{}", String::from_utf8_lossy(&started.body));
    let expected = json!({
        "user": "nobody",
        "limits": {"memory": "256M", "memory_high": "128M", "cpu": "150%", "tasks": 64, "output": "1M", "best_effort": true},
        "umask": "0027", "nice": -5, "oom_score": 500, "keep_strays": true, "stop_signal": "INT", "stop_only_main": true,
        "grace": "200ms", "pause": null, "core_dumped": false,
    });
    let listed = house.get("/commands").await.json()["items"][0].clone();
    for shown in [started.json(), listed] {
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&shown[field], value, "{field}");
        }
    }
    let job = house.post("/commands", &body.replacen('{', &format!(r#"{{"agents":["{AGENT}"],"#), 1)).await;
    assert_eq!(job.status, 202, "{}", String::from_utf8_lossy(&job.body));
    let plain = house.get(&format!("/commands/{}", house.submit().await)).await.json();
    for field in ["user", "limits", "umask", "nice", "oom_score", "stop_signal", "grace", "pause"] {
        assert_eq!(plain[field], Value::Null, "{field}");
    }
    assert_eq!((&plain["keep_strays"], &plain["stop_only_main"]), (&json!(false), &json!(false)));
}

#[tokio::test]
async fn edges_that_are_right_are_taken() {
    let house = House::new().await;
    for fields in [
        r#""user":"0""#,
        r#""umask":"0""#,
        r#""umask":"0777""#,
        r#""nice":-20"#,
        r#""nice":19"#,
        r#""oom_score":-1000"#,
        r#""oom_score":1000"#,
        r#""stop_signal":1"#,
        r#""stop_signal":"64""#,
        r#""stop_signal":"usr1""#,
        r#""stop_signal":null,"umask":null,"nice":null,"oom_score":null,"grace":null,"user":null,"limits":null"#,
        r#""grace":"0s""#,
        r#""grace":"1h""#,
        r#""keep_strays":false"#,
        r#""limits":{}"#,
        r#""limits":{"memory":"1M"}"#,
        r#""limits":{"cpu":"1%"}"#,
        r#""limits":{"cpu":"100000%"}"#,
        r#""limits":{"tasks":1}"#,
        r#""limits":{"output":"512K"}"#,
    ] {
        let answer = house.post(&path(), &with(fields)).await;
        assert_eq!(answer.status, 202, "{fields}: {}", String::from_utf8_lossy(&answer.body));
    }
    for body in [
        r##"{"operation":"script.run","args":{"content":"#!/bin/sh\nid\n","interpreter":["sh","-e"],"args":["a"]}}"##,
        r#"{"operation":"command.run","args":{"run":["true"],"creates":"/a","removes":"/b","unless":"false","only_if":["true"]}}"#,
    ] {
        let answer = house.post(&path(), body).await;
        assert_eq!(answer.status, 202, "{body}: {}", String::from_utf8_lossy(&answer.body));
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_place_and_a_hint() {
    let house = House::new().await;
    let table: [(&str, &str, &str, Option<&str>); 40] = [
        (r#""user":"""#, "invalid", "user", None),
        (r#""user":"a:b""#, "invalid", "user", None),
        (r#""user":1000"#, "invalid", "user", None),
        (r#""umask":"""#, "invalid", "umask", None),
        (r#""umask":"8""#, "invalid", "umask", None),
        (r#""umask":"01000""#, "invalid", "umask", None),
        (r#""umask":"1000""#, "invalid", "umask", None),
        (r#""umask":"-1""#, "invalid", "umask", None),
        (r#""umask":27"#, "invalid", "umask", None),
        (r#""nice":20"#, "invalid", "nice", None),
        (r#""nice":-21"#, "invalid", "nice", None),
        (r#""nice":"5""#, "invalid", "nice", None),
        (r#""nice":5.5"#, "invalid", "nice", None),
        (r#""oom_score":1001"#, "invalid", "oom_score", None),
        (r#""oom_score":-1001"#, "invalid", "oom_score", None),
        (r#""oom_score":99999999999"#, "invalid", "oom_score", None),
        (r#""keep_strays":"yes""#, "invalid", "keep_strays", None),
        (r#""stop_only_main":1"#, "invalid", "stop_only_main", None),
        (r#""stop_signal":"TREM""#, "invalid", "stop_signal", Some("did you mean `TERM`?")),
        (r#""stop_signal":"""#, "invalid", "stop_signal", None),
        (r#""stop_signal":0"#, "invalid", "stop_signal", None),
        (r#""stop_signal":65"#, "invalid", "stop_signal", None),
        (r#""stop_signal":-2"#, "invalid", "stop_signal", None),
        (r#""grace":"61m""#, "invalid", "grace", None),
        (r#""grace":"-1s""#, "invalid", "grace", None),
        (r#""limits":{"memory":"0"}"#, "invalid", "limits.memory", None),
        (r#""limits":{"memory":"-1"}"#, "invalid", "limits.memory", None),
        (r#""limits":{"memory":"1023K"}"#, "invalid", "limits.memory", None),
        (r#""limits":{"memory":"1M","memory_high":"2M"}"#, "invalid", "limits.memory_high", None),
        (r#""limits":{"cpu":"0%"}"#, "invalid", "limits.cpu", None),
        (r#""limits":{"cpu":"-5%"}"#, "invalid", "limits.cpu", None),
        (r#""limits":{"cpu":"50"}"#, "invalid", "limits.cpu", None),
        (r#""limits":{"cpu":"100001%"}"#, "invalid", "limits.cpu", None),
        (r#""limits":{"cpu":"99999999999%"}"#, "invalid", "limits.cpu", None),
        (r#""limits":{"tasks":0}"#, "invalid", "limits.tasks", None),
        (r#""limits":{"tasks":-1}"#, "invalid", "limits.tasks", None),
        (r#""limits":{"output":"511K"}"#, "invalid", "limits.output", None),
        (r#""limits":{"task":1}"#, "unknown_field", "limits.task", Some("did you mean `tasks`?")),
        (r#""limits":{"memory_max":"1M"}"#, "unknown_field", "limits.memory_max", None),
        (r#""keep_stray":true"#, "unknown_field", "keep_stray", Some("did you mean `keep_strays`?")),
    ];
    for (fields, code, field, hint) in table {
        let problem = house.post(&path(), &with(fields)).await.problem(400, code);
        assert_eq!(problem.field.as_deref(), Some(field), "{fields}: {problem:?}");
        assert!(hint.is_none() || problem.hint.as_deref() == hint, "{fields}: {problem:?}");
    }
    for (body, field) in [
        (r#"{"operation":"script.run","args":{}}"#, "args.content"),
        (r#"{"operation":"script.run","args":{"content":"id","interpreter":"sh -e"}}"#, "args.interpreter"),
        (r#"{"operation":"command.run","args":{"run":["true"],"creates":"relative"}}"#, "args.creates"),
        (r#"{"operation":"command.run","args":{"run":["true"],"unless":[]}}"#, "args.unless"),
        (r#"{"operation":"agent.ping","umask":"022"}"#, "umask"),
        (r#"{"operation":"agent.ping","limits":{"tasks":1}}"#, "limits"),
    ] {
        let problem = house.post(&path(), body).await.problem(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field), "{body}");
    }
    assert_eq!(house.get("/commands").await.json()["items"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn a_command_is_paused_and_goes_on() {
    let house = House::new().await;
    let id = house.submit().await;
    let call = |verb: &'static str| {
        let path = format!("/commands/{id}/{verb}");
        let house = &house;
        async move { house.call(Method::POST, &path, &house.run, None).await }
    };
    for verb in ["pause", "resume"] {
        call(verb).await.problem(409, "not_started");
        house.call(Method::POST, &format!("/commands/4711/{verb}"), &house.admin, None).await.problem(404, "not_found");
        house.call(Method::POST, &format!("/commands/x/{verb}"), &house.admin, None).await.problem(400, "invalid");
    }
    let uids = house.accept().await;
    let paused = call("pause").await;
    assert_eq!(paused.status, 202);
    let wish = paused.json()["pause"].clone();
    assert_eq!((&wish["paused"], &wish["pending"], &wish["by"]), (&json!(true), &json!(true), &json!("run")));
    assert!(wish["at"].is_string() && wish["refused"].is_null());
    let again = call("pause").await;
    assert_eq!((again.status.as_u16(), &again.json()["pause"]), (202, &wish));
    let resumed = call("resume").await;
    assert_eq!((resumed.status.as_u16(), &resumed.json()["pause"]["paused"]), (202, &json!(false)));
    house.end(&uids[0], 0, 0, Vec::new()).await;
    for verb in ["pause", "resume"] {
        call(verb).await.problem(409, "already_final");
    }
    let shown = house.get(&format!("/commands/{id}")).await.json();
    assert_eq!(shown["pause"]["pending"], json!(false), "nothing is pending on a command that is over");
    let rows = house.store.audit_rows(0, 100).await.unwrap();
    let actions: Vec<_> = rows.iter().map(|row| row.action.as_str()).collect();
    assert!(actions.ends_with(&["command.pause", "command.resume"]), "{actions:?}");
}

#[tokio::test]
async fn a_stopping_command_is_not_paused() {
    let house = House::new().await;
    let id = house.submit().await;
    house.accept().await;
    house.post(&format!("/commands/{id}/pause"), "").await;
    assert_eq!(house.call(Method::POST, &format!("/commands/{id}/cancel"), &house.run, None).await.status, 202);
    for verb in ["pause", "resume"] {
        house.call(Method::POST, &format!("/commands/{id}/{verb}"), &house.run, None).await.problem(409, "stopping");
    }
    let shown = house.get(&format!("/commands/{id}")).await.json();
    assert_eq!(shown["pause"], Value::Null, "a wish that was not heard is forgotten");
}
