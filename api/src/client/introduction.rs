//! Getting to know a manager of whose authority nothing is known yet, or only its pin.
//!
//! Nothing is said on these connections: no request, no token. What [`look`] finds is proven by nobody, so it is for a
//! person to compare; what [`meet`] finds has the pin, and the manager has shown that it holds a certificate of it.

use common::pin::Pin;
use common::tls::{CertificateDer, to_pem};

use super::calls::DIAL;
use super::connection::Dialer;
use super::endpoint::Endpoint;
use super::error::ClientError;

/// An authority as a manager showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownAuthority {
    /// Its pin.
    pub pin: Pin,
    /// Its certificate, PEM.
    pub pem: String,
}

/// Looks at the authority that a manager shows.
///
/// # Errors
/// When nobody is there, or nothing like an authority is shown.
pub async fn look(endpoint: Endpoint) -> Result<ShownAuthority, ClientError> {
    let (dialer, glimpse) = Dialer::looking(endpoint)?;
    let refused = dialer.shake_hands(DIAL).await;
    match (glimpse.authority(), refused) {
        (Some(authority), _) => Ok(shown(&authority)),
        (
            None,
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Deadline { .. } | ClientError::Lost { .. })),
        ) => Err(error),
        (None, _) => Err(no_authority(&dialer)),
    }
}

/// Makes sure that a manager holds a certificate of the authority with this pin, and keeps that authority.
///
/// # Errors
/// When nobody is there, or the manager does not show that authority.
pub async fn meet(endpoint: Endpoint, pin: Pin) -> Result<ShownAuthority, ClientError> {
    let dialer = Dialer::new(endpoint.pin(pin))?;
    let stream = dialer.shake_hands(DIAL).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let authority = chain.iter().find(|shown| Pin::of(shown) == pin);
    authority.map(shown).ok_or_else(|| no_authority(&dialer))
}

fn shown(authority: &CertificateDer<'_>) -> ShownAuthority {
    ShownAuthority { pin: Pin::of(authority), pem: to_pem(authority) }
}

fn no_authority(dialer: &Dialer) -> ClientError {
    ClientError::Untrusted { address: dialer.address(), source: "it shows no authority behind its certificate".into() }
}
