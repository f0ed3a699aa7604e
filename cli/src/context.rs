//! Which manager a verb speaks to, and with which credential.
//!
//! The strongest first: `--context`, `PAPRIKA_API` with `PAPRIKA_TOKEN`, `PAPRIKA_CERT`, `PAPRIKA_KEY` and `PAPRIKA_CA`, the
//! current context of `~/.config/paprika/config.yml`, the local socket (`PAPRIKA_SOCKET`, else `/run/paprika/api.sock`). A
//! credential is never taken from one place and shown to an address from another.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use common::config::{self, ConfigError, Secret};
use common::suggest::nearest;
use serde::Deserialize;

use crate::error::{Failure, Kind};

/// Where a manager of the same host listens when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/paprika/api.sock";

/// One manager as it was chosen, before anything is read or opened for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// `https://host:port` or `unix:/path`.
    pub api: String,
    /// The bearer token.
    pub token: Option<Credential>,
    /// The client certificate that is shown instead of a token.
    pub certificate: Option<ClientCertificate>,
    /// The certificate to trust; the system knows none of ours.
    pub ca: Option<PathBuf>,
    /// Where this choice came from, for messages.
    pub origin: String,
}

/// A token, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The token.
    Token(Secret),
    /// A file that holds it.
    File(PathBuf),
}

/// A client certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `PAPRIKA_API`
    pub api: Option<String>,
    /// `PAPRIKA_TOKEN`
    pub token: Option<String>,
    /// `PAPRIKA_CERT`
    pub cert: Option<PathBuf>,
    /// `PAPRIKA_KEY`
    pub key: Option<PathBuf>,
    /// `PAPRIKA_CA`
    pub ca: Option<PathBuf>,
    /// `PAPRIKA_SOCKET`
    pub socket: Option<PathBuf>,
    /// The file with the contexts.
    pub config: Option<PathBuf>,
}

impl Environment {
    /// Reads this process's environment. Empty variables count as absent.
    #[must_use]
    pub fn read() -> Self {
        let text = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|home| home.join(".config")));
        Self {
            api: text("PAPRIKA_API"),
            token: text("PAPRIKA_TOKEN"),
            cert: path("PAPRIKA_CERT"),
            key: path("PAPRIKA_KEY"),
            ca: path("PAPRIKA_CA"),
            socket: path("PAPRIKA_SOCKET"),
            config: folder.map(|folder| folder.join("paprika/config.yml")),
        }
    }
}

/// The file with the contexts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The context that is used when none is named.
    #[serde(default)]
    pub current: Option<String>,
    /// The contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One manager in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `https://host:port` or `unix:/path`.
    pub api: String,
    /// The token itself; `token_file` is the safer place.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A file that holds the token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// A client certificate, instead of a token.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The certificate to trust.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// Chooses a manager; reads the file with the contexts only when it matters.
///
/// # Errors
/// When a context is named that does not exist, or the file is not what it should be.
pub fn choose(named: Option<&str>, environment: &Environment) -> Result<Choice, Failure> {
    if named.is_none()
        && let Some(api) = &environment.api
    {
        return Ok(Choice {
            api: api.clone(),
            token: environment.token.clone().map(|token| Credential::Token(Secret::new(token))),
            certificate: pair(environment.cert.as_ref(), environment.key.as_ref())
                .map_err(|()| Failure::new(Kind::Usage, "PAPRIKA_CERT and PAPRIKA_KEY belong together"))?,
            ca: environment.ca.clone(),
            origin: "PAPRIKA_API".to_owned(),
        });
    }
    let config = match &environment.config {
        Some(path) => load(path)?,
        None => Config::default(),
    };
    if let Some(name) = named.or(config.current.as_deref()) {
        return from_context(&config, name, environment.config.as_deref());
    }
    let socket = environment.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET));
    Ok(Choice {
        api: format!("unix:{}", socket.display()),
        token: None,
        certificate: None,
        ca: None,
        origin: "the local socket".to_owned(),
    })
}

