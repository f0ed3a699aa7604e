//! Certificates that somebody made to be taken for somebody else, at each of the three doors: none gets in.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose as Eku, IsCa, KeyUsagePurpose as Ku};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::pki::{Ca, DAY, HOUR, Made, NOW, Spec, at};
use crate::handshake::{HelloParams, hello, read_first, recover_hello};
use crate::id::{Name, Uid};
use crate::tls::configs::{manager_name, provider};
use crate::tls::peers::expect;
use crate::tls::recovery::RecoveringClients;
use crate::tls::{AgentPeer, LinkPeer, Role};
use crate::wire::Frame;

const SECOND: Duration = Duration::from_secs(1);

/// What a door says: in, or the check that failed.
type Verdict = Result<(), String>;

/// The manager's side of the link, as far as a session or a recovery as the agent `web1` of `c1`.
fn link(ca: &Ca, made: &Made) -> Verdict {
    let door = RecoveringClients::new(ca.roots(), provider()).unwrap();
    door.verify_client_cert(made.leaf(), made.rest(), at(NOW)).map_err(|error| error.to_string())?;
    let leaf = expect(made.leaf(), Role::Agent).map_err(|error| error.to_string())?;
    let agent = AgentPeer {
        expired: NOW > leaf.not_after,
        spki: leaf.spki,
        not_after: leaf.not_after,
        identity: leaf.identity,
    };
    let name: Name = "web1".parse().unwrap();
    let params = HelloParams {
        name,
        cluster: cluster(),
        boot_id: String::new(),
        journal: Uid([1; 16]),
        incarnation: 0,
        store_position: 0,
        cores: 1,
        memory_bytes: 1,
        labels: Default::default(),
        agent_version: String::new(),
        isolation: String::new(),
        capabilities: Vec::new(),
        bundle_hash: None,
    };
    let peer = LinkPeer::Agent(agent);
    let says = |body| read_first(&Frame { seq: 1, body: Some(body), ..Frame::default() }, &peer, &cluster());
    match (says(hello(&params)), says(recover_hello(&params, b"csr"))) {
        (Err(refusal), Err(_)) => Err(refusal.to_string()),
        _ => Ok(()),
    }
}

/// The agent's side of the link, before it says a byte.
fn server(ca: &Ca, made: &Made) -> Verdict {
    let door = WebPkiServerVerifier::builder_with_provider(Arc::new(ca.roots()), provider()).build().unwrap();
    door.verify_server_cert(made.leaf(), made.rest(), &manager_name(), &[], at(NOW))
        .map_err(|error| error.to_string())?;
    let leaf = expect(made.leaf(), Role::Manager).map_err(|error| error.to_string())?;
    if leaf.identity.cluster == cluster() { Ok(()) } else { Err("another cluster".to_owned()) }
}

/// The manager's side of the API.
fn api(ca: &Ca, made: &Made) -> Verdict {
    let door = WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()), provider()).build().unwrap();
    door.verify_client_cert(made.leaf(), made.rest(), at(NOW)).map_err(|error| error.to_string())?;
    expect(made.leaf(), Role::Operator).map(drop).map_err(|error| error.to_string())
}

fn cluster() -> Name {
    "c1".parse().unwrap()
}

#[test]
fn the_right_certificate_opens_each_door() {
    let ca = Ca::new("ours");
    assert_eq!(link(&ca, &ca.make(&Spec::agent())), Ok(()));
    assert_eq!(server(&ca, &ca.make(&Spec::manager())), Ok(()));
    assert_eq!(api(&ca, &ca.make(&Spec::operator())), Ok(()));
    // Ended lately: good for the next one.
    let ended = Spec { from: NOW - 40 * DAY, to: NOW - 29 * DAY, ..Spec::agent() };
    assert_eq!(link(&ca, &ca.make(&ended)), Ok(()));
}

