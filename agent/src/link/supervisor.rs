//! The reconnect loop: which address, with which identity, when, and what a goodbye means. It never gives up.
//!
//! ```text
//!   all addresses, shuffled ──► dial each until one answers ──► hand the session over ──► wait for its end
//!        ▲  ▲                         │ none          │ the certificate has ended: a new one       │
//!        │  └── at once, with the next identity ◄─────┴───────────────────────────── renewed ◄─────┤
//!        └──── pause: full jitter, 0.5 s … 60 s, reset after 60 s of health ◄──────────────────────┘
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::backoff::Backoff;
use common::error::Chain;
use common::handshake::{HelloParams, IssuedAnswer, WelcomeError};
use common::id::Uid;
use common::limits::{self, HASH_BYTES};
use common::link::LinkError;
use common::shutdown::Shutdown;
use common::tls::{self, HandshakeFault, KeyRequest};
use common::wire::bye::Code;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::dial::{DialError, Greeted, dial};
use super::reaction::{Reaction, react};
use super::renewal::Renewal;
use super::session::{End, Session};
use crate::clock::ManagerMemory;
use crate::config::Address;
use crate::identity::{Age, Credentials, Keeper, SuccessorError};
use crate::limits::{AT_ONCE_EACH, RENEW_SAME_BUNDLE};

/// A session on its way to its one user.
pub(crate) struct Attached {
    /// The session.
    pub(crate) session: Session,
    /// Told when and why it ended; dropped means the same as `Stopped`.
    pub(crate) ended: oneshot::Sender<End>,
}

/// Keeps one session alive.
pub(crate) struct Supervisor {
    addresses: Vec<Address>,
    keeper: Keeper,
    hello: HelloParams,
    memory: Arc<Mutex<ManagerMemory>>,
    sessions: mpsc::Sender<Attached>,
    shutdown: Shutdown,
    /// The key that waits for its certificate while the current one has ended: the same one until it is answered.
    request: Option<Box<KeyRequest>>,
    /// A manager says that the certificate has ended, whatever our clock says.
    told_ended: bool,
    /// Authorities that a renewal did not bring, and when that was.
    in_vain: Option<([u8; HASH_BYTES], Instant)>,
    /// When a round followed another without a pause for the last time.
    at_once: Option<Instant>,
}

/// What a supervisor begins with.
pub(crate) struct Beginning {
    /// Where the configuration says managers are.
    pub(crate) addresses: Vec<Address>,
    /// Who this agent is.
    pub(crate) keeper: Keeper,
    /// What is said in every hello, apart from what is remembered of the manager.
    pub(crate) hello: HelloParams,
    /// What is remembered of the manager; written by the dispatcher.
    pub(crate) memory: Arc<Mutex<ManagerMemory>>,
    /// One session at a time: the next is dialled only after the last has ended.
    pub(crate) sessions: mpsc::Sender<Attached>,
    pub(crate) shutdown: Shutdown,
}

/// What became of a round over all addresses.
struct Round {
    reaction: Reaction,
    healthy: bool,
    /// There is a new identity: no reason to wait.
    at_once: bool,
}

impl Round {
    fn after(reaction: Reaction) -> Self {
        Self { reaction, healthy: false, at_once: false }
    }
}

impl Supervisor {
    pub(crate) fn new(beginning: Beginning) -> Self {
        let Beginning { addresses, keeper, hello, memory, sessions, shutdown } = beginning;
        Self {
            addresses,
            keeper,
            hello,
            memory,
            sessions,
            shutdown,
            request: None,
            told_ended: false,
            in_vain: None,
            at_once: None,
        }
    }

