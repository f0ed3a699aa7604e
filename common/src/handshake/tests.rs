//! Every lie, excess and mistake of a hello and its answer has its own refusal.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::Secret;
use crate::id::{Epoch, Generation, IdError, Incarnation, Name, StorePosition, Uid};
use crate::limits;
use crate::tls::{AgentPeer, Identity, LinkPeer, Role};
use crate::version::Version;
use crate::wire::bye::Code;
use crate::wire::frame::Body;
use crate::wire::renew::What;
use crate::wire::{ClientHello, Frame, Renew, ServerHello};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn identity(role: Role) -> Result<Identity, IdError> {
    Ok(Identity { cluster: "c1".parse()?, role, name: "web1".parse()?, generation: Generation(3) })
}

fn peer(role: Role, expired: bool) -> Result<LinkPeer, IdError> {
    Ok(LinkPeer::Agent(agent(identity(role)?, expired)))
}

fn agent(identity: Identity, expired: bool) -> AgentPeer {
    AgentPeer { identity, expired, spki: [5; 32], not_after: Duration::from_secs(7) }
}

fn params() -> Result<HelloParams, IdError> {
    Ok(HelloParams {
        name: "web1".parse()?,
        cluster: "c1".parse()?,
        boot_id: "boot".into(),
        journal: Uid([4; 16]),
        incarnation: 1,
        store_position: 9,
        cores: 2,
        memory_bytes: 1 << 30,
        labels: BTreeMap::new(),
        agent_version: "0.1.0".into(),
        isolation: "cgroup".into(),
        capabilities: vec!["command.run".into()],
        bundle_hash: Some([6; 32]),
    })
}

fn frame(body: Body) -> Frame {
    Frame { seq: 1, body: Some(body), ..Frame::default() }
}

/// A hello changed by `change`, judged.
fn judged(change: impl FnOnce(&mut ClientHello)) -> Result<Result<Hello, Code>, IdError> {
    let Body::ClientHello(mut said) = hello(&params()?) else {
        return Ok(Err(Code::Unspecified));
    };
    change(&mut said);
    let first = read_first(&frame(Body::ClientHello(said)), &peer(Role::Agent, false)?, &"c1".parse()?);
    Ok(first.map_err(|refusal| refusal.code).map(|first| match first {
        First::Session(hello) => *hello,
        other => panic!("not a session: {other:?}"),
    }))
}

#[test]
fn an_honest_hello_passes_and_carries_the_identity_of_the_certificate() -> Result<(), IdError> {
    let passed = judged(|_| {})?;
    assert!(matches!(&passed, Ok(hello) if hello.generation == Generation(3) && hello.store_position.0 == 9));
    // The key and its end are those that TLS saw.
    assert!(matches!(&passed, Ok(hello) if hello.spki == [5; 32] && hello.not_after == Duration::from_secs(7)));
    assert!(matches!(&passed, Ok(hello) if hello.bundle_hash == Some([6; 32])));
    Ok(())
}

#[test]
fn every_lie_and_excess_has_its_own_refusal() -> Result<(), IdError> {
    let code = |result: Result<Hello, Code>| result.err();
    assert_eq!(code(judged(|hello| hello.agent_name = "web2".into())?), Some(Code::AuthFailed));
    assert_eq!(code(judged(|hello| hello.cluster_id = "c2".into())?), Some(Code::AuthFailed));
    assert_eq!(code(judged(|hello| hello.protocol_min = 2)?), Some(Code::UpgradeRequired));
    assert_eq!(code(judged(|hello| hello.protocol_max = 0)?), Some(Code::UpgradeRequired));
    assert_eq!(code(judged(|hello| hello.journal_id = vec![1; 15].into())?), Some(Code::ProtocolError));
    let labels = |count: usize, bytes: usize| {
        judged(|hello| hello.labels = (0..count).map(|n| (format!("k{n}"), "v".repeat(bytes))).collect())
    };
    assert!(labels(limits::MAX_LABELS, 64)?.is_ok());
    assert!(labels(16, limits::MAX_LABEL_BYTES)?.is_ok());
    assert_eq!(code(labels(33, limits::MAX_LABEL_BYTES)?), Some(Code::ProtocolError), "too many bytes in all");
    assert_eq!(code(labels(limits::MAX_LABELS + 1, 1)?), Some(Code::ProtocolError));
    assert_eq!(code(labels(1, limits::MAX_LABEL_BYTES + 1)?), Some(Code::ProtocolError));
    Ok(())
}

