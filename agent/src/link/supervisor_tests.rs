//! What the reconnect loop does about certificates, with a scripted manager behind real TLS.

#![expect(clippy::unwrap_used, reason = "tests")]

use common::clock::unix_ms;
use common::handshake::{First, IssuedParams, Refusal, WelcomeParams, issued, read_first, welcome};
use common::id::{Epoch, Incarnation, Name, StorePosition};
use common::limits::MAX_FRAME;
use common::link::{Lane, Reader, Writer};
use common::tls::{LinkPeer, ServerConfig, TlsAcceptor, link_peer, server::TlsStream};
use common::version::Version;
use common::wire::frame::Body;
use tempfile::TempDir;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::strangers;
use super::*;
use crate::clock::{ManagerClock, boot_ms};
use crate::identity::authority::{Authority, HOUR};
use crate::identity::{LinkTime, Validity};

const OURS: &str = "paprika://c1/agent/web1/3";
/// Nothing in these tests takes this long.
const BOUND: Duration = Duration::from_secs(20);
const DAY: u64 = 24 * HOUR;

/// A manager that does what the test says, and an agent's folder.
struct Bench {
    folder: TempDir,
    authority: Authority,
    listener: TcpListener,
    config: Arc<ServerConfig>,
    attached: mpsc::Receiver<Attached>,
    sessions: mpsc::Sender<Attached>,
    shutdown: Shutdown,
    /// Manager time, as far as the agent knows it at the start.
    known: Option<u64>,
}

/// A hello that arrived.
struct Visit {
    /// When the certificate ends that was shown.
    until: Duration,
    first: Result<First, Refusal>,
    seq: u64,
    reader: Reader<ReadHalf<TlsStream<TcpStream>>>,
    writer: Writer<WriteHalf<TlsStream<TcpStream>>>,
}

impl Bench {
    async fn new() -> Self {
        let authority = Authority::new("ours");
        let (sessions, attached) = mpsc::channel(1);
        Self {
            folder: tempfile::tempdir().unwrap(),
            config: authority.manager(),
            authority,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            attached,
            sessions,
            shutdown: Shutdown::new(),
            known: None,
        }
    }

    /// The agent, with a configured certificate of this validity.
    fn agent(&self, validity: Validity) -> Supervisor {
        let material = self.authority.identity(&self.folder.path().join("etc"), OURS, validity);
        let mut clock = ManagerClock::new("b", None);
        if let Some(known) = self.known {
            clock.hear(known, boot_ms());
        }
        let keeper = Keeper::open(material, self.folder.path(), Arc::new(LinkTime::new(&clock))).unwrap();
        let port = self.listener.local_addr().unwrap().port();
        Supervisor::new(Beginning {
            addresses: vec![Address { host: "127.0.0.1".into(), port }],
            keeper,
            hello: hello(),
            memory: Arc::default(),
            sessions: self.sessions.clone(),
            shutdown: self.shutdown.clone(),
        })
    }

    fn slot(&self, slot: &str, validity: Validity) {
        self.authority.identity(&self.folder.path().join("identity").join(slot), OURS, validity);
    }

    async fn visit(&self) -> Visit {
        let (socket, _) = timeout(BOUND, self.listener.accept()).await.unwrap().unwrap();
        let tls = TlsAcceptor::from(Arc::clone(&self.config)).accept(socket).await.unwrap();
        let peer = link_peer(tls.get_ref().1, Duration::from_millis(unix_ms())).unwrap();
        let LinkPeer::Agent(agent) = &peer else { panic!("a stranger") };
        let until = agent.not_after;
        let (read, write) = tokio::io::split(tls);
        let (mut reader, writer) = (Reader::new(read, MAX_FRAME), Writer::new(write));
        let frame = reader.next().await.unwrap().unwrap();
        Visit { until, first: read_first(&frame, &peer, &cluster()), seq: frame.seq, reader, writer }
    }

