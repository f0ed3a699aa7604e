//! From a peer's request to the key that is certified: the one thing of it that reaches a certificate.

use common::tls::Csr;
use rcgen::SubjectPublicKeyInfo;

use super::error::CaError;

/// The public key of a request that was checked when it was read (protocol R-JOIN-4).
pub(super) fn public_key(request: &Csr) -> Result<SubjectPublicKeyInfo, CaError> {
    SubjectPublicKeyInfo::from_der(request.spki_der()).map_err(CaError::Make)
}
