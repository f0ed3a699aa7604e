//! The conversation of a join: each manager that the token names is tried until one answers, within a bound.
//!
//! The server shows the authority that the token pins, and a certificate of it for the fixed name of managers; only then
//! the secret leaves this host (protocol R-JOIN-2). A refusal is final. A server that cannot be reached, or that is not
//! the one that the token means, leaves it to the others.

use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::error::Chain;
use common::handshake::{self, IssuedAnswer, IssuedText, JoinParams, WelcomeError};
use common::id::Name;
use common::join_token::JoinToken;
use common::limits::HANDSHAKE;
use common::tls::{self, Expected, Identity, IssuedError, KeyRequest, TlsError};
use common::wire::bye::Code;
use tokio::time::{Instant, sleep, timeout};

use crate::config::Address;
use crate::identity::LinkTime;
use crate::limits::{JOIN_PAUSE, JOIN_WITHIN};
use crate::link::{DialError, ask, prove, reach};

/// Who wants to be let in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest<'a> {
    pub(super) token: &'a JoinToken,
    pub(super) name: &'a Name,
    pub(super) request: &'a KeyRequest,
}

/// What a host is after it was let in.
#[derive(Debug)]
pub(super) struct Enrolled {
    pub(super) issued: IssuedText,
    pub(super) identity: Identity,
    /// How long the certificate is valid from now on, by the manager's clock.
    pub(super) valid: Duration,
}

/// Why a host was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    #[error("the token names no address that can be dialled")]
    NoAddress,
    #[error("TLS cannot be used")]
    Tls(#[source] TlsError),
    #[error("the manager at {address} refuses: {reason}")]
    Refused { address: String, reason: String },
    #[error("no server that the token names is the manager that it means: {}", list(.0))]
    Strangers(Vec<Attempt>),
    #[error("no manager was reached within {} s: {}", JOIN_WITHIN.as_secs(), list(.0))]
    Unreachable(Vec<Attempt>),
    #[error("the manager at {address} answered with something else than what was asked for")]
    Issued {
        address: String,
        #[source]
        source: IssuedError,
    },
}

/// How the last attempt with one address ended.
#[derive(Debug)]
pub(crate) struct Attempt {
    address: String,
    error: DialError,
}

fn list(attempts: &[Attempt]) -> String {
    let each =
        attempts.iter().map(|one| format!("{}: {}", one.address, common::escape::text(Chain(&one.error).to_string())));
    each.collect::<Vec<_>>().join("; ")
}

/// Asks the managers of the token, again and again for a while; `tell` hears what it waits for.
///
/// # Errors
/// Why this host was not let in.
pub(super) async fn enrol(guest: Guest<'_>, tell: impl Fn(&str)) -> Result<Enrolled, EnrolError> {
    let addresses: Vec<_> = guest.token.addresses.iter().filter_map(|text| Address::parse(text).ok()).collect();
    if addresses.is_empty() {
        return Err(EnrolError::NoAddress);
    }
    let until = Instant::now() + JOIN_WITHIN;
    let mut pauses = Backoff::new(JOIN_PAUSE.0, JOIN_PAUSE.1);
    let mut told = false;
    loop {
        let mut failures = Vec::new();
        for address in &addresses {
            match attempt(address, guest).await? {
                Ok(enrolled) => return Ok(enrolled),
                Err(error) => failures.push(Attempt { address: address.to_string(), error }),
            }
        }
        // Who showed a wrong certificate will not show another one in a moment.
        if failures.iter().all(|failure| is_stranger(&failure.error)) {
            return Err(EnrolError::Strangers(failures));
        }
        let pause = pauses.next();
        if Instant::now() + pause >= until {
            return Err(EnrolError::Unreachable(failures));
        }
        if !told {
            tell(&format!("no answer yet, trying for {} s: {}", JOIN_WITHIN.as_secs(), list(&failures)));
            told = true;
        }
        sleep(pause).await;
    }
}

/// Tells whether a server showed that it is not the one the token means.
fn is_stranger(failure: &DialError) -> bool {
    matches!(failure, DialError::Server(_) | DialError::Peer(_) | DialError::Cluster(_))
}

/// Asks one manager. What is final comes as the outer error.
async fn attempt(address: &Address, guest: Guest<'_>) -> Result<Result<Enrolled, DialError>, EnrolError> {
    let config = tls::link_client_joining(guest.token.pin, Arc::new(LinkTime::wall())).map_err(EnrolError::Tls)?;
    let talk = async {
        let tcp = reach(address).await?;
        let open = async {
            let (stream, manager) = prove(tcp, &config).await?;
            // The pin matched: from here on the secret may leave.
            let hello = handshake::join_hello(&JoinParams {
                name: guest.name,
                token_id: &guest.token.id,
                secret: &guest.token.secret,
                csr: &guest.request.csr,
                agent_version: env!("CARGO_PKG_VERSION"),
            });
            let answer = ask(stream, hello).await?;
            if answer.cluster != manager.cluster {
                return Err(DialError::Cluster(answer.cluster));
            }
            Ok(answer)
        };
        timeout(HANDSHAKE, open).await.map_err(|_| DialError::Late("asking to join"))?
    };
    match talk.await {
        Ok(answer) => check(address, guest, answer).map(Ok),
        Err(DialError::Welcome(WelcomeError::Refused { code: Code::AuthFailed | Code::Banned, reason, .. })) => {
            Err(EnrolError::Refused { address: address.to_string(), reason: common::escape::text(&reason) })
        }
        Err(error) => Ok(Err(error)),
    }
}

fn check(address: &Address, guest: Guest<'_>, answer: IssuedAnswer) -> Result<Enrolled, EnrolError> {
    let IssuedAnswer { issued, cluster, clock_ms } = answer;
    let expected = Expected {
        spki: guest.request.spki,
        name: guest.name,
        cluster: Some(&cluster),
        generation: None,
        now: Duration::from_millis(clock_ms),
    };
    let checked = tls::check_issued(&issued.chain_pem, &issued.bundle_pem, &expected)
        .map_err(|source| EnrolError::Issued { address: address.to_string(), source })?;
    let valid = checked.leaf.not_after.saturating_sub(Duration::from_millis(clock_ms));
    Ok(Enrolled { issued, identity: checked.leaf.identity, valid })
}

#[cfg(test)]
#[path = "enrol_tests.rs"]
mod tests;