    fn issue(&self, csr: &[u8], validity: Validity) -> Body {
        let text = self.authority.answer(csr, OURS, validity);
        let bundle_hash = tls::bundle_hash_of_pem(text.bundle_pem.as_bytes()).unwrap();
        issued(&IssuedParams {
            version: Version::V1,
            cluster: cluster(),
            clock_ms: unix_ms(),
            issued: text,
            bundle_hash,
        })
    }
}

impl Visit {
    async fn answer(&mut self, body: Body) {
        self.writer.reply(Lane::Control, self.seq, body);
        self.writer.flush().await.unwrap();
    }

    fn is_session(&self) -> bool {
        matches!(self.first, Ok(First::Session(_)))
    }

    fn csr(&self) -> Vec<u8> {
        let Ok(First::Recover(recover)) = &self.first else { panic!("{:?}", self.first) };
        recover.csr.to_vec()
    }
}

fn cluster() -> Name {
    "c1".parse().unwrap()
}

fn hello() -> HelloParams {
    HelloParams {
        name: "web1".parse().unwrap(),
        cluster: cluster(),
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

fn said() -> Body {
    welcome(&WelcomeParams {
        version: Version::V1,
        epoch: Epoch(1),
        incarnation: Incarnation(1),
        store_position: StorePosition(1),
        heartbeat: Duration::from_secs(10),
        manager_addresses: Vec::new(),
        cluster: cluster(),
        clock_ms: unix_ms(),
        bundle_hash: None,
    })
}

fn from_now(from: i64, until: i64) -> Validity {
    let at = |hours: i64| unix_ms().saturating_add_signed(hours * HOUR as i64) / 1000 * 1000;
    Validity { from_ms: at(from), until_ms: at(until) }
}

fn ends(validity: Validity) -> Duration {
    Duration::from_millis(validity.until_ms)
}

#[tokio::test]
async fn a_certificate_that_has_ended_asks_for_the_next_one_and_uses_it_at_once() {
    let mut bench = Bench::new().await;
    let (old, new) = (from_now(-20 * 24, -10 * 24), from_now(0, 72));
    let agent = bench.agent(old);
    let manager = async {
        let mut visit = bench.visit().await;
        assert_eq!(visit.until, ends(old));
        let answer = bench.issue(&visit.csr(), new);
        visit.answer(answer).await;
        let mut visit = bench.visit().await;
        assert!(visit.is_session() && visit.until == ends(new));
        visit.answer(said()).await;
        let attached = bench.attached.recv().await.unwrap();
        assert!(bench.folder.path().join("identity/a/cert.pem").exists());
        bench.shutdown.request();
        drop(attached);
    };
    timeout(BOUND, async { tokio::join!(agent.run(), manager) }).await.unwrap();
}

/// The host's clock is behind, and nothing is known of manager time: only the manager can say that a certificate is over.
#[tokio::test]
async fn a_manager_that_calls_a_certificate_ended_is_asked_for_the_next_one() {
    let mut bench = Bench::new().await;
    // The manager's clock stands where its certificates are valid; the agent's own, two hours behind.
    bench.known = Some(unix_ms() - 3_500_000);
    let (old, new) = (from_now(-48, -1), from_now(0, 72));
    let agent = bench.agent(Validity { until_ms: unix_ms() / 1000 * 1000 - 60_000, ..old });
    let manager = async {
        let mut visit = bench.visit().await;
        let refusal = visit.first.as_ref().err().cloned().unwrap();
        assert_eq!(refusal.reason, EXPIRED, "the text by which it is known");
        visit.answer(refusal.bye()).await;
        let mut visit = bench.visit().await;
        let answer = bench.issue(&visit.csr(), new);
        visit.answer(answer).await;
        let mut visit = bench.visit().await;
        assert!(visit.is_session() && visit.until == ends(new));
        visit.answer(said()).await;
        drop(bench.attached.recv().await.unwrap());
    };
    timeout(BOUND, async { tokio::join!(agent.run(), manager) }).await.unwrap();
}

#[tokio::test]
async fn an_identity_that_the_manager_does_not_know_gives_way_to_the_older_ones() {
    let mut bench = Bench::new().await;
    let (configured, a, b) = (from_now(-3, 1), from_now(-2, 2), from_now(-1, 3));
    bench.slot("a", a);
    bench.slot("b", b);
    let agent = bench.agent(configured);
    let manager = async {
        for expected in [b, a] {
            let mut visit = bench.visit().await;
            assert_eq!(visit.until, ends(expected));
            visit.answer(Refusal::new(Code::AuthFailed, "this key is not known").bye()).await;
        }
        let mut visit = bench.visit().await;
        assert!(visit.is_session() && visit.until == ends(configured));
        visit.answer(said()).await;
        drop(bench.attached.recv().await.unwrap());
    };
    timeout(BOUND, async { tokio::join!(agent.run(), manager) }).await.unwrap();
}

/// What a server says that nobody has proven is no reason to turn to an older certificate.
#[tokio::test]
async fn a_stranger_never_makes_an_agent_fall_back() {
    let bench = Bench::new().await;
    bench.slot("a", from_now(-1, 2));
    let mut agent = bench.agent(from_now(-2, 1));
    let place = agent.keeper.current().place;
    for stranger in strangers::all(&bench.authority) {
        let what = stranger.what;
        let (address, mut heard) = stranger.listen().await;
        agent.addresses = vec![address];
        let round = agent.round().await.unwrap();
        assert!(!round.at_once && agent.keeper.current().place == place, "{what}");
        assert_eq!(heard.join_next().await.unwrap().unwrap(), 0, "{what}");
    }
}

#[tokio::test]
async fn a_renewed_session_is_followed_by_one_with_the_new_certificate_without_a_pause() {
    let mut bench = Bench::new().await;
    let (old, new) = (from_now(-3, 1), from_now(0, 72));
    let agent = bench.agent(old);
    let manager = async {
        let mut visit = bench.visit().await;
        visit.answer(said()).await;
        let Attached { mut session, ended } = bench.attached.recv().await.unwrap();
        let used = async {
            let Err(end) = session.next(false).await else { panic!("no end") };
            ended.send(end).unwrap();
        };
        let renewed = async {
            let frame = visit.reader.next().await.unwrap().unwrap();
            let Some(Body::Renew(renew)) = frame.body else { panic!("no request") };
            let Ok(common::handshake::Renewal::Csr(csr)) = common::handshake::read_renew(&renew) else { panic!() };
            let issued = common::handshake::Renewal::Issued(bench.authority.answer(&csr, OURS, new)).body();
            visit.writer.reply(Lane::Control, frame.seq, issued);
            visit.writer.flush().await.unwrap();
        };
        tokio::join!(used, renewed);
        let before = Instant::now();
        let mut visit = bench.visit().await;
        assert!(visit.is_session() && visit.until == ends(new));
        assert!(before.elapsed() < Duration::from_secs(1));
        visit.answer(said()).await;
        drop(bench.attached.recv().await.unwrap());
    };
    timeout(BOUND, async { tokio::join!(agent.run(), manager) }).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_never_taken_does_not_make_a_circle() {
    let bench = Bench::new().await;
    let mut agent = bench.agent(from_now(-3, 1));
    assert!(agent.may_hurry());
    assert!(!agent.may_hurry(), "the second time in a row it waits like everybody");
}

#[test]
fn who_is_away_too_long_is_told_to_join_again() {
    let since = Duration::from_millis(31 * DAY);
    let own = DialError::Own(HandshakeFault::OwnExpired);
    assert!(hint(&own, Age::Gone { since }).is_some_and(|hint| hint.contains("join again")));
    assert!(hint(&own, Age::Valid).is_some_and(|hint| hint.contains("30 days")));
    assert!(
        hint(&DialError::Own(HandshakeFault::OwnUnknown), Age::Valid).is_some_and(|hint| hint.contains("join again"))
    );
    assert_eq!(hint(&DialError::Server(HandshakeFault::UnknownAuthority), Age::Gone { since }), None);
    assert_eq!(hint(&DialError::Closed, Age::Valid), None);
}
