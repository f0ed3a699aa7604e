//! The way up of one session: what the agent says becomes calls of the store, and what they committed becomes answers.
//!
//! ```text
//! frame ─► InFlight (many at once, in order) ─► store ─► Done ─► answers
//! output ─► waits ─► one append at a time, everything that waits in it ─► credit
//! result ─► END committed ─► every byte stored? ─► output synced ─► ResultAck
//! inventory ─► one page at a time ─► Reconcile
//! ```
//! No sockets here. A failure of the store ends the session; the next one repairs by its inventory. A malformed message
//! about one command is refused and does not: the next session would only hear it again (protocol R-RES-6).

use std::collections::{HashMap, HashSet};

use common::crash;
use common::credit::ReceiveWindow;
use common::error::Chain;
use common::handshake::{Refusal, Renewal, read_renew};
use common::id::{CommandId, Name, Uid};
use common::limits;
use common::model::StreamName;
use common::wire::bye::Code;
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{self, nak};
use store::StoreError;
use store::types::{AckAnswer, Appended, Chunk, PauseHeard, Reported, ResultTaken};
use tokio::time::Instant;

use super::complaints::Complaints;
use super::endings;
use super::inflight::InFlight;
use super::listing::Listing;
use super::messages::{self, Malformed};
use super::pace::Meter;
use super::questions::{Question, Questions, Refused};
use super::reconcile::{Own, judge_page};
use crate::limits::{MAX_IN_FLIGHT, MAX_OUTPUT_PIECES, RENEWALS, RETRY_AFTER_HOLE};
use crate::registry::SessionHandle;
use crate::service::Service;

/// A frame for the agent, in lane control.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The frame it answers, 0 for none.
    pub reply_to: u64,
    /// What is said.
    pub body: Body,
}

impl Answer {
    fn push(body: Body) -> Self {
        Self { reply_to: 0, body }
    }

    fn nak(reply_to: u64, code: nak::Code, reason: &str) -> Self {
        Self { reply_to, body: Body::Nak(wire::Nak { code: code.into(), reason: reason.to_owned() }) }
    }
}

/// What an agent sent breaks the rules of the session itself: its stages, its limits or its credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation(pub &'static str);

/// Why a frame was not taken.
enum Fault {
    /// What it says about one command cannot be true: it is refused, and the session goes on.
    Refused(Malformed),
    /// The session is over.
    Over(Violation),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Refused(malformed)
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Over(violation)
    }
}

/// What a call of the store came to.
enum Done {
    Nothing,
    Nak(Box<Answer>, StoreError),
    Result { uid: Uid, taken: ResultTaken, output: bool },
    Stored { appended: Vec<Appended>, parts: Vec<Part> },
    Acked(Vec<(CommandId, Uid)>),
    Say(Box<Answer>),
    Page(Page),
    Over(Refusal),
}

/// Bytes of one stream in one append.
struct Part {
    uid: Uid,
    command: CommandId,
    stream: StreamName,
    bytes: u64,
}

/// A judged page.
struct Page {
    reply_to: u64,
    items: Vec<wire::ReconcileItem>,
    own: Vec<Own>,
    cancels: Vec<wire::CommandCancel>,
    described: Vec<Uid>,
    last: bool,
}

/// An end that came before the command it belongs to was taken in.
struct Early {
    seq: u64,
    uid: Uid,
    reported: Reported,
}

/// The way up of one session.
pub struct Inbound {
    service: Service,
    agent: Name,
    handle: SessionHandle,
    flight: InFlight<Done>,
    window: ReceiveWindow,
    /// Commands that this session may speak about; the rest is not its own (protocol R-AUTH-3).
    owned: HashMap<Uid, CommandId>,
    asked: Questions,
    output: Vec<(Uid, Chunk)>,
    appending: bool,
    /// Ends that are recorded and not acknowledged: whether there are bytes to wait for.
    ending: HashMap<CommandId, (Uid, bool)>,
    look_at: HashSet<CommandId>,
    acking: bool,
    listing: Listing,
    early: Vec<Early>,
    renewals: Meter,
    complaints: Complaints,
}