#[test]
fn the_largest_legal_hello_fits_the_first_frame() -> Result<(), IdError> {
    let long = |text: &str| text.repeat(limits::MAX_LABEL_BYTES / text.len());
    let labels = (0..limits::MAX_LABELS)
        .map(|n| (format!("{n:064}"), "v".repeat(limits::MAX_LABELS_BYTES / limits::MAX_LABELS - 64)))
        .collect();
    let largest = HelloParams {
        name: "n".repeat(253).parse()?,
        cluster: "c".repeat(253).parse()?,
        boot_id: long("b"),
        agent_version: long("v"),
        isolation: long("i"),
        labels,
        capabilities: vec!["a-capability-of-tomorrow".to_owned(); limits::MAX_CAPABILITIES],
        incarnation: u64::MAX,
        store_position: u64::MAX,
        cores: u32::MAX,
        memory_bytes: u64::MAX,
        ..params()?
    };
    let who = Identity { cluster: largest.cluster.clone(), name: largest.name.clone(), ..identity(Role::Agent)? };
    let said = frame(hello(&largest));
    assert!(read_first(&said, &LinkPeer::Agent(agent(who.clone(), false)), &largest.cluster).is_ok());
    let recovering = frame(recover_hello(&largest, &[1; limits::MAX_CSR_BYTES]));
    assert!(read_first(&recovering, &LinkPeer::Agent(agent(who, true)), &largest.cluster).is_ok());
    assert!(prost::Message::encoded_len(&recovering) <= limits::MAX_FRAME_BEFORE_HELLO);
    assert!(prost::Message::encoded_len(&said) <= limits::MAX_FRAME_BEFORE_HELLO);
    Ok(())
}

/// Protocol R-AUTH-1.
#[test]
fn a_certificate_of_another_role_or_cluster_is_refused_whatever_the_hello_says() -> Result<(), IdError> {
    let said = frame(hello(&params()?));
    for role in [Role::Manager, Role::Operator] {
        let refused = read_first(&said, &peer(role, false)?, &"c1".parse()?);
        assert!(matches!(refused, Err(refusal) if refusal.code == Code::AuthFailed));
    }
    assert!(read_first(&said, &peer(Role::Agent, false)?, &"c2".parse()?).is_err());
    Ok(())
}

#[test]
fn a_first_frame_that_is_no_hello_is_a_violation_on_both_sides() -> Result<(), IdError> {
    for body in crate::session::one_of_each() {
        let is_hello = matches!(body, Body::ClientHello(_));
        if !is_hello {
            for peer in [LinkPeer::Stranger, peer(Role::Agent, false)?, peer(Role::Agent, true)?] {
                let refused = read_first(&frame(body.clone()), &peer, &"c1".parse()?);
                assert!(matches!(refused, Err(refusal) if refusal.code == Code::ProtocolError));
            }
        }
        let answer = read_welcome(&frame(body.clone()));
        assert!(answer.is_err(), "an empty {} is no welcome", crate::session::name(&body));
        assert!(read_issued(&frame(body.clone())).is_err(), "nor an answer to a join");
    }
    Ok(())
}

#[test]
fn a_welcome_comes_back_as_it_was_said_within_the_agents_own_bounds() -> Result<(), IdError> {
    let said = welcome(&WelcomeParams {
        version: Version::V1,
        epoch: Epoch(5),
        incarnation: Incarnation(2),
        store_position: StorePosition(77),
        heartbeat: Duration::from_millis(1),
        manager_addresses: vec!["m:7051".into()],
        cluster: "c1".parse()?,
        clock_ms: 1,
        bundle_hash: Some([3; 32]),
    });
    let heard = read_welcome(&frame(said));
    assert!(matches!(&heard, Ok(heard) if heard.epoch == Epoch(5) && heard.heartbeat == limits::HEARTBEAT_RANGE.0));
    assert!(matches!(&heard, Ok(heard) if heard.bundle_hash == Some([3; 32])));
    Ok(())
}

