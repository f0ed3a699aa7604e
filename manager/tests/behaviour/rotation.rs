//! The rotation of the certificate authority: nobody has to join again, and what was retired is worth nothing.

use std::net::SocketAddr;
use std::time::Duration;

use common::handshake::{IssuedAnswer, Renewal, read_renew};
use common::id::Generation;
use common::tls::{self, LinkPeer};
use common::wire::bye::Code;
use common::wire::frame::Body;
use manager::service::{AuthorityView, JoinWish, ServiceError};

use crate::hosts::{Host, audited, config_of, dial, open, token};
use crate::house::{House, agent_peer, wait_for};
use crate::peer::Peer;

/// An agent at a house, with its session while it is there.
struct Member {
    host: Host,
    session: Option<Peer>,
}

impl Member {
    /// Comes back with what it has and renews when it is told, or hears in the welcome, that it should.
    async fn come(&mut self, house: &House, address: SocketAddr) {
        let peer = self.host.connect(house, address, 1).await.expect("it is served with what it has");
        self.session = Some(peer);
        if self.host.trusts() != house.authority.bundle_hash() {
            self.renew(house, address).await;
        }
    }

    /// Waits to be told that it should renew, and does.
    async fn told(&mut self, house: &House, address: SocketAddr) {
        let peer = self.session.as_mut().expect("a session");
        let Body::Renew(renew) = peer.body().await else { panic!("a Renew") };
        assert_eq!(read_renew(&renew), Ok(Renewal::Due(house.authority.bundle_hash())));
        self.renew(house, address).await;
    }

    /// Gets its next certificate over the live session and dials again with it.
    async fn renew(&mut self, house: &House, address: SocketAddr) {
        let mut peer = self.session.take().expect("a session");
        let key = tls::new_key().unwrap();
        let seq = peer.send(Renewal::Csr(key.csr.clone().into()).body()).await;
        let issued = loop {
            let frame = peer.next().await.expect("an answer");
            let Some(Body::Renew(renew)) = &frame.body else { panic!("{frame:?}") };
            match read_renew(renew).unwrap() {
                Renewal::Issued(issued) if frame.reply_to == seq => break issued,
                // It was told while it asked.
                Renewal::Due(_) => {}
                other => panic!("{other:?}"),
            }
        };
        self.host.key = key;
        let before = self.host.issued.clone().expect("a certificate");
        self.host.take(IssuedAnswer { issued, ..before });
        self.session = Some(self.host.connect(house, address, 1).await.expect("a session of the next certificate"));
    }
}

async fn members(house: &House, address: SocketAddr, count: usize) -> Vec<Member> {
    let token = token(house, JoinWish { uses: Some(100), ..JoinWish::default() }).await;
    let mut members = Vec::new();
    for number in 0..count {
        let mut host = Host::new(&format!("web{number}"));
        host.join(address, &token).await.unwrap();
        let mut member = Member { host, session: None };
        member.come(house, address).await;
        members.push(member);
    }
    members
}

fn numbers(view: &AuthorityView) -> (u32, Vec<u32>) {
    (view.active, view.trusted.iter().map(|one| one.number).collect())
}

async fn retire(house: &House, force: bool) -> Result<AuthorityView, ServiceError> {
    house.service.authority_retire(&house.admin, force).await
}

