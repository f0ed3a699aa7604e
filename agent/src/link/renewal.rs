//! The renewal of this agent's certificate over a live session: when it is asked for, what the answers mean, and what is
//! kept. It belongs to one session; commands never notice.
//!
//! ```text
//!   Idle ── half of its life is over, or the authorities changed ──► Asked ── issued ──► Keeping ──► the next identity
//!    ▲                                                                 │                    │
//!    └──────────────── pause ◄── refused, or no answer in time ────────┴── cannot be kept ──┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::error::Chain;
use common::handshake::{self, IssuedText};
use common::limits::HASH_BYTES;
use common::tls::{self, KeyRequest};
use common::wire::frame::Body;
use common::wire::{Nak, Renew, nak};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::identity::{Credentials, Keeper, LinkTime, Successor, SuccessorError, Validity};
use crate::limits::{RENEW_ANSWERS, RENEW_NOW_SPREAD};

/// A manager that does not know renewals is not asked again in the same session.
const NEVER: Duration = Duration::from_secs(366 * 24 * 3600);
/// The clock of the host may jump against the one that sleeps: due times are looked at this often.
const LOOK: Duration = Duration::from_secs(60);

/// The renewal of one certificate.
#[derive(Debug)]
pub(crate) struct Renewal {
    successor: Successor,
    validity: Validity,
    fraction: f64,
    /// The authorities that are trusted now.
    bundle: [u8; HASH_BYTES],
    /// Authorities for whose sake no other renewal makes sense: the last one did not bring them.
    in_vain: Option<[u8; HASH_BYTES]>,
    /// The authorities changed: renew at this moment.
    hurry: Option<Instant>,
    /// Not before this, after an attempt that failed.
    pause: Option<Instant>,
    step: Step,
    /// At most one: what was issued is being kept.
    jobs: JoinSet<Result<Credentials, SuccessorError>>,
    time: Arc<LinkTime>,
}

#[derive(Debug)]
enum Step {
    Idle,
    /// The request with this number waits for its answer.
    Asked {
        seq: u64,
        request: Box<KeyRequest>,
        until: Instant,
    },
    /// What was issued is being written.
    Keeping,
}

impl Renewal {
    /// Looks after the current identity of `keeper`; `bundle` is what the manager trusts, none when it does not say.
    pub(crate) fn new(keeper: &Keeper, bundle: Option<[u8; HASH_BYTES]>, in_vain: Option<[u8; HASH_BYTES]>) -> Self {
        let current = keeper.current();
        let mut renewal = Self {
            successor: keeper.successor(),
            validity: current.validity,
            fraction: current.fraction,
            bundle: current.bundle_hash,
            in_vain,
            hurry: None,
            pause: None,
            step: Step::Idle,
            jobs: JoinSet::new(),
            time: Arc::clone(keeper.time()),
        };
        if let Some(bundle) = bundle {
            renewal.hear_bundle(bundle);
        }
        renewal
    }

    /// Hears what the manager trusts; another one than ours is a reason to renew.
    fn hear_bundle(&mut self, bundle: [u8; HASH_BYTES]) {
        let is_news = bundle != self.bundle && Some(bundle) != self.in_vain;
        if is_news && self.hurry.is_none() {
            self.hurry = Some(Instant::now() + RENEW_NOW_SPREAD.mul_f64(self.fraction));
        }
    }

    /// When [`Renewal::request`] has something to do, at the latest.
    pub(super) fn wake(&self, now: Instant) -> Instant {
        match &self.step {
            Step::Asked { until, .. } => *until,
            Step::Keeping => now + LOOK,
            Step::Idle => self.due(now).min(now + LOOK),
        }
    }

    /// When the next request may leave.
    fn due(&self, now: Instant) -> Instant {
        let left = self.validity.renew_at_ms(self.fraction).saturating_sub(self.time.now_ms());
        let by_age = now + Duration::from_millis(left).min(NEVER);
        let wanted = self.hurry.map_or(by_age, |hurry| hurry.min(by_age));
        self.pause.map_or(wanted, |pause| wanted.max(pause))
    }

