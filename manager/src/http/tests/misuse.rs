//! Requests that are wrong, each with the answer that says how.

use api::problem::Problem;
use http::{Method, Request};

use super::house::{AGENT, House, answer};
use crate::http::extract::MAX_BODY;

fn path() -> String {
    format!("/agents/{AGENT}/commands")
}

#[tokio::test]
async fn bodies_that_are_wrong_say_where() {
    let house = House::new().await;
    let table: [(&str, &str, Option<&str>); 14] = [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        ("\u{feff}{}", "invalid_json", None),
        ("{\"operation\":\"\u{1}\"}", "invalid_json", None),
        ("[]", "invalid", None),
        ("null", "invalid", None),
        (r#"{"args":{}}"#, "invalid", None),
        (r#"{"operation":"command.run","args":{"run":["true"]},"timout":"1s"}"#, "unknown_field", Some("timout")),
        (r#"{"operation":"command.run","args":{"run":["true"]},"timeout":30}"#, "invalid", Some("timeout")),
        (r#"{"operation":"command.run","args":{"run":["true"]},"timeout":"1M"}"#, "invalid", Some("timeout")),
        (
            r#"{"operation":"command.run","args":{"run":["true"]},"limits":{"cpu":"half"}}"#,
            "invalid",
            Some("limits.cpu"),
        ),
        (
            r#"{"operation":"command.run","args":{"run":["true"]},"stdin":"a","stdin_b64":"YQ=="}"#,
            "invalid",
            Some("stdin_b64"),
        ),
        (r#"{"operation":"command.run","args":{"run":["true"]},"stdin_b64":"?"}"#, "invalid", Some("stdin_b64")),
        (r#"{"operation":"command.run","args":"true"}"#, "invalid", Some("args")),
    ];
    for (body, code, field) in table {
        let problem = house.post(&path(), body).await.problem(400, code);
        assert_eq!(problem.field.as_deref(), field, "{body}");
        assert!(problem.request_id.is_some() && problem.instance.as_deref() == Some(path().as_str()), "{body}");
    }
    let deep = format!(r#"{{"operation":"x","args":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    house.post(&path(), &deep).await.problem(400, "invalid_json");
    assert_eq!(house.get("/commands").await.json()["items"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn a_body_may_be_as_large_as_said_and_no_larger() {
    let house = House::new().await;
    let ping = r#"{"operation":"agent.ping"}"#;
    let fits = format!("{ping}{}", " ".repeat(MAX_BODY - ping.len()));
    assert_eq!(house.post(&path(), &fits).await.status, 202);
    house.post(&path(), &format!("{fits} ")).await.problem(413, "too_large");
}

#[tokio::test]
async fn bodies_of_another_type_are_refused() {
    let house = House::new().await;
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "text/json+x"] {
        let mut request = house.request(Method::POST, &path(), &house.admin, Some(r#"{"operation":"agent.ping"}"#));
        request.headers_mut().remove("content-type");
        if !kind.is_empty() {
            request.headers_mut().insert("content-type", kind.parse().unwrap());
        }
        answer(house.send(request).await).await.problem(415, "unsupported_media_type");
    }
    let mut request = house.request(Method::POST, &path(), &house.admin, Some(r#"{"operation":"agent.ping"}"#));
    request.headers_mut().insert("content-type", "Application/JSON; charset=utf-8".parse().unwrap());
    assert_eq!(house.send(request).await.status(), 202);
}

#[tokio::test]
async fn names_are_names_or_refused() {
    let house = House::new().await;
    for name in
        ["..%2f..%2fetc", "a%0ab", "a%00", "%1b%5b31m", "a%20b", "%c3%a4", "-a", "a..b", "%e2%80%ae", &"a".repeat(254)]
    {
        for path in [format!("/agents/{name}"), format!("/agents/{name}/commands")] {
            let problem = house.get(&path).await.problem(400, "invalid");
            assert_eq!(problem.field.as_deref(), Some("name"), "{path}");
            let detail = problem.detail.unwrap();
            assert!(!detail.chars().any(|c| c.is_control() || c == '\u{202e}'), "{detail:?}");
        }
    }
    house.get("/agents/%ff").await.problem(400, "invalid");
    for id in ["0x1", "-1", "+1", "1.0", "99999999999999999999", "%20", "abc"] {
        house.get(&format!("/commands/{id}")).await.problem(400, "invalid");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let house = House::new().await;
    let start = r#"{"operation":"agent.ping"}"#;
    let problem = house.post("/agents/nobody/commands", start).await.problem(404, "not_found");
    assert!(problem.detail.unwrap().contains("nobody"));
    for path in [
        "/commands/4711",
        "/commands/4711/output",
        "/commands/4711?wait=1s",
        "/agents/nobody",
        "/agents/nobody/commands",
        "/",
        "/nothing",
        "/agents/",
    ] {
        house.get(path).await.problem(404, "not_found");
    }
    house.call(Method::POST, "/commands/4711/cancel", &house.admin, None).await.problem(404, "not_found");
    let id = house.submit().await;
    house
        .call(Method::DELETE, &format!("/agents/nobody/commands/{id}"), &house.admin, None)
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn a_wrong_method_says_which_are_right() {
    let house = House::new().await;
    for (method, path, allowed) in [
        (Method::PUT, "/agents/web1", "PATCH"),
        (Method::DELETE, "/commands", "POST"),
        (Method::POST, "/healthz", "GET"),
    ] {
        let answer = house.call(method, path, &house.admin, None).await;
        answer.problem(405, "method_not_allowed");
        assert!(answer.headers["allow"].to_str().unwrap().contains(allowed), "{path}");
    }
}

#[tokio::test]
async fn unknown_words_of_the_query_are_refused() {
    let house = House::new().await;
    let id = house.submit().await;
    for (path, field) in [
        ("/commands?phse=queued".to_owned(), "phse"),
        ("/commands?phase=quued".to_owned(), "phase"),
        ("/commands?limit=0".to_owned(), "limit"),
        ("/commands?limit=1001".to_owned(), "limit"),
        ("/commands?after=x".to_owned(), "after"),
        (format!("/commands/{id}?wait=soon"), "wait"),
        (format!("/commands/{id}/output?stream=out"), "stream"),
        (format!("/commands/{id}/output?from=-1"), "from"),
        (format!("/commands/{id}/output?form=1"), "form"),
        ("/events?after=x".to_owned(), "after"),
    ] {
        let answer = house.get(&path).await;
        let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status.as_u16(), problem.field.as_deref()), (400, Some(field)), "{path}");
    }
}

#[tokio::test]
async fn keys_are_visible_text_of_one_header() {
    let house = House::new().await;
    let long = "k".repeat(256);
    for key in ["", "a b", "ä", long.as_str()] {
        let mut request: Request<_> =
            house.request(Method::POST, &path(), &house.admin, Some(r#"{"operation":"agent.ping"}"#));
        request.headers_mut().insert("idempotency-key", http::HeaderValue::from_bytes(key.as_bytes()).unwrap());
        let problem = answer(house.send(request).await).await.problem(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some("idempotency-key"));
    }
}
