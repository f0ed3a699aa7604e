//! Asking the rights: what every method of the service does first, and how it answers those who may not.
//!
//! What a caller may not see does not exist for it: the same answer, word for word, as for what is not there. Only where the
//! object is seen, or nothing in particular is asked for, is the answer that it is forbidden. Each refusal is in the audit.

use common::id::Name;
use site::permission::Permission;
use store::types::{Command, Event};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use super::rights::{About, Denied};

impl Service {
    /// Weighs a question as of now.
    ///
    /// # Errors
    /// What is missing.
    pub fn may(&self, caller: &Caller, permission: Permission, about: About<'_>) -> Result<(), Denied> {
        self.rights().weigh(caller, permission, about, self.now())
    }

    /// Checks a permission that is about nothing in particular; a refusal is in the audit.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(crate) async fn must(
        &self,
        caller: &Caller,
        need: Permission,
        action: &str,
        object: &str,
    ) -> Result<(), ServiceError> {
        let Err(because) = self.may(caller, need, About::Nothing) else { return Ok(()) };
        let refusal = ServiceError::Forbidden { need, because };
        self.note_refusal(caller, action, object, &refusal).await;
        Err(refusal)
    }

    /// Checks a permission that is held for something at least: before a list is narrowed.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(crate) fn must_somewhere(&self, caller: &Caller, need: Permission) -> Result<(), ServiceError> {
        let held = self.rights().somewhere(caller, need, self.now());
        held.map_err(|because| ServiceError::Forbidden { need, because })
    }

    /// Checks that a caller's credential is still worth something.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(crate) fn still_stands(&self, caller: &Caller) -> Result<(), ServiceError> {
        if self.rights().stands(&caller.authority, self.now()) {
            return Ok(());
        }
        Err(ServiceError::Forbidden { need: Permission::StatusRead, because: Denied::Credential })
    }

    /// Checks a permission about an agent; a refusal is in the audit.
    ///
    /// # Errors
    /// `NotFound` where the caller may not see it, else `Forbidden`.
    pub(crate) async fn must_on(
        &self,
        caller: &Caller,
        need: Permission,
        agent: &Name,
        action: &str,
    ) -> Result<(), ServiceError> {
        let Err(because) = self.may(caller, need, About::Agent(agent)) else { return Ok(()) };
        let forbidden = ServiceError::Forbidden { need, because };
        self.note_refusal(caller, action, &format!("agent:{agent}"), &forbidden).await;
        Err(self.unless_hidden(caller, agent, forbidden).await)
    }

    /// A refusal about an agent as its caller may hear it.
    pub(super) async fn unless_hidden(&self, caller: &Caller, agent: &Name, refusal: ServiceError) -> ServiceError {
        let seen = self.may(caller, Permission::AgentRead, About::Agent(agent)).is_ok();
        // Who may see every agent there could be is told when there is none.
        if seen && matches!(self.store().agent(agent).await, Ok(Some(_))) {
            refusal
        } else {
            ServiceError::not_found("agent", agent)
        }
    }

    /// Tells whether an agent exists for a caller.
    pub(super) fn sees_agent(&self, caller: &Caller, agent: &Name) -> bool {
        self.may(caller, Permission::AgentRead, About::Agent(agent)).is_ok()
    }

    /// Tells whether a command exists for a caller.
    pub(super) fn sees_command(&self, caller: &Caller, command: &Command) -> bool {
        self.may(caller, Permission::CommandRead, About::Agent(&command.agent)).is_ok()
    }

    /// Tells whether a change is shown to a caller. What is about no agent belongs to whoever may look at its subject.
    pub(super) fn sees_event(&self, caller: &Caller, event: &Event) -> bool {
        let about = event.agent.as_ref().map_or(About::Nothing, About::Agent);
        let need = match (&event.agent, event.kind.split('.').next().unwrap_or_default()) {
            (Some(_), "command") => Permission::CommandRead,
            (Some(_), _) => Permission::AgentRead,
            (None, "site") => Permission::SiteRead,
            (None, "store" | "manager") => Permission::StatusRead,
            (None, _) => Permission::AuditRead,
        };
        self.may(caller, need, about).is_ok()
    }
}