    /// The frame to send now, if there is one. Its number has to be told by [`Renewal::asked`].
    pub(super) fn request(&mut self, now: Instant) -> Option<(Body, Box<KeyRequest>)> {
        if matches!(&self.step, Step::Asked { until, .. } if *until <= now) {
            warn!("The manager did not answer the request for a certificate in time");
            self.failed(now);
        }
        if !matches!(self.step, Step::Idle) || self.due(now) > now {
            return None;
        }
        match tls::new_key() {
            Ok(request) => {
                let body = handshake::Renewal::Csr(request.csr.clone().into()).body();
                Some((body, Box::new(request)))
            }
            Err(error) => {
                warn!(error = %Chain(&error), "No key can be made for the next certificate");
                self.failed(now);
                None
            }
        }
    }

    /// The request left with this number.
    pub(super) fn asked(&mut self, seq: u64, request: Box<KeyRequest>, now: Instant) {
        self.step = Step::Asked { seq, request, until: now + RENEW_ANSWERS };
    }

    /// Takes a Renew. `Err` says why it is not taken; the session goes on all the same (protocol R-RENEW-1).
    pub(super) fn hear(&mut self, reply_to: u64, renew: &Renew) -> Result<(), &'static str> {
        match handshake::read_renew(renew) {
            Ok(handshake::Renewal::Due(bundle)) => self.hear_bundle(bundle),
            Ok(handshake::Renewal::Issued(issued)) if self.waits_for(reply_to) => self.keep(issued),
            // An answer that came too late: its key is gone.
            Ok(_) => {}
            Err(reason) => {
                if self.waits_for(reply_to) {
                    warn!(reason, "The manager's answer to the request for a certificate makes no sense");
                    self.failed(Instant::now());
                }
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Takes a refusal of the request; answers whether it was one.
    pub(super) fn hear_refusal(&mut self, reply_to: u64, refusal: &Nak) -> bool {
        let is_ours = self.waits_for(reply_to);
        if is_ours && refusal.code() == nak::Code::Unsupported {
            info!("This manager does not renew certificates");
            self.step = Step::Idle;
            self.pause = Some(Instant::now() + NEVER);
        } else if is_ours {
            let reason = common::escape::text(&refusal.reason);
            warn!(%reason, "The manager refused to renew the certificate");
            self.failed(Instant::now());
        }
        is_ours
    }

    fn waits_for(&self, reply_to: u64) -> bool {
        matches!(&self.step, Step::Asked { seq, .. } if *seq == reply_to)
    }

    fn keep(&mut self, issued: IssuedText) {
        let Step::Asked { request, .. } = std::mem::replace(&mut self.step, Step::Keeping) else { return };
        let successor = self.successor.clone();
        self.jobs.spawn_blocking(move || successor.keep(&request, &issued));
    }

    /// Waits for the next identity; for ever when none is being kept.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn kept(&mut self) -> Credentials {
        loop {
            let kept = match self.jobs.join_next().await {
                Some(Ok(kept)) => kept,
                Some(Err(_)) => Err(SuccessorError::Cut),
                None => std::future::pending().await,
            };
            match kept {
                Ok(credentials) => return credentials,
                Err(error) => {
                    warn!(error = %Chain(&error), "The renewed certificate is not used");
                    self.failed(Instant::now());
                }
            }
        }
    }

    /// Waits for a while: the twentieth part of a life, spread so that a fleet does not come back together.
    fn failed(&mut self, now: Instant) {
        let again = self.validity.again_after();
        let spread = Backoff::new(again / 2, again / 2).next();
        self.pause = Some(now + again / 2 + spread);
        self.step = Step::Idle;
    }
}

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;
