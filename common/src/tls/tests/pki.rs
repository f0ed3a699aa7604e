//! Authorities and certificates that say what a test wants them to say.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Eku, IsCa, Issuer, KeyPair,
    KeyUsagePurpose as Ku, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::tls::{MANAGER_DNS, chain_from_pem, key_from_pem, roots_from_pem};

/// The moment at which tests look at certificates, Unix time. Later than any real clock of a build.
pub(super) const NOW: Duration = Duration::from_secs(2_000_000_000);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority.
pub(super) struct Ca {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is to say. Start with one of the right ones and make one thing wrong.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) uris: Vec<String>,
    pub(super) dns: Vec<String>,
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) eku: Vec<Eku>,
    pub(super) ku: Vec<Ku>,
    pub(super) is_ca: IsCa,
}

/// A certificate with its key.
pub(super) struct Made {
    /// Leaf first, then the authority.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) chain_pem: String,
    pub(super) key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Spec {
    pub(super) fn of(role: &str, name: &str) -> Self {
        let server = role == "manager";
        Self {
            uris: vec![format!("paprika://c1/{role}/{name}/3")],
            dns: if server { vec![MANAGER_DNS.to_owned()] } else { Vec::new() },
            from: NOW - HOUR,
            to: NOW + HOUR,
            eku: vec![if server { Eku::ServerAuth } else { Eku::ClientAuth }],
            ku: vec![Ku::DigitalSignature],
            is_ca: IsCa::ExplicitNoCa,
        }
    }

    pub(super) fn agent() -> Self {
        Self::of("agent", "web1")
    }

    pub(super) fn manager() -> Self {
        Self::of("manager", "m1")
    }

    pub(super) fn operator() -> Self {
        Self::of("operator", "ann")
    }

    pub(super) fn uris(uris: &[&str]) -> Self {
        Self { uris: uris.iter().map(ToString::to_string).collect(), ..Self::agent() }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(1970, 1, 1) + self.from;
        params.not_after = date_time_ymd(1970, 1, 1) + self.to;
        params.subject_alt_names = self.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
        let dns = self.dns.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap()));
        params.subject_alt_names.extend(dns);
        params.extended_key_usages = self.eku.clone();
        params.key_usages = self.ku.clone();
        params.is_ca = self.is_ca;
        params
    }
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let key = key();
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = date_time_ymd(1970, 1, 1) + NOW + 3650 * DAY;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Ku::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        chain_from_pem(self.pem.as_bytes()).unwrap().remove(0)
    }

    pub(super) fn roots(&self) -> RootCertStore {
        roots_from_pem(self.pem.as_bytes()).unwrap()
    }

    pub(super) fn make(&self, spec: &Spec) -> Made {
        Made::new(spec, key(), &self.issuer, &self.pem)
    }

    /// Certifies a key that was made elsewhere.
    pub(super) fn make_for(&self, spec: &Spec, key_pem: &str) -> Made {
        Made::new(spec, KeyPair::from_pem(key_pem).unwrap(), &self.issuer, &self.pem)
    }
}

impl Made {
    fn new(spec: &Spec, key: KeyPair, issuer: &Issuer<'static, KeyPair>, above: &str) -> Self {
        let params = spec.params();
        let chain_pem = format!("{}{above}", params.signed_by(&key, issuer).unwrap().pem());
        let key_pem = key.serialize_pem();
        let chain = chain_from_pem(chain_pem.as_bytes()).unwrap();
        Self { chain, chain_pem, key_pem, issuer: Issuer::new(params, key) }
    }

    /// Signed by itself and nobody else.
    pub(super) fn by_itself(spec: &Spec) -> Self {
        let (params, key) = (spec.params(), key());
        let chain_pem = params.self_signed(&key).unwrap().pem();
        let key_pem = key.serialize_pem();
        let chain = chain_from_pem(chain_pem.as_bytes()).unwrap();
        Self { chain, chain_pem, key_pem, issuer: Issuer::new(params, key) }
    }

    /// What the bearer of this certificate signs as if it were an authority.
    pub(super) fn signs(&self, spec: &Spec) -> Self {
        Self::new(spec, key(), &self.issuer, &self.chain_pem)
    }

    pub(super) fn leaf(&self) -> &CertificateDer<'static> {
        self.chain.first().unwrap()
    }

    pub(super) fn rest(&self) -> &[CertificateDer<'static>] {
        self.chain.get(1..).unwrap()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        key_from_pem(self.key_pem.as_bytes()).unwrap()
    }
}

pub(super) fn at(moment: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(moment)
}

/// A clock that stands still.
#[derive(Debug)]
pub(super) struct Still(pub(super) Duration);

impl rustls::time_provider::TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(at(self.0))
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}
