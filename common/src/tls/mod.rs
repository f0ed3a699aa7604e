//! TLS of the whole product: who we are, whom we trust, and the four configurations we use.
//!
//! Only this folder names rustls; everybody else uses its re-exports. TLS 1.3 alone, one crypto library, no session
//! resumption and no tickets: resumption would skip the verification of client certificates (protocol R-TLS-3).

mod configs;
mod identity;
mod material;

pub use configs::{ALPN, MANAGER_DNS, api_client, api_server, link_client, link_server, manager_name};
pub use identity::{Identity, IdentityError, PeerError, Role, check_link_peer, peer_identity};
pub use material::{MaterialError, chain_from_pem, key_from_pem, load_chain, load_key, load_roots, roots_from_pem};

pub use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
pub use rustls::{ClientConfig, CommonState, RootCertStore, ServerConfig};
pub use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate, key or trust anchors do not fit together.
    #[error("the TLS configuration is not usable")]
    Config(#[source] rustls::Error),
    /// The verifier of client certificates could not be made.
    #[error("the trust anchors are not usable")]
    Anchors(#[source] rustls::server::VerifierBuilderError),
}
