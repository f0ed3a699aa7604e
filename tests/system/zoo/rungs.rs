//! The rungs of the ladder of isolation, each forced by the agent's configuration, and what a machine must have for them.

use std::path::PathBuf;

use testkit::ground;
use testkit::survivors::cgroup_mounts;
use testkit::{House, HouseOptions};

/// What holds the processes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    /// `cgroup.kill`.
    V2,
    /// The tree of version 2 without it: freeze, signal each, thaw, again.
    V2Freezer,
    /// The freezer of version 1.
    V1,
    /// Group, session and parentage.
    None,
}

impl Rung {
    /// The word in the agent's configuration.
    pub(super) fn choice(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Freezer => "v2-freezer",
            Self::V1 => "v1",
            Self::None => "none",
        }
    }

    /// What commands show.
    pub(super) fn isolation(self) -> &'static str {
        if self == Self::None { "best_effort" } else { "cgroup" }
    }

    /// The tree in which commands are held.
    pub(super) fn tree(self) -> Option<PathBuf> {
        let mounts = cgroup_mounts().into_iter();
        let fits = |mount: &testkit::survivors::CgroupMount| match self {
            Self::V2 | Self::V2Freezer => mount.unified,
            Self::V1 => mount.controllers.iter().any(|name| name == "freezer"),
            Self::None => false,
        };
        mounts.filter(fits).map(|mount| mount.path).next()
    }

    /// A house on this rung; none, with the reason told, where the machine does not have it.
    pub(super) async fn house(self, test: &str) -> anyhow::Result<Option<House>> {
        let lacks = match self {
            Self::None => None,
            _ if !ground::is_root() => Some("needs root to make cgroups"),
            _ if self.tree().is_none() => Some("no such tree of cgroups is mounted here"),
            _ => None,
        };
        if let Some(reason) = lacks {
            ground::not_run(env!("CARGO_TARGET_TMPDIR"), test, reason)?;
            return Ok(None);
        }
        let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"]);
        options.cgroup = self.choice().to_owned();
        House::start(options).await.map(Some)
    }
}