/// Protocol R-SESSION-6.
#[test]
fn the_heartbeat_is_clamped_at_both_ends() -> Result<(), IdError> {
    let (shortest, longest) = limits::HEARTBEAT_RANGE;
    assert_eq!((shortest.as_millis(), longest.as_millis()), (200, 300_000));
    let step = Duration::from_millis(1);
    for (said, kept) in [
        (Duration::ZERO, shortest),
        (shortest - step, shortest),
        (shortest + step, shortest + step),
        (longest - step, longest - step),
        (longest + step, longest),
        (Duration::MAX, longest),
    ] {
        let said_so = welcome(&WelcomeParams {
            version: Version::V1,
            epoch: Epoch(1),
            incarnation: Incarnation(1),
            store_position: StorePosition(1),
            heartbeat: said,
            manager_addresses: Vec::new(),
            cluster: "c1".parse()?,
            clock_ms: 1,
            bundle_hash: None,
        });
        let heard = read_welcome(&frame(said_so)).map(|welcome| welcome.heartbeat);
        assert!(matches!(heard, Ok(heartbeat) if heartbeat == kept), "{said:?}: {heard:?}");
    }
    Ok(())
}

fn join(secret: &str, csr: &[u8]) -> Result<ClientHello, IdError> {
    let (name, secret) = ("web9".parse()?, Secret::new(secret.to_owned()));
    let params = JoinParams { name: &name, token_id: "abcdefgh", secret: &secret, csr, agent_version: "0.3.0" };
    match join_hello(&params) {
        Body::ClientHello(hello) => Ok(hello),
        other => panic!("not a hello: {other:?}"),
    }
}

/// A join changed by `change`, judged as a stranger's.
fn joined(change: impl FnOnce(&mut ClientHello)) -> Result<Result<JoinHello, (Code, String)>, IdError> {
    let mut said = join(SECRET, b"csr")?;
    change(&mut said);
    Ok(match read_first(&frame(Body::ClientHello(said)), &LinkPeer::Stranger, &"c1".parse()?) {
        Ok(First::Join(join)) => Ok(join),
        Ok(other) => panic!("a stranger got {other:?}"),
        Err(refusal) => Err((refusal.code, refusal.reason)),
    })
}

/// Protocol R-JOIN-1.
#[test]
fn a_stranger_may_join_and_nothing_else() -> Result<(), IdError> {
    let passed = joined(|_| {})?;
    assert!(matches!(&passed, Ok(join) if join.name.as_str() == "web9" && join.token_id == "abcdefgh"));
    assert!(matches!(&passed, Ok(join) if join.secret.expose() == SECRET && join.csr == b"csr"[..]));
    assert!(!format!("{passed:?}").contains(SECRET), "a hello in a log shows no secret");
    let cluster = "c1".parse()?;
    for said in [hello(&params()?), recover_hello(&params()?, b"csr")] {
        let refused = read_first(&frame(said), &LinkPeer::Stranger, &cluster);
        assert!(matches!(refused, Err(refusal) if refusal.code == Code::AuthFailed));
    }
    Ok(())
}

/// Protocol R-JOIN-3.
#[test]
fn every_damage_of_a_join_has_its_own_refusal() -> Result<(), IdError> {
    let code = |result: Result<JoinHello, (Code, String)>| result.err().map(|(code, _)| code);
    let invalid = "the join token is not valid";
    let token = |change: fn(&mut crate::wire::JoinRequest)| joined(|hello| hello.join.as_mut().map_or((), change));
    for refused in [
        token(|join| join.token_id = "a".repeat(7))?,
        token(|join| join.token_id = "a".repeat(33))?,
        token(|join| join.token_id = "abcdefg_".into())?,
        token(|join| join.token_id.clear())?,
        token(|join| join.secret = vec![b'a'; 31].into())?,
        token(|join| join.secret = vec![b'a'; 129].into())?,
        token(|join| join.secret = vec![0xff; 32].into())?,
        token(|join| join.secret = vec![b' '; 32].into())?,
        token(|join| join.secret.clear())?,
    ] {
        assert_eq!(refused.err(), Some((Code::AuthFailed, invalid.to_owned())));
    }
    for length in [32, 128] {
        assert!(
            joined(|hello| hello.join.iter_mut().for_each(|join| join.secret = vec![b'a'; length].into()))?.is_ok()
        );
    }
    for name in ["", "-a", "a b", "a/b", "../a", &"a".repeat(254)] {
        assert_eq!(code(joined(|hello| hello.agent_name = name.to_owned())?), Some(Code::AuthFailed), "{name:?}");
    }
    assert!(joined(|hello| hello.agent_name = "a".repeat(253))?.is_ok());
    assert_eq!(code(joined(|hello| hello.cluster_id = "c2".into())?), Some(Code::AuthFailed));
    assert!(joined(|hello| hello.cluster_id = "c1".into())?.is_ok());
    assert_eq!(code(joined(|hello| hello.protocol_min = 2)?), Some(Code::UpgradeRequired));
    assert_eq!(code(joined(|hello| hello.csr.clear())?), Some(Code::ProtocolError));
    let csr = |length: usize| joined(|hello| hello.csr = vec![1; length].into());
    assert!(csr(limits::MAX_CSR_BYTES)?.is_ok());
    assert_eq!(code(csr(limits::MAX_CSR_BYTES + 1)?), Some(Code::ProtocolError));
    let version = |length: usize| joined(|hello| hello.agent_version = "v".repeat(length));
    assert!(version(limits::MAX_LABEL_BYTES)?.is_ok());
    assert_eq!(code(version(limits::MAX_LABEL_BYTES + 1)?), Some(Code::ProtocolError));
    Ok(())
}

