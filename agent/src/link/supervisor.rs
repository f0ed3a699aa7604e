//! The reconnect loop: which address, when, and what a goodbye means. It never gives up.
//!
//! ```text
//!   all addresses, shuffled ──► dial each until one answers ──► hand the session over ──► wait for its end
//!        ▲                            │ none                                                  │
//!        └──── pause: full jitter, 0.5 s … 60 s, reset after 60 s of health ◄─────────────────┘
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::backoff::Backoff;
use common::error::Chain;
use common::handshake::{HelloParams, WelcomeError};
use common::id::Uid;
use common::limits;
use common::link::LinkError;
use common::shutdown::Shutdown;
use common::wire::bye::Code;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::dial::{Credentials, DialError, dial};
use super::reaction::{Reaction, react};
use super::session::{End, Session};
use crate::clock::ManagerMemory;
use crate::config::Address;

/// A session on its way to its one user.
pub(crate) struct Attached {
    /// The session.
    pub(crate) session: Session,
    /// Told when and why it ended; dropped means the same as `Stopped`.
    pub(crate) ended: oneshot::Sender<End>,
}

/// Keeps one session alive.
pub(crate) struct Supervisor {
    /// Where the configuration says managers are.
    pub(crate) addresses: Vec<Address>,
    pub(crate) credentials: Credentials,
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
}

impl Supervisor {
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
            let pause = pause(round.reaction, &mut backoff);
            debug!(pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "Waiting before the next attempt");
            sleep(pause).await;
        }
    }

    /// Tries every address once, in random order (protocol R-LIVE-3); `None` when the agent stops.
    async fn round(&mut self) -> Option<Round> {
        let mut last = Round { reaction: react(Code::Unspecified, None), healthy: false };
        for address in self.shuffled() {
            let hello = self.hello_now();
            let session = match dial(&address, &self.credentials, &hello).await {
                Ok(session) => session,
                Err(error) => {
                    last.reaction = failed(&address, &error);
                    if last.reaction.others_first || !matches!(error, DialError::Welcome(_)) {
                        continue;
                    }
                    return Some(last);
                }
            };
            info!(peer.addr = %address, session.epoch = session.welcome.epoch.0, "Connected");
            let since = session.since;
            let end = self.hand_over(session).await?;
            last.healthy = since.elapsed() >= limits::RECONNECT_HEALTHY;
            last.reaction = ended(&address, since, &end);
            if !last.reaction.others_first {
                return Some(last);
            }
        }
        Some(last)
    }

    async fn hand_over(&self, session: Session) -> Option<End> {
        let (ended, heard) = oneshot::channel();
        self.sessions.send(Attached { session, ended }).await.ok()?;
        heard.await.ok()
    }

    fn hello_now(&self) -> HelloParams {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        HelloParams { incarnation: memory.incarnation, store_position: memory.store_position, ..self.hello.clone() }
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

fn failed(address: &Address, failure: &DialError) -> Reaction {
    let reaction = match failure {
        DialError::Welcome(WelcomeError::Refused { code, retry_after, .. }) => react(*code, *retry_after),
        DialError::Welcome(WelcomeError::Protocol(_)) => react(Code::ProtocolError, None),
        _ => react(Code::Unspecified, None),
    };
    let shown = common::escape::text(Chain(failure).to_string());
    if reaction.act {
        error!(peer.addr = %address, error = %shown, "The manager does not serve this agent");
    } else {
        warn!(peer.addr = %address, error = %shown, "Connecting failed");
    }
    reaction
}

fn ended(address: &Address, since: Instant, end: &End) -> Reaction {
    let reaction = match end {
        End::Bye { code, retry_after, .. } => react(*code, *retry_after),
        End::Violation(_) | End::Lost(LinkError::Frame(_)) => react(Code::ProtocolError, None),
        End::Closed | End::Lost(_) | End::Dead | End::Stopped => react(Code::Unspecified, None),
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
