//! Rights: a snapshot of everything that decides who may do what, and the one function that weighs it.
//!
//! ```text
//! credential (scope, roles of its own) ──┐
//! roles.yml (roles of the operator) ─────┼─► weigh ─► allowed, or what is missing
//! groups.yml, groups from enrolment ─────┘
//! ```
//! A snapshot never changes: whoever changes the site, a credential or an agent's groups puts a new one in its place. It is
//! pure: time is an argument, and neither the store nor a socket is asked.

use std::collections::HashMap;
use std::sync::Arc;

use common::id::{Generation, Name};
use site::Site;
use site::glob::Pattern;
use site::groups::GroupName;
use site::permission::Permission;
use site::roles::{ADMIN, Ask};
use site::target::{Subject, Target};
use store::types::{Actor, Authority, JudgeAsk, Millis, Scope, Via};

use super::callers::Caller;
use super::validate::AGENT_PING;

/// Who may do what, as of one moment.
#[derive(Debug, Clone)]
pub struct Rights {
    /// The revision that is in force; 0 while there is none.
    revision: u64,
    site: Arc<Site>,
    /// Groups that agents were enrolled with; agents without any are not in it.
    enrolled: Arc<HashMap<Name, Vec<GroupName>>>,
    credentials: Arc<Credentials>,
}

/// Every credential that was ever given out and is still on record.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Tokens by id.
    pub tokens: HashMap<String, Credential>,
    /// Operators' certificates by generation.
    pub certificates: HashMap<Generation, Credential>,
}

/// What a credential is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose it is: roles that `roles.yml` gives to this name belong to it.
    pub operator: String,
    /// What it may do at the most.
    pub scope: Scope,
    /// Roles of its own.
    pub roles: Vec<String>,
    /// It is worth nothing any more.
    pub revoked: bool,
    /// When it ends by itself.
    pub expires_at: Option<Millis>,
}

/// What somebody wants to do something to.
#[derive(Debug, Clone, Copy)]
pub enum About<'a> {
    /// Nothing in particular.
    Nothing,
    /// One agent, or a command of it.
    Agent(&'a Name),
    /// Starting an operation on one agent.
    Run {
        /// The agent.
        agent: &'a Name,
        /// The user it runs as; `None` where no process is started.
        user: Option<&'a str>,
        /// What is to be done.
        operation: &'a str,
    },
}

/// Why something is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The credential was revoked, or has ended, since it was shown.
    Credential,
    /// The scope of the token is too small.
    Scope(Scope),
    /// No role allows it.
    Roles,
}

impl Credential {
    /// A certificate of an operator: no scope bounds it, and its roles are those of `roles.yml`.
    #[must_use]
    pub fn of_certificate(operator: String, revoked: bool, not_after: Millis) -> Self {
        Self { operator, scope: Scope::Admin, roles: Vec::new(), revoked, expires_at: Some(not_after) }
    }
}

impl Default for Rights {
    fn default() -> Self {
        Self { revision: 0, site: Arc::new(Site::empty()), enrolled: Arc::default(), credentials: Arc::default() }
    }
}

/// Other snapshots.
impl Rights {
    /// The same with another site.
    #[must_use]
    pub fn with_site(&self, revision: u64, site: Arc<Site>) -> Self {
        Self { revision, site, ..self.clone() }
    }

    /// The same with other credentials.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self { credentials: Arc::new(credentials), ..self.clone() }
    }

    /// The same with the groups that agents were enrolled with.
    #[must_use]
    pub fn with_enrolled(&self, enrolled: HashMap<Name, Vec<GroupName>>) -> Self {
        Self { enrolled: Arc::new(enrolled), ..self.clone() }
    }

    /// The same with the groups of one agent.
    #[must_use]
    pub fn with_groups(&self, agent: &Name, groups: Vec<GroupName>) -> Self {
        if groups.is_empty() && !self.enrolled.contains_key(agent) {
            return self.clone();
        }
        let mut enrolled = (*self.enrolled).clone();
        match groups.is_empty() {
            true => enrolled.remove(agent),
            false => enrolled.insert(agent.clone(), groups),
        };
        self.with_enrolled(enrolled)
    }
}

