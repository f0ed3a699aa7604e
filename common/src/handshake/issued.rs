//! A certificate on its way to the host: as the answer to a hello, and inside a live session.
//!
//! The texts are bounded here and judged in [`crate::tls::check_issued`], which knows certificates.

use std::time::Duration;

use bytes::Bytes;

use super::bundle::{hash_bytes, optional_hash};
use super::refusal::truncate;
use super::welcome::{WelcomeError, refused};
use crate::id::Name;
use crate::limits;
use crate::session::{Judgement, Side, Stage, judge};
use crate::version::Version;
use crate::wire::frame::Body;
use crate::wire::renew::What;
use crate::wire::{self, Frame, Renew, ServerHello, nak};

/// A certificate and the authorities to trust, as texts within their bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedText {
    /// PEM: the certificate, then what it is signed by.
    pub chain_pem: String,
    /// PEM: every authority to trust from now on.
    pub bundle_pem: String,
    /// When the certificate ends, Unix time.
    pub not_after: Duration,
}

impl IssuedText {
    /// The wire form.
    #[must_use]
    pub fn to_wire(&self) -> wire::Issued {
        wire::Issued {
            chain_pem: self.chain_pem.clone(),
            bundle_pem: self.bundle_pem.clone(),
            not_after_ms: u64::try_from(self.not_after.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// When a text is missing or too long.
    pub fn read(issued: &wire::Issued) -> Result<Self, &'static str> {
        if issued.chain_pem.is_empty() || issued.bundle_pem.is_empty() {
            return Err("the issued certificate or bundle is missing");
        }
        if issued.chain_pem.len() > limits::MAX_CHAIN_PEM || issued.bundle_pem.len() > limits::MAX_BUNDLE_PEM {
            return Err("the issued certificate or bundle is too long");
        }
        Ok(Self {
            chain_pem: issued.chain_pem.clone(),
            bundle_pem: issued.bundle_pem.clone(),
            not_after: Duration::from_millis(issued.not_after_ms),
        })
    }
}

/// What a manager answers to a hello with a request.
#[derive(Debug, Clone)]
pub struct IssuedParams {
    /// The chosen version.
    pub version: Version,
    /// The cluster.
    pub cluster: Name,
    /// Manager time.
    pub clock_ms: u64,
    /// What was issued.
    pub issued: IssuedText,
    /// The hash of the authorities in it.
    pub bundle_hash: [u8; limits::HASH_BYTES],
}

/// Builds the answer to a join or a recovery. There is no session behind it: its epoch is 0, and a Bye follows.
#[must_use]
pub fn issued(params: &IssuedParams) -> Body {
    Body::ServerHello(ServerHello {
        protocol: params.version as u32,
        cluster_id: params.cluster.to_string(),
        clock_ms: params.clock_ms,
        issued: Some(params.issued.to_wire()),
        bundle_hash: hash_bytes(Some(params.bundle_hash)),
        ..ServerHello::default()
    })
}

/// An answer to a join or a recovery.
#[derive(Debug, Clone)]
pub struct IssuedAnswer {
    /// The cluster.
    pub cluster: Name,
    /// Manager time.
    pub clock_ms: u64,
    /// What was issued; its content is checked by [`crate::tls::check_issued`].
    pub issued: IssuedText,
}

/// Judges the manager's answer to a hello with a request.
///
/// # Errors
/// When it is a refusal or makes no sense.
pub fn read_issued(frame: &Frame) -> Result<IssuedAnswer, WelcomeError> {
    let protocol = WelcomeError::Protocol;
    if let Judgement::Violation(reason) = judge(Side::Manager, Stage::Hello, frame) {
        return Err(protocol(reason));
    }
    let answer = match &frame.body {
        Some(Body::ServerHello(answer)) => answer,
        Some(Body::Bye(bye)) => return Err(refused(bye)),
        _ => return Err(protocol("the first frame is not a hello")),
    };
    Version::choose(answer.protocol, answer.protocol)
        .ok_or(protocol("the manager chose a protocol version that was not offered"))?;
    let issued = answer.issued.as_ref().ok_or(protocol("no certificate was issued"))?;
    optional_hash(&answer.bundle_hash).map_err(protocol)?;
    Ok(IssuedAnswer {
        cluster: answer.cluster_id.parse().map_err(|_| protocol("the cluster id is not a name"))?,
        clock_ms: answer.clock_ms,
        issued: IssuedText::read(issued).map_err(protocol)?,
    })
}

/// A Renew that passed: typed and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// From an agent: the request for a certificate of its next key, DER; not verified yet.
    Csr(Bytes),
    /// From a manager: the next certificate.
    Issued(IssuedText),
    /// From a manager: the authorities to trust are others now.
    Due([u8; limits::HASH_BYTES]),
}

impl Renewal {
    /// Builds the frame's body.
    #[must_use]
    pub fn body(&self) -> Body {
        let what = match self {
            Self::Csr(csr) => What::Csr(csr.clone()),
            Self::Issued(issued) => What::Issued(issued.to_wire()),
            Self::Due(hash) => What::Due(Bytes::copy_from_slice(hash)),
        };
        Body::Renew(Renew { what: Some(what) })
    }

    /// Builds the Nak that answers one that is not taken; the reason is cut to its limit (protocol R-RENEW-1).
    #[must_use]
    pub fn nak(code: nak::Code, reason: &str) -> Body {
        let mut reason = reason.to_owned();
        truncate(&mut reason, limits::MAX_TEXT_BYTES);
        Body::Nak(wire::Nak { code: code.into(), reason })
    }
}

/// Judges the content of a Renew; who may send which form is in the session's table.
///
/// # Errors
/// What to say in a `Nak{INVALID}`; the session goes on.
pub fn read_renew(renew: &Renew) -> Result<Renewal, &'static str> {
    match renew.what.as_ref().ok_or("a renewal of an unknown kind")? {
        What::Csr(csr) if csr.is_empty() => Err("the certificate request is missing"),
        What::Csr(csr) if csr.len() > limits::MAX_CSR_BYTES => Err("the certificate request is too long"),
        What::Csr(csr) => Ok(Renewal::Csr(csr.clone())),
        What::Issued(issued) => IssuedText::read(issued).map(Renewal::Issued),
        What::Due(hash) => optional_hash(hash)?.map(Renewal::Due).ok_or("the hash of the bundle is missing"),
    }
}
