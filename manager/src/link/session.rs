//! One session: the task that owns the connection of one agent.
//!
//! The loop is `next()`, which only waits, and `apply()`, which never does. The handle in the registry speaks to it;
//! its last word fences it: frames that arrive behind it no longer count (protocol R-SESSION-5).

use std::net::SocketAddr;

use common::error::Chain;
use common::handshake::{self, Hello, Refusal, Renewal};
use common::id::{Epoch, Name};
use common::link::{Lane, LinkError, Reader, Writer};
use common::liveness::{Liveness, Pulse};
use common::session::{Judgement, Side, Stage, judge};
use common::version::capability::RENEW;
use common::wire::bye::Code;
use common::wire::frame::Body;
use common::wire::{self, Frame, nak};
use store::types::{self as rows, DueKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::greeting::{broken_frame, say_goodbye};
use super::inbound::{Answer, Inbound};
use super::messages;
use super::standing::{Due, Standing};
use crate::limits::{GOODBYE, MAX_ANSWERS, MAX_QUEUED, ORDERS_AT_ONCE};
use crate::registry::{Order, Orders, SessionHandle};
use crate::service::Service;
use crate::service::sessions::Opened;

/// The two halves of a connection whose hello was read.
pub(super) struct Connection<S> {
    pub(super) reader: Reader<ReadHalf<S>>,
    pub(super) writer: Writer<WriteHalf<S>>,
}

/// Runs a session that was opened until it ends.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    service: &Service,
    opened: Opened,
    hello: Hello,
    connection: Connection<S>,
    address: SocketAddr,
) {
    let Connection { reader, mut writer } = connection;
    let (epoch, heartbeat) = (opened.welcome.epoch, opened.welcome.heartbeat);
    writer.push(Lane::Control, handshake::welcome(&opened.welcome));
    let name = hello.name.clone();
    tracing::info!(
        agent.id = %name, session.id = epoch.0, peer.addr = %address,
        version = common::escape::text(&hello.agent_version), "agent connected"
    );
    let renews = hello.capabilities.iter().any(|word| word == RENEW);
    let standing = Standing::new(service, &hello, address.ip(), opened.welcome.bundle_hash, renews);
    let session = Session {
        inbound: Inbound::new(service.clone(), name.clone(), opened.handle.clone()),
        standing,
        service: service.clone(),
        name: name.clone(),
        epoch,
        handle: opened.handle,
        orders: opened.orders,
        reader,
        writer,
        knows: hello.capabilities,
        liveness: Liveness::new(heartbeat, Instant::now()),
        proofs: Vec::new(),
    };
    session.run().await;
    service.close_session(&name, epoch).await;
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
    /// How long it may last, and when its agent has to renew.
    standing: Standing,
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
    Standing(Due),
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
        if let Some(due) = self.standing.due(Instant::now()) {
            return Step::Standing(due);
        }
        let wake = self.standing.wake().min(pulse);
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
            () = self.standing.changed() => Step::Answers(Vec::new()),
            () = sleep_until(wake) => Step::Answers(Vec::new()),
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
            Step::Standing(Due::End(refusal)) => return Err(End::Bye(refusal)),
            Step::Standing(Due::Renew(bundle)) => {
                self.writer.push(Lane::Control, Renewal::Due(bundle).body());
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

    fn deliver(&mut self, due: rows::Due) {
        match due.what {
            DueKind::Send(command) => {
                let store_position = self.service.store().position().position.0;
                let mut frame = messages::command(&command, store_position);
                // An agent that is too old to read what a command needs would run it without (protocol R-CMD-11).
                if let Some(word) = frame.needs.iter().find(|word| !self.knows.contains(word)) {
                    self.inbound.too_old(due.uid, word);
                    return;
                }
                frame.secrets = match self.service.seals().open(&command.request.secrets) {
                    Ok(secrets) => secrets,
                    // It never left, and what settled before this session says that the agent has not got it (protocol
                    // R-SECRET-4, R-CMD-9).
                    Err(error) => return self.inbound.not_sent(due.uid, "secrets_lost", error.to_string()),
                };
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
