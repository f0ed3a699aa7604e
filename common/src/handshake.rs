//! The exchange of hellos: what each side says, and how the other judges it. No I/O.
//!
//! ```text
//! agent                                   manager
//!   ClientHello ──────────────────────────► read_hello: certificate decides, hello is compared with it
//!   read_welcome ◄────────────────────────  welcome, or Bye with a named reason
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{Epoch, Generation, Incarnation, Name, StorePosition, Uid};
use crate::limits;
use crate::session::{Judgement, Side, Stage, judge};
use crate::tls::{Identity, Role};
use crate::version::Version;
use crate::wire::bye::Code;
use crate::wire::frame::Body;
use crate::wire::{Bye, ClientHello, Frame, Limits, ServerHello};

/// What an agent says of itself.
#[derive(Debug, Clone)]
pub struct HelloParams {
    /// The name in its certificate.
    pub name: Name,
    /// The cluster in its certificate.
    pub cluster: Name,
    /// The boot of the host.
    pub boot_id: String,
    /// The identity of its state directory.
    pub journal: Uid,
    /// The last incarnation it heard; 0 at first contact.
    pub incarnation: u64,
    /// The highest store position it heard.
    pub store_position: u64,
    /// Processor cores.
    pub cores: u32,
    /// Memory of the host.
    pub memory_bytes: u64,
    /// What its configuration says about it. Never believed for rights.
    pub labels: BTreeMap<String, String>,
    /// Its program version, for people.
    pub agent_version: String,
    /// How commands are isolated.
    pub isolation: String,
    /// Optional behaviour it offers.
    pub capabilities: Vec<String>,
}

/// Builds the first frame of an agent.
#[must_use]
pub fn hello(params: &HelloParams) -> Body {
    Body::ClientHello(ClientHello {
        protocol_min: Version::OLDEST as u32,
        protocol_max: Version::NEWEST as u32,
        capabilities: params.capabilities.clone(),
        agent_name: params.name.to_string(),
        cluster_id: params.cluster.to_string(),
        boot_id: params.boot_id.clone(),
        journal_id: params.journal.to_wire(),
        incarnation: params.incarnation,
        store_position: params.store_position,
        cores: params.cores,
        memory_bytes: params.memory_bytes,
        labels: params.labels.clone().into_iter().collect(),
        agent_version: params.agent_version.clone(),
        isolation: params.isolation.clone(),
    })
}

/// A hello that passed: everything in it has a type and a bound.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The version both sides will speak.
    pub version: Version,
    /// What the agent offers.
    pub capabilities: Vec<String>,
    /// From the certificate.
    pub name: Name,
    /// From the certificate.
    pub generation: Generation,
    /// The identity of the agent's state directory.
    pub journal: Uid,
    /// The boot of the host.
    pub boot_id: String,
    /// The last incarnation the agent heard.
    pub incarnation: Incarnation,
    /// The highest store position the agent heard.
    pub store_position: StorePosition,
    /// Processor cores, as claimed.
    pub cores: u32,
    /// Memory, as claimed.
    pub memory_bytes: u64,
    /// Labels, as claimed.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub agent_version: String,
    /// How commands are isolated, as claimed.
    pub isolation: String,
}

/// Why a peer is not served. It learns the code and the reason, nothing of our insides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// What the peer's program decides by.
    pub code: Code,
    /// What its operator reads.
    pub reason: String,
    /// When it makes sense to come back.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without a hint when to come back.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), retry_after: None }
    }

    /// Adds when it makes sense to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The frame that tells the peer; the reason is cut to its limit (protocol R-BYE-2).
    #[must_use]
    pub fn bye(&self) -> Body {
        let mut reason = self.reason.clone();
        truncate(&mut reason, limits::MAX_TEXT_BYTES);
        Body::Bye(Bye {
            code: self.code.into(),
            reason,
            retry_after_ms: self.retry_after.map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX)),
        })
    }
}