/// Protocol R-JOIN-6.
#[test]
fn a_certificate_that_ended_is_good_for_the_next_one_and_nothing_else() -> Result<(), IdError> {
    let cluster = "c1".parse()?;
    let said = frame(hello(&params()?));
    let refused = read_first(&said, &peer(Role::Agent, true)?, &cluster);
    assert!(
        matches!(&refused, Err(refusal) if refusal.code == Code::AuthFailed && refusal.reason == "the certificate has expired")
    );
    for expired in [true, false] {
        let asked = read_first(&frame(recover_hello(&params()?, b"csr")), &peer(Role::Agent, expired)?, &cluster);
        assert!(
            matches!(&asked, Ok(First::Recover(asked)) if asked.peer.expired == expired && asked.csr == b"csr"[..])
        );
        // Neither another name nor another cluster than the certificate's.
        let Body::ClientHello(mut lie) = recover_hello(&params()?, b"csr") else { return Ok(()) };
        lie.agent_name = "web2".into();
        assert!(read_first(&frame(Body::ClientHello(lie)), &peer(Role::Agent, expired)?, &cluster).is_err());
        // Who has a certificate does not join, whatever token it shows.
        let mut joining = join(SECRET, b"csr")?;
        joining.agent_name = "web1".into();
        let refused = read_first(&frame(Body::ClientHello(joining)), &peer(Role::Agent, expired)?, &cluster);
        assert!(matches!(refused, Err(refusal) if refusal.code == Code::AuthFailed));
        let long = recover_hello(&params()?, &[1; limits::MAX_CSR_BYTES + 1]);
        let refused = read_first(&frame(long), &peer(Role::Agent, expired)?, &cluster);
        assert!(matches!(refused, Err(refusal) if refusal.code == Code::ProtocolError));
    }
    for role in [Role::Manager, Role::Operator] {
        assert!(read_first(&frame(recover_hello(&params()?, b"csr")), &peer(role, true)?, &cluster).is_err());
    }
    Ok(())
}

#[test]
fn a_hash_of_a_bundle_is_whole_or_absent() -> Result<(), IdError> {
    for (bytes, fits) in [(0, true), (31, false), (32, true), (33, false)] {
        let heard = judged(|hello| hello.bundle_hash = vec![1; bytes].into())?;
        assert_eq!(heard.is_ok(), fits, "{bytes} bytes");
        assert_eq!(heard.ok().map(|hello| hello.bundle_hash.is_some()), fits.then_some(bytes == 32));
    }
    Ok(())
}

fn issued_params(cluster: Name, text: &IssuedText) -> IssuedParams {
    IssuedParams { version: Version::V1, cluster, clock_ms: 4, issued: text.clone(), bundle_hash: [7; 32] }
}

fn text(chain: usize, bundle: usize) -> IssuedText {
    IssuedText { chain_pem: "c".repeat(chain), bundle_pem: "b".repeat(bundle), not_after: Duration::from_millis(9) }
}

