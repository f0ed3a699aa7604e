//! Renewals in a live session, with a scripted manager at its other end.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use common::handshake::{HelloParams, WelcomeParams, welcome};
use common::id::{Epoch, Incarnation, StorePosition, Uid};
use common::limits::MAX_FRAME;
use common::link::{Lane, Reader, Writer};
use common::version::Version;
use common::wire::Ping;
use common::wire::renew::What;
use tempfile::TempDir;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};

use super::super::dial::greet;
use super::super::session::{End, Session};
use super::*;
use crate::clock::{ManagerClock, boot_ms};
use crate::identity::Age;
use crate::identity::authority::{Authority, HOUR};

const OURS: &str = "paprika://c1/agent/web1/3";
/// Manager time of these tests.
const NOW: u64 = 1_700_000_000_000;
/// Three quarters of its life are over.
const OLD: Validity = Validity { from_ms: NOW - 3 * HOUR, until_ms: NOW + HOUR };
/// Just made.
const YOUNG: Validity = Validity { from_ms: NOW - 300_000, until_ms: NOW + 72 * HOUR };

/// An agent that is connected to a manager which does what the test says.
struct Bench {
    folder: TempDir,
    authority: Authority,
    keeper: Keeper,
    session: Session,
    reader: Reader<ReadHalf<DuplexStream>>,
    writer: Writer<WriteHalf<DuplexStream>>,
}

impl Bench {
    async fn new(validity: Validity) -> Self {
        Self::told(validity, |_| None, None).await
    }

    /// `told` is what the manager trusts, made from the agent's own hash.
    async fn told(
        validity: Validity,
        told: impl Fn([u8; HASH_BYTES]) -> Option<[u8; HASH_BYTES]>,
        in_vain: Option<[u8; HASH_BYTES]>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("ours");
        let material = authority.identity(&folder.path().join("etc"), OURS, validity);
        let mut clock = ManagerClock::new("b", None);
        clock.hear(NOW, boot_ms());
        let keeper = Keeper::open(material, folder.path(), Arc::new(LinkTime::new(&clock))).unwrap();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (read, write) = tokio::io::split(far);
        let (mut reader, mut writer) = (Reader::new(read, MAX_FRAME), Writer::new(write));
        let hello = hello();
        let bundle_hash = told(keeper.current().bundle_hash);
        let (session, ()) = tokio::join!(greet(Box::new(near), &hello), async {
            reader.next().await.unwrap().unwrap();
            writer.push(Lane::Control, said(bundle_hash));
            writer.flush().await.unwrap();
        });
        let mut session = session.unwrap();
        session.renew_with(Renewal::new(&keeper, session.welcome.bundle_hash, in_vain));
        Self { folder, authority, keeper, session, reader, writer }
    }

    /// What the agent sends next; the session runs meanwhile.
    async fn heard(&mut self) -> common::wire::Frame {
        tokio::select! {
            frame = self.reader.next() => frame.unwrap().unwrap(),
            end = self.session.next(false) => panic!("instead of a frame: {end:?}"),
        }
    }

    /// The request for a certificate, and its number.
    async fn request(&mut self) -> (u64, Vec<u8>) {
        let frame = self.heard().await;
        let Some(Body::Renew(Renew { what: Some(What::Csr(csr)) })) = frame.body else { panic!("{frame:?}") };
        (frame.seq, csr.to_vec())
    }

    async fn reply(&mut self, to: u64, body: Body) {
        self.writer.reply(Lane::Control, to, body);
        self.writer.flush().await.unwrap();
    }

    async fn issue(&mut self, to: u64, csr: &[u8], uri: &str) {
        let issued = self.authority.answer(csr, uri, YOUNG);
        self.reply(to, handshake::Renewal::Issued(issued).body()).await;
    }

    /// The session lives and has sent nothing of its own: a ping is answered before anything else comes.
    async fn is_quiet(&mut self) {
        self.writer.push(Lane::Control, Body::Ping(Ping::default()));
        self.writer.flush().await.unwrap();
        self.session.next(false).await.unwrap();
        let frame = self.heard().await;
        assert!(matches!(frame.body, Some(Body::Pong(_))), "{frame:?}");
    }

    fn slot(&self) -> PathBuf {
        self.folder.path().join("identity/a/cert.pem")
    }
}

fn hello() -> HelloParams {
    HelloParams {
        name: "web1".parse().unwrap(),
        cluster: "c1".parse().unwrap(),
        boot_id: "b".into(),
        journal: Uid([1; 16]),
        incarnation: 0,
        store_position: 0,
        cores: 1,
        memory_bytes: 1,
        labels: Default::default(),
        agent_version: "0".into(),
        isolation: "cgroup".into(),
        capabilities: Vec::new(),
        bundle_hash: None,
    }
}

fn said(bundle_hash: Option<[u8; HASH_BYTES]>) -> Body {
    welcome(&WelcomeParams {
        version: Version::V1,
        epoch: Epoch(1),
        incarnation: Incarnation(1),
        store_position: StorePosition(1),
        heartbeat: Duration::from_secs(10),
        manager_addresses: Vec::new(),
        cluster: "c1".parse().unwrap(),
        clock_ms: NOW,
        bundle_hash,
    })
}

