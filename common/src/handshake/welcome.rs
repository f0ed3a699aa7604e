//! The manager's hello: what it grants, and how an agent judges it.

use std::time::Duration;

use super::bundle::{hash_bytes, optional_hash};
use super::refusal::truncate;
use crate::id::{Epoch, Incarnation, Name, StorePosition};
use crate::limits;
use crate::session::{Judgement, Side, Stage, judge};
use crate::version::Version;
use crate::wire::bye::Code;
use crate::wire::frame::Body;
use crate::wire::{Bye, Frame, Limits, ServerHello};

/// What a manager grants with its hello.
#[derive(Debug, Clone)]
pub struct WelcomeParams {
    /// The chosen version.
    pub version: Version,
    /// The epoch of the new session.
    pub epoch: Epoch,
    /// Which life of the store.
    pub incarnation: Incarnation,
    /// How far the store has come.
    pub store_position: StorePosition,
    /// When silence is worth a ping.
    pub heartbeat: Duration,
    /// Where managers can be reached.
    pub manager_addresses: Vec<String>,
    /// The cluster.
    pub cluster: Name,
    /// Manager time.
    pub clock_ms: u64,
    /// The hash of the authorities that an agent should trust now; none when the manager does not tell.
    pub bundle_hash: Option<[u8; limits::HASH_BYTES]>,
}

/// Builds the manager's hello.
#[must_use]
pub fn welcome(params: &WelcomeParams) -> Body {
    Body::ServerHello(ServerHello {
        protocol: params.version as u32,
        capabilities: Vec::new(),
        epoch: params.epoch.0,
        incarnation: params.incarnation.0,
        store_position: params.store_position.0,
        heartbeat_ms: u32::try_from(params.heartbeat.as_millis()).unwrap_or(u32::MAX),
        limits: Some(Limits {
            max_frame: limits::MAX_FRAME as u32,
            max_output_payload: limits::MAX_OUTPUT_PAYLOAD as u32,
            stream_credit: limits::STREAM_CREDIT,
            session_credit: limits::SESSION_CREDIT,
        }),
        manager_addresses: params.manager_addresses.clone(),
        cluster_id: params.cluster.to_string(),
        clock_ms: params.clock_ms,
        issued: None,
        bundle_hash: hash_bytes(params.bundle_hash),
    })
}

/// A welcome that passed.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The version both sides speak.
    pub version: Version,
    /// What the manager offers.
    pub capabilities: Vec<String>,
    /// The epoch of this session.
    pub epoch: Epoch,
    /// Which life of the store.
    pub incarnation: Incarnation,
    /// How far the store has come.
    pub store_position: StorePosition,
    /// When silence is worth a ping; within [`limits::HEARTBEAT_RANGE`], whatever was said (protocol R-SESSION-6).
    pub heartbeat: Duration,
    /// Largest payload of one output frame.
    pub max_output_payload: usize,
    /// Bytes of one stream that may be on their way.
    pub stream_credit: u64,
    /// Bytes of all streams that may be on their way.
    pub session_credit: u64,
    /// Where managers can be reached.
    pub manager_addresses: Vec<String>,
    /// The cluster.
    pub cluster: Name,
    /// Manager time.
    pub clock_ms: u64,
    /// The hash of the authorities that the manager wants to be trusted; when it is another than the agent's own, the
    /// agent renews at once (protocol R-RENEW-5).
    pub bundle_hash: Option<[u8; limits::HASH_BYTES]>,
}

/// Why an agent has no session.
#[derive(Debug, thiserror::Error)]
pub enum WelcomeError {
    /// The manager refused with a reason.
    #[error("the manager refused: {reason}")]
    Refused {
        /// What to do is decided by it.
        code: Code,
        /// For people; already cut to its limit, not yet escaped.
        reason: String,
        /// When the manager wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer makes no sense.
    #[error("the manager's answer breaks the protocol: {0}")]
    Protocol(&'static str),
}

/// Judges the manager's first frame.
///
/// # Errors
/// When it is a refusal or no welcome.
pub fn read_welcome(frame: &Frame) -> Result<Welcome, WelcomeError> {
    let protocol = WelcomeError::Protocol;
    if let Judgement::Violation(reason) = judge(Side::Manager, Stage::Hello, frame) {
        return Err(protocol(reason));
    }
    let welcome = match &frame.body {
        Some(Body::ServerHello(welcome)) => welcome,
        Some(Body::Bye(bye)) => return Err(refused(bye)),
        _ => return Err(protocol("the first frame is not a hello")),
    };
    if welcome.issued.is_some() {
        return Err(protocol("a certificate was issued that nobody asked for"));
    }
    let version = Version::choose(welcome.protocol, welcome.protocol)
        .ok_or(protocol("the manager chose a protocol version that was not offered"))?;
    let limits = welcome.limits.as_ref().ok_or(protocol("the limits are missing"))?;
    let cluster = welcome.cluster_id.parse().map_err(|_| protocol("the cluster id is not a name"))?;
    let (shortest, longest) = limits::HEARTBEAT_RANGE;
    Ok(Welcome {
        version,
        capabilities: welcome.capabilities.clone(),
        epoch: Epoch(welcome.epoch),
        incarnation: Incarnation(welcome.incarnation),
        store_position: StorePosition(welcome.store_position),
        heartbeat: Duration::from_millis(welcome.heartbeat_ms.into()).clamp(shortest, longest),
        max_output_payload: (limits.max_output_payload as usize).clamp(1, limits::MAX_OUTPUT_PAYLOAD),
        stream_credit: limits.stream_credit,
        session_credit: limits.session_credit,
        manager_addresses: welcome.manager_addresses.clone(),
        cluster,
        clock_ms: welcome.clock_ms,
        bundle_hash: optional_hash(&welcome.bundle_hash).map_err(protocol)?,
    })
}

/// Reads a Bye as a refusal.
#[must_use]
pub fn refused(bye: &Bye) -> WelcomeError {
    let mut reason = bye.reason.clone();
    truncate(&mut reason, limits::MAX_TEXT_BYTES);
    WelcomeError::Refused {
        code: bye.code(),
        reason,
        retry_after: (bye.retry_after_ms > 0).then(|| Duration::from_millis(bye.retry_after_ms.into())),
    }
}