    /// Dials until the agent stops.
    pub(crate) async fn run(self) {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            () = self.keep() => {}
            () = shutdown.requested() => {}
        }
    }

    async fn keep(mut self) {
        let (base, cap) = limits::RECONNECT;
        let mut backoff = Backoff::new(base, cap);
        loop {
            let Some(round) = self.round().await else { return };
            if round.healthy {
                backoff.reset();
            }
            if round.reaction.slow {
                backoff.to_cap();
            }
            if round.at_once && self.may_hurry() {
                continue;
            }
            let pause = pause(round.reaction, &mut backoff);
            debug!(pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "Waiting before the next attempt");
            sleep(pause).await;
        }
    }

    /// A new identity is used at once, but a manager that gives one after the other is not asked in a circle.
    fn may_hurry(&mut self) -> bool {
        let now = Instant::now();
        let may = self.at_once.is_none_or(|last| now.duration_since(last) >= AT_ONCE_EACH);
        if may {
            self.at_once = Some(now);
        }
        may
    }

    /// Tries every address once, in random order (protocol R-LIVE-3); `None` when the agent stops.
    async fn round(&mut self) -> Option<Round> {
        let mut last = Round::after(react(Code::Unspecified, None));
        for address in self.shuffled() {
            let hello = self.hello_now();
            self.prepare_request();
            let csr = self.request.as_ref().map(|request| request.csr.as_slice());
            let session = match dial(&address, self.keeper.current(), &hello, csr).await {
                Ok(Greeted::Session(session)) => session,
                Ok(Greeted::Issued(answer)) => return Some(self.recover(&address, *answer).await),
                Err(error) => {
                    last.reaction = self.failed(&address, &error);
                    if last.reaction.others_first || !is_verdict(&error) {
                        continue;
                    }
                    return Some(last);
                }
            };
            info!(peer.addr = %address, session.epoch = session.welcome.epoch.0, "Connected");
            let (since, end) = self.serve(*session).await?;
            last.healthy = since.elapsed() >= limits::RECONNECT_HEALTHY;
            last.reaction = ended(&address, since, &end);
            if let End::Renewed(next) = end {
                self.adopt(*next);
                return Some(Round { at_once: true, ..last });
            }
            if !last.reaction.others_first {
                return Some(last);
            }
        }
        Some(last)
    }

    /// Lets a session be used until it ends; `None` when the agent stops.
    async fn serve(&mut self, mut session: Session) -> Option<(Instant, End)> {
        self.hear_clock(session.welcome.clock_ms);
        self.keeper.accepted();
        self.told_ended = false;
        let told = session.welcome.bundle_hash;
        let in_vain = self.in_vain.filter(|(_, since)| since.elapsed() < RENEW_SAME_BUNDLE).map(|(hash, _)| hash);
        session.renew_with(Renewal::new(&self.keeper, told, in_vain));
        let since = session.since;
        let end = self.hand_over(session).await?;
        if let (End::Renewed(next), Some(told)) = (&end, told)
            && next.bundle_hash != told
        {
            self.in_vain = Some((told, Instant::now()));
        }
        Some((since, end))
    }

    /// Takes the certificate that a manager issued because ours has ended.
    async fn recover(&mut self, address: &Address, answer: IssuedAnswer) -> Round {
        let again = Round::after(react(Code::ProtocolError, None));
        let Some(request) = self.request.take() else {
            warn!(peer.addr = %address, "A certificate was issued that nobody asked for");
            return again;
        };
        self.hear_clock(answer.clock_ms);
        let successor = self.keeper.successor();
        let mut jobs = JoinSet::new();
        jobs.spawn_blocking(move || successor.keep(&request, &answer.issued));
        let kept = match jobs.join_next().await {
            Some(Ok(kept)) => kept,
            Some(Err(_)) | None => Err(SuccessorError::Cut),
        };
        match kept {
            Ok(next) => {
                warn!(peer.addr = %address, "The certificate had ended; a new one was issued for this host");
                self.adopt(next);
                Round { at_once: true, ..Round::after(react(Code::Normal, None)) }
            }
            Err(error) => {
                error!(peer.addr = %address, error = %Chain(&error), "The certificate that was issued cannot be used");
                again
            }
        }
    }

    fn adopt(&mut self, next: Credentials) {
        self.told_ended = false;
        self.request = None;
        self.keeper.adopt(next);
    }

    /// Hears manager time, and says so when this host's clock is far from it.
    fn hear_clock(&self, clock_ms: u64) {
        self.keeper.time().hear(clock_ms);
        let off = common::clock::unix_ms().abs_diff(clock_ms);
        if clock_ms != 0 && Duration::from_millis(off) > limits::BACK_DATED {
            let seconds = off / 1000;
            warn!(seconds, "This host's clock is wrong by so much, if the manager's is right");
        }
    }

    async fn hand_over(&self, session: Session) -> Option<End> {
        let (ended, heard) = oneshot::channel();
        self.sessions.send(Attached { session, ended }).await.ok()?;
        heard.await.ok()
    }

    /// With a certificate that has ended, a manager is asked for the next one: makes the key for it.
    fn prepare_request(&mut self) {
        if self.keeper.age() == Age::Valid && !self.told_ended {
            self.request = None;
        } else if self.request.is_none() {
            self.request = tls::new_key()
                .inspect_err(|error| warn!(error = %Chain(error), "No key can be made for the next certificate"))
                .ok()
                .map(Box::new);
        }
    }

    fn hello_now(&self) -> HelloParams {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        HelloParams {
            incarnation: memory.incarnation,
            store_position: memory.store_position,
            bundle_hash: Some(self.keeper.current().bundle_hash),
            ..self.hello.clone()
        }
    }

    /// Decides what follows a failed attempt; an identity that is not taken gives way to the next one.
    fn failed(&mut self, address: &Address, failure: &DialError) -> Reaction {
        let age = self.keeper.age();
        if !self.told_ended && age == Age::Valid && says_ended(failure) {
            warn!(peer.addr = %address, "The manager says that the certificate has ended; asking for another one");
            self.told_ended = true;
            return react(Code::Normal, None);
        }
        let reaction = failed(address, failure, age);
        if is_about_certificate(failure) && self.keeper.refused() {
            info!(place = ?self.keeper.current().place, "Another certificate of this host is tried");
            return react(Code::Normal, None);
        }
        reaction
    }

    /// All addresses we know of, the configured and the named ones, in random order.
    fn shuffled(&self) -> Vec<Address> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let named = memory.addresses.iter().filter_map(|text| Address::parse(text).ok());
        let mut seen = BTreeSet::new();
        let mut all: Vec<_> = self
            .addresses
            .iter()
            .cloned()
            .chain(named)
            .filter(|address| seen.insert(address.to_string()))
            .map(|address| (Uid::random(), address))
            .collect();
        all.sort_by_key(|(order, _)| *order);
        all.into_iter().map(|(_, address)| address).collect()
    }
}

