//! The agent port itself: strangers of every kind, and honest agents beside them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::HelloParams;
use common::limits;
use common::tls::{self, ClientConfig, Identity, TlsConnector, manager_name};
use common::wire::bye::Code;
use manager::ca::Authority;
use manager::link::admission::Caps;
use manager::link::listener::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::house::{BOUND, House};
use crate::peer::Peer;

const CAPS: Caps = Caps { overall: 64, per_address: 32 };

/// Opens the agent port of a house.
async fn open(house: &House) -> SocketAddr {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.address();
    let serve =
        listener.serve(house.service.clone(), house.papers.link(), CAPS, house.shutdown.clone(), house.tasks.clone());
    house.tasks.spawn("link", serve);
    address
}

/// The TLS configuration of an agent whose certificate `issuer` made, trusting the house.
fn client(house: &House, issuer: &Authority, identity: &Identity) -> Arc<ClientConfig> {
    let issued = issuer.issue_agent(&identity.name, identity.generation, Duration::from_secs(3600)).unwrap();
    let chain = tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
    let key = tls::key_from_pem(issued.key_pem.as_bytes()).unwrap();
    tls::link_client(chain, key, tls::roots_from_pem(house.authority.ca_pem().as_bytes()).unwrap()).unwrap()
}

async fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Peer> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(manager_name(), stream).await.map(Peer::new)
}

async fn connect(house: &House, address: SocketAddr, identity: &Identity, params: &HelloParams) -> Peer {
    let mut peer = dial(address, client(house, &house.authority, identity)).await.unwrap();
    peer.hello(params).await;
    peer.welcome().await;
    peer
}

/// Reads until the manager closes. A reset is a close too.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let read = timeout(BOUND, stream.read_to_end(&mut said)).await.expect("the manager closes");
    drop(read);
    said
}

#[tokio::test]
async fn an_agent_connects_over_tls_and_works() {
    let house = House::build().await;
    let address = open(&house).await;
    let identity = house.agent("web1").await;
    let mut peer = connect(&house, address, &identity, &house.hello(&identity, 1)).await;
    peer.settle(Vec::new()).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    peer.finish(&command, 0).await;
    peer.acked().await;
    assert_eq!(house.phase(id).await, "succeeded");
}