/// Protocol R-JOIN-5.
#[test]
fn an_issued_certificate_comes_back_as_it_was_sent_and_within_its_bounds() -> Result<(), IdError> {
    let cluster: Name = "c".repeat(253).parse()?;
    let (chain, bundle) = (limits::MAX_CHAIN_PEM, limits::MAX_BUNDLE_PEM);
    let largest = frame(issued(&issued_params(cluster.clone(), &text(chain, bundle))));
    assert!(prost::Message::encoded_len(&largest) <= limits::MAX_FRAME_BEFORE_HELLO);
    let heard = read_issued(&largest);
    assert!(matches!(&heard, Ok(heard) if heard.issued == text(chain, bundle) && heard.cluster == cluster));
    for (chain, bundle) in [(0, bundle), (chain, 0), (chain + 1, bundle), (chain, bundle + 1)] {
        let said = frame(issued(&issued_params(cluster.clone(), &text(chain, bundle))));
        assert!(matches!(read_issued(&said), Err(WelcomeError::Protocol(_))), "{chain} {bundle}");
    }
    // An answer to a join opens no session, and a welcome is no answer to a join.
    assert!(matches!(read_welcome(&largest), Err(WelcomeError::Protocol(_))));
    let bye = frame(Refusal::new(Code::AuthFailed, "no").bye());
    assert!(matches!(read_issued(&bye), Err(WelcomeError::Refused { code: Code::AuthFailed, .. })));
    let odd = ServerHello { protocol: 2, ..answer(&largest)? };
    assert!(matches!(read_issued(&frame(Body::ServerHello(odd))), Err(WelcomeError::Protocol(_))));
    let odd = ServerHello { cluster_id: "a b".into(), ..answer(&largest)? };
    assert!(matches!(read_issued(&frame(Body::ServerHello(odd))), Err(WelcomeError::Protocol(_))));
    let odd = ServerHello { bundle_hash: Bytes::from_static(b"short"), ..answer(&largest)? };
    assert!(matches!(read_issued(&frame(Body::ServerHello(odd))), Err(WelcomeError::Protocol(_))));
    Ok(())
}

fn answer(frame: &Frame) -> Result<ServerHello, IdError> {
    match &frame.body {
        Some(Body::ServerHello(answer)) => Ok(answer.clone()),
        other => panic!("not an answer: {other:?}"),
    }
}

/// Protocol R-RENEW-1.
#[test]
fn each_form_of_a_renewal_is_bounded_and_comes_back_as_it_was_said() {
    let all = [
        Renewal::Csr(vec![1; limits::MAX_CSR_BYTES].into()),
        Renewal::Issued(text(limits::MAX_CHAIN_PEM, limits::MAX_BUNDLE_PEM)),
        Renewal::Due([1; 32]),
    ];
    for said in all {
        let Body::Renew(renew) = said.body() else { panic!("not a renewal") };
        assert_eq!(read_renew(&renew), Ok(said));
    }
    let bad = [
        None,
        Some(What::Csr(Bytes::new())),
        Some(What::Csr(vec![1; limits::MAX_CSR_BYTES + 1].into())),
        Some(What::Issued(text(0, 1).to_wire())),
        Some(What::Issued(text(limits::MAX_CHAIN_PEM + 1, 1).to_wire())),
        Some(What::Issued(text(1, limits::MAX_BUNDLE_PEM + 1).to_wire())),
        Some(What::Due(Bytes::new())),
        Some(What::Due(vec![1; 31].into())),
        Some(What::Due(vec![1; 33].into())),
    ];
    for what in bad {
        assert!(read_renew(&Renew { what: what.clone() }).is_err(), "{what:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_hello_makes_a_judge_panic(
        fields in proptest::collection::vec(any::<u8>(), 0..120),
        name in "\\PC{0,40}",
        expired in any::<bool>(),
        stranger in any::<bool>(),
    ) {
        let mut said = <ClientHello as prost::Message>::decode(&fields[..]).unwrap_or_default();
        if said.agent_name.is_empty() {
            said.agent_name = name;
        }
        let who = if stranger { Ok(LinkPeer::Stranger) } else { peer(Role::Agent, expired) };
        let (Ok(who), Ok(cluster)) = (who, "c1".parse()) else { return Ok(()) };
        let heard = read_first(&frame(Body::ClientHello(said)), &who, &cluster);
        prop_assert!(!stranger || !matches!(heard, Ok(First::Session(_) | First::Recover(_))));
        prop_assert!(!expired || stranger || !matches!(heard, Ok(First::Session(_))));
    }
}

/// Protocol R-BYE-2.
#[test]
fn a_reason_is_cut_at_a_character() {
    let bye = Refusal::new(Code::Banned, "ä".repeat(300)).bye();
    assert!(matches!(bye, Body::Bye(bye) if bye.reason.len() == limits::MAX_TEXT_BYTES));
}
