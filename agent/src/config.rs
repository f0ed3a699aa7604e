//! The configuration of the agent: one file, one struct, every key in `examples/config/agent.yml`.
//!
//! It holds what the operator of the host decides. What the manager decides (heartbeat, limits) comes with its hello.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::config::{HumanDuration, Size};
use common::id::Name;
use common::limits::{MAX_LABEL_BYTES, MAX_LABELS, MAX_LABELS_BYTES};
use common::telemetry::LogLevel;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::shim::Base;

/// Where the configuration is when nobody says.
pub const DEFAULT_FILE: &str = "/etc/paprika/agent/agent.yml";
/// Port of a manager's link when an address names none (protocol R-TLS-1).
pub const LINK_PORT: u16 = 7051;

/// What an agent is told about itself and its managers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Where managers listen: `host`, `host:port`, `[v6]:port`.
    pub managers: Vec<String>,
    /// The name this host must have; taken from the certificate when absent, refused when it differs.
    #[serde(default)]
    pub name: Option<Name>,
    /// Where command directories and the memory of the past live.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// The certificate chain of this agent, PEM.
    #[serde(default = "default_cert")]
    pub cert: PathBuf,
    /// Its private key, PEM.
    #[serde(default = "default_key")]
    pub key: PathBuf,
    /// The certificate authority of the cluster, PEM.
    #[serde(default = "default_ca")]
    pub ca: PathBuf,
    /// Where the cgroups of commands are made: `auto`, `v2`, `v2-freezer`, `v1`, `none` or an absolute path in a cgroup2
    /// tree.
    #[serde(default = "default_cgroup")]
    pub cgroup: String,
    /// Commands that run at the same time; more are accepted and wait.
    #[serde(default = "default_max_running")]
    pub max_running: u32,
    /// Which directories of delivered commands stay for a look on the host.
    #[serde(default)]
    pub keep: Keep,
    /// Disk that is kept back so that results can be written when it is full; 0: none.
    #[serde(default = "default_reserve")]
    pub reserve: Size,
    /// What this host says about itself. Never a reason for rights.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How much is logged.
    #[serde(default = "default_log")]
    pub log: LogLevel,
    /// The program started for each command; the agent's own when absent.
    #[serde(default)]
    pub shim: Option<PathBuf>,
    /// Words between that program and `shim DIR`. Set by whoever starts the agent, never by a file.
    #[serde(skip)]
    pub shim_prefix: Vec<OsString>,
}

/// What of delivered commands stays on the host: the youngest, within all three bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// How long; 0: removed as soon as the manager has everything.
    pub age: HumanDuration,
    /// How many.
    pub count: u32,
    /// How many bytes all together.
    pub bytes: Size,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            age: HumanDuration(Duration::ZERO),
            count: limits::DEFAULT_KEEP_COUNT,
            bytes: Size(limits::DEFAULT_KEEP_BYTES),
        }
    }
}

