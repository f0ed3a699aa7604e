//! What a house is to be like, and the files that make it so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a house is to be like.
#[derive(Debug, Clone)]
pub struct HouseOptions {
    /// The one binary.
    pub program: PathBuf,
    /// The agents that are made and started with it.
    pub agents: Vec<String>,
    /// How long a session may be silent: short, so that dead peers are noticed within a test.
    pub heartbeat: Duration,
    /// Added to the manager's environment.
    pub manager_env: Vec<(String, String)>,
    /// Added to the environment of every agent.
    pub agent_env: Vec<(String, String)>,
    /// Where the agents make cgroups, as in their configuration.
    pub cgroup: String,
    /// Commands that each agent runs at once; as many as it will when absent.
    pub max_running: Option<u32>,
    /// Where the manager keeps its files; inside the house's own folder when absent.
    pub manager_dir: Option<PathBuf>,
    /// Where agents keep theirs; inside the house's own folder when absent.
    pub state_dirs: BTreeMap<String, PathBuf>,
    /// Agents dial through a faulty proxy.
    pub proxy: bool,
    /// How long certificates of agents are valid; as long as usual when absent.
    pub certificate_valid: Option<Duration>,
}

impl HouseOptions {
    /// A manager without agents.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            agents: Vec::new(),
            heartbeat: Duration::from_secs(1),
            manager_env: Vec::new(),
            agent_env: Vec::new(),
            cgroup: "auto".to_owned(),
            max_running: None,
            manager_dir: None,
            state_dirs: BTreeMap::new(),
            proxy: false,
            certificate_valid: None,
        }
    }

    /// With these agents.
    #[must_use]
    pub fn agents(mut self, names: &[&str]) -> Self {
        self.agents = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// With a faulty proxy between the agents and the manager.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxy = true;
        self
    }
}

/// The manager's configuration file.
pub(crate) fn manager_yml(dir: &Path, api: u16, link: u16, advertise: &str, options: &HouseOptions) -> String {
    let valid = options.certificate_valid.map(|valid| format!("  certificate_valid: {}ms\n", valid.as_millis()));
    format!(
        "dir: {}\napi:\n  listen: 127.0.0.1:{api}\nlink:\n  listen: 127.0.0.1:{link}\n  advertise: ['{advertise}']\n  \
         heartbeat: {}ms\n{}log: debug\n",
        dir.display(),
        options.heartbeat.as_millis(),
        valid.unwrap_or_default(),
    )
}

/// An agent's configuration file; certificate, key and CA lie beside it.
pub(crate) fn agent_yml(folder: &Path, state_dir: &Path, manager: &str, options: &HouseOptions) -> String {
    let HouseOptions { cgroup, max_running, .. } = options;
    let mut text =
        format!("managers: ['{manager}']\nstate_dir: {}\ncgroup: {cgroup}\nlog: debug\n", state_dir.display());
    if let Some(places) = max_running {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "max_running: {places}");
    }
    for key in ["cert", "key", "ca"] {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{key}: {}", folder.join(format!("{key}.pem")).display());
    }
    text
}
