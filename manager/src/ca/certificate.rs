//! What stands in our certificates: built here from our own parameters, in one place for each kind.

use std::net::IpAddr;
use std::time::Duration;

use common::id::Name;
use common::limits::{AUTHORITY_BACK_DATED, BACK_DATED};
use common::tls::{Identity, Role};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};

use super::error::CaError;

/// Validity of an authority.
const AUTHORITY_VALID: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Characters of a common name (X.520). The identity is in the URI, this is for people.
const MAX_COMMON_NAME: usize = 64;

/// From when to when a certificate holds, Unix time (protocol R-TLS-7).
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    from: Duration,
    to: Duration,
}

impl Span {
    /// Of agents and operators: from almost `now` on, so that a host whose clock is a little late accepts it. The manager's
    /// time never goes back, but the wall clock that our own doors judge by may have been set right: it begins by that one.
    pub(super) fn of_client(now: Duration, wall: Duration, valid: Duration) -> Self {
        Self { from: now.min(wall).saturating_sub(BACK_DATED), to: now.saturating_add(valid) }
    }

    /// Of authorities and managers: a host whose clock is years late must be able to hear the right time from them.
    pub(super) fn of_server(now: Duration, valid: Duration) -> Self {
        Self { from: now.saturating_sub(AUTHORITY_BACK_DATED), to: now.saturating_add(valid) }
    }
}

/// The certificate of an authority, signed by itself.
pub(super) fn of_authority(number: u32, cluster: &Name, pair: &KeyPair, now: Duration) -> Result<String, CaError> {
    // One authority below it: the next one, while agents that were away know only this one.
    let params = authority(number, cluster, now, 1);
    Ok(params.self_signed(pair).map_err(CaError::Make)?.pem())
}

/// The certificate of an authority, signed by the one before it.
pub(super) fn crossed(
    number: u32,
    cluster: &Name,
    pair: &KeyPair,
    older: &Issuer<'static, KeyPair>,
    now: Duration,
) -> Result<String, CaError> {
    let mut params = authority(number, cluster, now, 0);
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(pair, older).map_err(CaError::Make)?.pem())
}

/// A certificate for exactly these names.
pub(super) fn of_leaf(
    identity: &Identity,
    names: Vec<SanType>,
    span: Span,
    key: &impl PublicKeyData,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<Certificate, CaError> {
    let mut params = parameters(identity.name.as_str(), span);
    params.subject_alt_names = vec![uri(identity)?];
    params.subject_alt_names.extend(names);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match identity.role {
        Role::Agent | Role::Operator => ExtendedKeyUsagePurpose::ClientAuth,
        Role::Manager => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    params.signed_by(key, issuer).map_err(CaError::Make)
}

/// A DNS name or an address among the names of a certificate.
pub(super) fn host(name: &str) -> Result<SanType, CaError> {
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

fn authority(number: u32, cluster: &Name, now: Duration, below: u8) -> CertificateParams {
    // Each has a name of its own: a chain is built by names, and two of the same name would be taken for one another.
    let common_name = match number {
        1 => format!("Paprika CA of {cluster}"),
        number => format!("Paprika CA {number} of {cluster}"),
    };
    let mut params = parameters(&common_name, Span::of_server(now, AUTHORITY_VALID));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn parameters(common_name: &str, span: Span) -> CertificateParams {
    let mut params = CertificateParams::default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + span.from;
    params.not_after = epoch + span.to;
    params.distinguished_name = DistinguishedName::new();
    let common_name: String = common_name.chars().take(MAX_COMMON_NAME).collect();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn uri(identity: &Identity) -> Result<SanType, CaError> {
    let text = identity.to_string();
    text.as_str().try_into().map(SanType::URI).map_err(|_| CaError::Name(text))
}