/// Judges the first frame of an agent against its certificate.
///
/// # Errors
/// A refusal to send as Bye.
pub fn read_hello(frame: &Frame, peer: &Identity, cluster: &Name) -> Result<Hello, Refusal> {
    let violation = |reason: &str| Refusal::new(Code::ProtocolError, reason);
    if let Judgement::Violation(reason) = judge(Side::Agent, Stage::Hello, frame) {
        return Err(violation(reason));
    }
    let Some(Body::ClientHello(hello)) = &frame.body else {
        return Err(violation("the first frame is not a hello"));
    };
    // Who the peer is follows from its certificate alone (protocol R-AUTH-1); the hello may only agree (R-AUTH-2).
    if peer.role != Role::Agent || peer.cluster != *cluster {
        return Err(Refusal::new(Code::AuthFailed, "the certificate is not one of an agent of this cluster"));
    }
    if hello.agent_name != peer.name.as_str() {
        return Err(Refusal::new(Code::AuthFailed, "the hello names another agent than the certificate"));
    }
    if !hello.cluster_id.is_empty() && hello.cluster_id != cluster.as_str() {
        return Err(Refusal::new(Code::AuthFailed, "the hello names another cluster"));
    }
    // The highest that both speak, or none (protocol R-SESSION-3).
    let version = Version::choose(hello.protocol_min, hello.protocol_max).ok_or_else(|| {
        Refusal::new(
            Code::UpgradeRequired,
            format!(
                "this manager speaks protocol {} to {}, the agent {} to {}",
                Version::OLDEST as u32,
                Version::NEWEST as u32,
                hello.protocol_min,
                hello.protocol_max
            ),
        )
    })?;
    let short = |text: &String| text.len() <= limits::MAX_LABEL_BYTES;
    let label_bytes: usize = hello.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    let bounded = hello.labels.len() <= limits::MAX_LABELS
        && label_bytes <= limits::MAX_LABELS_BYTES
        && hello.labels.iter().all(|(key, value)| short(key) && short(value))
        && hello.capabilities.len() <= limits::MAX_CAPABILITIES
        && hello.capabilities.iter().all(short)
        && [&hello.boot_id, &hello.agent_version, &hello.isolation].into_iter().all(short);
    if !bounded {
        return Err(violation("a label, capability or text of the hello is too long or too many"));
    }
    let journal = Uid::from_wire(&hello.journal_id).map_err(|_| violation("journal_id has not 16 bytes"))?;
    Ok(Hello {
        version,
        capabilities: hello.capabilities.clone(),
        name: peer.name.clone(),
        generation: peer.generation,
        journal,
        boot_id: hello.boot_id.clone(),
        incarnation: Incarnation(hello.incarnation),
        store_position: StorePosition(hello.store_position),
        cores: hello.cores,
        memory_bytes: hello.memory_bytes,
        labels: hello.labels.clone().into_iter().collect(),
        agent_version: hello.agent_version.clone(),
        isolation: hello.isolation.clone(),
    })
}

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

