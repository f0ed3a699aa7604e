//! One connection from its first byte to its end: TLS, limits on heads and idleness, and an orderly end when the manager
//! stops. HTTP/1.1 and nothing else, so that every limit exists once (`docs/decisions/0003-http1-only.md`).

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use common::shutdown::{Shutdown, Tasks};
use common::tls::{ApiPeer, CertificateDer, PeerError, TlsAcceptor, api_peer, server};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::ServiceExt;
use tracing::debug;

use super::gate::Door;
use super::stall::Unstalled;
use crate::limits::{DRAIN, HANDSHAKE, MAX_BUFFER, MAX_HEADERS};
use crate::papers::Current;

/// For the head of a request; also how long a connection may be idle between two requests.
pub(super) const HEAD: Duration = Duration::from_secs(10);

/// A connection behind its TLS handshake.
type Secured = server::TlsStream<Unstalled<TcpStream>>;

/// What all connections have in common.
#[derive(Clone)]
pub(super) struct Connections {
    pub(super) app: Router,
    pub(super) shutdown: Shutdown,
    pub(super) tasks: Tasks,
}

/// Serves one connection of the TLS door.
pub(super) async fn serve_tls(socket: TcpStream, peer: SocketAddr, papers: Current, connections: Connections) {
    // Answers are written whole; waiting for more of them would only delay lines of output.
    if let Err(error) = socket.set_nodelay(true).and_then(|()| keep_alive(&socket)) {
        debug!(peer.addr = %peer, error = %error, "A connection broke at once");
        return;
    }
    let greeted = tokio::select! {
        greeted = timeout(HANDSHAKE, greet(socket, peer, &papers)) => greeted,
        () = connections.shutdown.requested() => return,
    };
    match greeted {
        Ok(Some(mut stream)) => match door(&stream, peer) {
            Ok((door, None)) => serve(stream, door, connections).await,
            Ok((door, Some(chain))) => {
                tokio::select! {
                    () = serve(stream, door, connections) => {}
                    () = disbelieved(papers, &chain) => debug!(peer.addr = %peer, "A connection was cut: the authority of its certificate was retired"),
                }
            }
            Err(error) => {
                debug!(peer.addr = %peer, error = %error, "A peer showed a certificate that is not one of an operator");
                refuse(&mut stream, "403 Forbidden", "this port takes certificates of operators, or none and a token")
                    .await;
            }
        },
        Ok(None) => {}
        Err(_) => debug!(peer.addr = %peer, "A peer did not finish the TLS handshake in time"),
    }
}

/// Makes the kernel notice peers that vanished without a word.
fn keep_alive(socket: &TcpStream) -> std::io::Result<()> {
    let socket = socket.as_fd();
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(socket, 3)?;
    Ok(())
}

/// How somebody came in: with the certificate of an operator, or without any. Any other is worse than none.
fn door(stream: &Secured, peer: SocketAddr) -> Result<(Door, Option<Vec<CertificateDer<'static>>>), PeerError> {
    let connection = stream.get_ref().1;
    let Some(ApiPeer { identity, .. }) = api_peer(connection)? else {
        return Ok((Door::Network(peer), None));
    };
    let chain = connection.peer_certificates().map(<[_]>::to_vec);
    Ok((Door::Certificate { peer, name: identity.name, generation: identity.generation }, chain))
}

/// Waits until a certificate that was shown would not be believed any more.
async fn disbelieved(mut papers: Current, chain: &[CertificateDer<'_>]) {
    while papers.believes(chain) {
        papers.exchanged().await;
    }
}

async fn greet(mut socket: TcpStream, peer: SocketAddr, papers: &Current) -> Option<Secured> {
    let mut first = [0];
    match socket.peek(&mut first).await {
        Ok(1..) => {}
        Ok(_) | Err(_) => return None,
    }
    // No TLS record begins with a letter, every HTTP request does.
    if first[0].is_ascii_alphabetic() {
        debug!(peer.addr = %peer, "A peer spoke plain HTTP to the TLS port");
        refuse(&mut socket, "400 Bad Request", "this port speaks HTTPS: write https:// instead of http://").await;
        return None;
    }
    match TlsAcceptor::from(papers.config()).accept(Unstalled::new(socket)).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            debug!(peer.addr = %peer, error = %error, "A TLS handshake failed");
            None
        }
    }
}

/// Answers with one line, without looking at the request, and closes.
pub(super) async fn refuse(socket: &mut (impl AsyncWrite + Unpin), status: &str, line: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{line}\n",
        line.len() + 1
    );
    // The peer is turned away either way.
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
}

/// Serves requests until the peer goes or stops reading (`socket` is [`Unstalled`] somewhere below), or until the manager stops and those in progress are answered.
pub(super) async fn serve(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    door: Door,
    connections: Connections,
) {
    let Connections { app, shutdown, .. } = connections;
    let shown = door.to_string();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(door.clone());
        app.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            match timeout(DRAIN, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => return debug!(peer.addr = %shown, "A connection was cut because its requests did not end in time"),
            }
        }
    };
    if let Err(error) = ended {
        debug!(peer.addr = %shown, error = %error, "A connection ended with an error");
    }
}
