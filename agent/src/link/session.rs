//! An open session: frames in, frames out, liveness, the renewal of the certificate. It judges every frame, answers what
//! is the link's own business and passes the rest up. It holds no fact that matters after it: dropping it loses nothing.

use std::time::Duration;

use common::frame::FrameError;
use common::handshake::{Welcome, WelcomeError, refused};
use common::limits;
use common::link::{Lane, LinkError, Reader, Writer};
use common::liveness::{Liveness, Pulse};
use common::session::{Judgement, Side, Stage, judge};
use common::wire::frame::Body;
use common::wire::{Bye, Nak, Ping, Pong, bye, nak};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until, timeout};

use super::dial::Duplex;
use super::renewal::Renewal;
use crate::identity::Credentials;

/// How long a goodbye may take to leave.
const GOODBYE: Duration = Duration::from_secs(2);

/// What arrived for the owner of the session.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Its number: answers name it.
    pub(crate) seq: u64,
    /// The number of our frame that it answers, or 0.
    pub(crate) reply_to: u64,
    /// What it says.
    pub(crate) body: Body,
}

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the manager closed the connection")]
    Closed,
    #[error("the connection was lost")]
    Lost(#[source] LinkError),
    #[error("the manager was silent for too long")]
    Dead,
    #[error("the manager said goodbye: {}", common::escape::text(.reason))]
    Bye { code: bye::Code, reason: String, retry_after: Option<Duration> },
    #[error("the manager broke the protocol: {0}")]
    Violation(&'static str),
    #[error("the agent stops")]
    Stopped,
    #[error("the certificate was renewed")]
    Renewed(Box<Credentials>),
}

/// One authenticated connection with hellos exchanged.
pub(crate) struct Session {
    /// What the manager granted.
    pub(crate) welcome: Welcome,
    reader: Reader<ReadHalf<Box<dyn Duplex>>>,
    writer: Writer<WriteHalf<Box<dyn Duplex>>>,
    liveness: Liveness,
    /// Looks after the certificate that this session was opened with.
    renewal: Option<Box<Renewal>>,
    /// The next identity: kept, and about to be used.
    renewed: Option<Box<Credentials>>,
    /// When it began.
    pub(crate) since: Instant,
}

impl Session {
    pub(super) fn new(
        reader: Reader<ReadHalf<Box<dyn Duplex>>>,
        writer: Writer<WriteHalf<Box<dyn Duplex>>>,
        welcome: Welcome,
    ) -> Self {
        let now = Instant::now();
        let liveness = Liveness::new(welcome.heartbeat, now);
        Self { welcome, reader, writer, liveness, renewal: None, renewed: None, since: now }
    }

    /// Lets the session renew the certificate that it was opened with.
    pub(super) fn renew_with(&mut self, renewal: Renewal) {
        self.renewal = Some(Box::new(renewal));
    }

    /// Queues a frame; answers its number.
    pub(crate) fn push(&mut self, lane: Lane, body: Body) -> u64 {
        self.writer.push(lane, body)
    }

    /// Queues the answer to a frame.
    pub(crate) fn reply(&mut self, to: u64, body: Body) {
        self.writer.reply(Lane::Control, to, body);
    }

    /// Queues a refusal of a frame.
    pub(crate) fn nak(&mut self, to: u64, code: nak::Code, reason: impl Into<String>) {
        let mut reason = reason.into();
        common::handshake::truncate(&mut reason, limits::MAX_TEXT_BYTES);
        self.reply(to, Body::Nak(Nak { code: code.into(), reason }));
    }

    /// Counts the bytes that wait to leave.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.writer.queued_bytes()
    }

    /// Waits for the next frame that is not the link's own business, writing what is queued meanwhile.
    ///
    /// `hungry` ends the wait with `Ok(None)` as soon as everything queued has left: the owner has more. The kernel's
    /// send buffer keeps the wire busy meanwhile.
    ///
    /// # Errors
    /// The session is over.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn next(&mut self, hungry: bool) -> Result<Option<Incoming>, End> {
        loop {
            if self.renewed.is_some() {
                self.close(bye::Code::Normal, "the certificate was renewed").await;
            }
            if let Some(next) = self.renewed.take() {
                return Err(End::Renewed(next));
            }
            let now = Instant::now();
            let renewal_due = self.renew(now);
            let due = match self.liveness.poll(now) {
                Pulse::Wait(until) => renewal_due.map_or(until, |due| due.min(until)),
                Pulse::Ping => {
                    let ping = Ping { clock_ms: common::clock::unix_ms(), store_position: 0 };
                    self.writer.push(Lane::Control, Body::Ping(ping));
                    continue;
                }
                Pulse::Dead => return Err(End::Dead),
            };
            let Self { reader, writer, renewal, .. } = self;
            let frame = tokio::select! {
                frame = reader.next() => match frame {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return Err(End::Closed),
                    Err(LinkError::Frame(error)) => {
                        let code = match error {
                            FrameError::TooLarge { .. } => bye::Code::FrameTooLarge,
                            _ => bye::Code::ProtocolError,
                        };
                        self.close(code, "the bytes are not a frame").await;
                        return Err(End::Lost(LinkError::Frame(error)));
                    }
                    Err(error) => return Err(End::Lost(error)),
                },
                end = drain(writer, hungry) => match end {
                    Ok(()) => return Ok(None),
                    Err(error) => return Err(End::Lost(error)),
                },
                next = kept(renewal) => {
                    self.renewed = Some(Box::new(next));
                    continue;
                }
                () = sleep_until(due) => continue,
            };
            self.liveness.heard(Instant::now());
            match judge(Side::Manager, Stage::Open, &frame) {
                Judgement::Process => {}
                Judgement::Skip => continue,
                Judgement::Unsupported => {
                    self.nak(frame.seq, nak::Code::Unsupported, "this agent does not know such a frame");
                    continue;
                }
                Judgement::Violation(reason) => {
                    self.close(bye::Code::ProtocolError, reason).await;
                    return Err(End::Violation(reason));
                }
            }
            let Some(body) = frame.body else { continue };
            if self.hear_renewal(frame.seq, frame.reply_to, &body) {
                continue;
            }
            match &body {
                Body::Bye(said) => {
                    let WelcomeError::Refused { code, reason, retry_after } = refused(said) else {
                        return Err(End::Closed);
                    };
                    return Err(End::Bye { code, reason, retry_after });
                }
                // With our clock in it (protocol R-LIVE-2).
                Body::Ping(_) => self.reply(frame.seq, Body::Pong(Pong { clock_ms: common::clock::unix_ms() })),
                _ => {}
            }
            return Ok(Some(Incoming { seq: frame.seq, reply_to: frame.reply_to, body }));
        }
    }

    /// Asks for the next certificate if it is time; answers when to look again.
    fn renew(&mut self, now: Instant) -> Option<Instant> {
        let renewal = self.renewal.as_mut()?;
        if let Some((body, request)) = renewal.request(now) {
            let seq = self.writer.push(Lane::Control, body);
            renewal.asked(seq, request, now);
        }
        Some(renewal.wake(now))
    }

    /// Lets the renewal hear a frame; answers whether it was its business and nobody else's.
    fn hear_renewal(&mut self, seq: u64, reply_to: u64, body: &Body) -> bool {
        let Some(renewal) = &mut self.renewal else { return matches!(body, Body::Renew(_)) };
        match body {
            Body::Renew(renew) => {
                if let Err(reason) = renewal.hear(reply_to, renew) {
                    self.nak(seq, nak::Code::Invalid, reason);
                }
                true
            }
            Body::Nak(refusal) => renewal.hear_refusal(reply_to, refusal),
            _ => false,
        }
    }

    /// Says goodbye, as far as the peer still listens.
    pub(crate) async fn close(&mut self, code: bye::Code, reason: &str) {
        let mut reason = reason.to_owned();
        common::handshake::truncate(&mut reason, limits::MAX_TEXT_BYTES);
        let bye = Bye { code: code.into(), reason, retry_after_ms: 0 };
        self.writer.push(Lane::Control, Body::Bye(bye));
        // A peer that does not listen any more loses only our manners.
        let _ = timeout(GOODBYE, self.writer.close()).await;
    }
}

