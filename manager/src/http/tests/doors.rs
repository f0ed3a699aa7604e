//! The doors themselves: TLS, plain HTTP by mistake, the local socket, caps, slow peers, and the orderly end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use common::shutdown::{Shutdown, Tasks};
use common::tls::{self, MANAGER_DNS, ServerName, TlsConnector};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::house::House;
use crate::http::connection::{Connections, HEAD, serve};
use crate::http::gate::Door;
use crate::http::stall::{STALL, Unstalled};

const SOON: Duration = Duration::from_secs(20);

async fn secure(house: &House, api: std::net::SocketAddr) -> tls::client::TlsStream<TcpStream> {
    let roots = tls::roots_from_pem(house.ca_pem.as_bytes()).unwrap();
    let connector = TlsConnector::from(Arc::clone(&tls::api_client(roots, None).unwrap()));
    let name = ServerName::try_from(MANAGER_DNS).unwrap();
    connector.connect(name, TcpStream::connect(api).await.unwrap()).await.unwrap()
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: m\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn tls_is_spoken_and_plain_http_is_told_so() {
    let house = House::new().await;
    let bound = house.open().await;
    let answer = exchange(&mut secure(&house, bound.api).await, &get("/agents", &house.read)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut plain = TcpStream::connect(bound.api).await.unwrap();
    let answer = exchange(&mut plain, "GET / HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
}

#[tokio::test]
async fn garbage_and_silence_do_not_keep_others_out() {
    let house = House::new().await;
    let bound = house.open().await;
    let mut silent = Vec::new();
    for byte in 0..=255_u8 {
        let mut socket = TcpStream::connect(bound.api).await.unwrap();
        if byte % 4 == 0 {
            socket.write_all(&[byte; 100]).await.unwrap();
        }
        if silent.len() < 50 {
            silent.push(socket);
        }
    }
    // The garbage is refused at once, and what is silent holds one place each.
    let answer = timeout(SOON, async { exchange(&mut secure(&house, bound.api).await, &get("/healthz", "")).await })
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_full_house_refuses_and_has_room_again() {
    let house = House::new().await;
    let bound = house.open_for(1, 10).await;
    let mut first = secure(&house, bound.api).await;
    let mut second = TcpStream::connect(bound.api).await.unwrap();
    let closed = timeout(SOON, second.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    assert!(exchange(&mut first, &get("/healthz", "")).await.starts_with("HTTP/1.1 200"));
    drop(first);
    let served = timeout(SOON, async {
        loop {
            let mut socket = TcpStream::connect(bound.api).await.unwrap();
            // Its error is the full house; the answer below is what is waited for.
            let _ = socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
            let mut answer = Vec::new();
            if socket.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 400") {
                return;
            }
        }
    });
    served.await.unwrap();
}

/// Waits until a connection was closed without a word.
async fn refused(api: std::net::SocketAddr) {
    let mut socket = TcpStream::connect(api).await.unwrap();
    let closed = timeout(SOON, socket.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_full_port_leaves_the_local_socket_open() {
    let house = House::new().await;
    let bound = house.open_for(1, 10).await;
    let _silent = secure(&house, bound.api).await;
    refused(bound.api).await;
    let socket = bound.socket.unwrap();
    for _ in 0..3 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let answer = exchange(&mut stream, "GET /tokens HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn one_address_gets_its_share_and_no_more() {
    let house = House::new().await;
    let bound = house.open_for(100, 2).await;
    let mut first = secure(&house, bound.api).await;
    let _second = secure(&house, bound.api).await;
    refused(bound.api).await;
    // Loopback counts like any other address; another one still gets in.
    let elsewhere = tokio::net::TcpSocket::new_v4().unwrap();
    elsewhere.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut other = elsewhere.connect(bound.api).await.unwrap();
    let answer = exchange(&mut other, "GET / HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(exchange(&mut first, &get("/healthz", "")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_is_cut_off() {
    let (mut near, far) = duplex(1024);
    let app = Router::new().fallback(async || vec![b'x'; 10 * 1024 * 1024]);
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let connections = Connections { app, shutdown, tasks: tasks.clone() };
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    tasks.spawn("connection", async move {
        serve(Unstalled::new(far), Door::Local { uid: 0 }, connections).await;
        ended.send(Instant::now()).unwrap();
    });
    let began = Instant::now();
    near.write_all(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n").await.unwrap();
    near.read_exact(&mut [0; 12]).await.unwrap();
    let after = timeout(10 * STALL, has_ended).await.unwrap().unwrap() - began;
    assert!((STALL..2 * STALL).contains(&after), "{after:?}");
}

#[tokio::test]
async fn the_local_socket_needs_no_token() {
    let house = House::new().await;
    let bound = house.open().await;
    let mut stream = UnixStream::connect(bound.socket.unwrap()).await.unwrap();
    let answer = exchange(&mut stream, "GET /tokens HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let house = House::new().await;
    let bound = house.open().await;
    let many = (0..100).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let mut stream = secure(&house, bound.api).await;
    let answer = exchange(&mut stream, &format!("GET /healthz HTTP/1.1\r\nhost: m\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn stopping_answers_who_waits_and_closes_who_is_idle() {
    let house = House::new().await;
    let bound = house.open().await;
    let id = house.submit().await;
    let mut waiting = secure(&house, bound.api).await;
    waiting.write_all(get(&format!("/commands/{id}?wait=5m"), &house.read).as_bytes()).await.unwrap();
    let mut following = secure(&house, bound.api).await;
    let follow = format!(
        "GET /commands/{id}/output HTTP/1.1\r\nhost: m\r\naccept: text/event-stream\r\nauthorization: Bearer {}\r\n\r\n",
        house.read
    );
    following.write_all(follow.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    timeout(SOON, following.read_exact(&mut head)).await.unwrap().unwrap();
    let idle = secure(&house, bound.api).await;
    house.service.drain();
    house.shutdown.request();
    let late = house.tasks.join(SOON).await;
    assert!(late.is_empty(), "{late:?}");
    let mut answer = Vec::new();
    timeout(SOON, waiting.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let mut rest = Vec::new();
    timeout(SOON, following.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream ends as a whole body");
    drop(idle);
    assert!(TcpStream::connect(bound.api).await.is_err());
    assert!(!house.folder.path().join("api.sock").exists());
}

/// Speaks to a connection whose clock is the test's; answers what came back, and after how long it was closed.
async fn until_closed(words: &[u8]) -> (String, Duration) {
    let (mut near, far) = duplex(64 * 1024);
    let (tasks, app) = (Tasks::new(), Router::new().fallback(async || "here"));
    let connections = Connections { app, shutdown: Shutdown::new(), tasks: tasks.clone() };
    tasks.spawn("connection", serve(far, Door::Local { uid: 0 }, connections));
    let began = Instant::now();
    near.write_all(words).await.unwrap();
    let mut answer = Vec::new();
    timeout(10 * HEAD, near.read_to_end(&mut answer)).await.unwrap().unwrap();
    (String::from_utf8(answer).unwrap(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_is_closed_after_the_time_for_a_head() {
    let ends_late = |(answer, after): (String, Duration), starts: &str| {
        assert!(answer.starts_with(starts) && (HEAD..2 * HEAD).contains(&after), "{answer:?} after {after:?}");
    };
    ends_late(until_closed(b"").await, "");
    ends_late(until_closed(b"GET / HTTP/1.1\r\nhost:").await, "");
    ends_late(until_closed(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n").await, "HTTP/1.1 200");
}

#[tokio::test(start_paused = true)]
async fn http2_is_not_spoken() {
    let (answer, after) = until_closed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    assert_eq!(after, Duration::ZERO, "it is closed at once");
}
