//! The next certificate: over a live session, after the last one ended, and never for somebody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::{self, Renewal, read_renew, recover_hello};
use common::limits::RECOVERY_WINDOW;
use common::tls::{self, AgentPeer, KeyRequest, LinkPeer};
use common::wire::bye::Code;
use common::wire::frame::Body;
use common::wire::{self, nak};
use manager::service::site::Push;
use manager::service::{JoinWish, Settings};
use tokio::task::JoinSet;

use crate::hosts::{Host, Refused, ask, audited, config_of, dial, open, token};
use crate::house::{House, agent_peer, now_ms, wait_for};
use crate::peer::Peer;

const FROM: &str = "10.0.0.7:4000";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A host that joined, at the house's port.
async fn joined(house: &House, address: std::net::SocketAddr, name: &str) -> Host {
    let token = token(house, JoinWish::default()).await;
    let mut host = Host::new(name);
    host.join(address, &token).await.unwrap();
    host
}

/// Asks for the next certificate in a session.
async fn renew(peer: &mut Peer, key: &KeyRequest) -> Result<handshake::IssuedText, nak::Code> {
    let seq = peer.send(Renewal::Csr(key.csr.clone().into()).body()).await;
    loop {
        let frame = peer.next().await.expect("an answer");
        match &frame.body {
            Some(Body::Renew(renew)) if frame.reply_to == seq => match read_renew(renew).unwrap() {
                Renewal::Issued(issued) => return Ok(issued),
                other => panic!("{other:?}"),
            },
            Some(Body::Nak(nak)) if frame.reply_to == seq => return Err(nak.code()),
            Some(Body::Command(_) | Body::OutputCredit(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Renews in a session; answers the host as it is with its next certificate.
async fn renewed(host: &Host, peer: &mut Peer) -> Host {
    let mut next = Host { key: tls::new_key().unwrap(), ..host.clone() };
    let issued = renew(peer, &next.key).await.unwrap();
    let answer = host.issued.clone().unwrap();
    next.take(handshake::IssuedAnswer { issued, ..answer });
    next
}

/// Protocol R-RENEW-2: both keys are good until the new one was seen, then only that one.
#[tokio::test]
async fn a_renewed_key_takes_over_when_it_is_first_shown() {
    let house = House::build().await;
    let address = open(&house);
    let old = joined(&house, address, "web1").await;
    let mut session = old.connect(&house, address, 1).await.expect("a session");
    let new = renewed(&old, &mut session).await;
    assert_eq!(new.identity(), old.identity(), "the generation stays");
    session.nothing_waits().await;
    // The answer could have been lost: the old one still works.
    drop(session);
    drop(old.connect(&house, address, 1).await.expect("the old key is good until the new one was seen"));
    let mut session = new.connect(&house, address, 1).await.expect("a session of the new key");
    assert!(old.connect(&house, address, 1).await.is_none(), "the old key is worth nothing");
    session.nothing_waits().await;
    let rows = audited(&house, "agent.renew").await;
    let [(outcome, actor, object, _)] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((outcome.as_str(), actor.as_str(), object.as_str()), ("done", "agent:web1", "web1"));
}

#[tokio::test]
async fn a_copy_with_an_old_key_neither_connects_nor_brings_a_quarantine() {
    let house = House::build().await;
    let address = open(&house);
    let old = joined(&house, address, "web1").await;
    let mut session = old.connect(&house, address, 1).await.unwrap();
    let new = renewed(&old, &mut session).await;
    drop(session);
    let mut session = new.connect(&house, address, 1).await.unwrap();
    // Another life of another host: with the right key this would be met as a rival.
    let mut copy = dial(address, old.config()).await.unwrap();
    copy.hello(&house.hello(&old.identity(), 9)).await;
    assert_eq!(
        copy.bye().await,
        (Code::AuthFailed, "the certificate is not one that this agent may show now".to_owned())
    );
    session.nothing_waits().await;
    let row = house.service.agent(&house.admin, &new.name).await.unwrap().agent;
    assert_eq!(row.quarantined, None);
}

#[tokio::test]
async fn a_renewal_neither_ends_the_session_nor_drops_a_command() {
    let house = House::build().await;
    let address = open(&house);
    let old = joined(&house, address, "web1").await;
    let mut session = old.connect(&house, address, 1).await.unwrap();
    let id = house.submit("web1").await;
    let (seq, command) = session.command().await;
    session.accept(seq, &command).await;
    let new = renewed(&old, &mut session).await;
    session.output(&command, 0, b"during").await;
    wait_for("accepted", || async { (house.phase(id).await == "accepted").then_some(()) }).await;
    drop(session);
    let mut session = dial(address, new.config()).await.unwrap();
    session.hello(&new.hello(&house, 1)).await;
    session.welcome().await;
    let judged = session.settle(vec![crate::peer::item(&command, wire::CommandPhase::Running)]).await;
    assert_eq!(judged.len(), 1);
    session.output(&command, 6, b"after").await;
    session.finish(&command, 11).await;
    session.acked().await;
    assert_eq!(house.phase(id).await, "succeeded");
}

/// The bar of renewal, with scripted agents: each renews ten times while its command runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_renewals_of_a_hundred_agents_drop_no_command() {
    let house = Arc::new(House::build().await);
    let join = token(&house, JoinWish { uses: Some(100), ..JoinWish::default() }).await;
    let mut agents = JoinSet::new();
    for number in 0..100u8 {
        let (house, join) = (Arc::clone(&house), join.clone());
        agents.spawn(async move {
            let mut host = Host::new(&format!("web{number}"));
            host.join_from(&house, FROM, &join).await.unwrap();
            let id = house.submit(host.name.as_str()).await;
            let mut running = None;
            for _ in 0..10 {
                let mut peer = house.dial_as(LinkPeer::Agent(host.shown()), FROM.parse().unwrap());
                peer.hello(&host.hello(&house, number)).await;
                peer.welcome().await;
                let held = running.iter().map(|command| crate::peer::item(command, wire::CommandPhase::Running));
                let held: Vec<_> = held.collect();
                assert_eq!(peer.settle(held).await.len(), running.iter().count());
                if running.is_none() {
                    let (seq, command) = peer.command().await;
                    peer.accept(seq, &command).await;
                    running = Some(command);
                }
                host = renewed(&host, &mut peer).await;
            }
            let mut peer = house.dial_as(LinkPeer::Agent(host.shown()), FROM.parse().unwrap());
            peer.hello(&host.hello(&house, number)).await;
            peer.welcome().await;
            let command = running.expect("a command");
            peer.settle(vec![crate::peer::item(&command, wire::CommandPhase::Running)]).await;
            peer.finish(&command, 0).await;
            peer.acked().await;
            house.phase(id).await
        });
    }
    let ends = agents.join_all().await;
    assert!(ends.iter().all(|end| end == "succeeded"), "{ends:?}");
    assert_eq!(audited(&house, "agent.renew").await.len(), 1_000);
}

#[tokio::test]
async fn a_bad_request_is_refused_and_the_session_goes_on() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let forms = [
        Body::Renew(wire::Renew::default()),
        Renewal::Csr(Default::default()).body(),
        Renewal::Csr(vec![0x30; 100].into()).body(),
        Renewal::Csr(vec![0x30; 5_000].into()).body(),
    ];
    for form in forms {
        let told = format!("{form:?}");
        peer.send(form).await;
        assert_eq!(peer.nak().await, nak::Code::Invalid, "{told}");
    }
    peer.nothing_waits().await;
    assert!(audited(&house, "agent.renew").await.is_empty());
    // What only a manager says ends the session as every frame of the wrong side does.
    peer.send(Renewal::Due([1; 32]).body()).await;
    assert_eq!(peer.bye().await.0, Code::ProtocolError);
}

#[tokio::test]
async fn an_agent_that_renews_without_end_is_told_to_wait() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let mut busy = 0;
    for _ in 0..30 {
        match renew(&mut peer, &tls::new_key().unwrap()).await {
            Ok(_) => {}
            Err(code) => {
                assert_eq!(code, nak::Code::Busy);
                busy += 1;
            }
        }
    }
    assert!((20..=22).contains(&busy), "{busy}");
    let keys = house.store.agent_keys(identity.generation).await.unwrap();
    assert_eq!(keys.len(), 2, "the one in use and the newest");
}

/// S41 of the attack table; protocol R-JOIN-6.
#[tokio::test]
async fn an_agent_that_was_away_recovers_by_itself_for_thirty_days_and_no_longer() {
    let house = House::build().await;
    let address = open(&house);
    let now = Duration::from_millis(now_ms());
    for (name, away, recovers) in [("one", DAY, true), ("twentynine", 29 * DAY, true), ("thirtyone", 31 * DAY, false)] {
        let identity = house.agent(name).await;
        let (authority, hour) = (&house.authority, Duration::from_secs(3600));
        let old = authority.issue_agent_at(&identity.name, identity.generation, now - away - hour, hour).unwrap();
        let config = config_of(&old.chain_pem, &old.key_pem, &authority.bundle_pem());
        let mut host = Host::new(name);
        let params = house.hello(&identity, 1);
        if !recovers {
            // TLS 1.3 tells a client about its certificate only after the handshake.
            let Ok(mut peer) = dial(address, config).await else { continue };
            assert_eq!(ask(&mut peer, recover_hello(&params, &host.key.csr)).await.unwrap_err(), Refused::Closed);
            continue;
        }
        // Nothing but a request for the next certificate is heard.
        let mut peer = dial(address, config.clone()).await.unwrap();
        peer.hello(&params).await;
        assert_eq!(peer.bye().await, (Code::AuthFailed, "the certificate has expired".to_owned()));
        let mut peer = dial(address, config).await.unwrap();
        let answer = ask(&mut peer, recover_hello(&params, &host.key.csr)).await.unwrap();
        host.take(answer);
        assert_eq!(host.identity(), identity, "the same agent, in the same generation");
        host.connect(&house, address, 1).await.expect("a session");
    }
    let rows = audited(&house, "agent.recover").await;
    let whose: Vec<_> = rows.iter().map(|(outcome, _, object, _)| (outcome.as_str(), object.as_str())).collect();
    assert_eq!(whose, [("done", "one"), ("done", "twentynine")]);
    assert_eq!(RECOVERY_WINDOW, 30 * DAY);
}

#[tokio::test]
async fn nobody_recovers_with_a_key_that_is_not_bound_or_a_name_that_is_not_served() {
    let house = House::build().await;
    let bound = house.agent("web1").await;
    drop(house.connect(&bound, 1).await);
    let expired = |spki| AgentPeer { expired: true, spki, ..agent_peer(&bound) };
    let recover = async |peer: AgentPeer| {
        let (host, params) = (Host::new("web1"), house.hello(&bound, 1));
        let mut stream = house.dial_as(LinkPeer::Agent(peer), FROM.parse().unwrap());
        ask(&mut stream, recover_hello(&params, &host.key.csr)).await.map(drop)
    };
    let told = |code, text: &str| Err(Refused::Told(code, text.to_owned()));
    let other_key = "the certificate is not one that this agent may show now";
    assert_eq!(recover(expired([9; 32])).await, told(Code::AuthFailed, other_key));
    house.store.quarantine(&bound.name, "cloned", now_ms()).await.unwrap();
    assert_eq!(recover(expired([7; 32])).await, told(Code::Banned, "quarantined: cloned"));
    house.service.accept_agent(&house.admin, &bound.name).await.unwrap();
    assert_eq!(recover(expired([7; 32])).await, Ok(()));
    house.service.remove_agent(&house.admin, &bound.name).await.unwrap();
    assert_eq!(recover(expired([7; 32])).await, told(Code::AuthFailed, "no agent of this name is known"));
    house.agent("web1").await;
    let earlier = "the certificate belongs to an earlier bearer of this name";
    assert_eq!(recover(expired([7; 32])).await, told(Code::AuthFailed, earlier));
    assert_eq!(audited(&house, "agent.recover").await.len(), 1);
}

#[tokio::test]
async fn a_copied_key_gets_no_certificate_while_the_agent_has_a_session() {
    let house = House::build().await;
    let address = open(&house);
    let owner = joined(&house, address, "web1").await;
    let mut session = owner.connect(&house, address, 1).await.unwrap();
    let steal = async |expired| {
        let (thief, shown) = (Host::new("web1"), AgentPeer { expired, ..owner.shown() });
        let mut stream = house.dial_as(LinkPeer::Agent(shown), "10.6.6.6:1".parse().unwrap());
        ask(&mut stream, recover_hello(&owner.hello(&house, 1), &thief.key.csr)).await.map(drop)
    };
    for expired in [true, false] {
        let (stolen, ()) = tokio::join!(steal(expired), async {
            // The agent shows that it is there.
            let ping = session.next().await.expect("a ping");
            assert!(matches!(ping.body, Some(Body::Ping(_))), "{ping:?}");
            session.reply(ping.seq, Body::Pong(wire::Pong::default())).await;
        });
        let told = "the agent has a session and renews in it".to_owned();
        assert_eq!(stolen, Err(Refused::Told(Code::Overloaded, told)));
    }
    session.nothing_waits().await;
    let keys = house.store.agent_keys(owner.identity().generation).await.unwrap();
    assert!(matches!(keys.as_slice(), [key] if key.spki == owner.key.spki), "{keys:?}");
    drop(session);
    drop(owner.connect(&house, address, 1).await.expect("the owner is not locked out"));
}

#[tokio::test]
async fn a_session_that_died_with_its_host_does_not_hold_up_a_recovery() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let silent = house.connect(&identity, 1).await;
    let (host, shown) = (Host::new("web1"), AgentPeer { expired: true, ..agent_peer(&identity) });
    let mut stream = house.dial_as(LinkPeer::Agent(shown), FROM.parse().unwrap());
    ask(&mut stream, recover_hello(&house.hello(&identity, 1), &host.key.csr)).await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn an_agent_that_recovers_without_end_is_told_to_wait() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        let (host, shown) = (Host::new("web1"), AgentPeer { expired: true, ..agent_peer(&identity) });
        let mut stream = house.dial_as(LinkPeer::Agent(shown), FROM.parse().unwrap());
        answers.push(ask(&mut stream, recover_hello(&house.hello(&identity, 1), &host.key.csr)).await.map(drop));
    }
    let told = Err(Refused::Told(Code::Overloaded, "too many ask for a certificate at once".to_owned()));
    assert_eq!(answers, [Ok(()), Ok(()), Ok(()), told.clone(), told.clone(), told]);
    assert_eq!(audited(&house, "agent.recover").await.len(), 3);
}