impl Default for AgentConfig {
    /// The defaults of all keys; `managers` has none.
    fn default() -> Self {
        Self {
            managers: Vec::new(),
            name: None,
            state_dir: default_state_dir(),
            cert: default_cert(),
            key: default_key(),
            ca: default_ca(),
            cgroup: default_cgroup(),
            max_running: default_max_running(),
            keep: Keep::default(),
            reserve: default_reserve(),
            labels: BTreeMap::new(),
            log: default_log(),
            shim: None,
            shim_prefix: Vec::new(),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {text}")]
pub struct Invalid {
    /// The key it is about.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub text: String,
}

/// Everything that is wrong with a configuration, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", list(.0))]
pub struct InvalidConfig(pub Vec<Invalid>);

impl AgentConfig {
    /// Lets relative paths begin at the folder of the configuration file, so that the folder can be moved as a whole.
    pub fn find_beside(&mut self, file: &Path) {
        let folder = file.parent().unwrap_or(Path::new(""));
        for path in [&mut self.cert, &mut self.key, &mut self.ca] {
            *path = folder.join(&*path);
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// All that is wrong, not only the first.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let mut wrong = Vec::new();
        let mut say = |key, text: String| wrong.push(Invalid { key, text });
        if self.managers.is_empty() {
            say("managers", "at least one address is needed, for example `manager.example.org:7051`".to_owned());
        }
        for address in &self.managers {
            if let Err(text) = Address::parse(address) {
                say("managers", format!("`{}` {text}", common::escape::text(address)));
            }
        }
        if !self.state_dir.is_absolute() {
            say("state_dir", "the path must be absolute".to_owned());
        }
        if !Base::is_choice(&self.cgroup) {
            say("cgroup", "one of `auto`, `v2`, `v2-freezer`, `v1`, `none` or an absolute path".to_owned());
        }
        if !limits::MAX_RUNNING.contains(&self.max_running) {
            let (least, most) = (limits::MAX_RUNNING.start(), limits::MAX_RUNNING.end());
            say("max_running", format!("from {least} to {most}"));
        }
        if self.keep.age.0 > limits::MAX_KEEP_AGE {
            say("keep.age", format!("at most {}", HumanDuration(limits::MAX_KEEP_AGE)));
        }
        if self.keep.count > limits::MAX_KEEP_COUNT {
            say("keep.count", format!("at most {}", limits::MAX_KEEP_COUNT));
        }
        if self.reserve.0 != 0 && !limits::RESERVE.contains(&self.reserve.0) {
            let (least, most) = (Size(*limits::RESERVE.start()), Size(*limits::RESERVE.end()));
            say("reserve", format!("0 for none, or from {least} to {most}"));
        }
        if self.labels.len() > MAX_LABELS {
            say("labels", format!("at most {MAX_LABELS} are sent"));
        }
        if self.labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_LABELS_BYTES {
            say("labels", format!("all together have at most {MAX_LABELS_BYTES} bytes"));
        }
        for (key, value) in &self.labels {
            if key.len() > MAX_LABEL_BYTES || value.len() > MAX_LABEL_BYTES {
                say("labels", format!("a key or value has at most {MAX_LABEL_BYTES} bytes"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(InvalidConfig(wrong)) }
    }
}

/// The address of a manager: a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an IP address without brackets.
    pub host: String,
    /// The port of the link.
    pub port: u16,
}

impl Address {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or("has no closing bracket")?;
                let port = match after {
                    "" => None,
                    _ => Some(after.strip_prefix(':').ok_or("has something else than a port after the bracket")?),
                };
                (host, port)
            }
            None => match text.split_once(':') {
                Some((_, rest)) if rest.contains(':') => return Err("needs brackets around an IPv6 address"),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
            return Err("has no usable host name");
        }
        let port = match port {
            None => LINK_PORT,
            Some(port) => {
                port.parse().ok().filter(|port| *port != 0).ok_or("has a port that is not a number from 1 to 65535")?
            }
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn list(all: &[Invalid]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

pub(crate) fn default_state_dir() -> PathBuf {
    "/var/lib/paprika-agent".into()
}

fn default_cert() -> PathBuf {
    "/etc/paprika/agent/cert.pem".into()
}

fn default_key() -> PathBuf {
    "/etc/paprika/agent/key.pem".into()
}

fn default_ca() -> PathBuf {
    "/etc/paprika/agent/ca.pem".into()
}

fn default_cgroup() -> String {
    "auto".to_owned()
}

fn default_max_running() -> u32 {
    limits::DEFAULT_MAX_RUNNING
}

fn default_reserve() -> Size {
    Size(limits::DEFAULT_RESERVE)
}

fn default_log() -> LogLevel {
    LogLevel::Info
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const SAMPLE: &str = include_str!("../../examples/config/agent.yml");

    #[test]
    fn the_sample_loads_is_valid_and_shows_every_key() {
        let config: AgentConfig = common::config::parse(SAMPLE, "agent.yml").unwrap();
        assert_eq!(config.validate(), Ok(()));
        let effective = serde_json::to_value(&config).unwrap();
        for key in effective.as_object().unwrap().keys() {
            let shown = SAMPLE.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key}:")));
            assert!(shown, "the sample does not show `{key}`");
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = common::config::parse::<AgentConfig>("managers: [a]\nstate_dri: /x\n", "x.yml");
        assert!(error.is_err());
    }

    /// Protocol R-TLS-1.
    #[test]
    fn addresses_have_a_host_and_a_port_or_the_default() {
        let parsed = |text: &str| Address::parse(text).map(|address| address.to_string());
        assert_eq!(parsed("m").as_deref(), Ok("m:7051"));
        assert_eq!(parsed("m.example:1").as_deref(), Ok("m.example:1"));
        assert_eq!(parsed("[::1]").as_deref(), Ok("[::1]:7051"));
        assert_eq!(parsed("[::1]:9").as_deref(), Ok("[::1]:9"));
        for bad in ["", ":1", "a:0", "a:65536", "::1", "[::1", "[::1]x", "a b", "https://m", "a:"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let config: AgentConfig =
            common::config::parse("managers: ['a:0']\nstate_dir: x\ncgroup: maybe\n", "x.yml").unwrap();
        let wrong = config.validate().unwrap_err();
        assert_eq!(wrong.0.iter().map(|one| one.key).collect::<Vec<_>>(), ["managers", "state_dir", "cgroup"]);
    }

    #[test]
    fn numbers_have_two_edges_and_a_default() {
        let parse = |text: &str| common::config::parse::<AgentConfig>(&format!("managers: [m]\n{text}\n"), "x.yml");
        let wrong = |text: &str| -> Vec<&'static str> {
            parse(text)
                .unwrap()
                .validate()
                .map_or_else(|wrong| wrong.0.iter().map(|one| one.key).collect(), |()| Vec::new())
        };
        for fine in [
            "max_running: 1",
            "max_running: 100000",
            "keep: {}",
            "keep: {age: 366d, count: 100000, bytes: 0}",
            "reserve: 0",
            "reserve: 64K",
            "reserve: 1G",
        ] {
            assert!(wrong(fine).is_empty(), "{fine}");
        }
        for (bad, key) in [
            ("max_running: 0", "max_running"),
            ("max_running: 100001", "max_running"),
            ("keep: {age: 367d}", "keep.age"),
            ("keep: {count: 100001}", "keep.count"),
            ("reserve: 65535", "reserve"),
            ("reserve: 1025M", "reserve"),
        ] {
            assert_eq!(wrong(bad), [key], "{bad}");
        }
        assert!(parse("keep: {days: 3}").is_err() && parse("max_running: -1").is_err());
        let defaults = parse("").unwrap();
        assert_eq!((defaults.max_running, defaults.keep, defaults.reserve), (256, Keep::default(), Size(4 << 20)));
    }

    #[test]
    fn certificates_are_found_beside_the_file_that_names_them() {
        let text = "managers: [m]\ncert: cert.pem\nkey: /elsewhere/key.pem\n";
        let mut config: AgentConfig = common::config::parse(text, "agent.yml").unwrap();
        config.find_beside(Path::new("/etc/paprika/agent/agent.yml"));
        assert_eq!(config.cert, Path::new("/etc/paprika/agent/cert.pem"));
        assert_eq!(config.key, Path::new("/elsewhere/key.pem"));
    }
}
