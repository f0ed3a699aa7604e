//! The first frame of a peer: who it is by TLS decides what it may say, and what it says decides what becomes of it.
//!
//! ```text
//! an agent ───────────────► hello ─────────────────► session
//! a stranger ─────────────► hello with join, csr ──► certificate and goodbye (protocol R-JOIN-1)
//! an agent, expired ──────► hello with csr ────────► certificate and goodbye (protocol R-JOIN-6)
//! anything else ──────────► goodbye with the reason
//! ```
//! The caller bounds the time. Nothing is read behind the hello of a peer that gets no session.

use std::net::SocketAddr;

use common::frame::FrameError;
use common::handshake::{First, Refusal, read_first};
use common::id::Name;
use common::limits;
use common::link::{Lane, LinkError, Reader, Writer};
use common::tls::LinkPeer;
use common::wire::bye::Code;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::session;
use crate::limits::GOODBYE;
use crate::service::Service;

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum Unserved {
    /// The peer was told why.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The connection failed before anything could be said.
    #[error("the connection failed before the hello")]
    Link(#[source] LinkError),
    /// The peer closed before its hello.
    #[error("closed before its hello")]
    Silent,
}

/// A peer whose hello was read.
pub struct Greeted<S> {
    reader: Reader<ReadHalf<S>>,
    writer: Writer<WriteHalf<S>>,
    address: SocketAddr,
    first: First,
}

/// Reads and judges the hello.
///
/// # Errors
/// When the peer is not to be served; it was told then.
pub async fn greet<S>(io: S, peer: &LinkPeer, cluster: &Name, address: SocketAddr) -> Result<Greeted<S>, Unserved>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (read, write) = tokio::io::split(io);
    let mut reader = Reader::new(read, limits::MAX_FRAME_BEFORE_HELLO);
    let mut writer = Writer::new(write);
    let refusal = match reader.next().await {
        Ok(Some(frame)) => match read_first(&frame, peer, cluster) {
            Ok(first) => return Ok(Greeted { reader, writer, address, first }),
            Err(refusal) => refusal,
        },
        Ok(None) => return Err(Unserved::Silent),
        Err(LinkError::Frame(error)) => broken_frame(&error),
        Err(error) => return Err(Unserved::Link(error)),
    };
    say_goodbye(&mut writer, &refusal).await;
    Err(Unserved::Refused(refusal))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Greeted<S> {
    /// Tells whether the peer wants a session: others keep their place among the unauthenticated.
    #[must_use]
    pub fn wants_session(&self) -> bool {
        matches!(self.first, First::Session(_))
    }

    /// Gives the peer what it came for: a session until it ends, or a certificate.
    ///
    /// # Errors
    /// When the service does not want it; it was told then.
    pub async fn serve(mut self, service: &Service) -> Result<(), Unserved> {
        let (version, answered) = match self.first {
            First::Session(hello) => {
                self.reader.set_limit(limits::MAX_FRAME);
                let refusal = match service.open_session(&hello, self.address).await {
                    Ok(opened) => {
                        let connection = session::Connection { reader: self.reader, writer: self.writer };
                        session::run(service, opened, *hello, connection, self.address).await;
                        return Ok(());
                    }
                    Err(refusal) => refusal,
                };
                (hello.version, Err(refusal))
            }
            First::Join(join) => (join.version, service.join(join, self.address).await),
            First::Recover(recover) => (recover.version, service.recover(recover, self.address).await),
        };
        match answered {
            Ok(issued) => {
                self.writer.push(Lane::Control, service.issued(version, issued));
                say_goodbye(&mut self.writer, &Refusal::new(Code::Normal, "dial again with the certificate")).await;
                Ok(())
            }
            Err(refusal) => {
                say_goodbye(&mut self.writer, &refusal).await;
                Err(Unserved::Refused(refusal))
            }
        }
    }
}

/// What a peer is told whose bytes are not frames.
pub(super) fn broken_frame(error: &FrameError) -> Refusal {
    match error {
        FrameError::TooLarge { .. } => Refusal::new(Code::FrameTooLarge, error.to_string()),
        _ => Refusal::new(Code::ProtocolError, error.to_string()),
    }
}

/// Says why, if the peer still listens.
pub(super) async fn say_goodbye<W: AsyncWrite + Unpin>(writer: &mut Writer<W>, refusal: &Refusal) {
    writer.push(Lane::Control, refusal.bye());
    // The peer may be gone; it finds out why by asking again.
    let _ = timeout(GOODBYE, writer.close()).await;
}