/// Both or none of a certificate and its key.
fn pair(cert: Option<&PathBuf>, key: Option<&PathBuf>) -> Result<Option<ClientCertificate>, ()> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(ClientCertificate { cert: cert.clone(), key: key.clone() })),
        (None, None) => Ok(None),
        _ => Err(()),
    }
}

/// Reads the file with the contexts; one that is not there has none.
///
/// # Errors
/// When it cannot be read or understood.
pub fn load(path: &Path) -> Result<Config, Failure> {
    match config::load(path) {
        Ok(config) => Ok(config),
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Config::default())
        }
        Err(error) => Err(Failure::new(Kind::Usage, "the file with the contexts is not usable").because(error)),
    }
}

fn from_context(config: &Config, name: &str, file: Option<&Path>) -> Result<Choice, Failure> {
    let shown = file.map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
    let Some(context) = config.contexts.get(name) else {
        let known: Vec<&str> = config.contexts.keys().map(String::as_str).collect();
        let hint = match (nearest(name, known.iter().copied()), known.is_empty()) {
            (Some(near), _) => format!("did you mean {near:?}?"),
            (None, true) => format!("{shown} has no contexts"),
            (None, false) => format!("{shown} has: {}", known.join(", ")),
        };
        return Err(Failure::new(Kind::Usage, format!("there is no context {name:?}")).hint(hint));
    };
    let token = match (&context.token, &context.token_file) {
        (Some(_), Some(_)) => {
            return Err(Failure::new(Kind::Usage, format!("context {name:?} has both token and token_file"))
                .hint(format!("remove one of them from {shown}")));
        }
        (Some(token), None) => Some(Credential::Token(token.clone())),
        (None, Some(path)) => Some(Credential::File(path.clone())),
        (None, None) => None,
    };
    let certificate = pair(context.cert.as_ref(), context.key.as_ref()).map_err(|()| {
        Failure::new(Kind::Usage, format!("context {name:?} has one of cert and key"))
            .hint(format!("they belong together; see {shown}"))
    })?;
    if token.is_some() && certificate.is_some() {
        return Err(Failure::new(Kind::Usage, format!("context {name:?} has both a token and a certificate"))
            .hint(format!("remove one of them from {shown}")));
    }
    let (api, ca) = (context.api.clone(), context.ca.clone());
    Ok(Choice { api, token, certificate, ca, origin: format!("context {name:?}") })
}