/// Cuts a text to at most `limit` bytes at a character border.
pub fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        let cut = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdError;

    fn identity(role: Role) -> Result<Identity, IdError> {
        Ok(Identity { cluster: "c1".parse()?, role, name: "web1".parse()?, generation: Generation(3) })
    }

    fn params() -> Result<HelloParams, IdError> {
        Ok(HelloParams {
            name: "web1".parse()?,
            cluster: "c1".parse()?,
            boot_id: "boot".into(),
            journal: Uid([4; 16]),
            incarnation: 1,
            store_position: 9,
            cores: 2,
            memory_bytes: 1 << 30,
            labels: BTreeMap::new(),
            agent_version: "0.1.0".into(),
            isolation: "cgroup".into(),
            capabilities: vec!["command.run".into()],
        })
    }

    fn frame(body: Body) -> Frame {
        Frame { seq: 1, body: Some(body), ..Frame::default() }
    }

    /// A hello changed by `change`, judged.
    fn judged(change: impl FnOnce(&mut ClientHello)) -> Result<Result<Hello, Code>, IdError> {
        let Body::ClientHello(mut said) = hello(&params()?) else {
            return Ok(Err(Code::Unspecified));
        };
        change(&mut said);
        let frame = frame(Body::ClientHello(said));
        Ok(read_hello(&frame, &identity(Role::Agent)?, &"c1".parse()?).map_err(|refusal| refusal.code))
    }

    #[test]
    fn an_honest_hello_passes_and_carries_the_identity_of_the_certificate() -> Result<(), IdError> {
        let passed = judged(|_| {})?;
        assert!(matches!(passed, Ok(hello) if hello.generation == Generation(3) && hello.store_position.0 == 9));
        Ok(())
    }

    #[test]
    fn every_lie_and_excess_has_its_own_refusal() -> Result<(), IdError> {
        let code = |result: Result<Hello, Code>| result.err();
        assert_eq!(code(judged(|hello| hello.agent_name = "web2".into())?), Some(Code::AuthFailed));
        assert_eq!(code(judged(|hello| hello.cluster_id = "c2".into())?), Some(Code::AuthFailed));
        assert_eq!(code(judged(|hello| hello.protocol_min = 2)?), Some(Code::UpgradeRequired));
        assert_eq!(code(judged(|hello| hello.protocol_max = 0)?), Some(Code::UpgradeRequired));
        assert_eq!(code(judged(|hello| hello.journal_id = vec![1; 15].into())?), Some(Code::ProtocolError));
        let labels = |count: usize, bytes: usize| {
            judged(|hello| hello.labels = (0..count).map(|n| (format!("k{n}"), "v".repeat(bytes))).collect())
        };
        assert!(labels(limits::MAX_LABELS, 64)?.is_ok());
        assert!(labels(16, limits::MAX_LABEL_BYTES)?.is_ok());
        assert_eq!(code(labels(33, limits::MAX_LABEL_BYTES)?), Some(Code::ProtocolError), "too many bytes in all");
        assert_eq!(code(labels(limits::MAX_LABELS + 1, 1)?), Some(Code::ProtocolError));
        assert_eq!(code(labels(1, limits::MAX_LABEL_BYTES + 1)?), Some(Code::ProtocolError));
        Ok(())
    }

    #[test]
    fn the_largest_legal_hello_fits_the_first_frame() -> Result<(), IdError> {
        let long = |text: &str| text.repeat(limits::MAX_LABEL_BYTES / text.len());
        let labels = (0..limits::MAX_LABELS)
            .map(|n| (format!("{n:064}"), "v".repeat(limits::MAX_LABELS_BYTES / limits::MAX_LABELS - 64)))
            .collect();
        let largest = HelloParams {
            name: "n".repeat(253).parse()?,
            cluster: "c".repeat(253).parse()?,
            boot_id: long("b"),
            agent_version: long("v"),
            isolation: long("i"),
            labels,
            capabilities: vec!["a-capability-of-tomorrow".to_owned(); limits::MAX_CAPABILITIES],
            incarnation: u64::MAX,
            store_position: u64::MAX,
            cores: u32::MAX,
            memory_bytes: u64::MAX,
            ..params()?
        };
        let peer = Identity { cluster: largest.cluster.clone(), name: largest.name.clone(), ..identity(Role::Agent)? };
        let said = frame(hello(&largest));
        assert!(read_hello(&said, &peer, &largest.cluster).is_ok());
        assert!(prost::Message::encoded_len(&said) <= limits::MAX_FRAME_BEFORE_HELLO);
        Ok(())
    }

    /// Protocol R-AUTH-1.
    #[test]
    fn a_certificate_of_another_role_or_cluster_is_refused_whatever_the_hello_says() -> Result<(), IdError> {
        let said = frame(hello(&params()?));
        for role in [Role::Manager, Role::Operator] {
            let refused = read_hello(&said, &identity(role)?, &"c1".parse()?);
            assert!(matches!(refused, Err(refusal) if refusal.code == Code::AuthFailed));
        }
        assert!(read_hello(&said, &identity(Role::Agent)?, &"c2".parse()?).is_err());
        Ok(())
    }

    #[test]
    fn a_first_frame_that_is_no_hello_is_a_violation_on_both_sides() -> Result<(), IdError> {
        for body in crate::session::one_of_each() {
            let is_hello = matches!(body, Body::ClientHello(_));
            if !is_hello {
                let refused = read_hello(&frame(body.clone()), &identity(Role::Agent)?, &"c1".parse()?);
                assert!(matches!(refused, Err(refusal) if refusal.code == Code::ProtocolError));
            }
            let answer = read_welcome(&frame(body.clone()));
            assert!(answer.is_err(), "an empty {} is no welcome", crate::session::name(&body));
        }
        Ok(())
    }

    #[test]
    fn a_welcome_comes_back_as_it_was_said_within_the_agents_own_bounds() -> Result<(), IdError> {
        let said = welcome(&WelcomeParams {
            version: Version::V1,
            epoch: Epoch(5),
            incarnation: Incarnation(2),
            store_position: StorePosition(77),
            heartbeat: Duration::from_millis(1),
            manager_addresses: vec!["m:7051".into()],
            cluster: "c1".parse()?,
            clock_ms: 1,
        });
        let heard = read_welcome(&frame(said));
        assert!(matches!(heard, Ok(heard) if heard.epoch == Epoch(5) && heard.heartbeat == limits::HEARTBEAT_RANGE.0));
        Ok(())
    }

    /// Protocol R-SESSION-6.
    #[test]
    fn the_heartbeat_is_clamped_at_both_ends() -> Result<(), IdError> {
        let (shortest, longest) = limits::HEARTBEAT_RANGE;
        assert_eq!((shortest.as_millis(), longest.as_millis()), (200, 300_000));
        let step = Duration::from_millis(1);
        for (said, kept) in [
            (Duration::ZERO, shortest),
            (shortest - step, shortest),
            (shortest + step, shortest + step),
            (longest - step, longest - step),
            (longest + step, longest),
            (Duration::MAX, longest),
        ] {
            let said_so = welcome(&WelcomeParams {
                version: Version::V1,
                epoch: Epoch(1),
                incarnation: Incarnation(1),
                store_position: StorePosition(1),
                heartbeat: said,
                manager_addresses: Vec::new(),
                cluster: "c1".parse()?,
                clock_ms: 1,
            });
            let heard = read_welcome(&frame(said_so)).map(|welcome| welcome.heartbeat);
            assert!(matches!(heard, Ok(heartbeat) if heartbeat == kept), "{said:?}: {heard:?}");
        }
        Ok(())
    }

    /// Protocol R-BYE-2.
    #[test]
    fn a_reason_is_cut_at_a_character() {
        let bye = Refusal::new(Code::Banned, "ä".repeat(300)).bye();
        assert!(matches!(bye, Body::Bye(bye) if bye.reason.len() == limits::MAX_TEXT_BYTES));
    }
}
