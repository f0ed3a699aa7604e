//! What a session stands on and how long: its certificate, the place its agent comes from, and the authorities that the
//! agent should trust.
//!
//! ```text
//! certificate ends ──────────► goodbye: a renewed agent has dialled again by then (protocol R-RENEW-4)
//! site forbids the address ──► goodbye
//! papers were exchanged ─────► Renew{due}, the fleet spread over some time (protocol R-RENEW-5)
//! ```

use std::net::IpAddr;
use std::time::Duration;

use common::backoff::Backoff;
use common::clock::unix_ms;
use common::handshake::{Hello, Refusal};
use common::id::Name;
use common::wire::bye::Code;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits::{LONGEST_SESSION, RENEWALS_PER_SECOND};
use crate::papers::Current;
use crate::service::Service;

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Due {
    /// The agent is to be told that it should trust this from now on.
    Renew([u8; 32]),
    /// The session is over.
    End(Refusal),
}

/// The ground of one session.
pub(super) struct Standing {
    service: Service,
    name: Name,
    address: IpAddr,
    papers: Current,
    site: watch::Receiver<u64>,
    /// When the certificate ends.
    ends: Instant,
    /// What the agent was told to trust.
    told: Option<[u8; 32]>,
    renews: bool,
    renew_at: Option<Instant>,
    over: Option<Refusal>,
}

impl Standing {
    /// Begins with what TLS has proven and the welcome has told. `renews`: the agent knows how to.
    pub(super) fn new(service: &Service, hello: &Hello, address: IpAddr, told: Option<[u8; 32]>, renews: bool) -> Self {
        let left = hello.not_after.saturating_sub(Duration::from_millis(unix_ms())).min(LONGEST_SESSION);
        let mut standing = Self {
            service: service.clone(),
            name: hello.name.clone(),
            address,
            papers: service.papers().link(),
            site: service.site_changed(),
            ends: Instant::now() + left,
            told,
            renews,
            renew_at: None,
            over: None,
        };
        // Something may have changed between the welcome and now.
        standing.look_at_papers();
        standing.look_at_site();
        standing
    }

    /// Tells what is to be done by now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if let Some(refusal) = self.over.clone() {
            return Some(Due::End(refusal));
        }
        if now >= self.ends {
            return Some(Due::End(Refusal::new(Code::AuthFailed, "the certificate has expired")));
        }
        self.renew_at.take_if(|at| *at <= now)?;
        let bundle = self.service.authority().bundle_hash();
        self.told = Some(bundle);
        Some(Due::Renew(bundle))
    }

    /// When to look again, whatever else happens.
    pub(super) fn wake(&self) -> Instant {
        self.renew_at.map_or(self.ends, |at| at.min(self.ends))
    }

    /// Waits until something was changed that a session stands on.
    ///
    /// # Cancel safety
    /// Safe: a change that was not heard is heard the next time.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            () = self.papers.exchanged() => self.look_at_papers(),
            Ok(()) = self.site.changed() => self.look_at_site(),
        }
    }

    fn look_at_papers(&mut self) {
        if !self.renews || self.renew_at.is_some() || self.told == Some(self.service.authority().bundle_hash()) {
            return;
        }
        // All at once would be one certificate and one reconnect for each agent of the fleet in the same moment.
        let sessions = u32::try_from(self.service.registry().count()).unwrap_or(u32::MAX);
        let spread = Duration::from_secs(1) * sessions / RENEWALS_PER_SECOND;
        self.renew_at = Some(Instant::now() + Backoff::new(spread, spread).next());
    }

    fn look_at_site(&mut self) {
        if let Err(refusal) = self.service.may_come_from(&self.name, self.address) {
            self.over = Some(refusal);
        }
    }
}
