//! A certificate authority for tests: makes the right certificates and every wrong one.
//!
//! It can sit on the manager's own authority (so that only the one thing is wrong that a test is about) or be a foreign
//! one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use common::clock::unix_ms;
use common::id::{Generation, Name};
use common::tls::{Identity, MANAGER_DNS, Role, chain_from_pem, key_from_pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

use crate::peer::Credentials;

const HOUR: Duration = Duration::from_secs(3600);

/// An authority that does what it is told.
#[derive(Debug)]
pub struct Pki {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// To dial.
    Client,
    /// To be dialled.
    Server,
    /// Both.
    Both,
    /// Nothing in particular.
    Unnamed,
}

/// What a certificate is to say. Start with [`Leaf::agent`] and make one thing wrong.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// URIs among its names.
    pub uris: Vec<String>,
    /// DNS names among its names.
    pub dns: Vec<String>,
    /// Hours from now to the beginning of its validity.
    pub begins_in_hours: i64,
    /// Hours from now to its end.
    pub ends_in_hours: i64,
    /// What it may be used for.
    pub usage: Usage,
    /// Whether it says that it is an authority.
    pub authority: bool,
}

impl Leaf {
    /// What a proper certificate of an agent says.
    #[must_use]
    pub fn agent(cluster: &Name, name: &Name, generation: u64) -> Self {
        Self::of(cluster, Role::Agent, name, generation)
    }

    /// The same for any role.
    #[must_use]
    pub fn of(cluster: &Name, role: Role, name: &Name, generation: u64) -> Self {
        let identity =
            Identity { cluster: cluster.clone(), role, name: name.clone(), generation: Generation(generation) };
        let uris = vec![identity.to_string()];
        Self { uris, dns: Vec::new(), begins_in_hours: -1, ends_in_hours: 1, usage: Usage::Client, authority: false }
    }

    /// What a proper certificate of a manager says.
    #[must_use]
    pub fn manager(cluster: &Name, name: &Name) -> Self {
        let dns = vec![MANAGER_DNS.to_owned()];
        Self { dns, usage: Usage::Server, ..Self::of(cluster, Role::Manager, name, 1) }
    }
}

impl Pki {
    /// Makes an authority that nobody knows.
    ///
    /// # Errors
    /// When the system has no random source.
    pub fn foreign() -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "somebody else's CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), ca_pem })
    }

    /// Opens the authority in a manager's folder `ca`, the one that signs now.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn of_manager(manager_dir: &Path) -> anyhow::Result<Self> {
        let folder = manager_dir.join("ca");
        let stem = match fs::read_to_string(folder.join("authorities.json")) {
            Ok(list) => active(&list).context("the list of authorities")?,
            Err(_) => "ca".to_owned(),
        };
        let ca_pem = fs::read_to_string(folder.join(format!("{stem}.pem"))).context("the manager's CA")?;
        let key = KeyPair::from_pem(&fs::read_to_string(folder.join(format!("{stem}.key")))?)?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&ca_pem, key)?, ca_pem })
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Issues a certificate; whoever uses it trusts `trusted`, which is the manager's authority in most tests.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue(&self, leaf: &Leaf, trusted: &Self) -> anyhow::Result<Credentials> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Credentials::from_pem(&self.certify(leaf, &key)?, &key.serialize_pem(), trusted.ca_pem())
    }

    /// The certificate alone, PEM, for a key that is there already, PEM.
    ///
    /// # Errors
    /// When the key cannot be read, or a name cannot stand in a certificate.
    pub fn reissue(&self, leaf: &Leaf, key_pem: &str) -> anyhow::Result<String> {
        self.certify(leaf, &KeyPair::from_pem(key_pem)?)
    }

    fn certify(&self, leaf: &Leaf, key: &KeyPair) -> anyhow::Result<String> {
        let mut params = CertificateParams::default();
        let moment = |hours: i64| {
            let shift = HOUR * u32::try_from(hours.unsigned_abs()).unwrap_or(u32::MAX);
            let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(unix_ms());
            if hours < 0 { now - shift } else { now + shift }
        };
        params.not_before = moment(leaf.begins_in_hours);
        params.not_after = moment(leaf.ends_in_hours);
        for uri in &leaf.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        for name in &leaf.dns {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.is_ca = if leaf.authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
        params.extended_key_usages = match leaf.usage {
            Usage::Client => vec![client],
            Usage::Server => vec![server],
            Usage::Both => vec![client, server],
            Usage::Unnamed => Vec::new(),
        };
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// The beginning of the file names of the authority that a manager signs with.
fn active(list: &str) -> Option<String> {
    let number: u32 = list.split_once("\"active\":")?.1.split(',').next()?.trim().parse().ok()?;
    Some(if number == 1 { "ca".to_owned() } else { format!("ca-{number}") })
}

impl Credentials {
    /// Reads what an agent keeps in `cert.pem`, `key.pem` and `ca.pem`.
    ///
    /// # Errors
    /// When one of them is damaged.
    pub fn from_pem(chain: &str, key: &str, ca: &str) -> anyhow::Result<Self> {
        Ok(Self {
            chain: chain_from_pem(chain.as_bytes())?,
            key: key_from_pem(key.as_bytes())?,
            roots: common::tls::roots_from_pem(ca.as_bytes())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use common::tls::peer_identity;

    use super::*;

    #[test]
    fn certificates_say_what_they_are_told() -> anyhow::Result<()> {
        let pki = Pki::foreign()?;
        let (cluster, name) = ("c1".parse()?, "web1".parse()?);
        let right = pki.issue(&Leaf::agent(&cluster, &name, 3), &pki)?;
        let shown = right.chain.first().map(peer_identity).transpose()?.map(|one| one.to_string());
        assert_eq!(shown.as_deref(), Some("paprika://c1/agent/web1/3"));
        let nobody = pki.issue(&Leaf { uris: Vec::new(), ..Leaf::agent(&cluster, &name, 3) }, &pki)?;
        assert!(nobody.chain.first().map(peer_identity).is_some_and(|one| one.is_err()));
        Ok(())
    }
}