/// Questions.
impl Rights {
    /// The number of the revision that is in force; 0 while there is none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The site that is in force.
    #[must_use]
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// The groups an agent was enrolled with.
    #[must_use]
    pub fn enrolled(&self, agent: &Name) -> &[GroupName] {
        self.enrolled.get(agent).map(Vec::as_slice).unwrap_or_default()
    }

    /// All groups of an agent.
    #[must_use]
    pub fn groups(&self, agent: &Name) -> Vec<GroupName> {
        self.site.groups_of(agent, self.enrolled(agent))
    }

    /// Tells whether an agent is meant.
    #[must_use]
    pub fn is_meant(&self, target: &Target, agent: &Name) -> bool {
        self.site.is_meant(target, agent, self.enrolled(agent))
    }

    /// Every role somebody has.
    #[must_use]
    pub fn roles(&self, caller: &Caller) -> Vec<String> {
        let mut roles = caller.roles.clone();
        for role in self.site.roles().of(caller.operator()) {
            if !roles.contains(role) {
                roles.push(role.clone());
            }
        }
        roles
    }

    /// The first role that somebody does not have and would give away: nobody gives more than they have. A credential in
    /// another name grows with every role that the name is given later, so that only `admin` covers it.
    #[must_use]
    pub fn lacks<'a>(&'a self, caller: &Caller, operator: &str, roles: &'a [String]) -> Option<&'a str> {
        let held = self.roles(caller);
        if held.iter().any(|role| role == ADMIN) {
            return None;
        }
        if operator != caller.operator() {
            return Some(ADMIN);
        }
        roles.iter().map(String::as_str).find(|role| !held.iter().any(|has| has == role))
    }

    /// Weighs one question: the only place where it is decided.
    ///
    /// # Errors
    /// What is missing.
    pub fn weigh(&self, caller: &Caller, permission: Permission, about: About<'_>, now: Millis) -> Result<(), Denied> {
        self.bounds(caller, permission, now)?;
        self.decided(caller, permission, about, |agent| self.groups(agent))
    }

    /// Weighs whether a permission is held for anything at all: what a door asks before anybody knows what it is about.
    ///
    /// # Errors
    /// What is missing.
    pub fn somewhere(&self, caller: &Caller, permission: Permission, now: Millis) -> Result<(), Denied> {
        self.bounds(caller, permission, now)?;
        let roles = self.site.roles();
        let held = [caller.roles.as_slice(), roles.of(caller.operator())];
        let holds = held.iter().any(|held| roles.holds_somewhere(held, permission));
        if holds { Ok(()) } else { Err(Denied::Roles) }
    }

    /// Weighs whether somebody may let hosts in under these names and into these groups: who could not manage such an agent
    /// must not make one, or it would be a member of what its maker has no say in.
    ///
    /// # Errors
    /// What is missing.
    pub fn may_enrol(&self, caller: &Caller, names: &Pattern, groups: &[GroupName], now: Millis) -> Result<(), Denied> {
        self.bounds(caller, Permission::AgentManage, now)?;
        // A token gives what it says, and everybody is in the groups of `*`: no other group comes without it.
        let everybodys = self.site.groups().grants().iter().filter(|grant| grant.pattern.as_str() == "*");
        let everybodys = everybodys.flat_map(|grant| grant.groups.iter().map(|(group, _)| group));
        let groups: Vec<GroupName> = groups.iter().chain(everybodys).cloned().collect();
        let roles = self.site.roles();
        let held = [caller.roles.as_slice(), roles.of(caller.operator())];
        let may = held.iter().any(|held| roles.holds_for_all(held, Permission::AgentManage, names, &groups));
        if may { Ok(()) } else { Err(Denied::Roles) }
    }

    /// Tells whether a credential is still worth anything.
    #[must_use]
    pub fn stands(&self, authority: &Authority, now: Millis) -> bool {
        match &authority.via {
            Via::Local { .. } => true,
            _ => self
                .credential(authority)
                .is_some_and(|known| !known.revoked && known.expires_at.is_none_or(|at| at > now)),
        }
    }

    /// When a credential ends by itself.
    #[must_use]
    pub fn expires_at(&self, authority: &Authority) -> Option<Millis> {
        self.credential(authority).and_then(|known| known.expires_at)
    }