/// Protocol R-TLS-5, R-TLS-6, R-TLS-9.
#[test]
fn a_crafted_certificate_opens_no_door() {
    type Door = fn(&Ca, &Made) -> Verdict;
    let (ca, foreign) = (Ca::new("ours"), Ca::new("theirs"));
    let by = |spec: Spec| ca.make(&spec);
    let uris = |uris: &[&str]| ca.make(&Spec::uris(uris));
    let authority = IsCa::Ca(BasicConstraints::Unconstrained);
    let cases: Vec<(&str, Door, Made)> = vec![
        ("an operator as an agent", link, by(Spec::of("operator", "web1"))),
        ("a manager as an agent", link, by(Spec::of("manager", "web1"))),
        ("an agent's for a server's use", link, by(Spec { eku: vec![Eku::ServerAuth], ..Spec::agent() })),
        ("an agent's for no named use", link, by(Spec { eku: Vec::new(), ..Spec::agent() })),
        ("an agent's for both uses", link, by(Spec { eku: vec![Eku::ClientAuth, Eku::ServerAuth], ..Spec::agent() })),
        ("an agent's for any use", link, by(Spec { eku: vec![Eku::ClientAuth, Eku::Any], ..Spec::agent() })),
        (
            "an agent's that may sign others",
            link,
            by(Spec { ku: vec![Ku::DigitalSignature, Ku::KeyCertSign], ..Spec::agent() }),
        ),
        ("an agent's that may not sign", link, by(Spec { ku: vec![Ku::KeyEncipherment], ..Spec::agent() })),
        ("an authority as an agent", link, by(Spec { is_ca: authority, ..Spec::agent() })),
        ("nobody", link, uris(&[])),
        ("two at once", link, uris(&["paprika://c1/agent/web1/3", "paprika://c1/agent/web2/3"])),
        ("the same twice", link, uris(&["paprika://c1/agent/web1/3", "paprika://c1/agent/web1/3"])),
        ("one and something else", link, uris(&["paprika://c1/agent/web1/3", "https://example.org/"])),
        ("another name", link, uris(&["paprika://c1/agent/web2/3"])),
        ("a name that ours begins", link, uris(&["paprika://c1/agent/web10/3"])),
        ("a name that begins ours", link, uris(&["paprika://c1/agent/web/3"])),
        ("a name in capitals", link, uris(&["paprika://c1/agent/WEB1/3"])),
        ("another cluster", link, uris(&["paprika://c2/agent/web1/3"])),
        ("a cluster that ours begins", link, uris(&["paprika://c1x/agent/web1/3"])),
        ("one part too many", link, uris(&["paprika://c1/agent/web1/3/4"])),
        ("a second spelling", link, uris(&["paprika://c1/agent/web1/03"])),
        ("a role in capitals", link, uris(&["paprika://c1/Agent/web1/3"])),
        ("a scheme in capitals", link, uris(&["PAPRIKA://c1/agent/web1/3"])),
        ("a name that climbs", link, uris(&["paprika://c1/agent/../web1/3"])),
        ("over for too long", link, by(Spec { from: NOW - 50 * DAY, to: NOW - 31 * DAY, ..Spec::agent() })),
        ("not valid yet", link, by(Spec { from: NOW + HOUR, to: NOW + DAY, ..Spec::agent() })),
        ("of another authority", link, foreign.make(&Spec::agent())),
        (
            "over, of another authority",
            link,
            foreign.make(&Spec { to: NOW - DAY, from: NOW - 2 * DAY, ..Spec::agent() }),
        ),
        ("signed by itself", link, Made::by_itself(&Spec::agent())),
        ("signed by another agent", link, ca.make(&Spec::of("agent", "web7")).signs(&Spec::agent())),
        ("an agent as a manager", server, by(Spec::agent())),
        ("an agent with the manager's name", server, by(Spec { dns: Spec::manager().dns, ..Spec::agent() })),
        (
            "the same for a server's use",
            server,
            by(Spec { dns: Spec::manager().dns, eku: vec![Eku::ServerAuth], ..Spec::agent() }),
        ),
        (
            "an operator as a manager",
            server,
            by(Spec { dns: Spec::manager().dns, eku: vec![Eku::ServerAuth], ..Spec::operator() }),
        ),
        ("a manager's for a client's use", server, by(Spec { eku: vec![Eku::ClientAuth], ..Spec::manager() })),
        ("a manager's for no named use", server, by(Spec { eku: Vec::new(), ..Spec::manager() })),
        (
            "a manager without the fixed name",
            server,
            by(Spec { dns: vec!["m1.example.org".into()], ..Spec::manager() }),
        ),
        (
            "a name that the fixed one begins",
            server,
            by(Spec { dns: vec!["manager.paprika.internal.example.org".into()], ..Spec::manager() }),
        ),
        (
            "a manager of another cluster",
            server,
            by(Spec { uris: vec!["paprika://c2/manager/m1/1".into()], ..Spec::manager() }),
        ),
        (
            "a manager that is over by a second",
            server,
            by(Spec { from: NOW - DAY, to: NOW - SECOND, ..Spec::manager() }),
        ),
        ("a manager that is not yet", server, by(Spec { from: NOW + HOUR, to: NOW + DAY, ..Spec::manager() })),
        ("a manager of another authority", server, foreign.make(&Spec::manager())),
        ("a manager signed by itself", server, Made::by_itself(&Spec::manager())),
        ("a manager signed by an agent", server, ca.make(&Spec::agent()).signs(&Spec::manager())),
        ("an authority as a manager", server, by(Spec { is_ca: authority, ..Spec::manager() })),
        ("an agent as an operator", api, by(Spec::agent())),
        ("a manager as an operator", api, by(Spec::manager())),
        ("an operator for no named use", api, by(Spec { eku: Vec::new(), ..Spec::operator() })),
        (
            "an operator that is over by a second",
            api,
            by(Spec { from: NOW - DAY, to: NOW - SECOND, ..Spec::operator() }),
        ),
        ("two operators at once", api, uris(&["paprika://c1/operator/ann/3", "paprika://c1/operator/bob/3"])),
        ("an operator of another authority", api, foreign.make(&Spec::operator())),
    ];
    assert!(cases.len() >= 20);
    let inside: Vec<_> =
        cases.iter().filter(|(_, door, made)| door(&ca, made).is_ok()).map(|(what, ..)| what).collect();
    assert!(inside.is_empty(), "{inside:?}");
}

#[test]
fn a_chain_longer_than_any_of_ours_is_not_looked_at() {
    use crate::limits::MAX_INTERMEDIATES;
    let ca = Ca::new("ours");
    let made = ca.make(&Spec::agent());
    let door = RecoveringClients::new(ca.roots(), provider()).unwrap();
    let chain = |length: usize| door.verify_client_cert(made.leaf(), &vec![ca.der(); length], at(NOW));
    assert!(chain(MAX_INTERMEDIATES).is_ok());
    assert!(chain(MAX_INTERMEDIATES + 1).is_err());
}
