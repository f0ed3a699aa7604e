//! The manager's configuration: one YAML file, every key documented in `examples/config/manager.yml`.
//!
//! Unknown keys are refused with their place; wrong values are reported all at once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::config::{ConfigError, HumanDuration};
use common::limits;
use common::telemetry::LogLevel;
use serde::{Deserialize, Serialize};

use crate::limits::{CERTIFICATE_VALID, MIN_CERTIFICATE_VALID};

/// Where the API listens when nobody says otherwise.
const API_PORT: u16 = 7050;
/// Where agents connect when nobody says otherwise.
const LINK_PORT: u16 = 7051;
/// Final commands and their output are kept this long.
const KEEP_COMMANDS: Duration = Duration::from_secs(30 * 24 * 3600);
/// Events are kept this long: a follower that was away for a week finds its place.
const KEEP_EVENTS: Duration = Duration::from_secs(7 * 24 * 3600);
/// An agent that was silent this long has lost what it held.
const LOST_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// The kernel tells of changes at once; this finds what it cannot see, such as changes made on another host.
const SITE_POLL: Duration = Duration::from_secs(10);

/// Everything an operator may decide about a manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManagerConfig {
    /// Folder with everything the manager keeps.
    pub dir: PathBuf,
    /// Doors for operators.
    pub api: ApiConfig,
    /// Doors for agents.
    pub link: LinkConfig,
    /// How secrets of commands are kept.
    pub secrets: SecretsConfig,
    /// Where the site comes from.
    pub site: SiteConfig,
    /// How long things are kept.
    pub retention: RetentionConfig,
    /// How long an agent may be silent before its commands are given up.
    pub lost_after: HumanDuration,
    /// How long stopping may take.
    pub stop_within: HumanDuration,
    /// How much is logged.
    pub log: LogLevel,
}

/// Doors for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Address of the HTTPS port.
    pub listen: SocketAddr,
    /// The socket for the local host; a relative path is meant inside `dir`.
    pub socket: PathBuf,
    /// Names and addresses that the API certificate carries besides the usual ones.
    pub names: Vec<String>,
    /// Connections of the port at the same time; the socket has its own.
    pub max_connections: usize,
    /// The same for one address.
    pub max_connections_per_address: usize,
}

/// Doors for agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// Address of the port that agents connect to.
    pub listen: SocketAddr,
    /// What agents are told to dial; empty means this host's name and the port.
    pub advertise: Vec<String>,
    /// How long a connection may be silent before it is pinged; unset means by the size of the fleet.
    pub heartbeat: Option<HumanDuration>,
    /// How long the certificate of an agent is valid.
    pub certificate_valid: HumanDuration,
    /// Connections that have not shown who they are, all addresses together.
    pub max_unauthenticated: usize,
    /// The same for one address.
    pub max_unauthenticated_per_address: usize,
}

/// How secrets of commands are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsConfig {
    /// The file with the key they are sealed with; unset means the credential `paprika-seal-key` of the service manager,
    /// else `seal.key` inside `dir`, which is made when it is missing. A relative path is meant inside `dir`.
    pub key_file: Option<PathBuf>,
}

/// Where the site comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteConfig {
    /// A folder that is watched; unset means that sites are only pushed.
    pub dir: Option<PathBuf>,
    /// How often the folder is read without having been told that it changed.
    pub poll: HumanDuration,
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Final commands with their output.
    pub commands: HumanDuration,
    /// Events.
    pub events: HumanDuration,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/paprika-manager"),
            api: ApiConfig::default(),
            link: LinkConfig::default(),
            secrets: SecretsConfig::default(),
            site: SiteConfig::default(),
            retention: RetentionConfig::default(),
            lost_after: HumanDuration(LOST_AFTER),
            stop_within: HumanDuration(Duration::from_secs(15)),
            log: LogLevel::Info,
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], API_PORT)),
            socket: PathBuf::from("api.sock"),
            names: Vec::new(),
            max_connections: 4_000,
            // A dashboard and its proxy need some dozens; sixteen hosts of this size are needed to fill the house.
            max_connections_per_address: 256,
        }
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], LINK_PORT)),
            advertise: Vec::new(),
            heartbeat: None,
            certificate_valid: HumanDuration(CERTIFICATE_VALID),
            max_unauthenticated: limits::MAX_UNAUTHENTICATED,
            max_unauthenticated_per_address: limits::MAX_UNAUTHENTICATED_PER_ADDRESS,
        }
    }
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self { dir: None, poll: HumanDuration(SITE_POLL) }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { commands: HumanDuration(KEEP_COMMANDS), events: HumanDuration(KEEP_EVENTS) }
    }
}

