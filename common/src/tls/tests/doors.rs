//! Handshakes over a pipe: who gets which answer from the configurations that the daemons use.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::pki::{Ca, DAY, Made, NOW, Spec, Still};
use crate::clock::unix_ms;
use crate::pin::Pin;
use crate::tls::{
    HandshakeFault, LinkPeer, PeerError, Role, api_client, api_client_looking, api_client_pinned, api_peer, api_server,
    check_link_peer, fault, is_authority, link_client, link_client_joining, link_client_with_clock, link_peer,
    link_server, manager_name, system_clock,
};

type Met = (io::Result<server::TlsStream<DuplexStream>>, io::Result<client::TlsStream<DuplexStream>>);

async fn meet(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Met {
    let (near, far) = duplex(64 * 1024);
    tokio::join!(
        TlsAcceptor::from(Arc::clone(server)).accept(far),
        TlsConnector::from(Arc::clone(client)).connect(manager_name(), near),
    )
}

/// Now, by the wall clock: what the servers of these tests go by.
fn now() -> Duration {
    Duration::from_millis(unix_ms())
}

/// The same spec, valid by the wall clock.
fn today(spec: Spec) -> Spec {
    Spec { from: now() - DAY, to: now() + DAY, ..spec }
}

fn manager(ca: &Ca) -> Arc<ServerConfig> {
    let made = ca.make(&today(Spec::manager()));
    link_server(made.chain.clone(), made.key(), ca.roots()).unwrap()
}

fn agent(ca: &Ca, made: &Made) -> Arc<ClientConfig> {
    link_client(made.chain.clone(), made.key(), ca.roots()).unwrap()
}

/// Protocol R-JOIN-1, R-JOIN-6, R-TLS-4.
#[tokio::test]
async fn the_manager_tells_agents_late_agents_and_strangers_apart() {
    let ca = Ca::new("ours");
    let door = manager(&ca);
    let (accepted, connected) = meet(&door, &agent(&ca, &ca.make(&today(Spec::agent())))).await;
    let (accepted, connected) = (accepted.unwrap(), connected.unwrap());
    let peer = link_peer(accepted.get_ref().1, now()).unwrap();
    assert!(matches!(&peer, LinkPeer::Agent(agent) if !agent.expired && agent.identity.name.as_str() == "web1"));
    assert_eq!(check_link_peer(connected.get_ref().1, Role::Manager).unwrap().name.as_str(), "m1");

    let over = Spec { from: now() - 3 * DAY, to: now() - DAY, ..Spec::agent() };
    let (accepted, _connected) = meet(&door, &agent(&ca, &ca.make(&over))).await;
    let peer = link_peer(accepted.unwrap().get_ref().1, now()).unwrap();
    assert!(matches!(peer, LinkPeer::Agent(agent) if agent.expired));

    let joining = link_client_joining(Pin::of(&ca.der()), system_clock()).unwrap();
    let (accepted, _connected) = meet(&door, &joining).await;
    assert_eq!(link_peer(accepted.unwrap().get_ref().1, now()), Ok(LinkPeer::Stranger));

    for wrong in [Spec::operator(), Spec::of("operator", "web1")] {
        let (accepted, _connected) = meet(&door, &agent(&ca, &ca.make(&today(wrong)))).await;
        let refused = link_peer(accepted.unwrap().get_ref().1, now());
        assert_eq!(refused, Err(PeerError::WrongRole { found: Role::Operator, expected: Role::Agent }));
    }
}

/// Protocol R-JOIN-2.
#[tokio::test]
async fn a_host_that_joins_believes_the_pinned_authority_and_nobody_else() {
    let (ca, foreign) = (Ca::new("ours"), Ca::new("theirs"));
    let pin = Pin::of(&ca.der());
    let says = async |server: &Arc<ServerConfig>, pin: Pin, moment: Duration| {
        let (_accepted, connected) = meet(server, &link_client_joining(pin, Arc::new(Still(moment))).unwrap()).await;
        connected.err().map(|error| fault(&error).unwrap())
    };
    let server = |made: &Made| link_server(made.chain.clone(), made.key(), ca.roots()).unwrap();
    let good = ca.make(&today(Spec::manager()));
    let door = server(&good);
    assert_eq!(says(&door, pin, now()).await, None);
    assert_eq!(says(&door, Pin::of(b"another"), now()).await, Some(HandshakeFault::Pin));
    assert_eq!(says(&door, Pin::of(good.leaf()), now()).await, Some(HandshakeFault::Pin), "a leaf is no authority");
    assert_eq!(says(&door, Pin::of(&foreign.der()), now()).await, Some(HandshakeFault::Pin));
    let short = link_server(vec![good.leaf().clone()], good.key(), ca.roots()).unwrap();
    assert_eq!(says(&short, pin, now()).await, Some(HandshakeFault::Pin), "the authority was not shown");
    // Somebody else's certificate, with our authority laid beside it.
    let theirs = foreign.make(&today(Spec::manager()));
    let beside = vec![theirs.leaf().clone(), ca.der()];
    let beside = link_server(beside, theirs.key(), ca.roots()).unwrap();
    assert_eq!(says(&beside, pin, now()).await, Some(HandshakeFault::UnknownAuthority));
    let misnamed = server(&ca.make(&today(Spec { dns: vec!["m1.example.org".into()], ..Spec::manager() })));
    assert_eq!(says(&misnamed, pin, now()).await, Some(HandshakeFault::WrongName));
    let client = server(&ca.make(&today(Spec { dns: Spec::manager().dns, ..Spec::agent() })));
    assert_eq!(says(&client, pin, now()).await, Some(HandshakeFault::WrongPurpose));
    // The clock of the host decides, and what is said names the distance.
    let early = says(&door, pin, now() - 10 * DAY).await;
    assert!(matches!(early, Some(HandshakeFault::NotYetValid { by }) if by > 8 * DAY && by < 10 * DAY), "{early:?}");
    let late = says(&door, pin, now() + 10 * DAY).await;
    assert!(matches!(late, Some(HandshakeFault::Expired { by }) if by > 8 * DAY && by < 10 * DAY), "{late:?}");
}

/// Protocol R-TLS-8.
#[tokio::test]
async fn an_agent_judges_times_by_the_clock_it_was_given() {
    let ca = Ca::new("ours");
    let made = ca.make(&Spec::agent());
    let manager = ca.make(&Spec::manager());
    let door = link_server(manager.chain.clone(), manager.key(), ca.roots()).unwrap();
    let says = async |moment: Duration| {
        let config =
            link_client_with_clock(made.chain.clone(), made.key(), ca.roots(), Arc::new(Still(moment))).unwrap();
        meet(&door, &config).await.1.is_ok()
    };
    assert!(says(NOW).await, "by the clock that it was given both are valid");
    assert!(!says(NOW + DAY).await && !says(NOW - DAY).await);
}

/// Protocol R-TLS-3: a session that could be resumed would skip the look at the certificate.
#[tokio::test]
async fn no_connection_is_resumed_whatever_the_client_would_like() {
    let ca = Ca::new("ours");
    let made = ca.make(&today(Spec::agent()));
    let operator = ca.make(&today(Spec::operator()));
    let server = ca.make(&today(Spec::manager()));
    let api = api_server(server.chain.clone(), server.key(), ca.roots()).unwrap();
    let own = Some((operator.chain.clone(), operator.key()));
    for (door, client) in [(manager(&ca), agent(&ca, &made)), (api, api_client(ca.roots(), own).unwrap())] {
        let mut eager = ClientConfig::clone(&client);
        eager.resumption = Resumption::in_memory_sessions(8);
        let eager = Arc::new(eager);
        for round in 0..3 {
            let (accepted, connected) = meet(&door, &eager).await;
            let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
            // Tickets come behind the handshake, with the first bytes.
            accepted.write_all(b"x").await.unwrap();
            accepted.flush().await.unwrap();
            connected.read_exact(&mut [0]).await.unwrap();
            assert_eq!(connected.get_ref().1.tls13_tickets_received(), 0, "round {round}");
            assert_eq!(connected.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "round {round}");
            assert_eq!(accepted.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "round {round}");
            assert!(accepted.get_ref().1.peer_certificates().is_some(), "round {round}");
        }
    }
}

/// Protocol R-TLS-2.
#[tokio::test]
async fn a_peer_without_our_protocol_is_told_so() {
    let ca = Ca::new("ours");
    let (_accepted, connected) = meet(&manager(&ca), &api_client(ca.roots(), None).unwrap()).await;
    assert_eq!(connected.err().and_then(|error| fault(&error)), Some(HandshakeFault::NoAlpn));
}

#[tokio::test]
async fn the_api_knows_operators_by_certificate_and_takes_no_other() {
    let ca = Ca::new("ours");
    let server = ca.make(&today(Spec::manager()));
    let door = api_server(server.chain.clone(), server.key(), ca.roots()).unwrap();
    let shown = async |made: Option<Made>| {
        let own = made.map(|made| (made.chain.clone(), made.key()));
        let (accepted, _connected) = meet(&door, &api_client(ca.roots(), own).unwrap()).await;
        accepted.map(|accepted| api_peer(accepted.get_ref().1))
    };
    assert_eq!(shown(None).await.unwrap(), Ok(None));
    let ann = shown(Some(ca.make(&today(Spec::operator())))).await.unwrap();
    assert!(matches!(ann, Ok(Some(peer)) if peer.identity.name.as_str() == "ann" && peer.not_after > now()));
    let agent = shown(Some(ca.make(&today(Spec::agent())))).await.unwrap();
    assert_eq!(agent, Err(PeerError::WrongRole { found: Role::Agent, expected: Role::Operator }));
    // The link's grace for late agents is not the API's.
    let over = Spec { from: now() - 3 * DAY, to: now() - DAY, ..Spec::operator() };
    assert!(shown(Some(ca.make(&over))).await.is_err());
    assert!(shown(Some(Ca::new("theirs").make(&today(Spec::operator())))).await.is_err());
}

#[tokio::test]
async fn who_only_looks_sees_the_authority_and_gets_no_connection() {
    let ca = Ca::new("ours");
    let server = ca.make(&today(Spec::manager()));
    let door = api_server(server.chain.clone(), server.key(), ca.roots()).unwrap();
    let (looking, glimpse) = api_client_looking().unwrap();
    assert_eq!(glimpse.authority(), None);
    let (_accepted, connected) = meet(&door, &looking).await;
    assert_eq!(connected.err().and_then(|error| fault(&error)), Some(HandshakeFault::OnlyLooked));
    let seen = glimpse.authority().unwrap();
    assert!(seen == ca.der() && is_authority(&seen));
    let (_accepted, connected) = meet(&door, &api_client_pinned(Pin::of(&seen)).unwrap()).await;
    assert!(connected.is_ok());
}

#[tokio::test]
async fn an_agent_names_what_the_manager_does_not_like_about_its_certificate() {
    let (ca, foreign) = (Ca::new("ours"), Ca::new("theirs"));
    let door = manager(&ca);
    let long_over = Spec { from: now() - 90 * DAY, to: now() - 40 * DAY, ..Spec::agent() };
    for (made, expected) in [
        (ca.make(&long_over), HandshakeFault::OwnExpired),
        (foreign.make(&today(Spec::agent())), HandshakeFault::OwnUnknown),
    ] {
        // TLS 1.3 tells a client about its certificate only after the handshake.
        let (_accepted, connected) = meet(&door, &agent(&ca, &made)).await;
        let error = connected.unwrap().read_u8().await.unwrap_err();
        assert_eq!(fault(&error), Some(expected), "{error}");
    }
}