#[tokio::test]
async fn a_certificate_past_half_of_its_life_is_renewed_in_the_session_that_goes_on_meanwhile() {
    let mut bench = Bench::new(OLD).await;
    let (seq, csr) = bench.request().await;
    bench.is_quiet().await;
    bench.issue(seq, &csr, OURS).await;
    let end = bench.session.next(false).await;
    let Err(End::Renewed(next)) = end else { panic!("{end:?}") };
    assert_eq!(next.validity, YOUNG);
    assert!(bench.slot().exists(), "kept before it is used");
    let goodbye = bench.reader.next().await.unwrap().unwrap();
    assert!(matches!(goodbye.body, Some(Body::Bye(bye)) if bye.code() == common::wire::bye::Code::Normal));
    bench.keeper.adopt(*next);
    assert_eq!(bench.keeper.age(), Age::Valid);
    let found = tls::load_chain(&bench.slot()).unwrap();
    let leaf = tls::read_leaf(found.first().unwrap()).unwrap();
    assert_eq!(leaf.not_after, Duration::from_millis(YOUNG.until_ms));
}

#[tokio::test]
async fn a_young_certificate_is_left_alone() {
    let mut bench = Bench::new(YOUNG).await;
    bench.is_quiet().await;
    let mut same = Bench::told(YOUNG, Some, None).await;
    same.is_quiet().await;
}

#[tokio::test]
async fn other_authorities_are_a_reason_to_renew_unless_the_last_renewal_did_not_bring_them() {
    let other = |_| Some([7; HASH_BYTES]);
    let mut bench = Bench::told(YOUNG, other, None).await;
    let asked = tokio::time::timeout(RENEW_NOW_SPREAD * 5, bench.request()).await;
    asked.unwrap();
    let mut in_vain = Bench::told(YOUNG, other, Some([7; HASH_BYTES])).await;
    assert!(in_vain.session.next(true).await.unwrap().is_none());
    in_vain.is_quiet().await;
}

#[tokio::test]
async fn a_manager_says_when_its_authorities_change() {
    let mut bench = Bench::new(YOUNG).await;
    let own = bench.keeper.current().bundle_hash;
    bench.reply(0, handshake::Renewal::Due(own).body()).await;
    bench.is_quiet().await;
    bench.reply(0, handshake::Renewal::Due([7; HASH_BYTES]).body()).await;
    let asked = tokio::time::timeout(RENEW_NOW_SPREAD * 5, bench.request()).await;
    asked.unwrap();
}

#[tokio::test]
async fn a_refusal_or_a_wrong_answer_costs_a_pause_and_nothing_else() {
    for answer in ["busy", "another name", "garbage", "nothing in it"] {
        let mut bench = Bench::new(OLD).await;
        let (seq, csr) = bench.request().await;
        match answer {
            "busy" => bench.reply(seq, handshake::Renewal::nak(nak::Code::Busy, "later")).await,
            "another name" => bench.issue(seq, &csr, "paprika://c1/agent/web2/3").await,
            "garbage" => {
                let issued = IssuedText { chain_pem: "x".into(), bundle_pem: "x".into(), not_after: Duration::ZERO };
                bench.reply(seq, handshake::Renewal::Issued(issued).body()).await;
            }
            _ => bench.reply(seq, Body::Renew(Renew { what: None })).await,
        }
        if answer == "nothing in it" {
            let frame = bench.heard().await;
            assert!(matches!(frame.body, Some(Body::Nak(refusal)) if refusal.code() == nak::Code::Invalid));
        }
        bench.is_quiet().await;
        assert!(!bench.slot().exists(), "{answer}");
    }
}

#[tokio::test]
async fn answers_that_nobody_waits_for_are_dropped_and_naks_of_others_are_passed_on() {
    let mut bench = Bench::new(YOUNG).await;
    let stray = tls::new_key().unwrap();
    bench.issue(77, &stray.csr, OURS).await;
    bench.is_quiet().await;
    assert!(!bench.slot().exists());
    bench.reply(5, Body::Nak(Nak { code: nak::Code::Unknown.into(), reason: "whose?".into() })).await;
    let passed = bench.session.next(false).await.unwrap().unwrap();
    assert!(passed.reply_to == 5 && matches!(passed.body, Body::Nak(_)));
}

#[tokio::test]
async fn requests_are_repeated_after_a_pause_and_never_where_the_manager_cannot() {
    let bench = Bench::new(OLD).await;
    let start = Instant::now();
    let ask = |renewal: &mut Renewal, now: Instant| {
        let (_, request) = renewal.request(now)?;
        renewal.asked(9, request, now);
        Some(())
    };
    let mut renewal = Renewal::new(&bench.keeper, None, None);
    ask(&mut renewal, start).unwrap();
    assert_eq!(ask(&mut renewal, start + RENEW_ANSWERS / 2), None, "one at a time");
    assert_eq!(renewal.wake(start), start + RENEW_ANSWERS);
    let late = start + RENEW_ANSWERS;
    assert_eq!(ask(&mut renewal, late), None, "not answered: a pause");
    let again = OLD.again_after();
    assert_eq!(ask(&mut renewal, late + again / 2 - Duration::from_millis(1)), None);
    ask(&mut renewal, late + again).unwrap();

    assert!(renewal.hear_refusal(9, &Nak { code: nak::Code::Unsupported.into(), reason: String::new() }));
    assert_eq!(ask(&mut renewal, Instant::now() + Duration::from_secs(30 * 24 * 3600)), None);
    assert!(!renewal.hear_refusal(9, &Nak::default()), "nothing is waited for");
}
