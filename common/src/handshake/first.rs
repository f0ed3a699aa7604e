//! The first frame of a connection: a hello that asks for a session, for a place in the cluster, or for the next
//! certificate. What TLS proved decides which of them a peer may say.

use bytes::Bytes;

use super::hello::{Hello, HelloParams, client_hello, read_session};
use super::refusal::Refusal;
use crate::config::Secret;
use crate::id::Name;
use crate::join_token::{is_id, is_secret};
use crate::limits;
use crate::session::{Judgement, Side, Stage, judge};
use crate::tls::{AgentPeer, LinkPeer, Role};
use crate::version::Version;
use crate::wire::bye::Code;
use crate::wire::frame::Body;
use crate::wire::{ClientHello, Frame, JoinRequest};

/// What a peer came for. Everything in it has a type and a bound; the request's signature was not looked at yet,
/// because that costs more than a stranger has paid.
#[derive(Debug, Clone)]
pub enum First {
    /// A session.
    Session(Box<Hello>),
    /// A place in the cluster.
    Join(JoinHello),
    /// The next certificate, for one that ended or is about to.
    Recover(RecoverHello),
}

/// A stranger that shows a join token.
#[derive(Debug, Clone)]
pub struct JoinHello {
    /// The version both sides will speak.
    pub version: Version,
    /// What it wants to be called.
    pub name: Name,
    /// Which token it shows.
    pub token_id: String,
    /// The proof that it has the token.
    pub secret: Secret,
    /// The request for a certificate of its key, DER; not verified yet.
    pub csr: Bytes,
    /// For people.
    pub agent_version: String,
}

/// An agent that asks for its next certificate before anything else.
#[derive(Debug, Clone)]
pub struct RecoverHello {
    /// The version both sides will speak.
    pub version: Version,
    /// Who it is; `expired` tells a recovery from an early renewal.
    pub peer: AgentPeer,
    /// The request for a certificate of its next key, DER; not verified yet.
    pub csr: Bytes,
    /// For people.
    pub agent_version: String,
}

/// What a host says to become an agent.
#[derive(Debug, Clone)]
pub struct JoinParams<'a> {
    /// What it wants to be called.
    pub name: &'a Name,
    /// The id of its token.
    pub token_id: &'a str,
    /// The secret of its token.
    pub secret: &'a Secret,
    /// The request for a certificate of its key, DER.
    pub csr: &'a [u8],
    /// Its program version, for people.
    pub agent_version: &'a str,
}

/// Builds the first frame of a host that wants to become an agent.
#[must_use]
pub fn join_hello(params: &JoinParams<'_>) -> Body {
    Body::ClientHello(ClientHello {
        protocol_min: Version::OLDEST as u32,
        protocol_max: Version::NEWEST as u32,
        agent_name: params.name.to_string(),
        agent_version: params.agent_version.to_owned(),
        join: Some(JoinRequest {
            token_id: params.token_id.to_owned(),
            secret: Bytes::copy_from_slice(params.secret.expose().as_bytes()),
        }),
        csr: Bytes::copy_from_slice(params.csr),
        ..ClientHello::default()
    })
}

/// Builds the first frame of an agent whose certificate ended: the usual hello with a request and nothing that only a
/// session needs.
#[must_use]
pub fn recover_hello(params: &HelloParams, csr: &[u8]) -> Body {
    let mut hello = client_hello(params);
    hello.labels.clear();
    hello.csr = Bytes::copy_from_slice(csr);
    Body::ClientHello(hello)
}

/// Judges the first frame of a peer against what TLS proved about it.
///
/// # Errors
/// A refusal to send as Bye.
pub fn read_first(frame: &Frame, peer: &LinkPeer, cluster: &Name) -> Result<First, Refusal> {
    if let Judgement::Violation(reason) = judge(Side::Agent, Stage::Hello, frame) {
        return Err(violation(reason));
    }
    let Some(Body::ClientHello(hello)) = &frame.body else {
        return Err(violation("the first frame is not a hello"));
    };
    if !hello.cluster_id.is_empty() && hello.cluster_id != cluster.as_str() {
        return Err(refused("the hello names another cluster"));
    }
    match peer {
        LinkPeer::Stranger => read_join(hello).map(First::Join),
        LinkPeer::Agent(peer) => read_agent(hello, peer, cluster),
    }
}

