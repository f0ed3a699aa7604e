//! Where the manager is and how to show who we are: parsed once, from a URL or from the environment.

use std::fmt;
use std::path::{Path, PathBuf};

use common::config::Secret;
use common::pin::Pin;

/// The port of the API when the URL names none.
const DEFAULT_PORT: u16 = 7050;

/// Where the manager's API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TLS over TCP.
    Tls {
        /// DNS name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket of the local host; the kernel says who we are.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Everything needed to reach the manager.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub(super) address: Address,
    pub(super) anchors: Anchors,
    pub(super) own: Option<OwnFiles>,
    pub(super) token: Option<Secret>,
}

/// Where our own certificate and its key are.
#[derive(Debug, Clone)]
pub(super) struct OwnFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The certificate that the manager's must be signed by.
#[derive(Debug, Clone)]
pub(super) enum Anchors {
    None,
    File(PathBuf),
    Pem(Vec<u8>),
    Pin(Pin),
}

/// Why a text does not say where the manager is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is of another form.
    #[error("`{0}` is not an address of a manager; write https://host:port or unix:/path/to/api.sock")]
    Form(String),
    /// It asks for a connection without TLS.
    #[error("`{0}` asks for plain HTTP, which a manager does not speak; write https://")]
    Plain(String),
}

impl Endpoint {
    /// Reads `https://host[:port]`, `host:port`, `unix:/path` or `/path`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError::Form(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            let path = Path::new(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() { Ok(Self::unix(path)) } else { Err(wrong()) };
        }
        if text.starts_with("http://") {
            return Err(EndpointError::Plain(text.to_owned()));
        }
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split(rest).ok_or_else(wrong)?;
        let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(clean) {
            return Err(wrong());
        }
        let port = match port {
            Some(digits) => digits.parse().map_err(|_| wrong())?,
            None => DEFAULT_PORT,
        };
        Ok(Self::at(Address::Tls { host: host.to_owned(), port }))
    }

    /// Reaches the manager of this host.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::at(Address::Unix(path.into()))
    }

    fn at(address: Address) -> Self {
        Self { address, anchors: Anchors::None, own: None, token: None }
    }

    /// Trusts managers whose certificate is signed by one in this PEM file.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.anchors = Anchors::File(path.into());
        self
    }

    /// Trusts managers whose certificate is signed by one in this PEM text.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.anchors = Anchors::Pem(pem.into());
        self
    }

    /// Trusts the one authority with this pin, if the manager shows it.
    #[must_use]
    pub fn pin(mut self, pin: Pin) -> Self {
        self.anchors = Anchors::Pin(pin);
        self
    }

    /// Shows the certificate in one PEM file and proves it with the key in the other, which only its owner may read.
    #[must_use]
    pub fn certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.own = Some(OwnFiles { certificate: certificate.into(), key: key.into() });
        self
    }

    /// Shows this token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Secret::new(token.into()));
        self
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// Takes host and port apart; an IPv6 address stands in brackets.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after {
            "" => Some((host, None)),
            _ => Some((host, Some(after.strip_prefix(':')?))),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("https://127.0.0.1:7050", "https://127.0.0.1:7050"),
            ("https://manager.example/", "https://manager.example:7050"),
            ("localhost:1", "https://localhost:1"),
            ("https://[::1]:7050", "https://[::1]:7050"),
            ("[::1]", "https://[::1]:7050"),
            ("unix:/run/paprika/api.sock", "unix:/run/paprika/api.sock"),
            ("unix:///run/api.sock", "unix:/run/api.sock"),
            ("/run/api.sock", "unix:/run/api.sock"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().address().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "https://",
            "https://host:port",
            "https://host:70500",
            "unix:relative",
            "::1",
            "ftp://host",
            "https://a/b",
            "https://u@h",
            "[::1",
            "[::1]7050",
        ] {
            assert!(matches!(Endpoint::parse(text), Err(EndpointError::Form(_))), "{text}");
        }
        assert!(matches!(Endpoint::parse("http://host"), Err(EndpointError::Plain(_))));
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let endpoint = Endpoint::parse("https://h:1").unwrap().token("hunter2");
        assert!(!format!("{endpoint:?}").contains("hunter2"));
    }
}
