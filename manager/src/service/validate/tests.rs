//! What is refused at submit, and what is not.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use common::id::Name;
use common::limits;
use store::types::Request;

use super::*;
use crate::service::error::ServiceError;

fn run(args: &str) -> Request {
    Request { operation: COMMAND_RUN.to_owned(), args: args.to_owned(), ..Request::default() }
}

fn script(args: &str) -> Request {
    Request { operation: SCRIPT_RUN.to_owned(), ..run(args) }
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
        (r#"{"rum":["a"]}"#, "unknown_field args.rum"),
        (r#"{"run":["a"],"content":"x"}"#, "unknown_field args.content"),
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

#[test]
fn arguments_of_script_run_are_judged_one_by_one() {
    let table = [
        (r##"{"content":"#!/bin/sh\nid\n"}"##, "ok"),
        (r#"{"content":"id","interpreter":"python3","args":["a",""]}"#, "ok"),
        (r#"{"content":"id","interpreter":["python3","-u"],"creates":"/x"}"#, "ok"),
        (r#"{}"#, "invalid args.content"),
        (r#"{"content":" \n"}"#, "invalid args.content"),
        (r#"{"content":["id"]}"#, "invalid args.content"),
        (r#"{"content":"i\u0000d"}"#, "invalid args.content"),
        (r#"{"content":"id","interpreter":""}"#, "invalid args.interpreter"),
        (r#"{"content":"id","interpreter":"python3 -u"}"#, "invalid args.interpreter"),
        (r#"{"content":"id","interpreter":[]}"#, "invalid args.interpreter"),
        (r#"{"content":"id","interpreter":[""]}"#, "invalid args.interpreter[0]"),
        (r#"{"content":"id","interpreter":["sh",1]}"#, "invalid args.interpreter[1]"),
        (r#"{"content":"id","interpreter":7}"#, "invalid args.interpreter"),
        (r#"{"content":"id","args":"a"}"#, "invalid args.args"),
        (r#"{"content":"id","args":["a",null]}"#, "invalid args.args[1]"),
        (r#"{"content":"id","args":["\u0000"]}"#, "invalid args.args[0]"),
        (r#"{"content":"id","run":["a"]}"#, "unknown_field args.run"),
        (r#"{"contents":"id"}"#, "unknown_field args.contents"),
    ];
    for (args, expected) in table {
        assert_eq!(verdict(&script(args)), expected, "{args}");
    }
    let frame = r#"{"content":""}"#.len();
    let long = |bytes: usize| script(&format!(r#"{{"content":"{}"}}"#, "x".repeat(bytes - frame)));
    assert_eq!(verdict(&long(limits::MAX_ARGS_BYTES)), "ok");
    assert_eq!(verdict(&long(limits::MAX_ARGS_BYTES + 1)), "invalid args");
}

#[test]
fn guards_are_absolute_paths_and_things_to_run() {
    let table = [
        (r#""creates":"/x","removes":"/y","unless":"test -e /z","only_if":["test","-e","/z"]"#, "ok"),
        (r#""creates":"x""#, "invalid args.creates"),
        (r#""creates":"""#, "invalid args.creates"),
        (r#""creates":["/x"]"#, "invalid args.creates"),
        (r#""creates":null"#, "invalid args.creates"),
        (r#""removes":"/x\u0000""#, "invalid args.removes"),
        (r#""removes":true"#, "invalid args.removes"),
        (r#""unless":"""#, "invalid args.unless"),
        (r#""unless":[]"#, "invalid args.unless"),
        (r#""unless":[""]"#, "invalid args.unless[0]"),
        (r#""unless":{}"#, "invalid args.unless"),
        (r#""only_if":["a",1]"#, "invalid args.only_if[1]"),
        (r#""only_if":"a\u0000""#, "invalid args.only_if"),
        (r#""onlyif":"true""#, "unknown_field args.onlyif"),
    ];
    for (guards, expected) in table {
        assert_eq!(verdict(&run(&format!(r#"{{"run":["true"],{guards}}}"#))), expected, "{guards}");
        assert_eq!(verdict(&script(&format!(r#"{{"content":"id",{guards}}}"#))), expected, "{guards}");
    }
    let Err(ServiceError::Invalid { hint, .. }) = request(&run(r#"{"run":["a"],"onlyif":"true"}"#)) else {
        panic!("an unknown guard is refused")
    };
    assert_eq!(hint.as_deref(), Some("did you mean only_if?"));
}

#[test]
fn users_are_names_or_numbers() {
    let check = |user: &str| {
        let mut request = run(r#"{"run":["true"]}"#);
        request.user = Some(user.to_owned());
        verdict(&request)
    };
    for good in ["nobody", "0", "4294967294", "www-data", "svc$", "first.last", &"u".repeat(32)] {
        assert_eq!(check(good), "ok", "{good}");
    }
    for bad in ["", "a:b", "a/b", "a\0", "a\nb", "a b", "4294967295", "99999999999", &"u".repeat(33)] {
        assert_eq!(check(bad), "invalid user", "{bad:?}");
    }
}

#[test]
fn a_user_is_a_name_or_a_number_that_everybody_reads_the_same() {
    let check = |user: &str| verdict(&Request { user: Some(user.to_owned()), ..run(r#"{"run":["true"]}"#) });
    for good in ["root", "0", "1000", "4294967294", "0day", "a.b-c_d$", "7up"] {
        assert_eq!(check(good), "ok", "{good}");
    }
    for bad in
        ["", "+0", "+root", "+4294967295", "00", "01000", "4294967295", "4294967296", "a:b", "../x", "a b", "\u{0}"]
    {
        assert_eq!(check(bad), "invalid user", "{bad:?}");
    }
    assert_eq!((check(&"x".repeat(32)), check(&"x".repeat(33))), ("ok".to_owned(), "invalid user".to_owned()));
}

#[test]
fn limits_and_options_hold_on_both_sides_of_their_edges() {
    let check = |change: &dyn Fn(&mut Request)| {
        let mut request = run(r#"{"run":["true"]}"#);
        change(&mut request);
        verdict(&request)
    };
    const MIB: u64 = 1 << 20;
    for (memory, expected) in [(0, "bad"), (MIB - 1, "bad"), (MIB, "ok"), (i64::MAX as u64, "ok"), (1 << 63, "bad")] {
        let or = |field: &str| if expected == "ok" { "ok".to_owned() } else { format!("invalid {field}") };
        assert_eq!(check(&|r| r.limits.memory = Some(memory)), or("limits.memory"), "{memory}");
        assert_eq!(check(&|r| r.limits.memory_high = Some(memory)), or("limits.memory_high"), "{memory}");
    }
    let both = |high, most| check(&|r| (r.limits.memory_high, r.limits.memory) = (Some(high), Some(most)));
    assert_eq!((both(MIB, MIB), both(MIB + 1, MIB)), ("ok".to_owned(), "invalid limits.memory_high".to_owned()));
    let output = |bytes| check(&|r| r.limits.output = Some(bytes));
    assert_eq!(output(limits::MIN_OUTPUT_QUOTA), "ok");
    assert_eq!(output(limits::MIN_OUTPUT_QUOTA - 1), "invalid limits.output");
    let cpu = |percent| check(&|r| r.limits.cpu_percent = Some(percent));
    assert_eq!([cpu(0), cpu(1), cpu(100_000), cpu(100_001)], ["invalid limits.cpu", "ok", "ok", "invalid limits.cpu"]);
    let tasks = |tasks| check(&|r| r.limits.tasks = Some(tasks));
    assert_eq!([tasks(0), tasks(1), tasks(4_194_305)], ["invalid limits.tasks", "ok", "invalid limits.tasks"]);
    assert_eq!(check(&|r| r.limits.best_effort = true), "ok");
    let umask = |mask| check(&|r| r.options.umask = Some(mask));
    assert_eq!([umask(0), umask(0o777), umask(0o1000)], ["ok", "ok", "invalid umask"]);
    let nice = |nice| check(&|r| r.options.nice = Some(nice));
    assert_eq!([nice(-21), nice(-20), nice(19), nice(20)], ["invalid nice", "ok", "ok", "invalid nice"]);
    let score = |score| check(&|r| r.options.oom_score = Some(score));
    assert_eq!(
        [score(-1001), score(-1000), score(1000), score(1001)],
        ["invalid oom_score", "ok", "ok", "invalid oom_score"]
    );
    let signal = |signal| check(&|r| r.options.stop_signal = Some(signal));
    assert_eq!(
        [signal(0), signal(1), signal(64), signal(65)],
        ["invalid stop_signal", "ok", "ok", "invalid stop_signal"]
    );
    let grace = |grace| check(&|r| r.options.grace = Some(grace));
    assert_eq!(grace(Duration::ZERO), "ok");
    assert_eq!(grace(limits::MAX_GRACE), "ok");
    assert_eq!(grace(limits::MAX_GRACE + Duration::from_millis(1)), "invalid grace");
}

#[test]
fn nothing_about_a_process_means_anything_to_a_ping() {
    type Change = fn(&mut Request);
    let table: [(&str, Change); 12] = [
        ("stdin", |r| r.stdin = Some(Vec::new())),
        ("cwd", |r| r.cwd = Some("/".into())),
        ("env", |r| drop(r.env.insert("A".into(), "b".into()))),
        ("user", |r| r.user = Some("nobody".into())),
        ("limits", |r| r.limits.tasks = Some(1)),
        ("umask", |r| r.options.umask = Some(0)),
        ("nice", |r| r.options.nice = Some(1)),
        ("oom_score", |r| r.options.oom_score = Some(1)),
        ("keep_strays", |r| r.options.keep_strays = true),
        ("stop_signal", |r| r.options.stop_signal = Some(2)),
        ("stop_only_main", |r| r.options.stop_only_main = true),
        ("grace", |r| r.options.grace = Some(Duration::ZERO)),
    ];
    for (field, change) in table {
        let mut ping = Request { operation: AGENT_PING.to_owned(), ..run("{}") };
        change(&mut ping);
        assert_eq!(verdict(&ping), format!("invalid {field}"));
    }
}