impl Inbound {
    /// Starts the way up of a session.
    #[must_use]
    pub fn new(service: Service, agent: Name, handle: SessionHandle) -> Self {
        Self {
            service,
            agent,
            handle,
            flight: InFlight::new(),
            window: ReceiveWindow::new(limits::STREAM_CREDIT, limits::SESSION_CREDIT),
            owned: HashMap::new(),
            asked: Questions::default(),
            output: Vec::new(),
            appending: false,
            ending: HashMap::new(),
            look_at: HashSet::new(),
            acking: false,
            listing: Listing::default(),
            early: Vec::new(),
            renewals: Meter::new(Instant::now()),
            complaints: Complaints::new(Instant::now()),
        }
    }

    /// Tells whether another frame may be read. The bytes of output are bounded by credit, everything else by this. What
    /// fills it is always under way, so there is room again.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.flight.len() + self.early.len() < MAX_IN_FLIGHT
            && self.listing.has_room()
            && self.output.len() < MAX_OUTPUT_PIECES
    }

    /// Tells whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flight.is_empty()
    }

    /// Learns that a Command was sent in the frame `seq`.
    pub fn sent(&mut self, seq: u64, uid: Uid, id: CommandId) {
        self.owned.insert(uid, id);
        self.asked.ask(seq, Question::Command(uid));
    }

    /// Learns that this session may hear about a command.
    pub fn owns(&mut self, uid: Uid, id: CommandId) {
        self.owned.insert(uid, id);
    }

    /// Learns that a wish to pause or to go on was sent in the frame `seq`.
    pub fn wished(&mut self, seq: u64, uid: Uid, wish: u64) {
        self.asked.ask(seq, Question::Pause(uid, wish));
    }

    /// Records that the agent cannot run a command because it does not know a word that the command needs.
    pub fn too_old(&mut self, uid: Uid, word: &str) {
        self.not_sent(uid, "unsupported", format!("this agent does not know `{word}`; a newer release does"));
    }

    /// Records that a command cannot be sent as it is meant, now or ever.
    pub fn not_sent(&mut self, uid: Uid, code: &str, text: String) {
        tracing::warn!(agent.id = %self.agent, command.uid = %uid, code, reason = text, "a command was not sent");
        let answer = AckAnswer::Refused { code: code.to_owned(), text };
        let (service, agent) = (self.service.clone(), self.agent.clone());
        self.flight.push(async move {
            match service.store().acked(&uid, &agent, answer, service.now()).await {
                Err(error) if error.retryable() => Done::Over(crate::service::sessions::refusal(&error)),
                _ => Done::Nothing,
            }
        });
    }

    /// Takes a frame that was judged to have its place here. Answers what can be said at once.
    ///
    /// # Errors
    /// When the frame breaks the rules of the session, which is over then.
    pub fn frame(&mut self, seq: u64, reply_to: u64, body: Body) -> Result<Option<Answer>, Violation> {
        let taken = match body {
            Body::CommandAck(ack) => self.command_ack(seq, reply_to, &ack),
            Body::CommandProgress(progress) => self.command_progress(seq, &progress),
            Body::CommandOutput(output) => self.command_output(seq, output),
            Body::CommandResult(result) => self.command_result(seq, &result),
            Body::Inventory(page) => return self.inventory(seq, &page).map(|()| None),
            Body::Renew(renew) => return Ok(self.renew(seq, &renew)),
            Body::Ack(_) => {
                if let Some(Question::Pause(uid, wish)) = self.asked.answered(reply_to) {
                    self.pause_heard(uid, wish, PauseHeard::Taken);
                }
                Ok(None)
            }
            Body::Nak(nak) => {
                self.nak(reply_to, &nak);
                Ok(None)
            }
            // Everything else is for the session, or needs no answer.
            _ => Ok(None),
        };
        match taken {
            Ok(answer) => Ok(answer),
            Err(Fault::Refused(malformed)) => {
                self.malformed(1, malformed)?;
                Ok(Some(Answer::nak(seq, nak::Code::Invalid, malformed.0)))
            }
            Err(Fault::Over(violation)) => Err(violation),
        }
    }

    /// Counts a malformed frame and says so, unless enough was said.
    fn malformed(&mut self, lines: usize, Malformed(reason): Malformed) -> Result<(), Violation> {
        let now = Instant::now();
        if let Some(unsaid) = self.complaints.line(now) {
            tracing::warn!(agent.id = %self.agent, reason, lines, unsaid, "an agent sent a malformed message");
        }
        self.complaints.malformed(now)
    }

    /// Waits for the next call of the store to end and answers what is to be said.
    ///
    /// # Errors
    /// What to tell the agent when the session cannot go on.
    ///
    /// # Cancel safety
    /// Safe: a call that has not ended stays under way.
    pub async fn next(&mut self) -> Result<Vec<Answer>, Refusal> {
        let done = self.flight.next().await;
        self.apply(done)
    }

    fn apply(&mut self, done: Done) -> Result<Vec<Answer>, Refusal> {
        let mut answers = Vec::new();
        match done {
            Done::Nothing => {}
            Done::Say(answer) => answers.push(*answer),
            Done::Nak(answer, error) => {
                if let Some(unsaid) = self.complaints.line(Instant::now()) {
                    tracing::warn!(agent.id = %self.agent, error = %Chain(&error), unsaid, "an agent reported what does not fit");
                }
                answers.push(*answer);
            }
            Done::Over(refusal) => return Err(refusal),
            Done::Result { uid, taken, output } => {
                self.service.counters().results.add(1);
                if taken.acked {
                    crash::point("manager.result.before-ack");
                    self.forget(taken.command, uid, &mut answers);
                    crash::point("manager.result.after-ack");
                    return Ok(answers);
                }
                self.ending.insert(taken.command, (uid, output));
                self.look_at.insert(taken.command);
                self.acknowledge();
            }
            Done::Stored { appended, parts } => {
                self.appending = false;
                self.stored(&appended, &parts, &mut answers);
                self.append();
                self.acknowledge();
            }
            Done::Acked(acked) => {
                self.acking = false;
                for (id, uid) in acked {
                    self.forget(id, uid, &mut answers);
                }
                if !answers.is_empty() {
                    crash::point("manager.result.after-ack");
                }
                self.acknowledge();
            }
            Done::Page(page) => self.judged(page, &mut answers),
        }
        Ok(answers)
    }

    /// Tells the agent that it may forget a command, and forgets it here.
    fn forget(&mut self, id: CommandId, uid: Uid, answers: &mut Vec<Answer>) {
        self.ending.remove(&id);
        self.owned.remove(&uid);
        self.window.close(uid);
        let store_position = self.service.store().position().position.0;
        answers.push(Answer::push(Body::ResultAck(wire::ResultAck { uid: uid.to_wire(), store_position })));
    }

    fn command_ack(&mut self, seq: u64, reply_to: u64, ack: &wire::CommandAck) -> Result<Option<Answer>, Fault> {
        let (uid, answer) = (messages::uid(&ack.uid)?, messages::ack(ack)?);
        let _ = self.asked.answered(reply_to);
        self.acked(seq, uid, answer);
        Ok(None)
    }

    fn acked(&mut self, seq: u64, uid: Uid, answer: AckAnswer) {
        let (service, agent) = (self.service.clone(), self.agent.clone());
        self.flight.push(async move {
            match service.store().acked(&uid, &agent, answer, service.now()).await {
                Ok(answered) => {
                    if answered.wished {
                        service.wake().agent(&agent);
                    }
                    Done::Nothing
                }
                Err(error) => failed(seq, error),
            }
        });
    }

    fn pause_heard(&mut self, uid: Uid, wish: u64, heard: PauseHeard) {
        let (service, agent) = (self.service.clone(), self.agent.clone());
        self.flight.push(async move {
            match service.store().pause_heard(&uid, &agent, wish, heard, service.now()).await {
                // What could not be recorded is asked again.
                Err(error) if error.retryable() => Done::Over(crate::service::sessions::refusal(&error)),
                _ => Done::Nothing,
            }
        });
    }

    /// Takes the request for the next certificate (protocol R-RENEW-2).
    fn renew(&mut self, seq: u64, renew: &wire::Renew) -> Option<Answer> {
        let csr = match read_renew(renew) {
            Ok(Renewal::Csr(csr)) => csr,
            Ok(_) => return Some(Answer::nak(seq, nak::Code::Invalid, "only a manager says that")),
            Err(reason) => return Some(Answer::nak(seq, nak::Code::Invalid, reason)),
        };
        // A signature is checked and a row is written for each.
        if !self.renewals.take(RENEWALS, Instant::now()) {
            return Some(Answer::nak(seq, nak::Code::Busy, "a certificate was renewed a moment ago"));
        }
        let (service, agent) = (self.service.clone(), self.agent.clone());
        let (generation, by) = (self.handle.generation(), self.handle.spki());
        self.flight.push(async move {
            let answer = match service.renew(&agent, generation, by, &csr).await {
                Ok(issued) => {
                    crash::point("manager.renew.bound");
                    Answer { reply_to: seq, body: Renewal::Issued(issued).body() }
                }
                Err(refused) => Answer { reply_to: seq, body: Renewal::nak(refused.code(), &refused.to_string()) },
            };
            Done::Say(Box::new(answer))
        });
        None
    }

    fn command_progress(&mut self, seq: u64, progress: &wire::CommandProgress) -> Result<Option<Answer>, Fault> {
        let (uid, report) = (messages::uid(&progress.uid)?, messages::progress(progress)?);
        let (service, agent) = (self.service.clone(), self.agent.clone());
        self.flight.push(async move {
            match service.store().progress(&uid, &agent, report, service.now()).await {
                Ok(_) => Done::Nothing,
                Err(error) => failed(seq, error),
            }
        });
        Ok(None)
    }

    fn command_result(&mut self, seq: u64, result: &wire::CommandResult) -> Result<Option<Answer>, Fault> {
        let (uid, reported) = (messages::uid(&result.uid)?, messages::reported(result)?);
        if self.listing.importing(&uid) {
            self.early.push(Early { seq, uid, reported });
        } else {
            self.ended(seq, uid, reported);
        }
        Ok(None)
    }

    fn ended(&mut self, seq: u64, uid: Uid, reported: Reported) {
        let output = reported.streams.iter().any(|stream| stream.length > 0);
        let (service, agent) = (self.service.clone(), self.agent.clone());
        self.flight.push(async move {
            match service.store().result(&uid, &agent, reported, service.now()).await {
                Ok(taken) => Done::Result { uid, taken, output },
                Err(error) => failed(seq, error),
            }
        });
    }

    /// Takes the refusal of something that was asked; other Naks are for the log.
    fn nak(&mut self, reply_to: u64, nak: &wire::Nak) {
        let reason = common::escape::text(&nak.reason);
        let Some(question) = self.asked.answered(reply_to) else {
            tracing::debug!(agent.id = %self.agent, code = ?nak.code(), reason, "an agent did not take a frame");
            return;
        };
        if let Some(unsaid) = self.complaints.line(Instant::now()) {
            tracing::warn!(agent.id = %self.agent, command.uid = %question.uid(), code = ?nak.code(), reason, unsaid, "an agent did not take a command, or a wish for one");
        }
        match question.refused(nak.code(), &reason, self.service.now()) {
            Refused::Command(uid, answer) => self.acked(reply_to, uid, answer),
            Refused::Pause(uid, wish, Some(heard)) => self.pause_heard(uid, wish, heard),
            Refused::Pause(_, _, None) => {}
        }
    }

    fn command_output(&mut self, seq: u64, output: wire::CommandOutput) -> Result<Option<Answer>, Fault> {
        let uid = messages::uid(&output.uid)?;
        let Some(stream) = StreamName::from_wire(output.stream) else {
            return Ok(Some(Answer::nak(seq, nak::Code::Unsupported, "unknown stream")));
        };
        let bytes = output.data.len() as u64;
        if output.data.len() > limits::MAX_OUTPUT_PAYLOAD {
            return Err(Violation("an output frame carries too much").into());
        }
        if output.gap > 0 && bytes > 0 {
            return Err(Malformed("an output frame is bytes or a gap, not both").into());
        }
        let end = output.offset.checked_add(bytes).and_then(|end| end.checked_add(output.gap));
        let Some(end) = end.filter(|end| *end <= i64::MAX as u64) else {
            return Err(Malformed("an offset is out of range").into());
        };
        let Some(command) = self.owned.get(&uid).copied() else {
            return Ok(Some(Answer::nak(seq, nak::Code::NotMine, "this session does not hold that command")));
        };
        if output.gap == 0 {
            self.window.received(uid, stream, end, bytes).map_err(|_| Violation("output beyond the granted credit"))?;
        }
        if end > output.offset {
            self.service.counters().output_bytes.add(bytes);
            let chunk = Chunk { command, stream, offset: output.offset, data: output.data, gap: output.gap };
            self.output.push((uid, chunk));
            self.append();
        }
        Ok(None)
    }

    /// Hands everything that waits to the output store, unless an append is under way.
    fn append(&mut self) {
        if self.appending || self.output.is_empty() {
            return;
        }
        self.appending = true;
        let waiting = std::mem::take(&mut self.output);
        let mut parts: Vec<Part> = Vec::new();
        let mut chunks = Vec::with_capacity(waiting.len());
        for (uid, chunk) in waiting {
            let bytes = chunk.data.len() as u64;
            match parts.iter_mut().find(|part| part.uid == uid && part.stream == chunk.stream) {
                Some(part) => part.bytes += bytes,
                None => parts.push(Part { uid, command: chunk.command, stream: chunk.stream, bytes }),
            }
            chunks.push(chunk);
        }
        let service = self.service.clone();
        self.flight.push(async move {
            let appended = match service.store().append_output(chunks) {
                Ok(appending) => appending.await,
                Err(error) => Err(error),
            };
            match appended {
                Ok(appended) => Done::Stored { appended, parts },
                // Nothing of it is stored; the next inventory agrees on the offset anew (protocol R-OUT-2).
                Err(StoreError::Hole { command, expected }) => {
                    tracing::warn!(
                        command.id = command.0,
                        expected,
                        "output did not join what is stored; the session starts again"
                    );
                    Done::Over(
                        Refusal::new(Code::Overloaded, "output did not join what is stored")
                            .retry_after(RETRY_AFTER_HOLE),
                    )
                }
                Err(error) => Done::Over(crate::service::sessions::refusal(&error)),
            }
        });
    }

    /// Grants as many bytes as became readable; they need not be durable yet (protocol R-CREDIT-3).
    fn stored(&mut self, appended: &[Appended], parts: &[Part], answers: &mut Vec<Answer>) {
        for part in parts {
            let length = appended
                .iter()
                .filter(|one| one.command == part.command && one.stream == part.stream)
                .map(|one| one.length)
                .max();
            let Some(length) = length else { continue };
            if let Some(grant) = self.window.readable(part.uid, part.stream, length, part.bytes) {
                answers.push(Answer::push(Body::OutputCredit(wire::OutputCredit {
                    uid: part.uid.to_wire(),
                    stream: part.stream.to_wire(),
                    offset: grant.offset,
                    session_bytes: grant.session_bytes,
                })));
            }
            if self.ending.contains_key(&part.command) {
                self.look_at.insert(part.command);
            }
        }
    }

    /// Tells the agent what it may forget: ends whose every byte is stored and synced.
    fn acknowledge(&mut self) {
        if self.acking || self.look_at.is_empty() {
            return;
        }
        let look_at: Vec<_> = std::mem::take(&mut self.look_at)
            .into_iter()
            .filter_map(|id| self.ending.get(&id).map(|(uid, output)| (id, *uid, *output)))
            .collect();
        if look_at.is_empty() {
            return;
        }
        self.acking = true;
        let service = self.service.clone();
        self.flight.push(async move {
            match endings::settle(&service, look_at).await {
                Ok(acked) => Done::Acked(acked),
                Err(error) => Done::Over(crate::service::sessions::refusal(&error)),
            }
        });
    }

    fn inventory(&mut self, seq: u64, page: &wire::Inventory) -> Result<(), Violation> {
        if let Some((lines, malformed)) = self.listing.take((&self.agent, self.handle.journal()), seq, page)? {
            self.malformed(lines, malformed)?;
        }
        self.judge();
        Ok(())
    }

    fn judge(&mut self) {
        let Some(page) = self.listing.next() else { return };
        let (service, agent, handle) = (self.service.clone(), self.agent.clone(), self.handle.clone());
        self.flight.push(async move {
            let (reply_to, last) = (page.reply_to, page.last);
            let described = page.described.iter().map(|import| import.uid).collect();
            match judge_page(&service, &agent, &handle, page.held, page.described, page.all).await {
                Ok((items, own, cancels)) => Done::Page(Page { reply_to, items, own, cancels, described, last }),
                Err(error) => Done::Over(crate::service::sessions::refusal(&error)),
            }
        });
    }

    fn judged(&mut self, mut page: Page, answers: &mut Vec<Answer>) {
        self.listing.judged(&page.described);
        let known = page.items.len();
        // What is too much for one session gets no answer: nothing is concluded about it, and the next one may bring it.
        page.items.retain(|item| {
            item.action() != Action::Describe || Uid::from_wire(&item.uid).is_ok_and(|uid| self.listing.ask(uid))
        });
        if page.items.len() < known {
            let left = known - page.items.len();
            tracing::warn!(agent.id = %self.agent, left, "an agent holds more unknown commands than one session may bring");
        }
        for (uid, command, from) in page.own {
            self.owned.insert(uid, command);
            for (stream, offset) in from {
                self.window.open(uid, stream, offset);
            }
        }
        let body = Body::Reconcile(wire::Reconcile { items: page.items, last: page.last });
        answers.push(Answer { reply_to: page.reply_to, body });
        answers.extend(page.cancels.into_iter().map(|cancel| Answer::push(Body::CommandCancel(cancel))));
        if page.last {
            self.handle.set_reconciled();
            self.service.wake().agent(&self.agent);
        }
        for early in std::mem::take(&mut self.early) {
            if self.listing.importing(&early.uid) {
                self.early.push(early);
            } else {
                self.ended(early.seq, early.uid, early.reported);
            }
        }
        self.judge();
    }
}

/// Turns an error of the store into an answer, or into the end of the session when the same call may work later.
fn failed(seq: u64, error: StoreError) -> Done {
    let (code, reason) = match &error {
        StoreError::NotFound { .. } => (nak::Code::Unknown, "no such command"),
        StoreError::NotMine => (nak::Code::NotMine, "the command belongs to another agent"),
        StoreError::Conflict { .. } | StoreError::IllegalMove { .. } => {
            (nak::Code::Conflict, "this does not fit what is known")
        }
        StoreError::OutOfRange { .. } => (nak::Code::Invalid, "a value is out of range"),
        other => return Done::Over(crate::service::sessions::refusal(other)),
    };
    Done::Nak(Box::new(Answer::nak(seq, code, reason)), error)
}