/// Protocol R-RENEW-4.
#[tokio::test]
async fn a_session_ends_with_the_certificate_it_stands_on() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let not_after = Duration::from_millis(now_ms()) + Duration::from_millis(700);
    let shown = AgentPeer { not_after, ..agent_peer(&identity) };
    let mut peer = house.dial_as(LinkPeer::Agent(shown), FROM.parse().unwrap());
    peer.hello(&house.hello(&identity, 1)).await;
    peer.welcome().await;
    peer.settle(Vec::new()).await;
    assert_eq!(peer.bye().await, (Code::AuthFailed, "the certificate has expired".to_owned()));
    assert!(Duration::from_millis(now_ms()) >= not_after, "not before its end");
    wait_for("gone", || async { (house.registry.count() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn an_agent_connects_from_where_the_site_allows_and_its_session_ends_when_that_changes() {
    let house = House::build().await;
    let push = async |text: &str| {
        let files = BTreeMap::from([("agents.yml".to_owned(), text.as_bytes().to_vec())]);
        house.service.site_push(&house.admin, Push { files, ..Push::default() }).await.unwrap();
    };
    push("web1: {allowed_ips: 10.0.0.0/24}\n").await;
    let (web1, web2) = (house.agent("web1").await, house.agent("web2").await);
    let refusal = (Code::AuthFailed, "this agent may not connect from this address".to_owned());
    let mut outside = house.dial_as(LinkPeer::Agent(agent_peer(&web1)), "10.0.1.1:1".parse().unwrap());
    outside.hello(&house.hello(&web1, 1)).await;
    assert_eq!(outside.bye().await, refusal);
    assert!(house.store.agent_keys(web1.generation).await.unwrap().is_empty(), "nothing was bound");
    let mut inside = house.connect(&web1, 1).await;
    let mut bystander = house.connect(&web2, 2).await;
    push("web1: {allowed_ips: 10.9.0.0/24}\n").await;
    assert_eq!(inside.bye().await, refusal);
    bystander.nothing_waits().await;
}

/// S05 of the attack table.
#[tokio::test]
async fn nothing_that_a_removed_agent_saved_is_served_in_a_thousand_attempts() {
    let house = House::build_with(Settings { certificate_valid: 3 * DAY, ..House::settings() }).await;
    let address = open(&house);
    let join = token(&house, JoinWish { uses: Some(1), ..JoinWish::default() }).await;
    let mut host = Host::new("web1");
    host.join(address, &join).await.unwrap();
    let mut session = host.connect(&house, address, 1).await.unwrap();
    let next = renewed(&host, &mut session).await;
    let began = tokio::time::Instant::now();
    house.service.remove_agent(&house.admin, &host.name).await.unwrap();
    assert_eq!(session.bye().await.0, Code::Banned);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let mut served = 0;
    for attempt in 0..1_000 {
        let who = if attempt % 2 == 0 { &host } else { &next };
        let over_tls = attempt % 20 == 0;
        let peer = match over_tls {
            true => dial(address, who.config()).await.ok(),
            false => {
                let shown = AgentPeer { expired: attempt % 3 == 0, ..who.shown() };
                Some(house.dial_as(LinkPeer::Agent(shown), FROM.parse().unwrap()))
            }
        };
        let Some(mut peer) = peer else { continue };
        let params = who.hello(&house, 1);
        let hello = match attempt % 3 {
            0 => recover_hello(&params, &who.key.csr),
            _ => handshake::hello(&params),
        };
        if peer.try_reply(0, hello).await.is_none() {
            continue;
        }
        match peer.next().await.and_then(|frame| frame.body) {
            None | Some(Body::Bye(_)) => {}
            Some(_) => served += 1,
        }
    }
    assert_eq!(served, 0);
    assert!(host.join(address, &join).await.is_err(), "the token was used");
    assert_eq!(house.registry.count(), 0);
}
