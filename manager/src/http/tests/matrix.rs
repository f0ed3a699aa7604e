//! Every route with every kind of caller: who has no credential is 401, who may not is 403, who may is let in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::extract::Request;
use http::Method;
use site::permission::Permission as Right;
use store::types::Scope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::house::House;
use crate::http::gate::{Permission, Registered};
use crate::http::routes::table;
use crate::service::rights::holds;

/// What an answer says about whether somebody was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Let {
    In,
    Unknown,
    Forbidden,
}

async fn asked(house: &House, request: Request) -> Let {
    // Streams would not end: their bodies are not read.
    match house.send(request).await.status().as_u16() {
        401 => Let::Unknown,
        403 => Let::Forbidden,
        _ => Let::In,
    }
}

fn path_of(route: &Registered) -> String {
    route.path.replace("{name}", "nobody").replace("{id}", "999999").replace("{number}", "999999")
}

/// What a route needs, one of them.
fn needs(permission: Permission) -> Option<Vec<Right>> {
    match permission {
        Permission::Public | Permission::Anybody => None,
        Permission::Needs(right) => Some(vec![right]),
        Permission::OneOf(rights) => Some(rights.to_vec()),
    }
}

/// A site in which there is a role for each permission, and one operator with everything.
fn a_role_for_each() -> String {
    let mut roles = "roles:\n".to_owned();
    for right in Right::ALL {
        roles.push_str(&format!("  only-{right}: [{{may: {right}, on: '*', as: '*'}}]\n"));
    }
    roles + "operators: {alice: admin, carol: []}\n"
}

/// S01. Every way to call is tried with every kind of credential, and nothing that is not expected succeeds.
#[tokio::test]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let house = House::new().await;
    let other = House::new().await;
    house.site(&[("roles.yml", &a_role_for_each())]).await;
    let (_, _, routes) = table(house.service.clone());
    assert!(routes.len() >= 40, "{}", routes.len());

    let (revoked_id, revoked) = house.token("revoked", Scope::Admin, &["admin"]).await;
    house.store.token_revoke(&revoked_id, &store::types::Actor("test".to_owned()), 1).await.unwrap();
    let (_, expired) = house.token_for("expired", Scope::Admin, &["admin"], Some(Duration::ZERO)).await;
    let (_, no_roles) = house.token("nothing", Scope::Admin, &[]).await;
    let (_, no_such_role) = house.token("odd", Scope::Admin, &["admi", "Admin", "no-such-role"]).await;
    let strangers = [
        ("none", String::new()),
        ("garbage", "paprika_nobody_knows".to_owned()),
        ("expired", expired),
        ("revoked", revoked),
        ("other", other.admin.clone()),
    ];
    let scopes = [
        ("read", Scope::Read, house.read.clone()),
        ("run", Scope::Run, house.run.clone()),
        ("admin", Scope::Admin, house.admin.clone()),
    ];
    let mut single = BTreeMap::new();
    for right in Right::ALL {
        // The name that stands in the paths: nobody but an admin certifies somebody else.
        let (_, token) = house.token("nobody", Scope::Admin, &[&format!("only-{right}")]).await;
        single.insert(right, token);
    }
    let issue = async |name: &str| {
        let name = name.parse().unwrap();
        let later = common::clock::unix_ms() + 3_600_000;
        let actor = store::types::Actor("test".to_owned());
        let generation = house.store.operator_cert_create(&name, later, &actor, 1).await.unwrap();
        house.service.credentials_changed().await.unwrap();
        generation.0
    };
    let (alice, carol) = (issue("alice").await, issue("carol").await);

    let mut seen = String::new();
    for route in &routes {
        let (path, method) = (path_of(route), route.method.clone());
        let what = format!("{method} {}", route.path);
        let needed = needs(route.permission);
        let is_public = route.permission == Permission::Public;
        let with = |token: &str| house.request(method.clone(), &path, token, None);
        for (who, token) in &strangers {
            let expected = if is_public { Let::In } else { Let::Unknown };
            assert_eq!(asked(&house, with(token)).await, expected, "{what} {who}");
        }
        let mut line = format!("{:<7} {:<38}", method.as_str(), route.path);
        for (who, scope, token) in &scopes {
            let may = needed.as_ref().is_none_or(|needed| needed.iter().any(|need| holds(*scope, *need)));
            let expected = if may { Let::In } else { Let::Forbidden };
            assert_eq!(asked(&house, with(token)).await, expected, "{what} {who}");
            line.push_str(&format!(" {who}={}", if may { "yes" } else { "no" }));
        }
        for (right, token) in &single {
            let may = needed.as_ref().is_none_or(|needed| needed.contains(right));
            let expected = if may { Let::In } else { Let::Forbidden };
            assert_eq!(asked(&house, with(token)).await, expected, "{what} with nothing but {right}");
        }
        for (who, token) in [("no roles", &no_roles), ("roles that are none", &no_such_role)] {
            let expected = if needed.is_none() { Let::In } else { Let::Forbidden };
            assert_eq!(asked(&house, with(token)).await, expected, "{what} {who}");
        }
        let certificate = |name, generation| house.with_certificate(method.clone(), &path, name, generation);
        let of_nobody = if is_public { Let::In } else { Let::Unknown };
        let without_roles = if needed.is_none() { Let::In } else { Let::Forbidden };
        for (who, request, expected) in [
            ("alice", certificate("alice", alice), Let::In),
            ("carol, who has no role", certificate("carol", carol), without_roles),
            ("a certificate that is not on record", certificate("alice", 4_711), of_nobody),
        ] {
            assert_eq!(asked(&house, request).await, expected, "{what} {who}");
        }
        let needed = match (route.permission, needed) {
            (Permission::Anybody, _) => "a credential".to_owned(),
            (_, None) => "nothing".to_owned(),
            (_, Some(needed)) => needed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
        };
        seen.push_str(&format!("{line} needs {needed}\n"));
    }
    insta::assert_snapshot!(seen);
}

