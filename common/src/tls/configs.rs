//! The TLS configurations: both ends of the agent link, both ends of the operator API, each with its way in for those
//! who trust nobody yet.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};

use super::TlsError;
use super::pinned::{Glimpse, PinnedServer};
use super::recovery::RecoveringClients;
use crate::pin::Pin;

/// The application protocol of the agent link. A peer that does not offer it is not served (protocol R-TLS-2).
pub const ALPN: &[u8] = b"paprika/1";
/// The DNS name in every manager's certificate: agents verify it whatever address they dialled (protocol R-TLS-4).
pub const MANAGER_DNS: &str = "manager.paprika.internal";
/// What the API speaks: one request at a time on each connection.
const HTTP: &[u8] = b"http/1.1";

/// The name agents verify, ready for rustls.
///
/// # Panics
/// Never: the name is a constant that parses, as a test shows.
#[must_use]
#[expect(clippy::expect_used, reason = "a constant that parses, as a test shows")]
pub fn manager_name() -> ServerName<'static> {
    ServerName::try_from(MANAGER_DNS).expect("the manager's DNS name is valid")
}

/// The wall clock of this host, for those who know no better time.
#[must_use]
pub fn system_clock() -> Arc<dyn TimeProvider> {
    Arc::new(DefaultTimeProvider)
}

/// The crypto provider, chosen in this one place and never taken from a process-wide default.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The manager's end of the agent link. Who shows no certificate, or one of ours that ended lately, gets through TLS too:
/// what such a peer may say is one hello (protocol R-JOIN-1, R-JOIN-6), and [`super::link_peer`] tells them apart.
///
/// # Errors
/// When certificate, key and trust anchors do not fit together.
pub fn link_server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = RecoveringClients::new(roots, provider()).map_err(TlsError::Anchors)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .map_err(TlsError::Config)?;
    forget_sessions(&mut config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The agent's end of the agent link, by the wall clock of the host.
///
/// # Errors
/// When certificate, key and trust anchors do not fit together.
pub fn link_client(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
) -> Result<Arc<ClientConfig>, TlsError> {
    link_client_with_clock(chain, key, roots, system_clock())
}

/// The agent's end of the agent link. `clock` is the best this host knows of manager time: its own wall clock may be
/// years away (protocol R-TLS-8).
///
/// # Errors
/// When certificate, key and trust anchors do not fit together.
pub fn link_client_with_clock(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let config =
        client(clock)?.with_root_certificates(roots).with_client_auth_cert(chain, key).map_err(TlsError::Config)?;
    Ok(finish(config, ALPN))
}

/// The end of a host that has no certificate yet: the manager must show the authority with this pin, and a chain from
/// it to the fixed name, before a byte is said (protocol R-JOIN-2).
///
/// # Errors
/// When the provider cannot speak TLS 1.3.
pub fn link_client_joining(pin: Pin, clock: Arc<dyn TimeProvider>) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Arc::new(PinnedServer::new(pin, provider()));
    Ok(finish(dangerous(clock, verifier)?, ALPN))
}

/// The manager's end of the operator API: a certificate of our CA or none. Who showed one that is not an operator's is
/// found by [`super::api_peer`].
///
/// # Errors
/// When certificate, key and trust anchors do not fit together.
pub fn api_server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Anchors)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Config)?;
    forget_sessions(&mut config);
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(Arc::new(config))
}

/// An operator's end of the API: HTTP/1.1 on a connection of its own, with a certificate or with a token above TLS.
///
/// # Errors
/// When certificate, key and trust anchors do not fit together.
pub fn api_client(
    roots: RootCertStore,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let config = client(system_clock())?.with_root_certificates(roots);
    let config = match own {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(TlsError::Config)?,
        None => config.with_no_client_auth(),
    };
    Ok(finish(config, HTTP))
}

/// An operator's end before the CA is known, when its pin is: the manager must show the authority with this pin.
///
/// # Errors
/// When the provider cannot speak TLS 1.3.
pub fn api_client_pinned(pin: Pin) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Arc::new(PinnedServer::new(pin, provider()));
    Ok(finish(dangerous(system_clock(), verifier)?, HTTP))
}

/// An operator's end that only looks at the authority a server shows, so that a person can compare its pin. Its
/// handshakes always fail: nothing can be said to a peer that nobody has proven.
///
/// # Errors
/// When the provider cannot speak TLS 1.3.
pub fn api_client_looking() -> Result<(Arc<ClientConfig>, Arc<Glimpse>), TlsError> {
    let glimpse = Arc::new(Glimpse::new(provider()));
    let config = finish(dangerous(system_clock(), Arc::clone(&glimpse) as Arc<_>)?, HTTP);
    Ok((config, glimpse))
}

fn client(clock: Arc<dyn TimeProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    ClientConfig::builder_with_details(provider(), clock).with_protocol_versions(&[&TLS13]).map_err(TlsError::Config)
}

/// A client without certificate and with a verifier of ours.
fn dangerous(clock: Arc<dyn TimeProvider>, verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, TlsError> {
    Ok(client(clock)?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn finish(mut config: ClientConfig, protocol: &[u8]) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
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
