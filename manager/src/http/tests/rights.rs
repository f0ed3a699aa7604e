//! What callers see and do within their rights, and what ends when a right ends.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use store::types::Scope;
use tokio::time::{Instant, timeout};

use super::house::{AGENT, Answer, House, answer};

/// Within this everything of a right that ended has ended.
const ENDS: Duration = Duration::from_secs(2);
const GROUPS: &str = "web1: [web]\nweb2: [web]\ndb1: [db]\n";
const ROLES: &str = "
roles:
  web:
  - {may: [agent.read, command.read, output.read, command.control], on: '@web'}
  - {may: command.run, on: '@web', as: [www-data, root], operations: ['command.*', agent.ping]}
  looker:
  - {may: [agent.read, command.read], on: '*'}
  - {may: [command.run], on: db1, as: root}
";

/// A house with web1, web2 and db1, and a command on each that the admin started.
async fn house() -> (House, Vec<u64>) {
    let house = House::new().await;
    house.agent("web2").await;
    house.agent("db1").await;
    house.site(&[("groups.yml", GROUPS), ("roles.yml", ROLES)]).await;
    let mut commands = Vec::new();
    for agent in [AGENT, "web2", "db1"] {
        let started = house.post(&format!("/agents/{agent}/commands"), r#"{"operation":"agent.ping"}"#).await;
        commands.push(started.json()["id"].as_u64().unwrap());
    }
    (house, commands)
}

fn names(page: &Value, key: &str) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item[key].as_str().map_or_else(|| item[key].to_string(), str::to_owned)).collect()
}

/// The same answer for what is hidden as for what is not there, apart from the name that was asked for.
#[track_caller]
fn same_but_for(hidden: &Answer, absent: &Answer, name: &str, other: &str) {
    let plain = |answer: &Answer, name: &str| {
        let mut body = answer.json();
        body.as_object_mut().unwrap().remove("request_id");
        (answer.status, body.to_string().replace(name, "NAME"))
    };
    assert_eq!(plain(hidden, name), plain(absent, other));
}

#[tokio::test]
async fn no_cursor_tells_of_an_agent_that_is_hidden() {
    let (house, commands) = house().await;
    let web = house.token("w", Scope::Run, &["web"]).await.1;
    let get = async |path: &str| house.call(Method::GET, path, &web, None).await.json();
    let hidden = commands.last().unwrap();
    for path in [
        "/events?after=0&limit=1&agent=db1".to_owned(),
        "/events?after=0&limit=1&agent=absent".to_owned(),
        format!("/events?after=0&limit=1&command={hidden}"),
        "/commands?limit=1&agent=db1".to_owned(),
        "/commands?limit=1&agent=absent".to_owned(),
    ] {
        let page = get(&path).await;
        assert_eq!((page["items"].as_array().unwrap().len(), page["next"].is_null()), (0, true), "{path} {page}");
    }
    let page = get("/events?after=0&limit=1&agent=web1").await;
    assert_eq!((page["items"].as_array().unwrap().len(), page["next"].is_null()), (1, false));
}

