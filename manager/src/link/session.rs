//! One session: the task that owns the connection of one agent.
//!
//! The loop is `next()`, which only waits, and `apply()`, which never does. The handle in the registry speaks to it;
//! its last word fences it: frames that arrive behind it no longer count (protocol R-SESSION-5).

use std::net::SocketAddr;

use common::error::Chain;
use common::frame::FrameError;
use common::handshake::{self, Hello, Refusal};
use common::id::{Epoch, Name};
use common::limits;
use common::link::{Lane, LinkError, Reader, Writer};
use common::liveness::{Liveness, Pulse};
use common::session::{Judgement, Side, Stage, judge};
use common::tls::Identity;
use common::wire::bye::Code;
use common::wire::frame::Body;
use common::wire::{self, Frame, nak};
use store::types::{Due, DueKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::inbound::{Answer, Inbound};
use super::messages;
use crate::limits::{GOODBYE, MAX_ANSWERS, MAX_QUEUED, ORDERS_AT_ONCE};
use crate::registry::{Order, Orders, SessionHandle};
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

/// A peer whose certificate was verified and whose hello was read.
pub struct Greeted<S> {
    reader: Reader<ReadHalf<S>>,
    writer: Writer<WriteHalf<S>>,
    hello: Hello,
    address: SocketAddr,
}

/// Reads and judges the hello. The caller bounds the time.
///
/// # Errors
/// When the peer is not to be served; it was told then.
pub async fn greet<S>(io: S, peer: &Identity, cluster: &Name, address: SocketAddr) -> Result<Greeted<S>, Unserved>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (read, write) = tokio::io::split(io);
    let mut reader = Reader::new(read, limits::MAX_FRAME_BEFORE_HELLO);
    let mut writer = Writer::new(write);
    let refusal = match reader.next().await {
        Ok(Some(frame)) => match handshake::read_hello(&frame, peer, cluster) {
            Ok(hello) => {
                reader.set_limit(limits::MAX_FRAME);
                return Ok(Greeted { reader, writer, hello, address });
            }
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
    /// Opens the session and runs it until it ends.
    ///
    /// # Errors
    /// When the service does not let the agent in; it was told then.
    pub async fn serve(mut self, service: &Service) -> Result<(), Unserved> {
        let opened = match service.open_session(&self.hello, &self.address.to_string()).await {
            Ok(opened) => opened,
            Err(refusal) => {
                say_goodbye(&mut self.writer, &refusal).await;
                return Err(Unserved::Refused(refusal));
            }
        };
        let (epoch, heartbeat) = (opened.welcome.epoch, opened.welcome.heartbeat);
        self.writer.push(Lane::Control, handshake::welcome(&opened.welcome));
        let name = self.hello.name.clone();
        tracing::info!(
            agent.id = %name, session.id = epoch.0, peer.addr = %self.address,
            version = common::escape::text(&self.hello.agent_version), "agent connected"
        );
        let session = Session {
            inbound: Inbound::new(service.clone(), name.clone(), opened.handle.clone()),
            service: service.clone(),
            name: name.clone(),
            epoch,
            handle: opened.handle,
            orders: opened.orders,
            reader: self.reader,
            writer: self.writer,
            knows: self.hello.capabilities,
            liveness: Liveness::new(heartbeat, Instant::now()),
            proofs: Vec::new(),
        };
        session.run().await;
        service.close_session(&name, epoch).await;
        Ok(())
    }
}

struct Session<S> {
    service: Service,
    name: Name,
    epoch: Epoch,
    handle: SessionHandle,
    orders: Orders,
    reader: Reader<ReadHalf<S>>,
    writer: Writer<WriteHalf<S>>,
    inbound: Inbound,
    /// Words of optional behaviour that the agent named.
    knows: Vec<String>,
    liveness: Liveness,
    /// Pings that somebody waits for, by their sequence number.
    proofs: Vec<(u64, oneshot::Sender<()>)>,
}

/// What happened next.
enum Step {
    Frame(Box<Frame>),
    Order(Order),
    Answers(Vec<Answer>),
    Pulse,
    End(End),
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    /// We end it and say why.
    Bye(Refusal),
    /// The peer said goodbye or closed.
    Left(String),
    /// The connection is no good any more.
    Broken(LinkError),
    /// The peer is silent.
    Dead,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    async fn run(mut self) {
        let end = loop {
            let step = self.next().await;
            if let Err(end) = self.apply(step) {
                break end;
            }
        };
        let refusal = match &end {
            End::Bye(refusal) => Some(refusal.clone()),
            End::Broken(LinkError::Frame(error)) => Some(broken_frame(error)),
            End::Dead => Some(Refusal::new(Code::Timeout, "nothing was heard for too long")),
            End::Left(_) | End::Broken(_) => None,
        };
        if let Some(refusal) = refusal {
            if refusal.code == Code::ProtocolError {
                self.service.counters().violations.add(1);
            }
            if refusal.code == Code::Draining {
                // What is being recorded is worth its answer; the agent would only say it again.
                let _ = timeout(GOODBYE, self.finish()).await;
            }
            say_goodbye(&mut self.writer, &refusal).await;
        }
        self.log(&end);
    }

    /// Waits for whatever comes first. What was asked from outside comes before what the agent says.
    async fn next(&mut self) -> Step {
        let reading = self.writer.queued(Lane::Control) < MAX_ANSWERS && self.inbound.has_room();
        let ordering = self.writer.queued_bytes() < MAX_QUEUED;
        if !reading {
            // What the agent says waits unread on our side; a writer that stalls ends the session by itself.
            self.liveness.heard(Instant::now());
        }
        let pulse = match self.liveness.poll(Instant::now()) {
            Pulse::Wait(until) => until,
            Pulse::Dead => return Step::End(End::Dead),
            Pulse::Ping => return Step::Pulse,
        };
        tokio::select! {
            biased;
            word = self.orders.closing.heard() => Step::End(End::Bye(word.refusal().clone())),
            answers = self.inbound.next() => match answers {
                Ok(answers) => Step::Answers(answers),
                Err(refusal) => Step::End(End::Bye(refusal)),
            },
            Some(order) = self.orders.orders.recv(), if ordering => Step::Order(order),
            end = self.writer.drive() => match end {
                Ok(never) => match never {},
                Err(error) => Step::End(End::Broken(error)),
            },
            frame = self.reader.next(), if reading => match frame {
                Ok(Some(frame)) => Step::Frame(Box::new(frame)),
                Ok(None) => Step::End(End::Left("closed".to_owned())),
                Err(error) => Step::End(End::Broken(error)),
            },
            () = sleep_until(pulse) => Step::Answers(Vec::new()),
        }
    }

    fn apply(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::End(end) => return Err(end),
            Step::Answers(answers) => self.answer(answers),
            Step::Order(order) => self.take_orders(order),
            Step::Frame(frame) => return self.take_frame(*frame),
            Step::Pulse => {
                self.ping();
            }
        }
        Ok(())
    }

    fn answer(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            self.writer.reply(Lane::Control, answer.reply_to, answer.body);
        }
    }

    /// Carries our clock and the position of our store (protocol R-LIVE-2).
    fn ping(&mut self) -> u64 {
        let store_position = self.service.store().position().position.0;
        self.writer.push(Lane::Control, Body::Ping(wire::Ping { clock_ms: self.service.now(), store_position }))
    }

    fn take_orders(&mut self, first: Order) {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(order) = next.take() {
            match order {
                Order::Deliver(due) => self.deliver(due),
                Order::ProveAlive(answer) => {
                    let seq = self.ping();
                    self.proofs.push((seq, answer));
                }
            }
            taken += 1;
            if taken < ORDERS_AT_ONCE {
                next = self.orders.orders.try_recv().ok();
            }
        }
        if self.handle.take_starved() {
            self.service.wake().agent(&self.name);
        }
    }

    fn deliver(&mut self, due: Due) {
        match due.what {
            DueKind::Send(command) => {
                let store_position = self.service.store().position().position.0;
                let frame = messages::command(&command, store_position);
                // An agent that is too old to read what a command needs would run it without (protocol R-CMD-11).
                if let Some(word) = frame.needs.iter().find(|word| !self.knows.contains(word)) {
                    self.inbound.refuse(due.uid, word);
                    return;
                }
                let seq = self.writer.push(Lane::Control, Body::Command(frame));
                self.inbound.sent(seq, due.uid, due.id);
                self.service.counters().sent.add(1);
            }
            DueKind::Cancel(wish, expires, generation) => {
                let frame = messages::cancel(due.uid, due.id, &wish, expires, generation);
                // Its end may come from an agent that never saw the command.
                self.inbound.owns(due.uid, due.id);
                self.writer.push(Lane::Control, Body::CommandCancel(frame));
                self.service.counters().cancels_sent.add(1);
            }
            DueKind::Pause(wish, generation) => {
                let frame = messages::pause(due.uid, due.id, &wish, generation);
                let seq = self.writer.push(Lane::Control, Body::CommandPause(frame));
                self.inbound.wished(seq, due.uid, wish.wish);
            }
        }
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), End> {
        if self.orders.closing.fenced() {
            // The last word is on its way; what a fenced session says does not count.
            return Ok(());
        }
        self.liveness.heard(Instant::now());
        let (seq, reply_to) = (frame.seq, frame.reply_to);
        match judge(Side::Agent, Stage::Open, &frame) {
            Judgement::Process => {}
            Judgement::Skip => return Ok(()),
            Judgement::Unsupported => {
                let refusal = wire::Nak { code: nak::Code::Unsupported.into(), reason: "unknown frame".to_owned() };
                self.writer.reply(Lane::Control, seq, Body::Nak(refusal));
                return Ok(());
            }
            Judgement::Violation(reason) => return Err(End::Bye(Refusal::new(Code::ProtocolError, reason))),
        }
        match frame.body {
            Some(Body::Bye(bye)) => return Err(End::Left(common::escape::text(&bye.reason))),
            Some(Body::Ping(_)) => {
                self.writer.reply(Lane::Control, seq, Body::Pong(wire::Pong { clock_ms: self.service.now() }));
            }
            Some(Body::Pong(_)) => self.proved(reply_to),
            Some(body) => match self.inbound.frame(seq, reply_to, body) {
                Ok(Some(answer)) => self.answer(vec![answer]),
                Ok(None) => {}
                Err(violation) => return Err(End::Bye(Refusal::new(Code::ProtocolError, violation.0))),
            },
            None => {}
        }
        Ok(())
    }

    /// Only the answer to the very ping proves life: older frames may have waited in buffers of a host that is gone.
    fn proved(&mut self, reply_to: u64) {
        if let Some(at) = self.proofs.iter().position(|(seq, _)| *seq == reply_to) {
            let (_, answer) = self.proofs.swap_remove(at);
            // Nobody waits any more: the newcomer gave up.
            let _ = answer.send(());
        }
    }

    /// Waits for what is being recorded and queues the answers.
    async fn finish(&mut self) {
        while !self.inbound.is_idle() {
            match self.inbound.next().await {
                Ok(answers) => self.answer(answers),
                Err(_) => return,
            }
        }
    }

    fn log(&self, end: &End) {
        let (name, epoch) = (&self.name, self.epoch.0);
        match end {
            End::Bye(refusal) => {
                tracing::info!(agent.id = %name, session.id = epoch, code = ?refusal.code, reason = refusal.reason, "session ended by the manager");
            }
            End::Left(reason) => tracing::info!(agent.id = %name, session.id = epoch, reason, "agent left"),
            End::Dead => tracing::warn!(agent.id = %name, session.id = epoch, "agent is silent; its session is over"),
            End::Broken(error) => {
                tracing::info!(agent.id = %name, session.id = epoch, error = %Chain(error), "the connection to an agent broke");
            }
        }
    }
}

/// What a peer is told whose bytes are not frames.
fn broken_frame(error: &FrameError) -> Refusal {
    match error {
        FrameError::TooLarge { .. } => Refusal::new(Code::FrameTooLarge, error.to_string()),
        _ => Refusal::new(Code::ProtocolError, error.to_string()),
    }
}

/// Says why, if the peer still listens.
async fn say_goodbye<W: AsyncWrite + Unpin>(writer: &mut Writer<W>, refusal: &Refusal) {
    writer.push(Lane::Control, refusal.bye());
    // The peer may be gone; it finds out why by asking again.
    let _ = timeout(GOODBYE, writer.close()).await;
}
