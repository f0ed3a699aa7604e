//! The calls as an operator makes them.

use common::model::StreamName;
use http::Method;

use super::house::{AGENT, House, answer};

#[tokio::test]
async fn a_command_is_started_shown_listed_and_ends() {
    let house = House::new().await;
    let body = r#"{"operation":"command.run","args":{"run":["uname","-a"]},"timeout":"30s","expires_in":"1h","env":{"K":"V"},"cwd":"/","stdin":"text"}"#;
    let started = house.post(&format!("/agents/{AGENT}/commands"), body).await;
    assert_eq!(started.status, 202);
    let shown = started.json();
    let id = shown["id"].as_u64().unwrap();
    assert_eq!(started.headers["location"], format!("/commands/{id}"));
    assert_eq!(started.headers["cache-control"], "no-store");
    assert_eq!(
        (&shown["phase"], &shown["agent"], &shown["created_by"]),
        (&"queued".into(), &AGENT.into(), &"admin".into())
    );
    assert_eq!(
        (&shown["timeout"], &shown["job"], &shown["attempt"]),
        (&"30s".into(), &serde_json::Value::Null, &1.into())
    );
    assert_eq!(shown["streams"]["stdout"], serde_json::json!({"length": 0, "end": false, "gaps": []}));
    assert!(shown.get("env").is_none() && shown.get("stdin").is_none(), "what may be secret is not shown");

    let uids = house.accept().await;
    house.write(id_of(id), StreamName::Stdout, 0, "Linux\n").await;
    house.end(&uids[0], 6, 0, Vec::new()).await;
    let shown = house.get(&format!("/commands/{id}?wait=30s")).await.json();
    assert_eq!(
        (&shown["phase"], &shown["exit_code"], &shown["changed"]),
        (&"succeeded".into(), &0.into(), &true.into())
    );
    assert_eq!(shown["streams"]["stdout"], serde_json::json!({"length": 6, "end": true, "gaps": []}));
    assert_eq!(shown["usage"]["duration_ms"], 2);
    for list in [
        "/commands".to_owned(),
        format!("/agents/{AGENT}/commands"),
        format!("/commands?agent={AGENT}&phase=queued,succeeded&operation=command.run"),
    ] {
        let listed = house.get(&list).await.json();
        assert_eq!(listed["items"][0]["id"], id, "{list}");
        assert!(listed["next"].is_null());
    }
    assert_eq!(house.get("/commands?phase=failed").await.json()["items"].as_array().map(Vec::len), Some(0));
}

fn id_of(id: u64) -> common::id::CommandId {
    common::id::CommandId(id)
}

#[tokio::test]
async fn pages_join_without_holes_or_repeats() {
    let house = House::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(house.submit().await.0);
    }
    let (mut seen, mut path) = (Vec::new(), "/commands?limit=2".to_owned());
    loop {
        let page = house.get(&path).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => path = format!("/commands?limit=2&after={next}"),
            None => break,
        }
    }
    made.reverse();
    assert_eq!(seen, made);
}

#[tokio::test]
async fn the_same_key_is_the_same_request() {
    let house = House::new().await;
    let ask = async |body: &str, key: &str, token: &str| {
        let mut request = house.request(Method::POST, &format!("/agents/{AGENT}/commands"), token, Some(body));
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        answer(house.send(request).await).await
    };
    let (ping, other) = (r#"{"operation":"agent.ping"}"#, r#"{"operation":"agent.ping","timeout":"1s"}"#);
    let first = ask(ping, "k1", &house.admin).await;
    let again = ask(ping, "k1", &house.admin).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 202));
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(ask(other, "k1", &house.admin).await.status, 409);
    assert_ne!(ask(ping, "k2", &house.admin).await.json()["id"], first.json()["id"]);
    assert_ne!(ask(ping, "k1", &house.run).await.json()["id"], first.json()["id"], "a key belongs to its caller");
}