/// The bar of the rotation; protocol R-RENEW-5, R-RENEW-6: 10 agents, 2 of them away through every step, and nobody joins again.
#[tokio::test]
async fn a_whole_rotation_with_a_fifth_of_the_agents_away_makes_nobody_join_again() {
    let house = House::build().await;
    let address = open(&house);
    let mut members = members(&house, address, 10).await;
    let generations: Vec<Generation> = members.iter().map(|member| member.host.identity().generation).collect();
    let old = members.first().map(|member| member.host.config()).unwrap();
    for member in members.iter_mut().take(2) {
        member.session = None;
    }
    wait_for("two are away", || async { (house.registry.count() == 8).then_some(()) }).await;
    let admin = &house.admin;

    let view = house.service.authority_prepare(admin).await.unwrap();
    assert_eq!(numbers(&view), (1, vec![1, 2]));
    assert_eq!(view.agents_without, 10, "nobody has said that it trusts both");
    for member in members.iter_mut().skip(2) {
        member.told(&house, address).await;
    }
    let view = house.service.authority_view(admin).await.unwrap();
    assert_eq!(view.agents_without, 2, "those that are away");

    let view = house.service.authority_activate(admin).await.unwrap();
    assert_eq!(numbers(&view), (2, vec![1, 2]));
    assert_eq!(view.agents_without, 10, "nobody has shown a certificate of the second");
    // Trust did not change with this step, so nobody was told; the next renewal is by the second authority.
    for member in members.iter_mut().skip(2) {
        member.renew(&house, address).await;
    }
    assert_eq!(house.service.authority_view(admin).await.unwrap().agents_without, 2);
    let refused = retire(&house, false).await.unwrap_err();
    assert_eq!((refused.code(), refused.to_string().contains("2 agents")), ("agents_without", true), "{refused}");

    // Those that were away trust only the first authority, and have only its certificates.
    for member in members.iter_mut().take(2) {
        assert_ne!(member.host.trusts(), house.authority.bundle_hash());
        member.come(&house, address).await;
    }
    let view = retire(&house, false).await.unwrap();
    assert_eq!((numbers(&view), view.agents_without), ((2, vec![2]), 0));
    for member in &mut members {
        member.told(&house, address).await;
        member.session.as_mut().unwrap().nothing_waits().await;
    }
    let now: Vec<_> = members.iter().map(|member| member.host.identity().generation).collect();
    assert_eq!(now, generations, "nobody joined again");
    assert_eq!(audited(&house, "agent.join").await.len(), 10);
    // The retired authority is worth nothing: its certificate is refused, and the manager's is not of it.
    assert!(refused_by_tls(dial(address, old).await).await);
    for action in ["ca.prepare", "ca.activate", "ca.retire"] {
        assert!(!audited(&house, action).await.is_empty(), "{action}");
    }
}

/// TLS 1.3 tells a client about its certificate only after the handshake.
async fn refused_by_tls(dialled: std::io::Result<Peer>) -> bool {
    match dialled {
        Ok(mut peer) => peer.next().await.is_none(),
        Err(_) => true,
    }
}

/// Protocol R-RENEW-6.
#[tokio::test]
async fn a_token_of_before_the_activation_still_joins_until_the_retirement() {
    let house = House::build().await;
    let address = open(&house);
    let early = token(&house, JoinWish { uses: Some(10), ..JoinWish::default() }).await;
    house.service.authority_prepare(&house.admin).await.unwrap();
    house.service.authority_activate(&house.admin).await.unwrap();
    let late = token(&house, JoinWish { uses: Some(10), ..JoinWish::default() }).await;
    assert_ne!(early.pin, late.pin);
    let mut one = Host::new("one");
    one.join(address, &early).await.unwrap();
    one.connect(&house, address, 1).await.expect("a session");
    let mut two = Host::new("two");
    two.join(address, &late).await.unwrap();
    two.connect(&house, address, 2).await.expect("a session");
    retire(&house, false).await.unwrap();
    assert!(Host::new("three").join(address, &early).await.is_err(), "the pinned authority is not shown any more");
    Host::new("four").join(address, &late).await.unwrap();
}

