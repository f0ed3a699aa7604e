//! A host's own key, made here and never shown to anybody, and the request for a certificate of it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::config::Secret;
use crate::pin::sha256;

/// A key and the request for its certificate.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// The private key, PEM. It goes into a file that only its owner can read, and nowhere else.
    pub key_pem: Secret,
    /// What goes to the manager: DER PKCS#10.
    pub csr: Vec<u8>,
    /// SHA-256 over the public key.
    pub spki: [u8; 32],
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
#[error("the key or the certificate request cannot be made")]
pub struct RequestError(#[source] rcgen::Error);

/// Makes a P-256 key and the request for its certificate.
///
/// # Errors
/// When the system has no random source.
pub fn new_key() -> Result<KeyRequest, RequestError> {
    request(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(RequestError)?)
}

/// Makes the request for a key that is there already: a join or a renewal that was cut short goes on with the same one.
///
/// # Errors
/// When the text is not a private key in PEM form.
pub fn make_csr(key_pem: &Secret) -> Result<KeyRequest, RequestError> {
    request(&KeyPair::from_pem(key_pem.expose()).map_err(RequestError)?)
}

fn request(key: &KeyPair) -> Result<KeyRequest, RequestError> {
    use rcgen::PublicKeyData;
    let mut params = CertificateParams::default();
    // The manager takes only the key (protocol R-JOIN-4): there is nothing to ask for.
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(key).map_err(RequestError)?.der().to_vec();
    Ok(KeyRequest { key_pem: Secret::new(key.serialize_pem()), csr, spki: sha256(&key.subject_public_key_info()) })
}
