//! Hosts that become agents with a join token, and everybody who does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::config::Secret;
use common::handshake::{self, WelcomeError};
use common::tls::LinkPeer;
use common::wire::bye::Code;
use common::wire::frame::Body;
use manager::link::knocks::Paces;
use manager::link::pace::Pace;
use manager::service::site::Push;
use manager::service::{JoinWish, Settings};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::hosts::{Host, Refused, audited, open, token};
use crate::house::{House, wait_for};

const FROM: &str = "10.0.0.7:4000";

async fn agents(house: &House) -> Vec<String> {
    let agents = house.store.agents(None, 1_000).await.unwrap();
    agents.into_iter().map(|agent| agent.name.to_string()).collect()
}

async fn site(house: &House, files: &[(&str, &str)]) {
    let files: BTreeMap<_, _> =
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    house.service.site_push(&house.admin, Push { files, ..Push::default() }).await.unwrap();
}

/// Protocol R-JOIN-1, R-JOIN-4.
#[tokio::test]
async fn a_host_joins_over_tls_and_works_as_an_agent() {
    let house = House::build().await;
    let address = open(&house);
    let token = token(&house, JoinWish { groups: vec!["web".to_owned()], ..JoinWish::default() }).await;
    let mut host = Host::new("web1");
    host.join(address, &token).await.unwrap();
    let mut peer = host.connect(&house, address, 1).await.expect("a session");
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    peer.finish(&command, 0).await;
    peer.acked().await;
    assert_eq!(house.phase(id).await, "succeeded");
    let view = house.service.agent(&house.admin, &host.name).await.unwrap();
    assert_eq!(view.agent.groups, ["web"]);
    assert_eq!(house.service.rights().groups(&host.name).len(), 1, "rights know the group at once");
    let rows = audited(&house, "agent.join").await;
    let [(outcome, actor, object, _)] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((outcome.as_str(), actor.as_str(), object.as_str()), ("done", &*format!("join:{}", token.id), "web1"));
}

#[tokio::test]
async fn each_reason_of_a_refusal_is_told_and_makes_no_agent() {
    let house = House::build().await;
    let wish = JoinWish::default;
    let good = token(&house, JoinWish { uses: Some(100), ..wish() }).await;
    let used = token(&house, wish()).await;
    Host::new("first").join_from(&house, FROM, &used).await.unwrap();
    let revoked = token(&house, wish()).await;
    house.service.join_token_revoke(&house.admin, &revoked.id).await.unwrap();
    let expired = token(&house, JoinWish { ttl: Some(Duration::from_millis(1)), ..wish() }).await;
    let named = token(&house, JoinWish { name: Some("db*".to_owned()), ..wish() }).await;
    let placed = token(&house, JoinWish { networks: vec!["192.168.0.0/16".to_owned()], ..wish() }).await;
    let mut guessed = good.clone();
    guessed.secret = Secret::new("0".repeat(64));
    let mut unknown = good.clone();
    unknown.id = "0123456789abcdef".to_owned();
    wait_for("the token's end", || async {
        let rows = house.service.join_tokens(&house.admin).await.unwrap();
        let end = rows.iter().find(|row| row.id == expired.id).map(|row| row.expires_at)?;
        (crate::house::now_ms() > end).then_some(())
    })
    .await;
    let cases = [
        (&guessed, "web1", "no such join token"),
        (&unknown, "web1", "no such join token"),
        (&used, "web1", "the join token is used up; `paprika join-token new` makes another"),
        (&revoked, "web1", "the join token was revoked; `paprika join-token new` makes another"),
        (&expired, "web1", "the join token has expired; `paprika join-token new` makes another"),
        (&named, "web1", "the token does not allow this name"),
        (&placed, "web1", "the token does not allow this address"),
        (&good, "first", "an agent of this name exists; remove it first, or join under another name"),
    ];
    for (token, name, told) in cases {
        let refused = Host::new(name).join_from(&house, FROM, token).await.unwrap_err();
        assert_eq!(refused, Refused::Told(Code::AuthFailed, told.to_owned()));
    }
    assert_eq!(agents(&house).await, ["first"]);
    let rows = audited(&house, "agent.join").await;
    let refused = rows.iter().filter(|(outcome, ..)| outcome == "refused").count();
    assert_eq!(refused, 6, "who does not know a secret leaves no row: {rows:?}");
    let kept = house.service.join_tokens(&house.admin).await.unwrap();
    assert!(kept.iter().filter(|row| row.id != used.id).all(|row| row.used == 0), "{kept:?}");
}