#[tokio::test]
async fn steps_out_of_order_are_refused_and_repeats_change_nothing() {
    let house = House::build().await;
    let (service, admin) = (&house.service, &house.admin);
    let code =
        |result: Result<AuthorityView, ServiceError>| result.map(|view| numbers(&view)).map_err(|error| error.code());
    assert_eq!(code(service.authority_activate(admin).await), Err("wrong_step"));
    assert_eq!(code(retire(&house, true).await), Err("wrong_step"));
    assert_eq!(code(service.authority_prepare(admin).await), Ok((1, vec![1, 2])));
    let pins: Vec<_> = house.authority.trusted().iter().map(|one| one.pin).collect();
    assert_eq!(code(service.authority_prepare(admin).await), Ok((1, vec![1, 2])));
    assert_eq!(house.authority.trusted().iter().map(|one| one.pin).collect::<Vec<_>>(), pins);
    assert_eq!(code(retire(&house, true).await), Err("wrong_step"), "it does not sign yet");
    assert_eq!(code(service.authority_activate(admin).await), Ok((2, vec![1, 2])));
    assert_eq!(code(service.authority_activate(admin).await), Ok((2, vec![1, 2])));
    assert_eq!(code(service.authority_prepare(admin).await), Err("wrong_step"), "one rotation at a time");
    assert_eq!(code(retire(&house, false).await), Ok((2, vec![2])), "no agent is left behind");
    assert_eq!(code(retire(&house, false).await), Err("wrong_step"));
}

#[tokio::test]
async fn a_forced_retirement_cuts_the_sessions_that_stand_on_the_retired_authority() {
    let house = House::build().await;
    let address = open(&house);
    let mut members = members(&house, address, 2).await;
    house.service.authority_prepare(&house.admin).await.unwrap();
    for member in &mut members {
        member.told(&house, address).await;
    }
    house.service.authority_activate(&house.admin).await.unwrap();
    let (left, stays) = members.split_at_mut(1);
    let (left, stays) = (left.first_mut().unwrap(), stays.first_mut().unwrap());
    stays.renew(&house, address).await;
    assert_eq!(retire(&house, false).await.unwrap_err().code(), "agents_without");
    let began = tokio::time::Instant::now();
    retire(&house, true).await.unwrap();
    let (code, reason) = left.session.as_mut().unwrap().bye().await;
    assert_eq!((code, reason.as_str()), (Code::AuthFailed, "the authority of this certificate was retired"));
    assert!(began.elapsed() < Duration::from_secs(2));
    stays.told(&house, address).await;
    assert!(left.host.connect(&house, address, 1).await.is_none());
    let rows = audited(&house, "ca.retire").await;
    assert!(
        rows.iter().any(|(outcome, _, _, details)| outcome == "done" && details.contains("\"force\":true")),
        "{rows:?}"
    );
}

/// Protocol R-RENEW-1.
#[tokio::test]
async fn an_agent_that_cannot_renew_is_never_sent_a_renew() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut old = house.dial_as(LinkPeer::Agent(agent_peer(&identity)), "10.0.0.1:1".parse().unwrap());
    let mut params = house.hello(&identity, 1);
    params.capabilities.retain(|word| word != common::version::capability::RENEW);
    old.hello(&params).await;
    old.welcome().await;
    old.settle(Vec::new()).await;
    house.service.authority_prepare(&house.admin).await.unwrap();
    old.nothing_waits().await;
}

#[tokio::test]
async fn an_authority_survives_a_restart_in_each_step_of_its_rotation() {
    let mut house = House::build().await;
    let identity = house.agent("web1").await;
    let hour = Duration::from_secs(3600);
    let first = house.authority.issue_agent(&identity.name, identity.generation, hour).unwrap();
    let bundle = house.authority.bundle_pem();
    for step in 0..2 {
        match step {
            0 => house.service.authority_prepare(&house.admin).await.unwrap(),
            _ => house.service.authority_activate(&house.admin).await.unwrap(),
        };
        let (active, trusted) = (house.authority.active(), house.authority.trusted());
        house = house.restarted().await;
        assert_eq!((house.authority.active(), house.authority.trusted()), (active, trusted));
        let address = open(&house);
        // An agent that knows only the first authority is served in every step.
        let mut peer = dial(address, config_of(&first.chain_pem, &first.key_pem, &bundle)).await.unwrap();
        peer.hello(&house.hello(&identity, 1)).await;
        peer.welcome().await;
    }
}
