//! A certificate request of a stranger: the proof that it holds a key, and that key. Nothing else of it is ever used
//! (protocol R-JOIN-4).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::limits::MAX_CSR_BYTES;
use crate::pin::sha256;

/// Bytes of a P-256 key: uncompressed, as TLS uses it.
const P256_BYTES: usize = 65;
/// What an uncompressed point begins with.
const UNCOMPRESSED: u8 = 4;
/// Bytes of an Ed25519 key.
const ED25519_BYTES: usize = 32;

/// A key whose holder asked for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    spki: Vec<u8>,
}

/// Why a request is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is too long.
    #[error("a certificate request has at most {MAX_CSR_BYTES} bytes")]
    Long,
    /// It cannot be read.
    #[error("the certificate request cannot be read")]
    Unreadable,
    /// Its key is of another kind.
    #[error("the key of the certificate request is neither P-256 nor Ed25519")]
    Key,
    /// Whoever sent it does not hold the key.
    #[error("the signature of the certificate request is not that of its key")]
    Signature,
}

impl Csr {
    /// Reads a request in DER form and checks that it is signed by its own key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrError::Long);
        }
        let Ok((rest, request)) = X509CertificationRequest::from_der(der) else {
            return Err(CsrError::Unreadable);
        };
        if !rest.is_empty() {
            return Err(CsrError::Unreadable);
        }
        let info = &request.certification_request_info;
        let algorithm = algorithm(&info.subject_pki).ok_or(CsrError::Key)?;
        let said = &request.signature_algorithm.algorithm;
        let fits = match algorithm {
            Kind::P256 => *said == OID_SIG_ECDSA_WITH_SHA256,
            Kind::Ed25519 => *said == OID_SIG_ED25519,
        };
        if !fits {
            return Err(CsrError::Signature);
        }
        UnparsedPublicKey::new(algorithm.verification(), &info.subject_pki.subject_public_key.data)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| CsrError::Signature)?;
        Ok(Self { spki: info.subject_pki.raw.to_vec() })
    }

    /// The public key: SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 over the public key: what a key is known by.
    #[must_use]
    pub fn spki(&self) -> [u8; 32] {
        sha256(&self.spki)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    P256,
    Ed25519,
}

impl Kind {
    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::Ed25519 => &ED25519,
        }
    }
}

fn algorithm(key: &SubjectPublicKeyInfo<'_>) -> Option<Kind> {
    let kind = &key.algorithm.algorithm;
    let bytes = &key.subject_public_key.data;
    if *kind == OID_SIG_ED25519 && key.algorithm.parameters.is_none() {
        return (bytes.len() == ED25519_BYTES).then_some(Kind::Ed25519);
    }
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    let p256 = *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve.is_some_and(|curve| curve == OID_EC_P256);
    (p256 && bytes.len() == P256_BYTES && bytes.first() == Some(&UNCOMPRESSED)).then_some(Kind::P256)
}