/// Protocol R-JOIN-1.
#[tokio::test]
async fn a_peer_without_a_certificate_may_say_nothing_but_a_join() {
    let house = House::build().await;
    let token = token(&house, JoinWish::default()).await;
    let known = house.agent("web1").await;
    let host = Host::new("web2");
    let Body::ClientHello(join) = host.join_hello(&token) else { panic!("a hello") };
    let mut cases = vec![
        (handshake::hello(&house.hello(&known, 1)), Code::AuthFailed),
        (Body::Inventory(Default::default()), Code::ProtocolError),
        (Body::Renew(Default::default()), Code::ProtocolError),
        (Body::ClientHello(Default::default()), Code::AuthFailed),
    ];
    for (change, code) in
        [(0, Code::ProtocolError), (1, Code::AuthFailed), (2, Code::AuthFailed), (3, Code::AuthFailed)]
    {
        let mut hello = join.clone();
        match change {
            0 => hello.csr = Default::default(),
            1 => hello.csr = vec![0x30, 3, 2, 1, 1].into(),
            2 => hello.agent_name = "../web2".to_owned(),
            _ => hello.cluster_id = "elsewhere".to_owned(),
        }
        cases.push((Body::ClientHello(hello), code));
    }
    for (hello, code) in cases {
        let told = format!("{hello:?}");
        let mut peer = house.dial_as(LinkPeer::Stranger, FROM.parse().unwrap());
        peer.send(hello).await;
        assert_eq!(peer.bye().await.0, code, "{told}");
    }
    // A good key with somebody else's signature under it is no proof that one holds it.
    let (mut forged, other) = (join, Host::new("web2"));
    let mut csr = host.key.csr.clone();
    csr.truncate(csr.len() - 40);
    csr.extend(other.key.csr.iter().skip(other.key.csr.len() - 40));
    forged.csr = csr.into();
    let mut peer = house.dial_as(LinkPeer::Stranger, FROM.parse().unwrap());
    peer.send(Body::ClientHello(forged)).await;
    assert_eq!(peer.bye().await.0, Code::AuthFailed);
    assert_eq!(agents(&house).await, ["web1"]);
}

