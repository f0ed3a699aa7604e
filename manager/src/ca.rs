//! The certificate authority of a cluster: made at the first start, kept in `<dir>/ca`, it issues every certificate
//! of the link and the API.
//!
//! Certificates are built from our own parameters only; nothing of a peer's request is ever copied into one. The key
//! never leaves the folder, which only the manager's user can read.

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::durable;
use common::id::{Generation, Name};
use common::tls::{Identity, MANAGER_DNS, MaterialError, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

/// Validity of the authority itself.
const AUTHORITY_VALID: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Validity of the manager's own certificates; they are issued anew at every start.
const MANAGER_VALID: Duration = Duration::from_secs(365 * 24 * 3600);
/// How far back the beginning of a validity is dated, so that a host whose clock is a little late accepts it.
const BACK_DATED: Duration = Duration::from_secs(5 * 60);
/// Largest file that is read as the authority's.
const MAX_BYTES: u64 = 64 * 1024;

/// Why the authority cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the authority cannot be read or written.
    #[error("{path} cannot be read or written", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate is there and the key is not: making a new authority would lock the whole fleet out.
    #[error("{present} is there and {missing} is not; restore it, or remove both to start a new cluster", present = present.display(), missing = missing.display())]
    Half {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// Other users can read the key.
    #[error("the authority's key cannot be used")]
    Key(#[source] MaterialError),
    /// A certificate could not be made.
    #[error("the certificate cannot be made")]
    Make(#[source] rcgen::Error),
    /// A name cannot stand in a certificate.
    #[error("{0} cannot stand in a certificate")]
    Name(String),
    /// The work was cut short by the end of the program.
    #[error("the work was interrupted")]
    Interrupted,
}

/// A certificate with its key, PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and the authority's.
    pub chain_pem: String,
    /// The private key, which is kept nowhere else.
    pub key_pem: String,
}

/// Issues certificates.
pub struct Authority {
    cluster: Name,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority in `<dir>/ca`, or makes it when there is none.
    ///
    /// # Errors
    /// When a file cannot be read or written, or only half of the authority is there.
    pub fn open(dir: &Path, cluster: &Name, now: Duration) -> Result<Self, CaError> {
        let folder = dir.join("ca");
        durable::create_folder(&folder).map_err(|source| CaError::File { path: folder.clone(), source })?;
        let (cert, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        match (cert.exists(), key.exists()) {
            (true, true) => {}
            (false, false) => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
                write(&key, &pair.serialize_pem())?;
                write(&cert, &certificate(&pair, cluster, now)?)?;
            }
            // A start died between the two, or somebody lost the certificate. The same key under the same name
            // verifies everything that was ever issued.
            (false, true) => write(&cert, &certificate(&load_pair(&key)?, cluster, now)?)?,
            (true, false) => return Err(CaError::Half { present: cert, missing: key }),
        }
        let (ca_pem, key) = (read(&cert)?, load_pair(&key)?);
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key).map_err(CaError::Make)?;
        Ok(Self { cluster: cluster.clone(), ca_pem, issuer })
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Issues the certificate of an agent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue_agent(&self, name: &Name, generation: Generation, valid: Duration) -> Result<Issued, CaError> {
        self.issue_agent_at(name, generation, unix_now(), valid)
    }

    /// Issues the certificate of an agent, valid from (almost) `now` on, which is Unix time.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue_agent_at(
        &self,
        name: &Name,
        generation: Generation,
        now: Duration,
        valid: Duration,
    ) -> Result<Issued, CaError> {
        let identity = Identity { cluster: self.cluster.clone(), role: Role::Agent, name: name.clone(), generation };
        let names = vec![uri(&identity)?];
        self.issue(name.as_str(), names, &[ExtendedKeyUsagePurpose::ClientAuth], now, valid)
    }

    /// Issues the certificate that the manager shows to agents and operators.
    ///
    /// # Errors
    /// When it cannot be made, or one of `names` is neither a DNS name nor an address.
    pub fn issue_manager(&self, name: &Name, names: &[String]) -> Result<Issued, CaError> {
        let identity = Identity {
            cluster: self.cluster.clone(),
            role: Role::Manager,
            name: name.clone(),
            generation: Generation(1),
        };
        let mut sans = vec![uri(&identity)?];
        let usual = [MANAGER_DNS, "localhost", "127.0.0.1", "::1", name.as_str()].map(str::to_owned);
        let mut seen = Vec::new();
        for name in usual.iter().chain(names) {
            if !seen.contains(&name) {
                seen.push(name);
                sans.push(host(name)?);
            }
        }
        self.issue(name.as_str(), sans, &[ExtendedKeyUsagePurpose::ServerAuth], unix_now(), MANAGER_VALID)
    }

    /// Issues a certificate for exactly these names, valid from (almost) `now` on.
    fn issue(
        &self,
        common_name: &str,
        names: Vec<SanType>,
        usages: &[ExtendedKeyUsagePurpose],
        now: Duration,
        valid: Duration,
    ) -> Result<Issued, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
        let mut params = parameters(common_name, now, valid);
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Make)?;
        Ok(Issued { chain_pem: format!("{}{}", certificate.pem(), self.ca_pem), key_pem: key.serialize_pem() })
    }
}

