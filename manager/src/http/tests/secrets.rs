//! Secrets at the door: shown by name, never by value, and part of what a request is.

use http::Method;

use super::house::{AGENT, Answer, House, answer};

const CANARY: &str = "canary-4711-canary";

fn body(token: &str) -> String {
    format!(
        r#"{{"operation":"command.run","args":{{"run":["true"]}},"env":{{"K":"V","TOKEN":{{"secret":"{token}"}}}},"stdin":{{"secret":"{CANARY}"}}}}"#
    )
}

async fn start(house: &House, key: Option<&str>, body: &str) -> Answer {
    let path = format!("/agents/{AGENT}/commands");
    let mut request = house.request(Method::POST, &path, &house.admin, Some(body));
    if let Some(key) = key {
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    }
    answer(house.send(request).await).await
}

#[track_caller]
fn shows_nothing(answer: &Answer) {
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains("canary") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn secrets_are_shown_by_name_in_every_answer() {
    let house = House::new().await;
    let started = start(&house, None, &body("hunter2")).await;
    assert_eq!(started.status, 202);
    let names = serde_json::json!({"env.TOKEN": "(secret)", "stdin": "(secret)"});
    assert_eq!(started.json()["secrets"], names);
    shows_nothing(&started);
    let id = started.json()["id"].as_u64().unwrap();
    assert_eq!(house.get(&format!("/commands/{id}")).await.json()["secrets"], names);
    for path in [
        format!("/commands/{id}"),
        "/commands".to_owned(),
        format!("/agents/{AGENT}/commands"),
        "/events".to_owned(),
        "/audit".to_owned(),
    ] {
        let shown = house.get(&path).await;
        assert_eq!(shown.status, 200, "{path}");
        shows_nothing(&shown);
    }
    let plain = house.post(&format!("/agents/{AGENT}/commands"), r#"{"operation":"agent.ping"}"#).await;
    assert!(plain.json().get("secrets").is_none());
}

#[tokio::test]
async fn a_repeat_is_the_same_request_only_with_the_same_secret() {
    let house = House::new().await;
    let first = start(&house, Some("k"), &body("hunter2")).await.json();
    let again = start(&house, Some("k"), &body("hunter2")).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (202, &first["id"]));
    let other = start(&house, Some("k"), &body("hunter3")).await;
    other.problem(409, "idempotency_key_reused");
    // Nor is it the same without the wish to hide it.
    let open = body("hunter2").replace(r#"{"secret":"hunter2"}"#, r#""hunter2""#);
    start(&house, Some("k"), &open).await.problem(409, "idempotency_key_reused");
}

#[tokio::test]
async fn refusals_name_the_field_and_repeat_no_value() {
    let house = House::new().await;
    let large = format!("{CANARY}{}", "x".repeat(common::limits::MAX_ENV_BYTES));
    let input = format!("{CANARY}{}", "x".repeat(common::limits::MAX_STDIN_BYTES));
    for (field, value) in [
        ("env", format!(r#"{{"A":{{"secret":"{CANARY}\u0000"}}}}"#)),
        ("env", format!(r#"{{"A":{{"secret":"{large}"}}}}"#)),
        ("env", format!(r#"{{"A":{{"{CANARY}":"secret"}}}}"#)),
        ("env", format!(r#"{{"A":{{"secret":["{CANARY}"]}}}}"#)),
        ("env", format!(r#"{{"A":{{"secret":"{CANARY}","as":"{CANARY}"}}}}"#)),
        ("env", format!(r#"{{"A=B":{{"secret":"{CANARY}"}}}}"#)),
        ("stdin", format!(r#"{{"secret":"{input}"}}"#)),
        ("stdin", format!(r#"{{"secret":{{"secret":"{CANARY}"}}}}"#)),
        ("stdin_b64", format!(r#"{{"secret":"{CANARY}"}}"#)),
    ] {
        let body = format!(r#"{{"operation":"command.run","args":{{"run":["true"]}},"{field}":{value}}}"#);
        let refused = start(&house, None, &body).await;
        assert_eq!(refused.status, 400, "{field} {}", &value[..value.len().min(80)]);
        shows_nothing(&refused);
        let problem = refused.problem(400, refused.json()["code"].as_str().unwrap());
        assert!(problem.field.is_none_or(|named| named.starts_with(field)));
    }
    let ping = format!(r#"{{"operation":"agent.ping","env":{{"A":{{"secret":"{CANARY}"}}}}}}"#);
    let refused = start(&house, None, &ping).await;
    shows_nothing(&refused);
    refused.problem(400, "invalid");
    let both = r#"{"operation":"command.run","args":{"run":["true"]},"stdin":{"secret":"a"},"stdin_b64":"YQ=="}"#;
    start(&house, None, both).await.problem(400, "invalid");
    let audit = house.get("/audit").await;
    shows_nothing(&audit);
}
