//! Operators that show a certificate: what it lets them do, and how it ends.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use common::clock::unix_ms;
use common::id::Generation;
use common::tls::{self, TlsConnector, client::TlsStream, manager_name, to_pem};
use manager::http::{HttpConfig, serve};
use manager::service::site::Push;
use manager::service::{Caller, IssuedOperator};
use store::types::Scope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::hosts::audited;
use crate::house::{BOUND, House, wait_for};

const ROLES: &str = "roles: {look: [{may: [agent.read, command.read, status.read], on: '*'}], sign: [{may: operator.manage}]}\n\
                     operators: {alice: look, bob: [sign, look], carol: sign}\n";

/// A house with an API port and with roles.
async fn house() -> (House, SocketAddr) {
    let house = House::build().await;
    let files = BTreeMap::from([("roles.yml".to_owned(), ROLES.as_bytes().to_vec())]);
    house.service.site_push(&house.admin, Push { files, ..Push::default() }).await.unwrap();
    let config = HttpConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        socket: None,
        max_connections: 1_000,
        max_connections_per_address: 1_000,
    };
    let bound = serve(config, house.service.clone(), house.papers.api(), &house.shutdown, &house.tasks).await.unwrap();
    (house, bound.api)
}

async fn certificate(house: &House, name: &str) -> IssuedOperator {
    house.service.operator_certificate(&house.admin, &name.parse().unwrap(), None, None).await.unwrap()
}

/// Dials the API with a certificate, or without.
async fn dial(house: &House, api: SocketAddr, own: Option<(&str, &str)>) -> std::io::Result<TlsStream<TcpStream>> {
    let roots = tls::roots_from_pem(house.authority.bundle_pem().as_bytes()).unwrap();
    let own = own.map(|(chain, key)| {
        (tls::chain_from_pem(chain.as_bytes()).unwrap(), tls::key_from_pem(key.as_bytes()).unwrap())
    });
    let config = tls::api_client(roots, own).unwrap();
    TlsConnector::from(config).connect(manager_name(), TcpStream::connect(api).await?).await
}

/// Asks once and reads the status; 0 when nothing was answered.
async fn status(house: &House, api: SocketAddr, own: Option<(&str, &str)>, path: &str, more: &str) -> u16 {
    let Ok(mut stream) = dial(house, api, own).await else { return 0 };
    let head = format!("GET {path} HTTP/1.1\r\nHost: m1\r\nConnection: close\r\n{more}\r\n");
    if stream.write_all(head.as_bytes()).await.is_err() {
        return 0;
    }
    let mut said = Vec::new();
    // A connection that breaks has said all it will.
    let _ = timeout(BOUND, stream.read_to_end(&mut said)).await.expect("an end");
    read_status(&said)
}