impl Choice {
    /// Reads the token, from its file if it lies in one.
    ///
    /// # Errors
    /// When the file cannot be read or is empty.
    pub fn read_token(&self) -> Result<Option<Secret>, Failure> {
        match &self.token {
            None => Ok(None),
            Some(Credential::Token(token)) => Ok(Some(token.clone())),
            Some(Credential::File(path)) => {
                let text = fs::read_to_string(path).map_err(|error| {
                    Failure::new(Kind::Usage, format!("the token file {} cannot be read", path.display()))
                        .because(error)
                })?;
                let token = text.trim();
                if token.is_empty() {
                    return Err(Failure::new(Kind::Usage, format!("the token file {} is empty", path.display())));
                }
                Ok(Some(Secret::new(token.to_owned())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const FILE: &str = "\
current: prod
contexts:
  prod: {api: \"https://prod:7050\", token: abc, ca: /prod.pem}
  lab: {api: \"https://lab:7050\", token_file: /lab.token}
  odd: {api: \"https://odd:7050\", token_file: /t, token: x}
  cert: {api: \"https://cert:7050\", cert: /c.pem, key: /k.pem, ca: /ca.pem}
  half: {api: \"https://half:7050\", cert: /c.pem}
  two: {api: \"https://two:7050\", cert: /c.pem, key: /k.pem, token: x}
";

    struct House {
        _folder: tempfile::TempDir,
        environment: Environment,
    }

    fn house(file: Option<&str>) -> House {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yml");
        if let Some(text) = file {
            fs::write(&path, text).unwrap();
        }
        House { _folder: folder, environment: Environment { config: Some(path), ..Environment::default() } }
    }

    #[test]
    fn the_order_is_flag_environment_context_socket() {
        let mut house = house(Some(FILE));
        let here = &mut house.environment;
        assert_eq!(choose(None, here).unwrap().api, "https://prod:7050");
        here.api = Some("https://env:1".to_owned());
        assert_eq!(choose(None, here).unwrap().api, "https://env:1");
        assert_eq!(choose(Some("lab"), here).unwrap().api, "https://lab:7050");
        here.api = None;
        here.config = None;
        assert_eq!(choose(None, here).unwrap().api, "unix:/run/paprika/api.sock");
        here.socket = Some("/tmp/x.sock".into());
        assert_eq!(choose(None, here).unwrap().api, "unix:/tmp/x.sock");
    }

    #[test]
    fn a_token_of_one_place_never_goes_to_another() {
        let mut house = house(Some(FILE));
        house.environment.token = Some("from-the-environment".to_owned());
        let prod = choose(None, &house.environment).unwrap();
        assert_eq!(prod.read_token().unwrap().unwrap().expose(), "abc");
        house.environment.config = None;
        assert_eq!(choose(None, &house.environment).unwrap().token, None);
        house.environment.api = Some("https://env:1".to_owned());
        let env = choose(None, &house.environment).unwrap();
        assert_eq!(env.read_token().unwrap().unwrap().expose(), "from-the-environment");
        assert_eq!(env.ca, None);
    }

    #[test]
    fn no_file_is_no_context() {
        let house = house(None);
        assert_eq!(choose(None, &house.environment).unwrap().origin, "the local socket");
    }

    #[test]
    fn mistakes_are_named() {
        let house = house(Some(FILE));
        let told = choose(Some("prd"), &house.environment).unwrap_err().lines();
        assert!(told.contains("\"prd\"") && told.contains("did you mean \"prod\""), "{told}");
        let told = choose(Some("banana"), &house.environment).unwrap_err().lines();
        assert!(told.contains("cert, half, lab, odd, prod, two"), "{told}");
        let told = choose(Some("odd"), &house.environment).unwrap_err().lines();
        assert!(told.contains("both token and token_file"), "{told}");
        let told = choose(Some("half"), &house.environment).unwrap_err().lines();
        assert!(told.contains("one of cert and key"), "{told}");
        let told = choose(Some("two"), &house.environment).unwrap_err().lines();
        assert!(told.contains("both a token and a certificate"), "{told}");
    }

    #[test]
    fn a_certificate_comes_with_its_key_and_from_the_same_place() {
        let mut house = house(Some(FILE));
        let both = ClientCertificate { cert: "/c.pem".into(), key: "/k.pem".into() };
        assert_eq!(choose(Some("cert"), &house.environment).unwrap().certificate, Some(both.clone()));
        house.environment.cert = Some(both.cert.clone());
        assert_eq!(choose(Some("prod"), &house.environment).unwrap().certificate, None);
        house.environment.api = Some("https://env:1".to_owned());
        let told = choose(None, &house.environment).unwrap_err().lines();
        assert!(told.contains("PAPRIKA_CERT and PAPRIKA_KEY"), "{told}");
        house.environment.key = Some(both.key.clone());
        assert_eq!(choose(None, &house.environment).unwrap().certificate, Some(both));
    }

    #[test]
    fn a_broken_file_is_a_usage_error_with_its_place() {
        let house = house(Some("contexts:\n  a: {api: x, tokn: y}\n"));
        let failure = choose(None, &house.environment).unwrap_err();
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(failure.lines().contains("config.yml:2:"), "{}", failure.lines());
    }

    #[test]
    fn token_files_are_trimmed_and_must_hold_something() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let choice = Choice { token: Some(Credential::File(path.clone())), ..Choice::default() };
        assert!(choice.read_token().unwrap_err().lines().contains("cannot be read"));
        fs::write(&path, "  \n").unwrap();
        assert!(choice.read_token().unwrap_err().lines().contains("is empty"));
        fs::write(&path, "secret\n").unwrap();
        assert_eq!(choice.read_token().unwrap().unwrap().expose(), "secret");
    }
}
