//! Certificates and keys from files. A private key that others can read is refused.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};

use crate::durable::read_bounded;
use crate::limits::HASH_BYTES;

/// Largest file that is read as a certificate or key: a bundle of a few hundred anchors.
const MAX_BYTES: u64 = 1024 * 1024;
/// Characters in a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

/// Why a file or text is not the certificate or key it should be.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// The file cannot be read.
    #[error("{path} cannot be read", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Users other than the owner can read the key.
    #[error("{path} has mode {mode:04o}: a private key must be readable by its owner alone (chmod 600)", path = path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The content is not what it should be.
    #[error("{origin} holds no usable {what} in PEM form")]
    Content {
        /// Which file or text.
        origin: String,
        /// What was looked for.
        what: &'static str,
    },
}

/// Reads a certificate chain, leaf first.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    chain_from_pem(&read(path, false)?).map_err(|error| name(error, path))
}

/// Reads a private key.
///
/// # Errors
/// When the file cannot be read, can be read by others, or holds no key.
pub fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, MaterialError> {
    key_from_pem(&read(path, true)?).map_err(|error| name(error, path))
}

/// Reads trust anchors.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn load_roots(path: &Path) -> Result<RootCertStore, MaterialError> {
    roots_from_pem(&read(path, false)?).map_err(|error| name(error, path))
}

/// Reads a certificate chain from PEM text, leaf first.
///
/// # Errors
/// When there is none or one is damaged.
pub fn chain_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| content("certificate"))?;
    if chain.is_empty() { Err(content("certificate")) } else { Ok(chain) }
}

/// Reads a private key from PEM text.
///
/// # Errors
/// When there is none or it is damaged.
pub fn key_from_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, MaterialError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| content("private key"))
}

/// Reads trust anchors from PEM text.
///
/// # Errors
/// When there is none or one is damaged.
pub fn roots_from_pem(pem: &[u8]) -> Result<RootCertStore, MaterialError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain_from_pem(pem)? {
        roots.add(certificate).map_err(|_| content("certificate"))?;
    }
    Ok(roots)
}

/// Reads a certificate request from PEM text; answers its DER form, whose content nobody judged yet.
///
/// # Errors
/// When there is none or it is damaged.
pub fn csr_from_pem(pem: &[u8]) -> Result<Vec<u8>, MaterialError> {
    let request = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| content("certificate request"))?;
    Ok(request.as_ref().to_vec())
}

/// BLAKE3-256 over a set of authorities: their DER forms, sorted, one behind the other. Agent and manager compare what
/// is trusted by it (protocol R-RENEW-5).
#[must_use]
pub fn bundle_hash(authorities: &[CertificateDer<'_>]) -> [u8; HASH_BYTES] {
    let mut sorted: Vec<&[u8]> = authorities.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut hasher = blake3::Hasher::new();
    for certificate in sorted {
        hasher.update(certificate);
    }
    *hasher.finalize().as_bytes()
}

/// The same for a file's text.
///
/// # Errors
/// When there is no certificate in it, or one is damaged.
pub fn bundle_hash_of_pem(pem: &[u8]) -> Result<[u8; HASH_BYTES], MaterialError> {
    Ok(bundle_hash(&chain_from_pem(pem)?))
}

/// Writes a certificate as PEM text.
#[must_use]
pub fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(PEM_LINE) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn read(path: &Path, private: bool) -> Result<Vec<u8>, MaterialError> {
    let unreadable = |source| MaterialError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // The opened file is judged, not the name: the name may point elsewhere a moment later.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if private && mode & 0o077 != 0 {
        return Err(MaterialError::Exposed { path: path.to_owned(), mode });
    }
    read_bounded(file, MAX_BYTES).map_err(unreadable)
}

fn content(what: &'static str) -> MaterialError {
    MaterialError::Content { origin: "the text".to_owned(), what }
}

fn name(error: MaterialError, path: &Path) -> MaterialError {
    match error {
        MaterialError::Content { what, .. } => MaterialError::Content { origin: path.display().to_string(), what },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_refused_before_its_content_is_looked_at() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key.pem");
        fs::write(&path, "nonsense")?;
        for (mode, exposed) in [(0o644, true), (0o640, true), (0o604, true), (0o600, false), (0o400, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            let refused = load_key(&path);
            assert_eq!(matches!(refused, Err(MaterialError::Exposed { .. })), exposed, "{mode:o}");
            assert!(refused.is_err());
        }
        Ok(())
    }

    #[test]
    fn errors_name_the_file() {
        let missing = load_chain(Path::new("/nowhere/cert.pem"));
        assert!(missing.is_err_and(|error| error.to_string().contains("/nowhere/cert.pem")));
    }
}