impl ManagerConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, has an unknown key, or a value is out of range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = common::config::load(path)?;
        config.check().map_err(|problems| ConfigError::Content(format!("{}: {problems}", path.display())))?;
        Ok(config)
    }

    /// Checks the values against each other; tells everything that is wrong at once.
    ///
    /// # Errors
    /// The problems, each with its key.
    pub fn check(&self) -> Result<(), String> {
        let (shortest, longest) = limits::HEARTBEAT_RANGE;
        let heartbeat_fits = self.link.heartbeat.is_none_or(|beat| (shortest..=longest).contains(&beat.0));
        let host_and_port = |address: &String| {
            address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        let checks = [
            (!self.dir.as_os_str().is_empty(), "dir: names a folder"),
            (!self.api.socket.as_os_str().is_empty(), "api.socket: names a path"),
            (self.api.max_connections > 0, "api.max_connections: is at least 1"),
            (self.api.max_connections_per_address > 0, "api.max_connections_per_address: is at least 1"),
            (heartbeat_fits, "link.heartbeat: is between 200ms and 5m"),
            (self.link.advertise.iter().all(host_and_port), "link.advertise: each entry is host:port"),
            (self.link.max_unauthenticated > 0, "link.max_unauthenticated: is at least 1"),
            (self.link.max_unauthenticated_per_address > 0, "link.max_unauthenticated_per_address: is at least 1"),
            (self.link.certificate_valid.0 >= MIN_CERTIFICATE_VALID, "link.certificate_valid: is at least 30s"),
            (
                self.secrets.key_file.as_ref().is_none_or(|path| !path.as_os_str().is_empty()),
                "secrets.key_file: names a file",
            ),
            (self.site.dir.as_ref().is_none_or(|dir| dir.is_absolute()), "site.dir: is an absolute path"),
            (self.site.poll.0 >= Duration::from_millis(100), "site.poll: is at least 100ms"),
            (self.retention.commands.0 >= Duration::from_secs(3600), "retention.commands: is at least 1h"),
            (self.retention.events.0 >= Duration::from_secs(3600), "retention.events: is at least 1h"),
            (self.lost_after.0 >= Duration::from_secs(60), "lost_after: is at least 1m"),
            (self.stop_within.0 >= Duration::from_secs(1), "stop_within: is at least 1s"),
        ];
        let problems: Vec<_> = checks.into_iter().filter(|(fits, _)| !fits).map(|(_, problem)| problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// Where the local socket is.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.dir.join(&self.api.socket)
    }

    /// Where the first operator's token is.
    #[must_use]
    pub fn token_path(&self) -> PathBuf {
        self.dir.join("admin.token")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const SAMPLE: &str = include_str!("../../examples/config/manager.yml");

    /// All keys of a value, with their paths.
    fn keys(prefix: &str, value: &serde_json::Value, into: &mut Vec<String>) {
        for (key, value) in value.as_object().into_iter().flatten() {
            into.push(format!("{prefix}{key}"));
            keys(&format!("{prefix}{key}."), value, into);
        }
    }

    #[test]
    fn the_sample_holds_every_key_with_its_default() {
        let sample: ManagerConfig = common::config::parse(SAMPLE, "manager.yml").unwrap();
        sample.check().unwrap();
        let expected = ManagerConfig {
            link: LinkConfig { heartbeat: Some(HumanDuration(Duration::from_secs(10))), ..LinkConfig::default() },
            ..ManagerConfig::default()
        };
        assert_eq!(sample, expected);
        let mut all = Vec::new();
        keys("", &serde_json::to_value(&expected).unwrap(), &mut all);
        for path in all {
            let key = path.rsplit('.').next().unwrap();
            assert!(SAMPLE.contains(&format!("{key}:")), "{path} is not in the sample");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_nearest() {
        let error =
            common::config::parse::<ManagerConfig>("link:\n  lisen: 127.0.0.1:1\n", "m.yml").unwrap_err().to_string();
        assert!(error.contains("m.yml:2:") && error.contains("did you mean `listen`"), "{error}");
    }

    #[test]
    fn all_wrong_values_are_told_at_once() {
        let text = "lost_after: 1s\nlink: {advertise: [nohost], heartbeat: 1ms}\n";
        let told = common::config::parse::<ManagerConfig>(text, "m.yml").unwrap().check().unwrap_err();
        for key in ["lost_after", "link.advertise", "link.heartbeat"] {
            assert!(told.contains(key), "{told}");
        }
    }
}
