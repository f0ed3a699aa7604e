//! The OpenAPI document is the one that is checked in, and the page that shows it needs nothing from elsewhere.

use std::fs;
use std::path::Path;

use http::Method;

use super::house::House;

/// Set it to write the document instead of comparing.
const UPDATE: &str = "PAPRIKA_UPDATE_OPENAPI";

#[tokio::test]
async fn the_document_is_the_one_that_is_checked_in() {
    let house = House::new().await;
    let served = house.call(Method::GET, "/openapi.json", "", None).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/openapi.json");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &served.body).unwrap();
    }
    let known = fs::read(&path).unwrap_or_default();
    assert!(
        known == served.body,
        "the routes and api/openapi.json differ: run `{UPDATE}=1 cargo test -p paprika-manager document` and look at the difference"
    );
    assert_eq!(served.body, crate::http::document(house.service.clone()));
}

#[tokio::test]
async fn every_call_says_what_it_answers_and_every_type_is_described() {
    let house = House::new().await;
    let document = house.call(Method::GET, "/openapi.json", "", None).await.json();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in ["Command", "CommandRequest", "JobRequest", "Problem", "Agent", "Token", "Event", "Status"] {
        assert!(schemas.contains_key(name), "{name}");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(!operation["responses"].as_object().unwrap().is_empty(), "{method} {path}");
        }
    }
    let text = document.to_string();
    for piece in text.split("#/components/schemas/").skip(1) {
        let name = piece.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is referred to and not described");
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let house = House::new().await;
    for (path, kind) in [("/docs", "text/html"), ("/docs/docs.js", "text/javascript"), ("/docs/docs.css", "text/css")] {
        let answer = house.call(Method::GET, path, "", None).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with(kind));
        let policy = answer.headers["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!text.contains("http://") && !text.contains("https://"), "{path}");
        assert!(!text.contains("innerHTML") && !text.contains("style=") && !text.contains("onclick"), "{path}");
    }
}