/// Makes the authority's own certificate.
fn certificate(pair: &KeyPair, cluster: &Name, now: Duration) -> Result<String, CaError> {
    let mut params = parameters(&format!("Paprika CA of {cluster}"), now, AUTHORITY_VALID);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(pair).map_err(CaError::Make)?.pem())
}

/// Reads the key, once its file's mode was judged.
fn load_pair(path: &Path) -> Result<KeyPair, CaError> {
    common::tls::load_key(path).map_err(CaError::Key)?;
    KeyPair::from_pem(&read(path)?).map_err(CaError::Make)
}

fn write(path: &Path, text: &str) -> Result<(), CaError> {
    durable::replace(path, text.as_bytes()).map_err(|source| CaError::File { path: path.to_owned(), source })
}

fn parameters(common_name: &str, now: Duration, valid: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACK_DATED);
    params.not_after = epoch + now.saturating_add(valid);
    params.distinguished_name = DistinguishedName::new();
    // X.520 allows 64 characters; the identity is in the URI, this is for people.
    let common_name: String = common_name.chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn uri(identity: &Identity) -> Result<SanType, CaError> {
    let text = identity.to_string();
    text.as_str().try_into().map(SanType::URI).map_err(|_| CaError::Name(text))
}

fn host(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plausible = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*'));
    let text = name.try_into().map(SanType::DnsName);
    match text {
        Ok(san) if plausible => Ok(san),
        _ => Err(CaError::Name(common::escape::text(name))),
    }
}

fn read(path: &Path) -> Result<String, CaError> {
    let file = |source| CaError::File { path: path.to_owned(), source };
    let mut text = String::new();
    fs::File::open(path).map_err(file)?.take(MAX_BYTES).read_to_string(&mut text).map_err(file)?;
    Ok(text)
}

fn unix_now() -> Duration {
    Duration::from_millis(common::clock::unix_ms())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use common::tls;

    use super::*;

    fn authority(dir: &Path) -> Result<Authority, CaError> {
        Authority::open(dir, &"c1".parse().unwrap(), unix_now())
    }

    #[test]
    fn an_authority_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = authority(dir.path()).unwrap();
        let again = authority(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        let mode = fs::metadata(dir.path().join("ca/ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_lost_key_is_an_error_and_not_a_new_cluster() {
        let dir = tempfile::tempdir().unwrap();
        authority(dir.path()).unwrap();
        fs::remove_file(dir.path().join("ca/ca.key")).unwrap();
        assert!(matches!(authority(dir.path()), Err(CaError::Half { .. })));
    }

    #[test]
    fn a_lost_certificate_is_made_again_from_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        authority(dir.path()).unwrap();
        let key = fs::read(dir.path().join("ca/ca.key")).unwrap();
        fs::remove_file(dir.path().join("ca/ca.pem")).unwrap();
        authority(dir.path())
            .unwrap()
            .issue_agent(&"web1".parse().unwrap(), Generation(1), Duration::from_secs(60))
            .unwrap();
        assert_eq!(fs::read(dir.path().join("ca/ca.key")).unwrap(), key);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        authority(dir.path()).unwrap();
        let key = dir.path().join("ca/ca.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(authority(dir.path()), Err(CaError::Key(_))));
    }

    #[test]
    fn an_agents_certificate_carries_its_identity_and_fits_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority(dir.path()).unwrap();
        let name: Name = "web1.example".parse().unwrap();
        let issued = authority.issue_agent(&name, Generation(7), Duration::from_secs(3600)).unwrap();
        let chain = tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
        let identity = tls::peer_identity(chain.first().unwrap()).unwrap();
        assert_eq!(identity.to_string(), "paprika://c1/agent/web1.example/7");
        let key = tls::key_from_pem(issued.key_pem.as_bytes()).unwrap();
        let roots = tls::roots_from_pem(authority.ca_pem().as_bytes()).unwrap();
        tls::link_client(chain, key, roots).unwrap();
    }

    #[test]
    fn a_managers_certificate_takes_more_names_and_refuses_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority(dir.path()).unwrap();
        let name: Name = "m1".parse().unwrap();
        let issued = authority.issue_manager(&name, &["api.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        let chain = tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
        assert_eq!(tls::peer_identity(chain.first().unwrap()).unwrap().role, Role::Manager);
        assert!(matches!(authority.issue_manager(&name, &["a b".to_owned()]), Err(CaError::Name(_))));
    }
}
