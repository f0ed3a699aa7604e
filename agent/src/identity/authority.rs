//! An authority for the tests of this package: it certifies what it is told.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::handshake::IssuedText;
use common::tls::{self, Csr, KeyRequest, MANAGER_DNS, ServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SubjectPublicKeyInfo, date_time_ymd,
};

use super::material::{Files, Material};
use super::schedule::Validity;

/// In milliseconds.
pub(crate) const HOUR: u64 = 3_600_000;

/// What the certificate of a server says; a proper manager's, unless a test changes one thing.
pub(crate) struct Server<'a> {
    pub(crate) uri: &'a str,
    pub(crate) dns: Option<&'a str>,
    pub(crate) usage: ExtendedKeyUsagePurpose,
    pub(crate) validity: Validity,
    pub(crate) by_itself: bool,
}

impl Default for Server<'_> {
    fn default() -> Self {
        let now = common::clock::unix_ms();
        Self {
            uri: "paprika://c1/manager/m1/1",
            dns: Some(MANAGER_DNS),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            validity: Validity { from_ms: now - HOUR, until_ms: now + HOUR },
            by_itself: false,
        }
    }
}

fn params(uri: &str, usage: ExtendedKeyUsagePurpose, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let moment = |ms: u64| date_time_ymd(1970, 1, 1) + Duration::from_millis(ms);
    params.not_before = moment(validity.from_ms);
    params.not_after = moment(validity.until_ms);
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

/// Signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(common_name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn certify(&self, key: &impl PublicKeyData, uri: &str, validity: Validity) -> String {
        let params = params(uri, ExtendedKeyUsagePurpose::ClientAuth, validity);
        params.signed_by(key, &self.issuer).unwrap().pem() + &self.pem
    }

    /// A certificate for the key of an agent.
    pub(crate) fn agent(&self, request: &KeyRequest, uri: &str, validity: Validity) -> String {
        let key = KeyPair::from_pem(request.key_pem.expose()).unwrap();
        self.certify(&key, uri, validity)
    }

    /// The answer to a request.
    pub(crate) fn answer(&self, csr: &[u8], uri: &str, validity: Validity) -> IssuedText {
        let key = SubjectPublicKeyInfo::from_der(Csr::read(csr).unwrap().spki_der()).unwrap();
        let chain_pem = self.certify(&key, uri, validity);
        IssuedText { chain_pem, bundle_pem: self.pem.clone(), not_after: Duration::from_millis(validity.until_ms) }
    }

    /// The end of a server whose certificate says what it is told; `chained` shows the authority behind it.
    pub(crate) fn server(&self, leaf: &Server<'_>, chained: bool) -> Arc<ServerConfig> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = params(leaf.uri, leaf.usage.clone(), leaf.validity);
        if let Some(dns) = leaf.dns {
            params.subject_alt_names.push(SanType::DnsName(dns.try_into().unwrap()));
        }
        let signed = if leaf.by_itself { params.self_signed(&key) } else { params.signed_by(&key, &self.issuer) };
        let mut chain = tls::chain_from_pem(signed.unwrap().pem().as_bytes()).unwrap();
        if chained {
            chain.extend(tls::chain_from_pem(self.pem.as_bytes()).unwrap());
        }
        let private = tls::key_from_pem(key.serialize_pem().as_bytes()).unwrap();
        tls::link_server(chain, private, tls::roots_from_pem(self.pem.as_bytes()).unwrap()).unwrap()
    }

    /// The end of a proper manager.
    pub(crate) fn manager(&self) -> Arc<ServerConfig> {
        self.server(&Server::default(), true)
    }

    /// A whole identity in a folder.
    pub(crate) fn identity(&self, folder: &Path, uri: &str, validity: Validity) -> Material {
        let request = tls::new_key().unwrap();
        let files = Files { cert: folder.join("cert.pem"), key: folder.join("key.pem"), ca: folder.join("ca.pem") };
        common::durable::create_folder(folder).unwrap();
        common::durable::replace(&files.cert, self.agent(&request, uri, validity).as_bytes()).unwrap();
        common::durable::replace(&files.key, request.key_pem.expose().as_bytes()).unwrap();
        common::durable::replace(&files.ca, self.pem.as_bytes()).unwrap();
        Material::load(&files).unwrap()
    }
}