#[tokio::test]
async fn a_browser_is_told_that_this_is_the_agent_port() {
    let house = House::build().await;
    let address = open(&house).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let said = closed(&mut stream).await;
    assert!(said.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn garbage_instead_of_tls_is_closed() {
    let house = House::build().await;
    let address = open(&house).await;
    for garbage in [&[0u8; 64][..], b"\x16\x03\x01\xff\xff\x01", &[0xff; 300], b"\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        closed(&mut stream).await;
    }
    let identity = house.agent("web1").await;
    connect(&house, address, &identity, &house.hello(&identity, 1)).await;
}

#[tokio::test]
async fn a_peer_without_our_protocol_or_certificate_is_not_served() {
    let house = House::build().await;
    let address = open(&house).await;
    // The API's client offers http/1.1 and shows no certificate.
    let roots = tls::roots_from_pem(house.authority.ca_pem().as_bytes()).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connected = TlsConnector::from(tls::api_client(roots, None).unwrap()).connect(manager_name(), stream).await;
    assert!(connected.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_served() {
    let house = House::build().await;
    let address = open(&house).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let now = Duration::from_millis(common::clock::unix_ms());
    let other = Authority::open(elsewhere.path(), &house.store.identity().cluster, now).unwrap();
    let identity = house.agent("web1").await;
    // TLS 1.3 tells a client about its certificate only after the handshake.
    if let Ok(mut peer) = dial(address, client(&house, &other, &identity)).await {
        assert!(peer.next().await.is_none());
    }
    assert_eq!(house.registry.count(), 0);
}

#[tokio::test]
async fn a_certificate_outside_its_time_is_not_served() {
    let house = House::build().await;
    let address = open(&house).await;
    let identity = house.agent("web1").await;
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
    let now = Duration::from_millis(common::clock::unix_ms());
    for from in [now - day, now + day] {
        let issued = house.authority.issue_agent_at(&identity.name, identity.generation, from, hour).unwrap();
        let chain = tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
        let key = tls::key_from_pem(issued.key_pem.as_bytes()).unwrap();
        let roots = tls::roots_from_pem(house.authority.ca_pem().as_bytes()).unwrap();
        // TLS 1.3 tells a client about its certificate only after the handshake.
        if let Ok(mut peer) = dial(address, tls::link_client(chain, key, roots).unwrap()).await {
            assert!(peer.next().await.is_none());
        }
    }
    assert_eq!(house.registry.count(), 0);
}

#[tokio::test]
async fn a_managers_certificate_does_not_make_an_agent() {
    let house = House::build().await;
    let address = open(&house).await;
    let issued = house.authority.issue_manager(&"m2".parse().unwrap(), &[]).unwrap();
    let chain = tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
    let key = tls::key_from_pem(issued.key_pem.as_bytes()).unwrap();
    let roots = tls::roots_from_pem(house.authority.ca_pem().as_bytes()).unwrap();
    if let Ok(mut peer) = dial(address, tls::link_client(chain, key, roots).unwrap()).await {
        assert!(peer.next().await.is_none());
    }
    assert_eq!(house.registry.count(), 0);
}

#[tokio::test]
async fn frames_that_are_empty_oversized_or_random_before_the_hello_end_the_connection() {
    let house = House::build().await;
    let address = open(&house).await;
    let identity = house.agent("web1").await;
    let config = client(&house, &house.authority, &identity);
    let large = (limits::MAX_FRAME_BEFORE_HELLO as u32 + 1).to_be_bytes();
    let cases = [
        (&[0u8; 4][..], Code::ProtocolError),
        (&large[..], Code::FrameTooLarge),
        (&[0, 0, 0, 3, 0xff, 0xff, 0xff][..], Code::ProtocolError),
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), Code::ProtocolError),
    ];
    for (bytes, code) in cases {
        let mut peer = dial(address, Arc::clone(&config)).await.unwrap();
        peer.bytes(bytes).await;
        assert_eq!(peer.bye().await.0, code, "{bytes:?}");
    }
    let mut peer = connect(&house, address, &identity, &house.hello(&identity, 1)).await;
    peer.bytes(&(limits::MAX_FRAME as u32 + 1).to_be_bytes()).await;
    assert_eq!(peer.bye().await.0, Code::FrameTooLarge);
}

/// Protocol R-SESSION-2.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_anywhere_is_closed_in_time() {
    let house = House::build().await;
    let address = open(&house).await;
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    for stop in 0..hello.len() {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(hello.get(..stop).unwrap_or_default()).await.unwrap();
        closed(&mut stream).await;
        assert!(began.elapsed() <= limits::HANDSHAKE + Duration::from_secs(5), "stalled after {stop} bytes");
    }
    let identity = house.agent("web1").await;
    let mut silent = dial(address, client(&house, &house.authority, &identity)).await.unwrap();
    assert!(silent.next().await.is_none(), "no hello ever came");
}

#[tokio::test]
async fn an_honest_agent_connects_beside_a_host_that_holds_many_sockets_open() {
    let house = House::build().await;
    let address = open(&house).await;
    let identity = house.agent("web1").await;
    let params = house.hello(&identity, 1);
    let mut held = Vec::new();
    for number in 0..400 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            // The closed ones among them refuse it, which is what this is about.
            let _ = stream.write_all(b"\x16").await;
        }
        held.push(stream);
    }
    let began = Instant::now();
    let mut peer = connect(&house, address, &identity, &params).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Its own session is not among the unauthenticated any more: more of them cannot push it out.
    for _ in 0..200 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    peer.settle(Vec::new()).await;
    assert!(house.service.counters().evicted.get() > 0);
}
