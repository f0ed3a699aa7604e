//! TLS of the whole product: who we are, whom we trust, and the configurations we use.
//!
//! Only this folder names rustls; everybody else uses its re-exports. TLS 1.3 alone, one crypto library, no session
//! resumption and no tickets: resumption would skip the verification of certificates (protocol R-TLS-3).
//!
//! ```text
//! link_client ─────────── a proven agent ──────────► link_server ─► link_peer: Agent
//! link_client (expired) ─ at most 30 days ─────────►      │     ─► link_peer: Agent { expired }
//! link_client_joining ─── a stranger with a pin ───►      └     ─► link_peer: Stranger
//! api_client ──────────── with or without an operator's certificate ─► api_server ─► api_peer
//! ```
//! What TLS proved is a key and a chain; what its bearer may do follows from [`Identity`] and is judged in `peers.rs`.

mod authority;
mod configs;
mod csr;
mod fault;
mod identity;
mod issued;
mod material;
mod peers;
mod pinned;
mod recovery;
mod request;

pub use authority::{AuthorityWords, authority_words, is_authority};
pub use configs::{
    ALPN, MANAGER_DNS, api_client, api_client_looking, api_client_pinned, api_server, link_client, link_client_joining,
    link_client_with_clock, link_server, manager_name, system_clock,
};
pub use csr::{Csr, CsrError};
pub use fault::{HandshakeFault, fault};
pub use identity::{Identity, IdentityError, Role, peer_identity};
pub use issued::{Expected, IssuedError, NewIdentity, check_issued, verifies};
pub use material::{
    MaterialError, bundle_hash, bundle_hash_of_pem, chain_from_pem, csr_from_pem, key_from_pem, load_chain, load_key,
    load_roots, roots_from_pem, to_pem,
};
pub use peers::{AgentPeer, ApiPeer, Leaf, LinkPeer, PeerError, api_peer, check_link_peer, link_peer, read_leaf};
pub use pinned::Glimpse;
pub use request::{KeyRequest, RequestError, make_csr, new_key};

pub use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
pub use rustls::time_provider::TimeProvider;
pub use rustls::{ClientConfig, CommonState, RootCertStore, ServerConfig};
pub use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate, key or trust anchors do not fit together.
    #[error("the TLS configuration is not usable")]
    Config(#[source] rustls::Error),
    /// The verifier of certificates could not be made.
    #[error("the trust anchors are not usable")]
    Anchors(#[source] rustls::server::VerifierBuilderError),
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
