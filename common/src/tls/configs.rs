//! The four TLS configurations: both ends of the agent link, both ends of the operator API.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::TlsError;

/// The application protocol of the agent link. A peer that does not offer it is not served (protocol R-TLS-2).
pub const ALPN: &[u8] = b"paprika/1";
/// The DNS name in every manager's certificate: agents verify it whatever address they dialled (protocol R-TLS-4).
pub const MANAGER_DNS: &str = "manager.paprika.internal";

/// The name agents verify, ready for rustls.
///
/// # Panics
/// Never: the name is a constant that parses, as a test shows.
#[must_use]
#[expect(clippy::expect_used, reason = "a constant that parses, as a test shows")]
pub fn manager_name() -> ServerName<'static> {
    ServerName::try_from(MANAGER_DNS).expect("the manager's DNS name is valid")
}

/// The crypto provider, chosen in this one place and never taken from a process-wide default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The manager's end of the agent link: a client certificate of our CA is required.
///
/// # Errors
/// When certificate, key and trust anchors do not fit together.
pub fn link_server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(TlsError::Anchors)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Config)?;
    forget_sessions(&mut config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The agent's end of the agent link.
///
/// # Errors
/// When certificate, key and trust anchors do not fit together.
pub fn link_client(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(TlsError::Config)?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The manager's end of the operator API: operators show who they are above TLS.
///
/// # Errors
/// When certificate and key do not fit together.
pub fn api_server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Config)?;
    forget_sessions(&mut config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// An operator's end of the API: HTTP/1.1 on a connection of its own.
///
/// # Errors
/// When the provider cannot speak TLS 1.3.
pub fn api_client(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn forget_sessions(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_name_is_a_dns_name() {
        assert_eq!(manager_name().to_str(), MANAGER_DNS);
    }

    /// Protocol R-TLS-3.
    #[test]
    fn no_server_of_ours_offers_or_keeps_a_session() -> Result<(), rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        assert!(config.send_tls13_tickets > 0, "the library's own choice is another one");
        forget_sessions(&mut config);
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache());
        Ok(())
    }
}
