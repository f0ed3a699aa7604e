//! Writes what an agent needs to connect into a folder: certificate, key, authority and a ready `agent.yml`.
//!
//! All are readable by their owner only, the key from its first byte on, and none is ever half an old and half a new
//! one.

use std::io;
use std::path::{Path, PathBuf};

use api::agents::AgentCertificate;
use common::durable;
use serde::Serialize;

use crate::error::{Failure, Kind};

/// Where an agent keeps what it knows, unless its folder says otherwise.
const STATE_DIR: &str = "/var/lib/paprika-agent";

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// All of them.
    pub files: Vec<PathBuf>,
    /// The configuration among them.
    pub config: PathBuf,
}

/// Writes the files of an agent into `folder`, which is made when it is missing.
///
/// # Errors
/// When a file is there already and `is_replacing` is not set, or the disk refuses.
pub fn write(certificate: &AgentCertificate, folder: &Path, is_replacing: bool) -> Result<Written, Failure> {
    let cannot = |what: String| move |error: io::Error| Failure::new(Kind::Work, what).because(error);
    durable::create_folder(folder).map_err(cannot(format!("the folder {} cannot be made", folder.display())))?;
    let folder = folder.canonicalize().map_err(cannot(format!("the folder {} cannot be used", folder.display())))?;
    let config = folder.join("agent.yml");
    let files = [
        (folder.join("ca.pem"), certificate.ca_pem.clone()),
        (folder.join("cert.pem"), certificate.chain_pem.clone()),
        (folder.join("key.pem"), certificate.key_pem.clone()),
        (config.clone(), agent_yml(certificate)),
    ];
    if !is_replacing && let Some((path, _)) = files.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
        return Err(Failure::new(Kind::Usage, format!("{} is there already", path.display()))
            .hint("--force replaces it; the agent that uses it must be restarted then"));
    }
    for (path, text) in &files {
        durable::replace(path, text.as_bytes()).map_err(cannot(format!("{} cannot be written", path.display())))?;
    }
    Ok(Written { files: files.into_iter().map(|(path, _)| path).collect(), config })
}

/// The configuration; JSON strings are YAML strings, so that no address can break it. The agent finds relative paths
/// beside this file, so the folder can be moved to its host as it is.
fn agent_yml(certificate: &AgentCertificate) -> String {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let managers: Vec<String> = certificate.managers.iter().map(|address| text(address)).collect();
    format!(
        "# Agent {name} of the cluster {cluster}.\n\
         managers: [{managers}]\n\
         cert: cert.pem\n\
         key: key.pem\n\
         ca: ca.pem\n\
         state_dir: {state}\n",
        name = certificate.name,
        cluster = certificate.cluster,
        managers = managers.join(", "),
        state = text(STATE_DIR),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn sample() -> AgentCertificate {
        AgentCertificate {
            name: "web1".parse().unwrap(),
            cluster: "home".parse().unwrap(),
            generation: 3,
            chain_pem: "CHAIN".into(),
            key_pem: "KEY".into(),
            ca_pem: "CA".into(),
            managers: vec!["manager:7051".into(), "[::1]:7051".into()],
        }
    }

    #[test]
    fn the_key_is_for_its_owner_only_and_nothing_is_replaced_by_accident() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b \"quoted\"");
        let written = write(&sample(), &folder, false).unwrap();
        assert_eq!(written.files.len(), 4);
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("key.pem"), 0o600);
        assert_eq!(fs::read_to_string(folder.join("key.pem")).unwrap(), "KEY");
        let told = write(&sample(), &folder, false).unwrap_err();
        assert_eq!(told.kind(), Kind::Usage);
        fs::write(folder.join("key.pem.new"), "half").unwrap();
        write(&sample(), &folder, true).unwrap();
        assert_eq!(fs::read_to_string(folder.join("key.pem")).unwrap(), "KEY");
        assert!(!folder.join("key.pem.new").exists());
    }

    #[test]
    fn the_configuration_is_yaml_and_names_what_lies_beside_it() {
        let parsed: serde_json::Value = serde_yaml::from_str(&agent_yml(&sample())).unwrap();
        assert_eq!(parsed["managers"], serde_json::json!(["manager:7051", "[::1]:7051"]));
        assert_eq!(parsed["key"], "key.pem");
        assert_eq!(parsed["state_dir"], STATE_DIR);
    }
}