/// The pause after a round: the backoff's, and at least what the reaction asks for, spread by half of it so that a
/// fleet that was told the same does not return in the same moment.
fn pause(reaction: Reaction, backoff: &mut Backoff) -> Duration {
    let drawn = backoff.next();
    if reaction.at_least.is_zero() {
        return drawn;
    }
    let spread = Backoff::new(reaction.at_least / 2, reaction.at_least / 2).next();
    drawn.max(reaction.at_least + spread)
}

/// Tells whether a manager judged, so that its wish counts and other addresses need not be asked.
fn is_verdict(failure: &DialError) -> bool {
    matches!(failure, DialError::Welcome(_) | DialError::Own(_))
}

/// Tells whether a manager that proved who it is did not take our certificate. A server that did not prove it never
/// makes us fall back to an older one.
fn is_about_certificate(failure: &DialError) -> bool {
    matches!(failure, DialError::Own(_) | DialError::Welcome(WelcomeError::Refused { code: Code::AuthFailed, .. }))
}

/// What a manager says to a certificate that has ended; protocol R-JOIN-6 knows it by this text.
const EXPIRED: &str = "the certificate has expired";

/// Tells whether a manager says that our certificate has ended.
fn says_ended(failure: &DialError) -> bool {
    matches!(failure, DialError::Welcome(WelcomeError::Refused { reason, .. }) if reason == EXPIRED)
}

fn failed(address: &Address, failure: &DialError, age: Age) -> Reaction {
    let reaction = match failure {
        DialError::Welcome(WelcomeError::Refused { code, retry_after, .. }) => react(*code, *retry_after),
        DialError::Welcome(WelcomeError::Protocol(_)) => react(Code::ProtocolError, None),
        DialError::Own(_) => react(Code::AuthFailed, None),
        _ => react(Code::Unspecified, None),
    };
    let shown = common::escape::text(Chain(failure).to_string());
    let hint = hint(failure, age);
    match (reaction.act, hint) {
        (_, Some(hint)) => {
            error!(peer.addr = %address, error = %shown, hint, "The manager does not serve this agent");
        }
        (true, None) => error!(peer.addr = %address, error = %shown, "The manager does not serve this agent"),
        (false, None) => warn!(peer.addr = %address, error = %shown, "Connecting failed"),
    }
    reaction
}

/// What only a person can do.
fn hint(failure: &DialError, age: Age) -> Option<&'static str> {
    let is_over = matches!(age, Age::Gone { .. }) || matches!(failure, DialError::Own(HandshakeFault::OwnExpired));
    if is_about_certificate(failure) && is_over {
        return Some("the certificate ended more than 30 days ago: join again (paprika-agent join --force)");
    }
    match failure {
        DialError::Own(_) => Some("this host is not known there: join again (paprika-agent join --force)"),
        _ => None,
    }
}

fn ended(address: &Address, since: Instant, end: &End) -> Reaction {
    let reaction = match end {
        End::Bye { code, retry_after, .. } => react(*code, *retry_after),
        End::Violation(_) | End::Lost(LinkError::Frame(_)) => react(Code::ProtocolError, None),
        End::Closed | End::Lost(_) | End::Dead | End::Stopped | End::Renewed(_) => react(Code::Unspecified, None),
    };
    let seconds = since.elapsed().as_secs();
    let shown = common::escape::text(Chain(end).to_string());
    if reaction.act {
        error!(peer.addr = %address, error = %shown, seconds, "The session ended");
    } else {
        info!(peer.addr = %address, reason = %shown, seconds, "The session ended");
    }
    reaction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_never_shorter_than_what_the_manager_wished_and_is_spread() {
        let reaction = react(Code::Overloaded, Some(Duration::from_secs(8)));
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
            let drawn = pause(reaction, &mut backoff);
            assert!(drawn >= Duration::from_secs(8) && drawn <= Duration::from_secs(12), "{drawn:?}");
            seen.insert(drawn);
        }
        assert!(seen.len() > 40);
    }

    #[test]
    fn an_answer_that_only_an_operator_can_change_is_asked_for_seldom() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        backoff.to_cap();
        assert_eq!(backoff.clone().next_at(1.0), Duration::from_secs(60));
        assert!(pause(react(Code::Banned, None), &mut backoff) >= Duration::from_secs(10));
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod identity_tests;
