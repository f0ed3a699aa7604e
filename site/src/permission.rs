//! What can be permitted: one word for each kind of call. A callable names exactly one of them, or none and is open to all.

use std::fmt;
use std::str::FromStr;

/// A permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// See agents.
    AgentRead,
    /// Drain, accept, remove agents; issue certificates.
    AgentManage,
    /// See commands and their events.
    CommandRead,
    /// Start commands.
    CommandRun,
    /// Cancel, pause, resume and release commands.
    CommandControl,
    /// Read what commands write.
    OutputRead,
    /// Make and revoke join tokens.
    JoinManage,
    /// Make and revoke operators' tokens and certificates.
    OperatorManage,
    /// Read the site.
    SiteRead,
    /// Change the site, apart from what grants rights.
    SiteWrite,
    /// Change what grants rights or runs on the manager.
    SiteTrust,
    /// Read the audit.
    AuditRead,
    /// See how the manager is.
    StatusRead,
    /// Rotate the certificate authority.
    CaManage,
}

/// A word names no permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such permission")]
pub struct UnknownPermission;

impl Permission {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::AgentRead,
        Self::AgentManage,
        Self::CommandRead,
        Self::CommandRun,
        Self::CommandControl,
        Self::OutputRead,
        Self::JoinManage,
        Self::OperatorManage,
        Self::SiteRead,
        Self::SiteWrite,
        Self::SiteTrust,
        Self::AuditRead,
        Self::StatusRead,
        Self::CaManage,
    ];

    /// The word in `roles.yml`, tokens and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentRead => "agent.read",
            Self::AgentManage => "agent.manage",
            Self::CommandRead => "command.read",
            Self::CommandRun => "command.run",
            Self::CommandControl => "command.control",
            Self::OutputRead => "output.read",
            Self::JoinManage => "join.manage",
            Self::OperatorManage => "operator.manage",
            Self::SiteRead => "site.read",
            Self::SiteWrite => "site.write",
            Self::SiteTrust => "site.trust",
            Self::AuditRead => "audit.read",
            Self::StatusRead => "status.read",
            Self::CaManage => "ca.manage",
        }
    }

    /// Whether it is about single agents, so that a rule has to say which.
    #[must_use]
    pub fn is_of_agents(self) -> bool {
        matches!(
            self,
            Self::AgentRead
                | Self::AgentManage
                | Self::CommandRead
                | Self::CommandRun
                | Self::CommandControl
                | Self::OutputRead
        )
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or(UnknownPermission)
    }
}