#[tokio::test]
async fn a_job_makes_one_command_for_each_agent_or_none() {
    let house = House::new().await;
    assert_eq!(house.call(Method::POST, "/agents/web2/certificate", &house.admin, None).await.status, 201);
    let started = house.post("/commands", r#"{"agents":["web2","web1"],"operation":"agent.ping"}"#).await;
    assert_eq!(started.status, 202);
    let job = started.json();
    assert_eq!(started.headers["location"], format!("/commands?job={}", job["job"]));
    let agents: Vec<_> = job["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|command| command["agent"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(agents, ["web2", "web1"]);
    for command in job["commands"].as_array().unwrap() {
        let shown = house.get(&format!("/commands/{}", command["id"])).await.json();
        assert_eq!((&shown["agent"], &shown["job"]), (&command["agent"], &job["job"]));
    }
    house.post("/commands", r#"{"agents":["web1","nobody"],"operation":"agent.ping"}"#).await.problem(404, "not_found");
    let all = house.get("/commands").await.json();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn cancel_answers_with_the_phase_it_found() {
    let house = House::new().await;
    let queued = house.submit().await;
    let answer = house.post(&format!("/commands/{queued}/cancel"), r#"{"reason":"mistake"}"#).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["answer"]), (200, &"cancelled".into()));
    assert_eq!(answer.json()["phase"], "queued");
    assert_eq!(answer.json()["command"]["cancel"]["reason"], "mistake");
    assert_eq!(answer.json()["command"]["cancel"]["pending"], false);
    let again = house.call(Method::DELETE, &format!("/agents/{AGENT}/commands/{queued}"), &house.run, None).await;
    assert_eq!((again.status.as_u16(), &again.json()["answer"]), (200, &"already_final".into()));

    let sent = house.submit().await;
    house.accept().await;
    let answer = house
        .call(Method::DELETE, &format!("/agents/{AGENT}/commands/{sent}"), &house.run, Some(r#"{"grace":"2s"}"#))
        .await;
    assert_eq!((answer.status.as_u16(), &answer.json()["answer"]), (202, &"cancel_pending".into()));
    assert_eq!(answer.headers["location"], format!("/commands/{sent}"));
    assert_eq!(
        (&answer.json()["command"]["cancel"]["by"], &answer.json()["command"]["cancel"]["pending"]),
        (&"run".into(), &true.into())
    );
}

#[tokio::test]
async fn a_cancel_with_the_key_of_the_last_is_the_same_wish_at_both_routes() {
    let house = House::new().await;
    for (method, path) in [(Method::POST, "/commands/ID/cancel"), (Method::DELETE, "/agents/web1/commands/ID")] {
        let id = house.submit().await;
        house.accept().await;
        let path = path.replace("ID", &id.to_string());
        let grace = async |key: &str| {
            let mut request = house.request(method.clone(), &path, &house.run, None);
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
            assert_eq!(house.send(request).await.status(), 202);
            house.store.command(id).await.unwrap().unwrap().cancel.unwrap().grace
        };
        assert_eq!((grace("a").await, grace("a").await), (None, None), "{path}");
        assert_eq!(grace("b").await, Some(std::time::Duration::ZERO), "{path}");
        let mut request = house.request(method.clone(), &path, &house.run, None);
        request.headers_mut().insert("idempotency-key", "".parse().unwrap());
        assert_eq!(house.send(request).await.status(), 400);
    }
}

#[tokio::test]
async fn agents_are_shown_drained_and_removed() {
    let house = House::new().await;
    let shown = house.get(&format!("/agents/{AGENT}")).await.json();
    assert_eq!((&shown["name"], &shown["connected"], &shown["drained"]), (&AGENT.into(), &false.into(), &false.into()));
    let patch =
        async |body: &str| house.call(Method::PATCH, &format!("/agents/{AGENT}"), &house.admin, Some(body)).await;
    assert_eq!(patch(r#"{"drained":true}"#).await.json()["drained"], true);
    assert_eq!(patch(r#"{"drained":false}"#).await.json()["drained"], false);
    patch("{}").await.problem(400, "invalid");
    patch(r#"{"accept":false}"#).await.problem(400, "invalid");
    patch(r#"{"drain":true}"#).await.problem(400, "unknown_field");
    let issued = house.call(Method::POST, &format!("/agents/{AGENT}/certificate"), &house.admin, None).await;
    assert_eq!(issued.status, 200);
    assert!(issued.json()["key_pem"].as_str().unwrap().contains("PRIVATE KEY"));
    assert_eq!(issued.json()["managers"][0], "127.0.0.1:7051");
    assert_eq!(house.call(Method::DELETE, &format!("/agents/{AGENT}"), &house.admin, None).await.status, 204);
    house.get(&format!("/agents/{AGENT}")).await.problem(404, "not_found");
}

#[tokio::test]
async fn health_is_told_to_everybody_and_new_work_is_refused_while_stopping() {
    let house = House::new().await;
    let probe = async |path: &str| house.call(Method::GET, path, "", None).await.status.as_u16();
    assert_eq!((probe("/healthz").await, probe("/readyz").await), (200, 200));
    assert_eq!(house.get("/status").await.json()["agents"], 1);
    let metrics = house.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert!(String::from_utf8_lossy(&metrics.body).contains("paprika_ready 1"));
    house.service.drain();
    assert_eq!((probe("/healthz").await, probe("/readyz").await), (200, 503));
    let refused = house.post(&format!("/agents/{AGENT}/commands"), r#"{"operation":"agent.ping"}"#).await;
    assert!(refused.problem(503, "draining").retryable);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(house.get("/commands").await.status, 200);
}

#[tokio::test]
async fn the_audit_tells_who_did_what() {
    let house = House::new().await;
    let id = house.submit().await;
    let rows = house.get("/audit?limit=1000").await.json();
    let items = rows["items"].as_array().unwrap();
    assert!(
        items.iter().any(|row| row["actor"] == "admin" && row["object"].as_str().unwrap().contains(&id.to_string())),
        "{rows}"
    );
    assert!(items.iter().all(|row| row["hash"].as_str().unwrap().len() == 64));
}
