//! Verifiers of a server that nobody has proven yet: by the pin of its authority, or not at all and then without a
//! connection.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, RootCertStore, SignatureScheme,
};

use super::authority::is_authority;
use super::fault::HandshakeFault;
use super::recovery::short;
use crate::pin::Pin;

/// Trusts the one authority with this pin, if the server shows it, and what it signed for the name that was asked for.
#[derive(Debug)]
pub(super) struct PinnedServer {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl PinnedServer {
    pub(super) fn new(pin: Pin, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider }
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        short(intermediates)?;
        // The pin of anything but an authority would make its bearer one: only a CA certificate can be pinned.
        let authority = intermediates
            .iter()
            .find(|shown| Pin::of(shown) == self.pin && is_authority(shown))
            .ok_or_else(|| refusal(HandshakeFault::Pin))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|_| refusal(HandshakeFault::Pin))?;
        strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Keeps what a server showed and refuses it: a look, never a connection.
#[derive(Debug)]
pub struct Glimpse {
    provider: Arc<CryptoProvider>,
    authority: Mutex<Option<CertificateDer<'static>>>,
}

impl Glimpse {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, authority: Mutex::new(None) }
    }

    /// The authority that the server showed as that of its own certificate; nothing about it is proven.
    #[must_use]
    pub fn authority(&self) -> Option<CertificateDer<'static>> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Glimpse {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        short(intermediates)?;
        let found = intermediates.iter().find(|shown| is_authority(shown)).map(|shown| shown.clone().into_owned());
        *self.authority.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Err(refusal(HandshakeFault::OnlyLooked))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refusal(HandshakeFault::OnlyLooked))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refusal(HandshakeFault::OnlyLooked))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refusal(fault: HandshakeFault) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
}
