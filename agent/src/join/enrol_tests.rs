//! Joins with scripted managers, with thirteen servers that are none, and with none at all.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;

use common::handshake::{IssuedParams, Refusal};
use common::limits::MAX_FRAME;
use common::link::{Lane, Reader, Writer};
use common::pin::Pin;
use common::tls::{ServerConfig, TlsAcceptor};
use common::version::Version;
use common::wire::ClientHello;
use common::wire::frame::Body;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::identity::Validity;
use crate::identity::authority::{Authority, HOUR};
use crate::link::strangers;

/// A host with a token.
struct Bench {
    token: JoinToken,
    name: Name,
    request: KeyRequest,
}

impl Bench {
    fn new(authority: &Authority, addresses: &[&Address]) -> Self {
        let authority = tls::chain_from_pem(authority.pem.as_bytes()).unwrap();
        let addresses = addresses.iter().map(ToString::to_string).collect();
        Self {
            token: JoinToken::draw(addresses, Pin::of(authority.first().unwrap())).unwrap(),
            name: "web1".parse().unwrap(),
            request: tls::new_key().unwrap(),
        }
    }

    fn guest(&self) -> Guest<'_> {
        Guest { token: &self.token, name: &self.name, request: &self.request }
    }

    async fn enrol(&self) -> Result<Enrolled, EnrolError> {
        enrol(self.guest(), |_| {}).await
    }
}

async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Address { host: "127.0.0.1".into(), port })
}

/// Takes one guest and answers its hello.
async fn answer(socket: TcpStream, config: Arc<ServerConfig>, with: impl FnOnce(&ClientHello) -> Body) -> ClientHello {
    let tls = TlsAcceptor::from(config).accept(socket).await.unwrap();
    let (read, write) = tokio::io::split(tls);
    let (mut reader, mut writer) = (Reader::new(read, MAX_FRAME), Writer::new(write));
    let frame = reader.next().await.unwrap().unwrap();
    let Some(Body::ClientHello(hello)) = frame.body else { panic!("no hello") };
    writer.reply(Lane::Control, frame.seq, with(&hello));
    writer.close().await.unwrap();
    hello
}

fn issued(authority: &Authority, csr: &[u8], uri: &str) -> Body {
    let now = common::clock::unix_ms();
    let issued = authority.answer(csr, uri, Validity { from_ms: now - HOUR, until_ms: now + 72 * HOUR });
    let bundle_hash = tls::bundle_hash_of_pem(issued.bundle_pem.as_bytes()).unwrap();
    let cluster = "c1".parse().unwrap();
    handshake::issued(&IssuedParams { version: Version::V1, cluster, clock_ms: now, issued, bundle_hash })
}

const OURS: &str = "paprika://c1/agent/web1/1";

/// Protocol R-JOIN-2.
#[tokio::test]
async fn a_host_says_nothing_to_a_server_that_does_not_show_the_pinned_authority_and_says_why() {
    let authority = Authority::new("ours");
    for stranger in strangers::all(&authority) {
        let (what, expected) = (stranger.what, stranger.for_guest);
        let (address, mut heard) = stranger.listen().await;
        let bench = Bench::new(&authority, &[&address]);
        let refused = bench.enrol().await.unwrap_err();
        let said = Chain(&refused).to_string();
        assert!(matches!(refused, EnrolError::Strangers(_)), "{what}: {said}");
        assert!(said.contains(expected) && said.contains(&address.to_string()), "{what}: {said}");
        assert!(!said.contains(bench.token.secret.expose()), "{what}: {said}");
        assert_eq!(heard.join_next().await.unwrap().unwrap(), 0, "{what}: bytes above TLS");
    }
}

#[tokio::test]
async fn a_host_with_a_good_token_gets_a_certificate_for_its_own_key() {
    let authority = Authority::new("ours");
    let (listener, address) = listen().await;
    let bench = Bench::new(&authority, &[&address]);
    let manager = async {
        let (socket, _) = listener.accept().await.unwrap();
        answer(socket, authority.manager(), |hello| issued(&authority, &hello.csr, OURS)).await
    };
    let (enrolled, hello) = tokio::join!(bench.enrol(), manager);
    let enrolled = enrolled.unwrap();
    assert_eq!(enrolled.identity.to_string(), OURS);
    assert!(enrolled.valid > Duration::from_secs(71 * 3600) && enrolled.valid <= Duration::from_secs(72 * 3600));
    let join = hello.join.unwrap();
    assert_eq!((join.token_id, &join.secret[..]), (bench.token.id.clone(), bench.token.secret.expose().as_bytes()));
    assert_eq!((hello.agent_name.as_str(), &hello.csr[..]), ("web1", bench.request.csr.as_slice()));
}

