//! The older and the newer program of the agent, in the one file that both are started from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use testkit::House;
use testkit::ground::not_run;

/// Names a program of an older version: the agent's own, or the one binary.
const OLD: &str = "PAPRIKA_OLD_AGENT";

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Old,
    New,
}

/// Where the agent's program lies, and what can be put there.
pub(super) struct Programs {
    old: PathBuf,
    new: PathBuf,
    place: PathBuf,
}

impl Programs {
    /// Finds both programs; says so when the older one is only a copy of the present one.
    pub(super) fn find(house: &House, test: &str) -> anyhow::Result<Self> {
        let new = PathBuf::from(env!("CARGO_BIN_EXE_paprika"));
        let old = match std::env::var_os(OLD).map(PathBuf::from) {
            Some(old) => old,
            None => {
                let reason = format!("{OLD} is not set: a copy of the present program stood in for the older one");
                not_run(env!("CARGO_TARGET_TMPDIR"), &format!("adoption::{test}"), &reason)?;
                new.clone()
            }
        };
        Ok(Self { old, new, place: house.folder().join("program") })
    }

    /// Replaces the program by rename, as an upgrade does, and starts the agent from it.
    pub(super) fn start(&self, house: &mut House, agent: &str, version: Version) -> anyhow::Result<()> {
        self.install(version)?;
        let words: &[&str] = if is_everything(self.source(version)) { &["agent"] } else { &[] };
        house.start_agent_as(agent, &self.place, words)
    }

    /// Replaces the program by rename; whoever runs from the old file goes on with it.
    pub(super) fn install(&self, version: Version) -> anyhow::Result<()> {
        let source = self.source(version);
        let staged = self.place.with_extension("new");
        fs::copy(source, &staged).with_context(|| format!("copy {}", source.display()))?;
        fs::rename(&staged, &self.place)?;
        Ok(())
    }

    fn source(&self, version: Version) -> &Path {
        match version {
            Version::Old => &self.old,
            Version::New => &self.new,
        }
    }
}

/// The one binary has the agent behind a word.
fn is_everything(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == "paprika")
}
