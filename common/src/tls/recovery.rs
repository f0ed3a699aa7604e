//! The verifier of client certificates on the agent link: none at all, a valid one, or one that ended lately.
//!
//! A certificate that is over proves its key and its name as well as before; only its time is judged differently, and
//! the caller decides what its bearer may still say (protocol R-JOIN-6).

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::peers::validity;
use crate::limits::{MAX_INTERMEDIATES, RECOVERY_WINDOW};

/// Accepts nobody, a bearer of a valid certificate, and one whose certificate ended at most [`RECOVERY_WINDOW`] ago.
#[derive(Debug)]
pub(super) struct RecoveringClients {
    strict: Arc<dyn ClientCertVerifier>,
}

impl RecoveringClients {
    pub(super) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, VerifierBuilderError> {
        let strict =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build()?;
        Ok(Self { strict })
    }
}

impl ClientCertVerifier for RecoveringClients {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        short(intermediates)?;
        let expired = match self.strict.verify_client_cert(end_entity, intermediates, now) {
            Err(error) if is_expired(&error) => error,
            verdict => return verdict,
        };
        match recoverable_at(end_entity, now) {
            // The last second of its validity: everything but the time is judged as for any other certificate.
            Some(moment) => self.strict.verify_client_cert(end_entity, intermediates, moment),
            None => Err(expired),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

/// Refuses chains that cost more than any of ours before a signature is looked at.
pub(super) fn short(intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
    }
    Ok(())
}

fn is_expired(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))
}

/// The end of a certificate's validity, when it lies behind us by no more than the window.
fn recoverable_at(end_entity: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
    let (_, not_after) = validity(end_entity).ok()?;
    let over = Duration::from_secs(now.as_secs()).checked_sub(not_after)?;
    (over <= RECOVERY_WINDOW).then(|| UnixTime::since_unix_epoch(not_after))
}