/// S44 of the attack table: 20 rounds over TLS; the store's own test has 200 without.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_of_one_use_that_64_hosts_race_for_has_exactly_one_winner_each_round() {
    const RACERS: usize = 64;
    let house = House::build().await;
    let address = open(&house);
    for round in 0..20 {
        let token = token(&house, JoinWish::default()).await;
        let start = Arc::new(Barrier::new(RACERS));
        let mut racing = JoinSet::new();
        for racer in 0..RACERS {
            let (token, start) = (token.clone(), Arc::clone(&start));
            racing.spawn(async move {
                let mut host = Host::new(&format!("r{round}-{racer}"));
                start.wait().await;
                host.join(address, &token).await
            });
        }
        let results = racing.join_all().await;
        let won = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {results:?}");
        let told = |result: &&Result<(), Refused>| matches!(result, Err(Refused::Told(Code::AuthFailed, why)) if why.contains("used up"));
        assert_eq!(results.iter().filter(told).count(), RACERS - 1, "round {round}");
    }
    assert_eq!(agents(&house).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_for_25_lets_in_exactly_25_of_100_hosts() {
    let house = House::build().await;
    let address = open(&house);
    let token = token(&house, JoinWish { uses: Some(25), ..JoinWish::default() }).await;
    let mut joining = JoinSet::new();
    for number in 0..100 {
        let token = token.clone();
        joining.spawn(async move { Host::new(&format!("h{number}")).join(address, &token).await });
    }
    let joined = joining.join_all().await.into_iter().filter(Result::is_ok).count();
    assert_eq!(joined, 25);
    let generations: BTreeSet<_> =
        house.store.agents(None, 1_000).await.unwrap().into_iter().map(|agent| agent.generation).collect();
    assert_eq!(generations.len(), 25, "each has its own generation");
}

/// The bar of enrolment: 500 hosts behind one address, with the bounds that a manager has when nobody changes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_hosts_behind_one_address_join_within_a_minute_and_no_more_than_the_token_allows() {
    let defaults = Settings { knocks: Paces::default(), ..House::settings() };
    let house = House::build_with(defaults).await;
    let address = open(&house);
    let token = token(&house, JoinWish { uses: Some(480), ..JoinWish::default() }).await;
    let began = tokio::time::Instant::now();
    let mut joining = JoinSet::new();
    for number in 0..500 {
        let token = token.clone();
        joining.spawn(async move {
            let mut host = Host::new(&format!("h{number}"));
            loop {
                match host.join(address, &token).await {
                    // It was told when to come back.
                    Err(Refused::Told(Code::Overloaded, _)) => tokio::time::sleep(Duration::from_secs(1)).await,
                    other => return other,
                }
            }
        });
    }
    let results = joining.join_all().await;
    let took = began.elapsed();
    let joined = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!((joined, agents(&house).await.len()), (480, 480), "{results:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// Protocol R-JOIN-3: the connection dies between the use of the token and its answer.
#[tokio::test]
async fn after_a_lost_answer_the_same_key_gets_its_certificate_and_another_does_not() {
    let house = House::build().await;
    let address = open(&house);
    let token = token(&house, JoinWish::default()).await;
    let mut host = Host::new("web1");
    let mut peer = house.dial_as(LinkPeer::Stranger, FROM.parse().unwrap());
    peer.send(host.join_hello(&token)).await;
    wait_for("the token is used", || async { (!agents(&house).await.is_empty()).then_some(()) }).await;
    drop(peer);
    let mut other = Host::new("web1");
    assert!(matches!(other.join(address, &token).await, Err(Refused::Told(Code::AuthFailed, _))));
    let mut elsewhere = Host { name: "web2".parse().unwrap(), ..host.clone() };
    assert!(matches!(elsewhere.join(address, &token).await, Err(Refused::Told(Code::AuthFailed, _))));
    for _ in 0..3 {
        host.join(address, &token).await.unwrap();
    }
    assert_eq!(agents(&house).await, ["web1"]);
    let kept = house.service.join_tokens(&house.admin).await.unwrap();
    assert!(matches!(kept.as_slice(), [row] if row.used == 1), "{kept:?}");
    host.connect(&house, address, 1).await.expect("a session");
}

#[tokio::test]
async fn a_token_never_gives_a_name_more_than_it_holds_itself() {
    let house = House::build().await;
    site(
        &house,
        &[("groups.yml", "'*': [base]\n'web*': [web]\n"), ("agents.yml", "db1: {allowed_ips: 10.1.0.0/16}\n")],
    )
    .await;
    let name = Refused::Told(Code::AuthFailed, "the token does not allow this name".to_owned());
    let address = Refused::Told(Code::AuthFailed, "the token does not allow this address".to_owned());
    let plain = token(&house, JoinWish { uses: Some(100), ..JoinWish::default() }).await;
    Host::new("app1").join_from(&house, FROM, &plain).await.unwrap();
    assert_eq!(Host::new("web1").join_from(&house, FROM, &plain).await.unwrap_err(), name);
    assert_eq!(Host::new("db1").join_from(&house, "10.1.0.5:1", &plain).await.unwrap_err(), name);
    let web = token(&house, JoinWish { groups: vec!["web".to_owned()], ..JoinWish::default() }).await;
    Host::new("web1").join_from(&house, FROM, &web).await.unwrap();
    let db = token(&house, JoinWish { name: Some("db1".to_owned()), ..JoinWish::default() }).await;
    assert_eq!(Host::new("db1").join_from(&house, FROM, &db).await.unwrap_err(), address);
    Host::new("db1").join_from(&house, "10.1.0.5:1", &db).await.unwrap();
    assert_eq!(agents(&house).await, ["app1", "db1", "web1"]);
    // The peer heard less than the audit knows.
    let rows = audited(&house, "agent.join").await;
    let why = |wanted: &str| rows.iter().any(|(_, _, _, details)| details.contains(wanted));
    assert!(why("the group web by the pattern web*") && why("agents.yml has an entry for db1"), "{rows:?}");
    assert!(why("agents.yml does not allow db1 at 10.0.0.7"), "{rows:?}");
}

/// Protocol R-LIMIT-1; S12 of the attack table: no signature is checked and no row is written for them.
#[tokio::test]
async fn who_knocks_too_often_waits_and_holds_up_nobody_else() {
    let pace = |burst| Pace { burst, interval: Duration::from_secs(3600) };
    let knocks = Paces { address: pace(5), overall: pace(8) };
    let house = House::build_with(Settings { knocks, ..House::settings() }).await;
    let token = token(&house, JoinWish { uses: Some(100), ..JoinWish::default() }).await;
    let mut guessed = token.clone();
    guessed.secret = Secret::new("0".repeat(64));
    let mut told = BTreeMap::new();
    for number in 0..50 {
        let mut peer = house.dial_as(LinkPeer::Stranger, FROM.parse().unwrap());
        peer.send(Host::new(&format!("g{number}")).join_hello(&guessed)).await;
        let frame = peer.next().await.expect("an answer");
        match handshake::read_issued(&frame) {
            Err(WelcomeError::Refused { code, retry_after, .. }) => {
                assert_eq!(code == Code::Overloaded, retry_after.is_some());
                *told.entry(code as i32).or_insert(0) += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, BTreeMap::from([(Code::AuthFailed as i32, 5), (Code::Overloaded as i32, 45)]));
    for honest in 0..3 {
        let from = format!("10.0.1.{honest}:1");
        Host::new(&format!("h{honest}")).join_from(&house, &from, &token).await.unwrap();
    }
    let refused = Host::new("late").join_from(&house, "10.0.2.1:1", &token).await.unwrap_err();
    assert!(matches!(refused, Refused::Told(Code::Overloaded, _)), "all together are bounded: {refused:?}");
}

#[tokio::test]
async fn nobody_makes_a_token_for_hosts_that_they_could_not_manage() {
    let house = House::build().await;
    let roles = "roles: {r: [{may: join.manage}, {may: agent.manage, on: '@web or db1'}]}\n";
    site(&house, &[("groups.yml", "'*': [base]\n"), ("roles.yml", roles)]).await;
    let roles = Some(vec!["r".to_owned()]);
    let (_, text) = house.service.token_new(&house.admin, "w", store::types::Scope::Admin, roles, None).await.unwrap();
    let caller = house.service.authenticate(&text).await.unwrap().expect("a caller");
    let make = async |groups: &[&str], name: Option<&str>| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let wish = JoinWish { groups, name: name.map(str::to_owned), ..JoinWish::default() };
        house.service.join_token_new(&caller, wish).await.map(drop).map_err(|error| error.code())
    };
    assert_eq!(make(&["web"], None).await, Ok(()));
    assert_eq!(make(&["web", "db"], None).await, Ok(()), "such a host is one of theirs");
    assert_eq!(make(&["db"], Some("db1")).await, Ok(()));
    assert_eq!(make(&["db"], None).await, Err("forbidden"));
    assert_eq!(make(&["db"], Some("db*")).await, Err("forbidden"));
    assert_eq!(make(&["base"], None).await, Err("forbidden"));
    assert_eq!(make(&[], None).await, Err("forbidden"));
    let refused = audited(&house, "join_token.create").await.iter().filter(|row| row.0 == "refused").count();
    assert_eq!(refused, 4);
}

#[tokio::test]
async fn a_wish_for_a_token_is_checked_and_needs_the_permission() {
    let house = House::build().await;
    let wrong = JoinWish { groups: vec!["a b".to_owned()], ..JoinWish::default() };
    let refused = house.service.join_token_new(&house.admin, wrong).await.unwrap_err();
    assert_eq!(refused.code(), "invalid");
    let (_, text) = house.service.token_new(&house.admin, "ci", store::types::Scope::Run, None, None).await.unwrap();
    let caller = house.service.authenticate(&text).await.unwrap().expect("a caller");
    let refused = house.service.join_token_new(&caller, JoinWish::default()).await.unwrap_err();
    assert_eq!(refused.code(), "forbidden");
    assert_eq!(audited(&house, "join_token.create").await.len(), 1, "the refusal");
    let line = token(&house, JoinWish::default()).await.expose();
    let rows = house.store.audit_rows(0, 1_000).await.unwrap();
    let secret = line.split('_').nth(2).unwrap();
    assert!(rows.iter().all(|row| !row.details.contains(secret)), "the secret is nowhere");
}