/// The name of a certificate is worth nothing without its generation, and the other way round.
#[tokio::test]
async fn a_certificate_is_the_operator_that_its_row_names() {
    let house = House::new().await;
    house.site(&[("roles.yml", "operators: {alice: admin}\n")]).await;
    let actor = store::types::Actor("test".to_owned());
    let later = common::clock::unix_ms() + 3_600_000;
    let generation = house.store.operator_cert_create(&"bob".parse().unwrap(), later, &actor, 1).await.unwrap();
    house.service.credentials_changed().await.unwrap();
    // Our own authority signs no such certificate; if it did, the row would still decide.
    let request = house.with_certificate(Method::GET, "/whoami", "alice", generation.0);
    assert_eq!(asked(&house, request).await, Let::Unknown);
    let request = house.with_certificate(Method::GET, "/agents", "bob", generation.0);
    assert_eq!(asked(&house, request).await, Let::Forbidden);
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_document_has_no_other() {
    let house = House::new().await;
    let (_, _, routes) = table(house.service.clone());
    let registered: BTreeSet<_> =
        routes.iter().map(|route| format!("{} {}", route.method.as_str().to_lowercase(), route.path)).collect();
    let document = house.call(Method::GET, "/openapi.json", "", None).await.json();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete", "head", "options", "trace"] {
            if item.get(method).is_some() {
                described.insert(format!("{method} {path}"));
            }
        }
    }
    assert_eq!(registered, described);
}

/// A route that is put into the router by another way than the gate would need no permission and stand in no table.
#[test]
fn nothing_but_the_gate_adds_routes() {
    fn look(folder: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
                look(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                // Tests at the end of a file may build what they like.
                let code = text.split("#[cfg(test)]").next().unwrap();
                let adds = [".route(", ".nest(", ".route_service(", ".nest_service(", ".routes("];
                if adds.iter().any(|word| code.contains(word)) {
                    found.push(path.file_name().unwrap().to_string_lossy().into_owned());
                }
            }
        }
    }
    let mut found = Vec::new();
    look(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http"), &mut found);
    found.sort();
    assert_eq!(found, ["docs.rs", "gate.rs"], "the document itself, and the gate");
}

#[tokio::test]
async fn another_method_is_no_way_in() {
    let house = House::new().await;
    let (_, _, routes) = table(house.service.clone());
    let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    for route in &routes {
        let known: Vec<_> =
            routes.iter().filter(|other| other.path == route.path).map(|other| other.method.clone()).collect();
        for method in methods.iter().filter(|method| !known.contains(method)) {
            for token in ["", house.read.as_str(), house.admin.as_str()] {
                let path = path_of(route);
                let answer = house.call(method.clone(), &path, token, None).await;
                // `/agents/{name}/…` and `/join-tokens/{id}` are the same to nobody: what is left over is unknown.
                assert_eq!(answer.status.as_u16(), 405, "{method} {path}");
            }
        }
    }
}

/// A host's certificate opens no door for operators, and neither does a manager's.
#[tokio::test]
async fn certificates_of_hosts_and_managers_are_turned_away_before_any_route() {
    let house = House::new().await;
    let bound = house.open().await;
    let (_, _, routes) = table(house.service.clone());
    let name = super::house::AGENT.parse().unwrap();
    let valid = Duration::from_secs(3_600);
    let agent = house.authority().issue_agent(&name, common::id::Generation(1), valid).unwrap();
    let manager = house.authority().issue_manager(&name, &[]).unwrap();
    for (who, issued) in [("agent", agent), ("manager", manager)] {
        let roots = common::tls::roots_from_pem(house.ca_pem.as_bytes()).unwrap();
        let chain = common::tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
        let key = common::tls::key_from_pem(issued.key_pem.as_bytes()).unwrap();
        let config = common::tls::api_client(roots, Some((chain, key))).unwrap();
        for route in &routes {
            let socket = TcpStream::connect(bound.api).await.unwrap();
            let server = common::tls::ServerName::try_from("localhost").unwrap();
            // A client certificate is judged after the client's own part of the handshake: the refusal may be seen only when
            // something is read.
            let Ok(mut stream) = common::tls::TlsConnector::from(config.clone()).connect(server, socket).await else {
                continue;
            };
            let head = format!(
                "{} {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
                route.method,
                path_of(route),
                house.admin,
            );
            let mut answer = Vec::new();
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 403"),
                "{who} {} {}: {answer}",
                route.method,
                route.path
            );
        }
    }
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
