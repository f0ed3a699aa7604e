//! What the certificate of an authority says of itself.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::peers::validity;

/// An authority's certificate, as far as people look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityWords {
    /// Its common name; not escaped yet.
    pub subject: String,
    /// When it ends, Unix time.
    pub not_after: Duration,
}

/// Tells whether a certificate is that of an authority, as its own words say.
#[must_use]
pub fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(rest, certificate)| rest.is_empty() && certificate.is_ca())
}

/// Reads what people look at; none when it is not the certificate of an authority.
#[must_use]
pub fn authority_words(certificate: &CertificateDer<'_>) -> Option<AuthorityWords> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    let (_, not_after) = validity(certificate).ok()?;
    is_authority(certificate).then(|| AuthorityWords { subject: subject.to_owned(), not_after })
}
