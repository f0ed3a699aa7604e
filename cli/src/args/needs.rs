//! Which permission each verb needs: what its help says, and what a refusal reminds of.
//!
//! The match has no arm for the rest: a verb that is added does not compile before somebody has said what it needs, and
//! a test compares this with the help.

use std::fmt;

use site::permission::Permission;

use super::{AgentVerb, AuditVerb, CaVerb, Client, JoinTokenVerb, OperatorVerb, SiteVerb, TokenVerb};

/// What a verb needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// It asks no manager.
    NoManager,
    /// The manager answers everybody it knows.
    AnyCredential,
    /// All of these.
    These(&'static [Permission]),
}

/// What every verb needs that says what commands are to do that were started already.
pub const CONTROL: Needs = Needs::These(&[Permission::CommandRead, Permission::CommandControl]);

impl Needs {
    /// The permissions.
    #[must_use]
    pub fn permissions(self) -> &'static [Permission] {
        match self {
            Self::NoManager | Self::AnyCredential => &[],
            Self::These(permissions) => permissions,
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoManager => f.write_str("no manager"),
            Self::AnyCredential => f.write_str("any good credential"),
            Self::These(permissions) => {
                for (index, permission) in permissions.iter().enumerate() {
                    let between = if index == 0 { "" } else { ", " };
                    write!(f, "{between}{permission}")?;
                }
                Ok(())
            }
        }
    }
}

/// What a verb needs.
#[must_use]
pub fn needs(verb: &Client) -> Needs {
    use Needs::{AnyCredential, NoManager, These};
    use Permission as P;
    match verb {
        Client::Run(_) | Client::Op(_) => These(&[P::CommandRun, P::CommandRead, P::OutputRead]),
        Client::Logs(_) => These(&[P::CommandRead, P::OutputRead]),
        Client::Commands(_) | Client::Show(_) => These(&[P::CommandRead]),
        Client::Cancel(_) | Client::Pause(_) | Client::Resume(_) | Client::Release(_) => CONTROL,
        Client::Agents(_) => These(&[P::AgentRead]),
        Client::Agent(args) => match args.verb {
            AgentVerb::Show(_) => These(&[P::AgentRead]),
            AgentVerb::Remove(_) => These(&[P::AgentRead, P::AgentManage]),
            AgentVerb::Accept(_) | AgentVerb::Drain(_) | AgentVerb::Undrain(_) | AgentVerb::Cert(_) => {
                These(&[P::AgentManage])
            }
        },
        Client::JoinToken(args) => match args.verb {
            JoinTokenVerb::New(_) | JoinTokenVerb::List | JoinTokenVerb::Revoke(_) => These(&[P::JoinManage]),
        },
        Client::Token(args) => match args.verb {
            TokenVerb::New(_) | TokenVerb::List | TokenVerb::Revoke(_) => These(&[P::OperatorManage]),
        },
        Client::Operator(args) => match args.verb {
            OperatorVerb::Cert(_) | OperatorVerb::List | OperatorVerb::Revoke(_) => These(&[P::OperatorManage]),
        },
        Client::Login(_) | Client::Whoami => AnyCredential,
        Client::Site(args) => match args.verb {
            SiteVerb::Check(_) => NoManager,
            SiteVerb::Show(_) | SiteVerb::Revisions(_) => These(&[P::SiteRead]),
            SiteVerb::Push(_) => These(&[P::SiteRead, P::SiteWrite]),
            SiteVerb::Approve(_) | SiteVerb::Reject(_) => These(&[P::SiteTrust]),
        },
        Client::Audit(args) => match args.verb {
            None | Some(AuditVerb::Verify(_) | AuditVerb::Export(_)) => These(&[P::AuditRead]),
        },
        Client::Ca(args) => match args.verb {
            CaVerb::Show | CaVerb::Prepare | CaVerb::Activate(_) | CaVerb::Retire(_) => These(&[P::CaManage]),
        },
        Client::Events(_) => These(&[P::CommandRead]),
        Client::Status => These(&[P::StatusRead]),
        Client::Completions(_) => NoManager,
    }
}