fn read_status(said: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(said);
    text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn pair(issued: &IssuedOperator) -> (String, String) {
    (issued.chain_pem.clone(), issued.key_pem.as_ref().expect("a key").expose().to_owned())
}

#[tokio::test]
async fn a_certificate_gives_what_roles_yml_gives_its_name_and_no_more() {
    let (house, api) = house().await;
    let (chain, key) = pair(&certificate(&house, "alice").await);
    let alice = Some((chain.as_str(), key.as_str()));
    assert_eq!(status(&house, api, alice, "/agents", "").await, 200);
    assert_eq!(status(&house, api, alice, "/tokens", "").await, 403);
    assert_eq!(status(&house, api, alice, "/join-tokens", "").await, 403);
    assert_eq!(status(&house, api, None, "/agents", "").await, 401, "no certificate and no token");
    let (chain, key) = pair(&certificate(&house, "nobody").await);
    assert_eq!(status(&house, api, Some((&chain, &key)), "/agents", "").await, 403, "a name without roles");
    let bad = "Authorization: Bearer paprika_aaaaaaaaaaaa_bbbb\r\n";
    assert_eq!(status(&house, api, alice, "/agents", bad).await, 401, "a bad token is not made good by a certificate");
    let rows = audited(&house, "operator.certificate").await;
    assert_eq!(rows.len(), 2, "{rows:?}");
}

#[tokio::test]
async fn certificates_of_agents_managers_and_strangers_open_no_door() {
    let (house, api) = house().await;
    let identity = house.agent("web1").await;
    let hour = Duration::from_secs(3600);
    let agent = house.authority.issue_agent(&identity.name, identity.generation, hour).unwrap();
    let manager = house.authority.issue_manager(&"m2".parse().unwrap(), &[]).unwrap();
    let (_, token) = house.service.token_new(&house.admin, "ci", Scope::Admin, None, None).await.unwrap();
    let good = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(status(&house, api, None, "/agents", &good).await, 200);
    for (issued, expected) in [(agent, 403), (manager, 0)] {
        let own = Some((issued.chain_pem.as_str(), issued.key_pem.as_str()));
        // Not even a good token helps: whoever holds the key of an agent has no business here.
        assert_eq!(status(&house, api, own, "/agents", &good).await, expected);
    }
    // A certificate that nobody put on record, e.g. from before the store was replaced.
    let ghost = house.authority.issue_operator(&"alice".parse().unwrap(), Generation(900), hour).unwrap();
    assert_eq!(status(&house, api, Some((&ghost.chain_pem, &ghost.key_pem)), "/agents", "").await, 401);
    // The number of one operator under the name of another.
    let nobody = certificate(&house, "nobody").await;
    let swapped = house.authority.issue_operator(&"alice".parse().unwrap(), nobody.generation, hour).unwrap();
    assert_eq!(status(&house, api, Some((&swapped.chain_pem, &swapped.key_pem)), "/agents", "").await, 401);
}

/// S05 of the attack table.
#[tokio::test]
async fn a_revoked_certificate_is_cut_within_two_seconds_and_never_served_again() {
    let (house, api) = house().await;
    let issued = certificate(&house, "alice").await;
    let (chain, key) = pair(&issued);
    let own = Some((chain.as_str(), key.as_str()));
    let mut stream = dial(&house, api, own).await.unwrap();
    let follow = "GET /events HTTP/1.1\r\nHost: m1\r\nConnection: close\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(follow.as_bytes()).await.unwrap();
    let mut head = [0; 512];
    let read = timeout(BOUND, stream.read(&mut head)).await.unwrap().unwrap();
    assert_eq!(read_status(head.get(..read).unwrap()), 200);
    let mut idle = dial(&house, api, own).await.unwrap();

    let began = Instant::now();
    house.service.operator_revoke(&house.admin, &issued.name).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await.expect("the stream ends");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // A connection from before is good for nothing either.
    idle.write_all(b"GET /agents HTTP/1.1\r\nHost: m1\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(BOUND, idle.read_to_end(&mut said)).await.unwrap();
    assert_eq!(read_status(&said), 401);
    let mut served = 0;
    for attempt in 0..1_000u32 {
        let path = ["/agents", "/status", "/events", "/commands", "/whoami"][attempt as usize % 5];
        // Handshakes are slow: most attempts ask the door behind TLS.
        let answered = match attempt % 20 {
            0 => status(&house, api, own, path, "").await,
            _ => house.service.operator_caller(&issued.name, issued.generation).map_or(401, |_| 200),
        };
        if answered != 401 {
            served += 1;
        }
    }
    assert_eq!(served, 0);
    let view = house.service.operators(&house.admin).await.unwrap();
    assert!(view.iter().all(|view| view.row.revoked_at.is_some()));
    let again = certificate(&house, "alice").await;
    assert!(again.generation > issued.generation, "a name may come back, a number never");
    let (chain, key) = pair(&again);
    assert_eq!(status(&house, api, Some((&chain, &key)), "/agents", "").await, 200);
}

#[tokio::test]
async fn a_certificate_ends_by_itself_also_on_an_open_connection() {
    let (house, api) = house().await;
    let name = "alice".parse().unwrap();
    let ttl = Duration::from_secs(2);
    let issued = house.service.operator_certificate(&house.admin, &name, Some(ttl), None).await.unwrap();
    let (chain, key) = pair(&issued);
    let mut open = dial(&house, api, Some((&chain, &key))).await.unwrap();
    crate::house::wait_for("its end", || async { (unix_ms() > issued.not_after).then_some(()) }).await;
    open.write_all(b"GET /agents HTTP/1.1\r\nHost: m1\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(BOUND, open.read_to_end(&mut said)).await.unwrap();
    assert_eq!(read_status(&said), 401);
}

#[tokio::test]
async fn a_retired_authority_cuts_the_connections_of_its_certificates() {
    let (house, api) = house().await;
    let (chain, key) = pair(&certificate(&house, "alice").await);
    let mut open = dial(&house, api, Some((&chain, &key))).await.unwrap();
    house.service.authority_prepare(&house.admin).await.unwrap();
    house.service.authority_activate(&house.admin).await.unwrap();
    assert_eq!(status(&house, api, Some((&chain, &key)), "/agents", "").await, 200, "nobody is shut out before");
    house.service.authority_retire(&house.admin, true).await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(Duration::from_secs(2), open.read_to_end(&mut said)).await.expect("it is cut");
    assert_eq!(status(&house, api, Some((&chain, &key)), "/agents", "").await, 0);
    let (chain, key) = pair(&certificate(&house, "alice").await);
    assert_eq!(status(&house, api, Some((&chain, &key)), "/agents", "").await, 200);
}

#[tokio::test]
async fn nobody_certifies_somebody_who_may_more() {
    let (house, _) = house().await;
    let caller = async |name: &str| {
        let issued = certificate(&house, name).await;
        house.service.operator_caller(&issued.name, issued.generation).expect("a caller")
    };
    let (bob, carol, alice): (Caller, Caller, Caller) =
        (caller("bob").await, caller("carol").await, caller("alice").await);
    let certify = async |caller: &Caller, name: &str| {
        let made = house.service.operator_certificate(caller, &name.parse().unwrap(), None, None).await;
        made.map(drop).map_err(|error| error.code())
    };
    assert_eq!(certify(&bob, "bob").await, Ok(()), "in the own name everybody who may certify at all");
    assert_eq!(certify(&bob, "alice").await, Err("forbidden"), "alice may be given more tomorrow");
    assert_eq!(certify(&bob, "nobody").await, Err("forbidden"));
    assert_eq!(certify(&carol, "alice").await, Err("forbidden"), "carol has not the role look");
    assert_eq!(certify(&carol, "bob").await, Err("forbidden"));
    assert_eq!(certify(&alice, "alice").await, Err("forbidden"), "alice may not certify at all");
    let refused = audited(&house, "operator.certificate").await.iter().filter(|row| row.0 == "refused").count();
    assert_eq!(refused, 5);
}

/// Asks, and leaves before the answer, as the door does when its caller hangs up.
async fn hang_up<T>(call: impl Future<Output = T>) {
    assert!(timeout(Duration::ZERO, call).await.is_err(), "it was done at once");
}

#[tokio::test]
async fn a_revocation_takes_effect_also_when_its_caller_hangs_up() {
    let house = House::build().await;
    let issued = certificate(&house, "alice").await;
    let (token, text) = house.service.token_new(&house.admin, "ci", Scope::Admin, None, None).await.unwrap();
    let ci = house.service.authenticate(&text).await.unwrap().expect("a caller");
    let identity = house.agent("web1").await;
    let mut session = house.connect(&identity, 1).await;
    hang_up(house.service.operator_revoke(&house.admin, &issued.name)).await;
    wait_for("the certificate is worth nothing", || async {
        house.service.operator_caller(&issued.name, issued.generation).is_none().then_some(())
    })
    .await;
    hang_up(house.service.token_revoke(&house.admin, &token.id)).await;
    wait_for("the token is worth nothing", || async {
        (!house.service.rights().stands(&ci.authority, unix_ms())).then_some(())
    })
    .await;
    hang_up(house.service.remove_agent(&house.admin, &identity.name)).await;
    assert_eq!(session.bye().await.0, common::wire::bye::Code::Banned);
    let files = BTreeMap::from([("roles.yml".to_owned(), ROLES.as_bytes().to_vec())]);
    // Left as soon as it is in the store.
    tokio::select! {
        biased;
        _ = wait_for("a revision", || async { house.store.revision_live().await.unwrap() }) => {}
        pushed = house.service.site_push(&house.admin, Push { files, ..Push::default() }) => drop(pushed.unwrap()),
    }
    wait_for("the site is in force", || async { (house.service.rights().revision() == 1).then_some(()) }).await;
}

#[tokio::test]
async fn a_key_that_was_made_elsewhere_stays_there() {
    let (house, api) = house().await;
    let name = "alice".parse().unwrap();
    let key = tls::new_key().unwrap();
    let pem = {
        use std::fmt::Write;
        let mut text = "-----BEGIN CERTIFICATE REQUEST-----\n".to_owned();
        for line in base64(&key.csr).as_bytes().chunks(64) {
            writeln!(text, "{}", String::from_utf8_lossy(line)).unwrap();
        }
        text + "-----END CERTIFICATE REQUEST-----\n"
    };
    let issued = house.service.operator_certificate(&house.admin, &name, None, Some(&pem)).await.unwrap();
    assert!(issued.key_pem.is_none());
    let own = Some((issued.chain_pem.as_str(), key.key_pem.expose()));
    assert_eq!(status(&house, api, own, "/agents", "").await, 200);
    for wrong in ["", "nonsense", &pem.replace("REQUEST", "NONSENSE"), &to_pem(&vec![1, 2, 3].into())] {
        let refused = house.service.operator_certificate(&house.admin, &name, None, Some(wrong)).await.unwrap_err();
        assert_eq!(refused.code(), "invalid", "{wrong}");
    }
    for ttl in [Duration::ZERO, Duration::from_secs(3 * 365 * 24 * 3600)] {
        let refused = house.service.operator_certificate(&house.admin, &name, Some(ttl), None).await.unwrap_err();
        assert_eq!(refused.code(), "invalid", "{ttl:?}");
    }
    assert_eq!(house.service.operators(&house.admin).await.unwrap().len(), 1, "what was refused is not on record");
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let all = chunk.iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(all >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { digit as char } else { '=' });
        }
    }
    text
}