/// Waits for the next identity; for ever where nobody looks after it.
async fn kept(renewal: &mut Option<Box<Renewal>>) -> Credentials {
    match renewal {
        Some(renewal) => renewal.kept().await,
        None => std::future::pending().await,
    }
}

/// Writes what is queued; comes back only if that is wanted.
async fn drain<W: tokio::io::AsyncWrite + Unpin>(writer: &mut Writer<W>, come_back: bool) -> Result<(), LinkError> {
    if come_back { writer.flush().await } else { writer.drive().await.map(|never| match never {}) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use common::handshake::{HelloParams, WelcomeParams, welcome};
    use common::id::{Epoch, Incarnation, StorePosition, Uid};
    use common::version::Version;
    use common::wire::Frame;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::super::dial::{DialError, greet};
    use super::*;

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

    fn said(cluster: &str) -> Body {
        welcome(&WelcomeParams {
            version: Version::V1,
            epoch: Epoch(1),
            incarnation: Incarnation(1),
            store_position: StorePosition(1),
            heartbeat: Duration::from_secs(10),
            manager_addresses: Vec::new(),
            cluster: cluster.parse().unwrap(),
            clock_ms: 1,
            bundle_hash: None,
        })
    }

    async fn write(far: &mut DuplexStream, frame: &Frame) {
        let mut bytes = bytes::BytesMut::new();
        common::frame::encode(frame, &mut bytes).unwrap();
        far.write_all(&bytes).await.unwrap();
    }

    /// A session whose manager answered with `answer`, and the manager's end of the wire behind the hello.
    async fn greeted(answer: Body) -> (Result<Session, DialError>, DuplexStream) {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        // The answer may be there before the question: the wire keeps it.
        write(&mut far, &Frame { seq: 1, body: Some(answer), ..Frame::default() }).await;
        let session = greet(Box::new(near), &hello()).await;
        let mut reader = Reader::new(&mut far, limits::MAX_FRAME);
        assert!(matches!(reader.next().await.unwrap().unwrap().body, Some(Body::ClientHello(_))));
        (session, far)
    }

    #[tokio::test]
    async fn a_manager_of_another_cluster_or_one_that_refuses_gives_no_session() {
        assert!(matches!(greeted(said("c2")).await.0, Err(DialError::Cluster(found)) if found.as_str() == "c2"));
        let bye = Bye { code: bye::Code::Banned.into(), reason: "no".into(), retry_after_ms: 0 };
        let refused = greeted(Body::Bye(bye)).await.0;
        assert!(matches!(refused, Err(DialError::Welcome(WelcomeError::Refused { code: bye::Code::Banned, .. }))));
        let ping = greeted(Body::Ping(Ping::default())).await.0;
        assert!(matches!(ping, Err(DialError::Welcome(WelcomeError::Protocol(_)))));
    }

    #[tokio::test]
    async fn an_unknown_frame_is_refused_or_skipped_as_its_sender_wished() {
        let (session, mut far) = greeted(said("c1")).await;
        let mut session = session.ok().unwrap();
        write(&mut far, &Frame { seq: 2, may_ignore: true, ..Frame::default() }).await;
        write(&mut far, &Frame { seq: 3, ..Frame::default() }).await;
        write(&mut far, &Frame { seq: 4, body: Some(Body::Ping(Ping::default())), ..Frame::default() }).await;
        let heard = session.next(false).await.unwrap().unwrap();
        assert_eq!(heard.seq, 4);
        assert!(session.next(true).await.unwrap().is_none(), "everything has left");
        let mut reader = Reader::new(&mut far, limits::MAX_FRAME);
        let first = reader.next().await.unwrap().unwrap();
        assert_eq!(first.reply_to, 3);
        assert!(matches!(first.body, Some(Body::Nak(nak)) if nak.code() == nak::Code::Unsupported));
        let second = reader.next().await.unwrap().unwrap();
        assert!(second.reply_to == 4 && matches!(second.body, Some(Body::Pong(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_manager_is_pinged_and_then_given_up() {
        let (session, mut far) = greeted(said("c1")).await;
        let mut session = session.ok().unwrap();
        let start = Instant::now();
        assert!(matches!(session.next(false).await, Err(End::Dead)));
        assert_eq!(start.elapsed(), Duration::from_secs(25));
        let mut reader = Reader::new(&mut far, limits::MAX_FRAME);
        for _ in 0..2 {
            assert!(matches!(reader.next().await.unwrap().unwrap().body, Some(Body::Ping(_))));
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_frame_end_the_session_with_a_code() {
        for (bytes, code) in [
            ([0, 0, 0, 0], bye::Code::ProtocolError),
            ([0, 0x10, 0, 1], bye::Code::FrameTooLarge),
            (*b"GET ", bye::Code::ProtocolError),
        ] {
            let (session, mut far) = greeted(said("c1")).await;
            far.write_all(&bytes).await.unwrap();
            assert!(matches!(session.ok().unwrap().next(false).await, Err(End::Lost(LinkError::Frame(_)))));
            let mut reader = Reader::new(&mut far, limits::MAX_FRAME);
            let last = reader.next().await.unwrap().unwrap();
            assert!(matches!(last.body, Some(Body::Bye(bye)) if bye.code() == code), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_manager_that_closes_or_cuts_a_frame_is_told_apart() {
        let (session, far) = greeted(said("c1")).await;
        drop(far);
        assert!(matches!(session.ok().unwrap().next(false).await, Err(End::Closed)));
        let (session, mut far) = greeted(said("c1")).await;
        far.write_all(&[0, 0, 1, 0, 9]).await.unwrap();
        drop(far);
        assert!(matches!(session.ok().unwrap().next(false).await, Err(End::Lost(LinkError::Truncated))));
    }
}
