//! Why a TLS handshake failed, in the words that somebody needs who has to repair it: which check of ours failed, or
//! what the other side did not like.

use std::io;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// The check that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFault {
    /// Self-signed, or of another authority.
    #[error("the server's certificate is not signed by an authority that is trusted here")]
    UnknownAuthority,
    /// No authority with the pin.
    #[error("the server does not show the authority with the expected pin")]
    Pin,
    /// Its time is over, or our clock is ahead.
    #[error("the server's certificate ended {} ago; if it did not, this host's clock may be wrong by {}", span(.by), span(.by))]
    Expired {
        /// By how much.
        by: Duration,
    },
    /// Its time has not come, or our clock is late.
    #[error("the server's certificate begins in {}; this host's clock may be wrong by {}", span(.by), span(.by))]
    NotYetValid {
        /// By how much.
        by: Duration,
    },
    /// It is for another name.
    #[error("the server's certificate is for another name")]
    WrongName,
    /// It is that of a client, or of an authority.
    #[error("the server's certificate may not be used by a server")]
    WrongPurpose,
    /// It is damaged, or signed in a way nobody accepts.
    #[error("the server's certificate or its signature is damaged")]
    Damaged,
    /// We wanted to see it, not to speak.
    #[error("the server's certificate was only looked at")]
    OnlyLooked,
    /// No protocol in common.
    #[error("the server does not speak the application protocol of this port")]
    NoAlpn,
    /// TLS 1.3 is not among what the server speaks.
    #[error("the server does not speak TLS 1.3")]
    Version,
    /// Our certificate is over, says the server.
    #[error("the server says that our certificate has expired")]
    OwnExpired,
    /// Our certificate is of an authority that the server does not know.
    #[error("the server does not know the authority of our certificate")]
    OwnUnknown,
    /// Our certificate is refused for another reason.
    #[error("the server refuses our certificate")]
    OwnRefused,
    /// What was heard is not TLS.
    #[error("the server does not speak TLS")]
    NotTls,
}

/// Finds the check behind an error of a TLS stream; none when the error is of another kind (a connection that broke).
#[must_use]
pub fn fault(error: &io::Error) -> Option<HandshakeFault> {
    use HandshakeFault as F;
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    match error {
        Error::InvalidCertificate(error) => Some(of_certificate(error)),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => Some(F::OwnExpired),
            AlertDescription::UnknownCA => Some(F::OwnUnknown),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::AccessDenied => Some(F::OwnRefused),
            AlertDescription::NoApplicationProtocol => Some(F::NoAlpn),
            AlertDescription::ProtocolVersion => Some(F::Version),
            _ => None,
        },
        Error::PeerIncompatible(_) => Some(F::Version),
        Error::InvalidMessage(_) => Some(F::NotTls),
        _ => None,
    }
}

fn of_certificate(error: &CertificateError) -> HandshakeFault {
    use CertificateError as E;
    use HandshakeFault as F;
    match error {
        E::UnknownIssuer => F::UnknownAuthority,
        E::ExpiredContext { time, not_after } => F::Expired { by: between(*not_after, *time) },
        E::Expired => F::Expired { by: Duration::ZERO },
        E::NotValidYetContext { time, not_before } => F::NotYetValid { by: between(*time, *not_before) },
        E::NotValidYet => F::NotYetValid { by: Duration::ZERO },
        E::NotValidForName | E::NotValidForNameContext { .. } => F::WrongName,
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => F::WrongPurpose,
        E::Other(other) => other.0.downcast_ref::<F>().cloned().unwrap_or_else(|| of_webpki(&other.to_string())),
        _ => F::Damaged,
    }
}

/// The library keeps some of its verdicts behind a text; the one we know by name is an authority that plays a server.
fn of_webpki(told: &str) -> HandshakeFault {
    if told.contains("CaUsedAsEndEntity") { HandshakeFault::WrongPurpose } else { HandshakeFault::Damaged }
}

fn between(from: UnixTime, to: UnixTime) -> Duration {
    Duration::from_secs(to.as_secs().saturating_sub(from.as_secs()))
}

/// A span of time as people say it, in at most two units.
fn span(duration: &Duration) -> String {
    const DAY: u64 = 24 * 3600;
    let seconds = duration.as_secs();
    let unit = if seconds >= DAY {
        DAY
    } else if seconds >= 3600 {
        60
    } else {
        1
    };
    humantime::format_duration(Duration::from_secs(seconds / unit * unit)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_connection_is_no_fault_of_a_certificate() {
        assert_eq!(fault(&io::ErrorKind::ConnectionReset.into()), None);
        assert_eq!(fault(&io::Error::other(Error::DecryptError)), None);
    }

    #[test]
    fn a_wrong_clock_is_named_with_its_distance() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let early = E::NotValidYetContext { time: at(1_000_000), not_before: at(1_000_000 + 10 * 86_400) };
        let late = E::ExpiredContext { time: at(90_000), not_after: at(86_390) };
        use CertificateError as E;
        assert_eq!(
            of_certificate(&early).to_string(),
            "the server's certificate begins in 10days; this host's clock may be wrong by 10days"
        );
        let told = of_certificate(&late).to_string();
        assert!(told.contains("wrong by 1h"), "{told}");
    }
}