#[tokio::test]
async fn a_refusal_is_final_and_comes_in_the_managers_words() {
    let authority = Authority::new("ours");
    let ((listener, address), (other, elsewhere)) = (listen().await, listen().await);
    let bench = Bench::new(&authority, &[&address, &elsewhere]);
    let manager = async {
        let (socket, _) = listener.accept().await.unwrap();
        answer(socket, authority.manager(), |_| {
            Refusal::new(Code::AuthFailed, "the join token is used\u{1b}[2J up").bye()
        })
        .await
    };
    let (refused, _) = tokio::join!(bench.enrol(), manager);
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("the join token is used") && said.contains(&address.to_string()), "{said}");
    assert!(!said.contains('\u{1b}'), "a manager's words do not reach the terminal raw");
    assert!(tokio::time::timeout(Duration::from_millis(1), other.accept()).await.is_err(), "nobody else was asked");
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_taken() {
    let authority = Authority::new("ours");
    let other = tls::new_key().unwrap();
    for (uri, csr, said) in [
        ("paprika://c1/agent/web2/1", None, "another name"),
        ("paprika://c2/agent/web1/1", None, "another cluster"),
        (OURS, Some(other.csr.as_slice()), "another key"),
    ] {
        let (listener, address) = listen().await;
        let bench = Bench::new(&authority, &[&address]);
        let manager = async {
            let (socket, _) = listener.accept().await.unwrap();
            answer(socket, authority.manager(), |hello| issued(&authority, csr.unwrap_or(&hello.csr), uri)).await
        };
        let (refused, _) = tokio::join!(bench.enrol(), manager);
        let refused = refused.unwrap_err();
        assert!(matches!(refused, EnrolError::Issued { .. }));
        assert!(Chain(&refused).to_string().contains(said), "{}", Chain(&refused));
    }
}

/// A manager that restarts, and another one that is not the right one, do not end a join.
#[tokio::test]
async fn a_join_outlives_a_manager_that_hangs_up_and_a_stranger_among_the_addresses() {
    let authority = Authority::new("ours");
    let stranger = strangers::all(&authority).swap_remove(1);
    let (wrong, _heard) = stranger.listen().await;
    let (listener, address) = listen().await;
    let bench = Bench::new(&authority, &[&wrong, &address]);
    let told = RefCell::new(Vec::new());
    let manager = async {
        let (socket, _) = listener.accept().await.unwrap();
        drop(socket);
        let (socket, _) = listener.accept().await.unwrap();
        let busy = Refusal::new(Code::Overloaded, "busy").bye();
        answer(socket, authority.manager(), |_| busy).await;
        let (socket, _) = listener.accept().await.unwrap();
        answer(socket, authority.manager(), |hello| issued(&authority, &hello.csr, OURS)).await
    };
    let enrolled = enrol(bench.guest(), |text| told.borrow_mut().push(text.to_owned()));
    let (enrolled, _) = tokio::join!(enrolled, manager);
    enrolled.unwrap();
    assert_eq!(told.borrow().len(), 1, "said once: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_never_answers_is_waited_for_within_a_bound() {
    let authority = Authority::new("ours");
    // Nobody listens at a port that was free a moment ago.
    let (listener, address) = listen().await;
    drop(listener);
    let bench = Bench::new(&authority, &[&address]);
    let before = Instant::now();
    let refused = bench.enrol().await.unwrap_err();
    assert!(matches!(&refused, EnrolError::Unreachable(attempts) if attempts.len() == 1), "{refused}");
    assert!(before.elapsed() <= JOIN_WITHIN);
    assert!(refused.to_string().contains("the connection cannot be made"), "{refused}");
}

#[tokio::test]
async fn addresses_that_nobody_can_dial_are_an_error() {
    let authority = Authority::new("ours");
    let bench = Bench::new(&authority, &[&Address { host: "m".into(), port: 1 }]);
    let token = JoinToken { addresses: vec!["m:99999".into()], ..bench.token.clone() };
    let refused = enrol(Guest { token: &token, ..bench.guest() }, |_| {}).await;
    assert!(matches!(refused, Err(EnrolError::NoAddress)));
}
