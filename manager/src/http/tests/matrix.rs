//! Every route with every kind of caller: who has no credential is 401, who may not is 403, who may is let in.

use http::Method;
use store::types::Scope;

use super::house::House;
use crate::http::gate::Permission;
use crate::http::routes::table;

#[tokio::test]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let house = House::new().await;
    let (_, _, routes) = table(house.service.clone());
    assert!(routes.len() >= 26, "{}", routes.len());
    let mut seen = String::new();
    for route in &routes {
        let path = route.path.replace("{name}", "nobody").replace("{id}", "999999");
        let callers = [
            ("none", ""),
            ("garbage", "paprika_nobody_knows"),
            ("read", house.read.as_str()),
            ("run", house.run.as_str()),
            ("admin", house.admin.as_str()),
        ];
        seen.push_str(&format!("{:<7} {:<34}", route.method.as_str(), route.path));
        for (who, token) in callers {
            // Streams would not end: their bodies are not read.
            let response = house.send(house.request(route.method.clone(), &path, token, None)).await;
            let status = response.status().as_u16();
            let rank = ["read", "run", "admin"].iter().position(|name| *name == who);
            let expected = match (route.permission, rank) {
                (Permission::Public, _) => None,
                (Permission::Scope(_), None) => Some(401),
                (Permission::Scope(need), Some(rank)) => {
                    let need = match need {
                        Scope::Read => 0,
                        Scope::Run => 1,
                        Scope::Admin => 2,
                    };
                    (rank < need).then_some(403)
                }
            };
            match expected {
                Some(expected) => assert_eq!(status, expected, "{} {path} {who}", route.method),
                None => assert!(status != 401 && status != 403, "{} {path} {who}: {status}", route.method),
            }
            let class = match status {
                401 | 403 => "no",
                _ => "yes",
            };
            seen.push_str(&format!(" {who}={class}"));
        }
        seen.push('\n');
    }
    insta::assert_snapshot!(seen);
}

#[tokio::test]
async fn a_credential_in_another_form_is_not_recognised() {
    let house = House::new().await;
    let forms = [
        format!("Basic {}", house.admin),
        house.admin.clone(),
        format!("Bearer {} x", house.admin),
        format!("Bearer {}x", house.admin),
        "Bearer ".to_owned(),
        "Bearer".to_owned(),
    ];
    for form in forms {
        let mut request = house.request(Method::GET, "/agents", "", None);
        request.headers_mut().insert("authorization", form.parse().unwrap());
        let answer = super::house::answer(house.send(request).await).await;
        answer.problem(401, "unauthenticated");
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    let mut twice = house.request(Method::GET, "/agents", &house.admin, None);
    let value = twice.headers()["authorization"].clone();
    twice.headers_mut().append("authorization", value);
    super::house::answer(house.send(twice).await).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_revoked_token_stops_to_work() {
    let house = House::new().await;
    let made = house.post("/tokens", r#"{"name":"ci","scope":"read","expires_in":"1h"}"#).await;
    assert_eq!(made.status, 201);
    let (id, secret) =
        (made.json()["token"]["id"].as_str().unwrap().to_owned(), made.json()["secret"].as_str().unwrap().to_owned());
    assert_eq!(house.call(Method::GET, "/agents", &secret, None).await.status, 200);
    assert_eq!(house.call(Method::DELETE, &format!("/tokens/{id}"), &house.admin, None).await.status, 204);
    house.call(Method::GET, "/agents", &secret, None).await.problem(401, "unauthenticated");
    let listed = house.get("/tokens").await.json();
    let row = listed["items"].as_array().unwrap().iter().find(|token| token["id"] == id.as_str()).cloned().unwrap();
    assert!(row["revoked_at"].is_string() && row.get("secret").is_none());
}

#[tokio::test]
async fn refusals_at_the_door_are_in_the_audit_but_strangers_cannot_fill_it() {
    let house = House::new().await;
    house.call(Method::GET, "/tokens", &house.read, None).await.problem(403, "forbidden");
    for _ in 0..200 {
        house
            .call(Method::GET, "/agents/a%0ab", "paprika_0123456789ab_wrong", None)
            .await
            .problem(401, "unauthenticated");
        house.call(Method::GET, "/agents", "no-token-at-all", None).await.problem(401, "unauthenticated");
    }
    let rows = house.store.audit_rows(0, 1_000).await.unwrap();
    let of = |actor: &str| rows.iter().filter(|row| row.action == "api.request" && row.actor.0 == actor).count();
    assert_eq!(of("read"), 1);
    // The requests may take more than a second of the clock, but never as long as a row for each would need.
    assert!((10..150).contains(&of("unknown")), "{}", of("unknown"));
    let row = rows.iter().find(|row| row.actor.0 == "unknown").unwrap();
    assert_eq!((row.object.as_str(), row.outcome.as_str()), ("GET /agents/a%0ab", "refused"));
    assert!(row.details.contains("0123456789ab") && !row.details.contains("wrong"), "{}", row.details);
}