/// A peer without a certificate may ask to join and nothing else (protocol R-JOIN-1).
fn read_join(hello: &ClientHello) -> Result<JoinHello, Refusal> {
    let Some(join) = &hello.join else {
        return Err(refused("a peer without a certificate may only ask to join"));
    };
    let version = choose(hello)?;
    check_bounds(hello)?;
    let csr = request(hello)?.ok_or_else(|| violation("a join needs a certificate request"))?;
    // A damaged token and an unknown one sound alike to the peer (protocol R-JOIN-3).
    let secret = std::str::from_utf8(&join.secret).ok().filter(|secret| is_secret(secret));
    let (true, Some(secret)) = (is_id(&join.token_id), secret) else {
        return Err(refused("the join token is not valid"));
    };
    let name = hello.agent_name.parse().map_err(|_| refused("the name of the host is not a name"))?;
    Ok(JoinHello {
        version,
        name,
        token_id: join.token_id.clone(),
        secret: Secret::new(secret.to_owned()),
        csr,
        agent_version: hello.agent_version.clone(),
    })
}

fn read_agent(hello: &ClientHello, peer: &AgentPeer, cluster: &Name) -> Result<First, Refusal> {
    // Who the peer is follows from its certificate alone (protocol R-AUTH-1); the hello may only agree (R-AUTH-2).
    if peer.identity.role != Role::Agent || peer.identity.cluster != *cluster {
        return Err(refused("the certificate is not one of an agent of this cluster"));
    }
    if hello.agent_name != peer.identity.name.as_str() {
        return Err(refused("the hello names another agent than the certificate"));
    }
    if hello.join.is_some() {
        return Err(refused("an agent that has a certificate does not join"));
    }
    let csr = request(hello)?;
    // Its certificate is good for one thing now (protocol R-JOIN-6).
    if peer.expired && csr.is_none() {
        return Err(refused("the certificate has expired"));
    }
    let version = choose(hello)?;
    check_bounds(hello)?;
    match csr {
        // A host whose clock is ahead asks a little early; it could as well renew in a session.
        Some(csr) => Ok(First::Recover(RecoverHello {
            version,
            peer: peer.clone(),
            csr,
            agent_version: hello.agent_version.clone(),
        })),
        None => read_session(hello, peer, version).map(|hello| First::Session(Box::new(hello))),
    }
}

/// The request for a certificate, if there is one, within its bound.
fn request(hello: &ClientHello) -> Result<Option<Bytes>, Refusal> {
    if hello.csr.len() > limits::MAX_CSR_BYTES {
        return Err(violation("the certificate request is too long"));
    }
    Ok((!hello.csr.is_empty()).then(|| hello.csr.clone()))
}

/// The highest version that both speak, or none (protocol R-SESSION-3).
fn choose(hello: &ClientHello) -> Result<Version, Refusal> {
    Version::choose(hello.protocol_min, hello.protocol_max).ok_or_else(|| {
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
    })
}

fn check_bounds(hello: &ClientHello) -> Result<(), Refusal> {
    let short = |text: &String| text.len() <= limits::MAX_LABEL_BYTES;
    let label_bytes: usize = hello.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    let bounded = hello.labels.len() <= limits::MAX_LABELS
        && label_bytes <= limits::MAX_LABELS_BYTES
        && hello.labels.iter().all(|(key, value)| short(key) && short(value))
        && hello.capabilities.len() <= limits::MAX_CAPABILITIES
        && hello.capabilities.iter().all(short)
        && [&hello.boot_id, &hello.agent_version, &hello.isolation].into_iter().all(short);
    if bounded { Ok(()) } else { Err(violation("a label, capability or text of the hello is too long or too many")) }
}

fn violation(reason: &str) -> Refusal {
    Refusal::new(Code::ProtocolError, reason)
}

fn refused(reason: &str) -> Refusal {
    Refusal::new(Code::AuthFailed, reason)
}