    /// Weighs whether a command may be sent now on behalf of who asked for it then. A credential that has ended by itself
    /// does not take back what was asked for while it was good; one that was revoked does.
    #[must_use]
    pub fn may_send(&self, ask: &JudgeAsk) -> bool {
        // The manager's own, and what an older release left behind without a name.
        let Some(authority) = &ask.authority else { return true };
        let caller = match (&authority.via, self.credential(authority)) {
            (Via::Local { uid }, _) => Caller::local(*uid),
            (_, Some(known)) if !known.revoked => Caller {
                actor: Actor(known.operator.clone()),
                authority: authority.clone(),
                scope: known.scope,
                roles: known.roles.clone(),
            },
            _ => return false,
        };
        let user = runs_as(&ask.operation, ask.user.as_deref());
        let about = About::Run { agent: &ask.agent, user, operation: &ask.operation };
        let enrolled = || ask.groups.iter().filter_map(|group| GroupName::parse(group).ok()).collect::<Vec<_>>();
        holds(caller.scope, Permission::CommandRun)
            && self
                .decided(&caller, Permission::CommandRun, about, |agent| self.site.groups_of(agent, &enrolled()))
                .is_ok()
    }

    fn credential(&self, authority: &Authority) -> Option<&Credential> {
        match &authority.via {
            Via::Token { id } => self.credentials.tokens.get(id),
            // The generation finds it; the name that TLS has proven must be the one on record.
            Via::Certificate { generation } => {
                self.credentials.certificates.get(generation).filter(|known| known.operator == authority.actor)
            }
            Via::Local { .. } => None,
        }
    }

    /// What stands above all roles: the credential itself and its scope.
    fn bounds(&self, caller: &Caller, permission: Permission, now: Millis) -> Result<(), Denied> {
        if !self.stands(&caller.authority, now) {
            return Err(Denied::Credential);
        }
        if holds(caller.scope, permission) { Ok(()) } else { Err(Denied::Scope(caller.scope)) }
    }

    /// What the roles say. Groups are worked out only for callers about whom they can decide.
    fn decided(
        &self,
        caller: &Caller,
        permission: Permission,
        about: About<'_>,
        groups: impl Fn(&Name) -> Vec<GroupName>,
    ) -> Result<(), Denied> {
        let roles = self.site.roles();
        let held = [caller.roles.as_slice(), roles.of(caller.operator())];
        if held.iter().any(|held| held.iter().any(|role| role == ADMIN)) {
            return Ok(());
        }
        let (agent, user, operation) = match about {
            About::Nothing => (None, None, None),
            About::Agent(agent) => (Some(agent), None, None),
            About::Run { agent, user, operation } => (Some(agent), user, Some(operation)),
        };
        let groups = agent.map(groups).unwrap_or_default();
        let agent = agent.map(|name| Subject { name, groups: &groups });
        let ask = Ask { permission, agent, user, operation };
        let allowed = held.iter().any(|held| roles.decide(held, ask).is_allowed());
        if allowed { Ok(()) } else { Err(Denied::Roles) }
    }
}

/// The user that roles are asked about: the agent's own is root, and what starts no process runs as nobody.
#[must_use]
pub fn runs_as<'a>(operation: &str, user: Option<&'a str>) -> Option<&'a str> {
    if operation == AGENT_PING { None } else { Some(user.unwrap_or("root")) }
}

/// Tells whether one scope holds everything that another does.
#[must_use]
pub fn covers(scope: Scope, other: Scope) -> bool {
    Permission::ALL.into_iter().all(|permission| holds(scope, permission) || !holds(other, permission))
}

/// Tells whether a scope holds a permission: what bounds a token whatever its roles are.
#[must_use]
pub fn holds(scope: Scope, permission: Permission) -> bool {
    use Permission as P;
    match scope {
        Scope::Admin => true,
        Scope::Run => holds(Scope::Read, permission) || matches!(permission, P::CommandRun | P::CommandControl),
        Scope::Read => {
            matches!(permission, P::AgentRead | P::CommandRead | P::OutputRead | P::StatusRead | P::SiteRead)
        }
    }
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