#[tokio::test]
async fn a_caller_that_is_refused_without_end_leaves_a_few_rows_a_second() {
    let (house, _) = house().await;
    let web = house.token("w", Scope::Run, &["web"]).await.1;
    let began = Instant::now();
    for _ in 0..200 {
        let answer =
            house.call(Method::POST, "/agents/db1/commands", &web, Some(r#"{"operation":"agent.ping"}"#)).await;
        assert_eq!(answer.status, 404);
    }
    let rows = house.get("/audit?limit=1000&actor=w").await.json();
    let rows = rows["items"].as_array().unwrap().len();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((10..=10 * seconds).contains(&rows), "{rows} rows in {seconds} s");
}

#[tokio::test]
async fn what_a_caller_may_not_see_is_not_there_for_it() {
    let (house, commands) = house().await;
    let (_, web) = house.token("w", Scope::Admin, &["web"]).await;
    let call = async |method: Method, path: &str, body: Option<&str>| house.call(method, path, &web, body).await;
    let get = async |path: &str| house.call(Method::GET, path, &web, None).await;
    assert_eq!(names(&get("/agents").await.json(), "name"), ["web1", "web2"]);
    assert_eq!(names(&get("/agents?limit=1").await.json(), "name"), ["web1"]);
    assert_eq!(get("/agents?limit=1").await.json()["next"], "web1");
    assert_eq!(names(&get("/agents?limit=1&after=web1").await.json(), "name"), ["web2"]);
    assert_eq!(get("/agents/web1").await.json()["groups"], serde_json::json!(["web"]));
    assert_eq!(names(&get("/commands").await.json(), "agent"), ["web2", "web1"]);
    assert_eq!(names(&get("/commands?agent=db1").await.json(), "agent"), Vec::<String>::new());

    let (db, gone) = (commands[2], 999_999);
    let ping = Some(r#"{"operation":"agent.ping"}"#);
    for (method, path, body) in [
        (Method::GET, "/agents/NAME", None),
        (Method::GET, "/agents/NAME/commands", None),
        (Method::POST, "/agents/NAME/commands", ping),
    ] {
        let hidden = call(method.clone(), &path.replace("NAME", "db1"), body).await;
        let absent = call(method.clone(), &path.replace("NAME", "db9"), body).await;
        assert_eq!(hidden.status, 404, "{method} {path}");
        same_but_for(&hidden, &absent, "db1", "db9");
    }
    for (method, path) in [
        (Method::GET, "/commands/ID"),
        (Method::GET, "/commands/ID/output"),
        (Method::POST, "/commands/ID/cancel"),
        (Method::POST, "/commands/ID/pause"),
        (Method::POST, "/commands/ID/resume"),
        (Method::POST, "/commands/ID/release"),
        (Method::DELETE, "/agents/db1/commands/ID"),
    ] {
        let hidden = call(method.clone(), &path.replace("ID", &db.to_string()), None).await;
        let absent = call(method.clone(), &path.replace("ID", &gone.to_string()), None).await;
        assert_eq!(hidden.status, 404, "{method} {path}");
        same_but_for(&hidden, &absent, &db.to_string(), &gone.to_string());
    }
    let events = get("/events?limit=1000").await.json();
    assert!(!events["items"].as_array().unwrap().is_empty());
    assert!(!events.to_string().contains("db1"), "{events}");
    let of_db = house.get("/events?limit=1000&agent=db1").await.json();
    assert!(of_db.to_string().contains("db1"), "the admin sees them");
    assert!(get("/events?limit=1000&agent=db1").await.json()["items"].as_array().unwrap().is_empty());
    for path in ["/status", "/tokens", "/audit", "/site", "/operators", "/join-tokens", "/ca"] {
        get(path).await.problem(403, "forbidden");
    }
    let still = house.get(&format!("/commands/{db}")).await.json();
    assert_eq!(still["phase"], "queued", "nothing reached it");
}

#[tokio::test]
async fn who_sees_an_agent_and_may_not_use_it_is_told_so() {
    let (house, commands) = house().await;
    let (_, looker) = house.token("l", Scope::Admin, &["looker"]).await;
    let call = async |method: Method, path: &str, body: Option<&str>| house.call(method, path, &looker, body).await;
    let ping = Some(r#"{"operation":"agent.ping"}"#);
    call(Method::POST, "/agents/web1/commands", ping).await.problem(403, "forbidden");
    call(Method::POST, "/agents/web9/commands", ping).await.problem(404, "not_found");
    assert_eq!(call(Method::POST, "/agents/db1/commands", ping).await.status, 202);
    call(Method::GET, &format!("/commands/{}/output", commands[0]), None).await.problem(403, "forbidden");
    call(Method::POST, &format!("/commands/{}/cancel", commands[0]), None).await.problem(403, "forbidden");
    let rows = house.store.audit_rows(0, 1_000).await.unwrap();
    let refused: Vec<_> = rows.iter().filter(|row| row.actor.0 == "l" && row.outcome == "refused").collect();
    assert!(refused.iter().any(|row| row.action == "command.submit" && row.object == "agent:web1"), "{refused:?}");
    assert!(refused.len() >= 4, "every refusal is a row: {refused:?}");
}

#[tokio::test]
async fn a_right_to_run_is_one_user_and_one_operation_at_a_time() {
    let (house, _) = house().await;
    let (_, web) = house.token("w", Scope::Admin, &["web"]).await;
    for (body, expected) in [
        (r#"{"operation":"command.run","args":{"run":["id"]}}"#, 202),
        (r#"{"operation":"command.run","args":{"run":["id"]},"user":"www-data"}"#, 202),
        (r#"{"operation":"command.run","args":{"run":["id"]},"user":"postgres"}"#, 403),
        (r#"{"operation":"command.run","args":{"run":["id"]},"user":"0"}"#, 403),
        (r#"{"operation":"script.run","args":{"content":"id"},"user":"www-data"}"#, 403),
        (r#"{"operation":"agent.ping"}"#, 202),
    ] {
        let answer = house.call(Method::POST, "/agents/web1/commands", &web, Some(body)).await;
        assert_eq!(answer.status, expected, "{body} {}", String::from_utf8_lossy(&answer.body));
    }
    // One agent too many refuses all of it.
    let before = house.get("/commands?limit=1000").await.json()["items"].as_array().unwrap().len();
    let body = r#"{"agents":["web1","db1"],"operation":"agent.ping"}"#;
    house.call(Method::POST, "/commands", &web, Some(body)).await.problem(404, "not_found");
    assert_eq!(house.get("/commands?limit=1000").await.json()["items"].as_array().unwrap().len(), before);
}

#[tokio::test]
async fn a_scope_bounds_whatever_the_roles_give() {
    let (house, commands) = house().await;
    let (_, read) = house.token("r", Scope::Read, &["admin"]).await;
    let ping = Some(r#"{"operation":"agent.ping"}"#);
    house.call(Method::POST, "/agents/web1/commands", &read, ping).await.problem(403, "forbidden");
    let path = format!("/commands/{}/cancel", commands[0]);
    house.call(Method::POST, &path, &read, None).await.problem(403, "forbidden");
    assert_eq!(house.call(Method::GET, "/agents", &read, None).await.json()["items"].as_array().unwrap().len(), 3);
    // The name of an operator brings the operator's roles.
    house.site(&[("groups.yml", GROUPS), ("roles.yml", &format!("{ROLES}operators: {{r: [], dave: [web]}}\n"))]).await;
    let (_, dave) = house.token("dave", Scope::Admin, &[]).await;
    assert_eq!(names(&house.call(Method::GET, "/agents", &dave, None).await.json(), "name"), ["web1", "web2"]);
}

#[tokio::test]
async fn a_target_means_the_agents_of_that_moment_that_the_caller_sees() {
    let (house, _) = house().await;
    let (_, web) = house.token("w", Scope::Admin, &["web"]).await;
    let list = async |target: &str| house.get(&format!("/agents?target={target}")).await;
    assert_eq!(names(&list("@web%20and%20not%20web2").await.json(), "name"), ["web1"]);
    assert_eq!(names(&list("db*,web2").await.json(), "name"), ["db1", "web2"]);
    let wrong = list("@web%20web2").await.problem(400, "invalid");
    assert!(wrong.detail.unwrap().contains("(character 6)"));

    let submit = async |token: &str, body: &str, key: Option<&str>| {
        let mut request = house.request(Method::POST, "/commands", token, Some(body));
        if let Some(key) = key {
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        }
        answer(house.send(request).await).await
    };
    let agents = |answer: &Answer| {
        let commands = answer.json()["commands"].as_array().unwrap().clone();
        commands.iter().map(|command| command["agent"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let body = r#"{"target":"web* or db1 or not db1","operation":"agent.ping"}"#;
    submit(&web, body, None).await.problem(404, "not_found");
    let body = r#"{"target":"*","operation":"agent.ping"}"#;
    let first = submit(&web, body, Some("k")).await;
    assert_eq!(agents(&first), ["web1", "web2"], "db1 is not there for this caller");
    house.agent("web3").await;
    house.site(&[("groups.yml", "'web*': [web]\n"), ("roles.yml", ROLES)]).await;
    let again = submit(&web, body, Some("k")).await;
    assert_eq!(first.json(), again.json(), "who joined since is not meant");
    assert_eq!(agents(&submit(&web, body, Some("k2")).await), ["web1", "web2", "web3"]);
    for (body, code) in [
        (r#"{"target":"@nothing","operation":"agent.ping"}"#, 400),
        (r#"{"target":"web1 web2","operation":"agent.ping"}"#, 400),
        (r#"{"target":"*","agents":["web1"],"operation":"agent.ping"}"#, 400),
        (r#"{"target":"web1, web7","operation":"agent.ping"}"#, 404),
        (r#"{"operation":"agent.ping"}"#, 400),
    ] {
        assert_eq!(submit(&web, body, None).await.status, code, "{body}");
    }
    assert_eq!(submit(&web, r#"{"target":"web1 and not web7","operation":"agent.ping"}"#, None).await.status, 202);
}

/// Opens a stream and reads its first frame.
async fn open(house: &House, path: &str, token: &str) -> Body {
    let mut request: Request<Body> = house.request(Method::GET, path, token, None);
    request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let response: Response = house.send(request).await;
    assert_eq!(response.status(), 200, "{path}");
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    body
}

/// Reads until the end; tells how long that took.
async fn ended(mut body: Body) -> Duration {
    let began = Instant::now();
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    timeout(Duration::from_secs(20), all).await.unwrap();
    began.elapsed()
}

/// S31, the part about stale rights: streams are cut and what waits is refused.
#[tokio::test]
async fn when_a_role_is_taken_away_streams_end_and_what_waits_is_refused() {
    let (house, commands) = house().await;
    let with = format!("{ROLES}operators: {{erin: [web]}}\n");
    house.site(&[("groups.yml", GROUPS), ("roles.yml", &with)]).await;
    let (_, erin) = house.token("erin", Scope::Admin, &[]).await;
    let ping = Some(r#"{"operation":"agent.ping"}"#);
    let waiting = house.call(Method::POST, "/agents/web2/commands", &erin, ping).await.json()["id"].as_u64().unwrap();
    let output = format!("/commands/{}/output?follow=true", commands[0]);
    let streams = [
        open(&house, "/events", &erin).await,
        open(&house, "/events?agent=web1", &erin).await,
        open(&house, &output, &erin).await,
        open(&house, &format!("{output}&stream=stdout"), &erin).await,
    ];
    let raw = house.send(house.request(Method::GET, &output, &erin, None)).await;
    assert_eq!(raw.status(), 200);
    let long = format!("/commands/{}?wait=60s", commands[0]);
    let wait = async { house.call(Method::GET, &long, &erin, None).await };
    let change = async {
        tokio::task::yield_now().await;
        house.site(&[("groups.yml", GROUPS), ("roles.yml", ROLES)]).await;
        Instant::now()
    };
    let (waited, changed) = tokio::join!(timeout(Duration::from_secs(20), wait), change);
    waited.unwrap().problem(403, "forbidden");
    for stream in streams {
        ended(stream).await;
    }
    ended(raw.into_body()).await;
    assert!(changed.elapsed() < ENDS, "{:?}", changed.elapsed());
    let refused = house.get(&format!("/commands/{waiting}")).await.json();
    assert_eq!((&refused["phase"], &refused["error"]["code"]), (&"refused".into(), &"not_allowed".into()));
    assert_eq!(house.get(&format!("/commands/{}", commands[1])).await.json()["phase"], "queued", "others wait on");
}

#[tokio::test]
async fn a_reader_whose_right_shrinks_stops_and_one_whose_right_stays_reads_on() {
    let (house, commands) = house().await;
    let (_, web) = house.token("w", Scope::Admin, &["web"]).await;
    let on = |at: usize| format!("/commands/{}/output?follow=true", commands[at]);
    let (first, mut second) = (open(&house, &on(0), &web).await, open(&house, &on(1), &web).await);
    house.site(&[("groups.yml", "web1: [old]\nweb2: [web]\ndb1: [db]\n"), ("roles.yml", ROLES)]).await;
    assert!(ended(first).await < ENDS, "web1 is no member any more");
    let path = format!("/commands/{}/cancel", commands[1]);
    assert_eq!(house.call(Method::POST, &path, &house.admin, None).await.status, 200);
    let frame = second.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&frame).contains("cancelled"));
}

/// Nothing saved works after: not the token, not its streams, not the certificate, not what it had asked for.
#[tokio::test]
async fn after_a_revocation_none_of_a_thousand_attempts_succeeds() {
    let (house, commands) = house().await;
    let (id, token) = house.token("mallory", Scope::Admin, &["admin"]).await;
    let later = common::clock::unix_ms() + 3_600_000;
    let actor = store::types::Actor("test".to_owned());
    house.site(&[("groups.yml", GROUPS), ("roles.yml", "operators: {trent: admin}\n")]).await;
    let trent: common::id::Name = "trent".parse().unwrap();
    let generation = house.store.operator_cert_create(&trent, later, &actor, 1).await.unwrap();
    house.service.credentials_changed().await.unwrap();
    let ping = Some(r#"{"operation":"agent.ping"}"#);
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let started = house.call(Method::POST, "/agents/db1/commands", &token, ping).await;
        waiting.push(started.json()["id"].as_u64().unwrap());
    }
    let stream = open(&house, "/events", &token).await;
    let output = open(&house, &format!("/commands/{}/output", commands[0]), &token).await;
    assert_eq!(house.send(house.with_certificate(Method::GET, "/agents", "trent", generation.0)).await.status(), 200);

    let began = Instant::now();
    assert_eq!(house.call(Method::DELETE, &format!("/tokens/{id}"), &house.admin, None).await.status, 204);
    assert!(house.call(Method::DELETE, "/operators/trent", &house.admin, None).await.status.is_success());
    ended(stream).await;
    ended(output).await;
    for id in waiting {
        let command = house.get(&format!("/commands/{id}")).await.json();
        assert_eq!((&command["phase"], &command["error"]["code"]), (&"refused".into(), &"not_allowed".into()));
    }
    assert!(began.elapsed() < ENDS, "{:?}", began.elapsed());
    let mut successes = 0;
    for attempt in 0..500 {
        let path = ["/agents", "/commands", "/whoami", "/events", "/site", "/tokens"][attempt % 6];
        let by_token = house.call(Method::GET, path, &token, None).await.status;
        let by_certificate =
            house.send(house.with_certificate(Method::GET, path, "trent", generation.0)).await.status();
        successes += u32::from(by_token != 401) + u32::from(by_certificate != 401);
    }
    assert_eq!(successes, 0);
}

#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let (house, _) = house().await;
    let roles = format!(
        "{ROLES}  chief: [{{may: [operator.manage]}}]\noperators: {{grace: [chief, looker], root: admin, w: [web]}}\n"
    );
    house.site(&[("groups.yml", GROUPS), ("roles.yml", &roles)]).await;
    let (_, grace) = house.token("grace", Scope::Admin, &[]).await;
    let make = async |body: &str| house.call(Method::POST, "/tokens", &grace, Some(body)).await;
    for (body, field) in [
        (r#"{"name":"grace","scope":"admin","roles":["admin"]}"#, "roles"),
        (r#"{"name":"grace","scope":"admin","roles":["web"]}"#, "roles"),
        (r#"{"name":"x","scope":"read","roles":[]}"#, "roles"),
        (r#"{"name":"root","scope":"admin","roles":[]}"#, "roles"),
        (r#"{"name":"w","scope":"read","roles":[]}"#, "roles"),
    ] {
        let problem = make(body).await.problem(403, "forbidden");
        assert_eq!(problem.field.as_deref(), Some(field), "{body}");
    }
    let wrong = make(r#"{"name":"x","scope":"read","roles":["loker"]}"#).await.problem(400, "invalid");
    assert_eq!(wrong.hint.as_deref(), Some("did you mean looker?"));
    let made = make(r#"{"name":"grace","scope":"run","roles":["looker"]}"#).await;
    assert_eq!((made.status.as_u16(), &made.json()["token"]["roles"]), (201, &serde_json::json!(["looker"])));
    let made = make(r#"{"name":"grace","scope":"run"}"#).await;
    assert_eq!(made.json()["token"]["roles"], serde_json::json!(["chief", "looker"]), "those of who makes it");
    let small = house.token("grace", Scope::Run, &["chief"]).await.1;
    house
        .call(Method::POST, "/tokens", &small, Some(r#"{"name":"z","scope":"admin"}"#))
        .await
        .problem(403, "forbidden");
}

#[tokio::test]
async fn a_caller_is_told_who_it_is() {
    let (house, _) = house().await;
    let (id, web) = house.token("w", Scope::Run, &["web"]).await;
    let shown = house.call(Method::GET, "/whoami", &web, None).await.json();
    assert_eq!((&shown["actor"], &shown["via"], &shown["token"]), (&"w".into(), &"token".into(), &id.into()));
    assert_eq!((&shown["scope"], &shown["roles"]), (&"run".into(), &serde_json::json!(["web"])));
    let permissions =
        serde_json::json!(["agent.read", "command.read", "command.run", "command.control", "output.read"]);
    assert_eq!(shown["permissions"], permissions);
    house.call(Method::GET, "/whoami", "", None).await.problem(401, "unauthenticated");
}
