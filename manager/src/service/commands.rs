//! Commands: start, look, wait, cancel, pause, release.

use std::time::Duration;

use common::id::{CommandId, Name};
use common::limits;
use site::permission::Permission;
use site::target::Target;
use store::StoreError;
use store::types::{
    AuditEntry, AuditOutcome, Cancel, CancelAnswer, Command, CommandFilter, CommandPage, Due, Idempotency, Millis,
    PauseAnswer, Request, Submit, Submitted,
};
use tokio::time::{Instant, timeout_at};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use super::rights::{About, runs_as};
use super::validate;
use crate::fanout;
use crate::registry::SessionHandle;

/// Longest time one call may wait for the end of a command; callers ask again.
pub const MAX_WAIT: Duration = Duration::from_secs(300);
/// Commands in one page of a list.
pub const MAX_PAGE: usize = 1_000;
/// Pages of the store that are looked through for one page of a caller who sees little of them.
const LOOKS: usize = 64;

/// A command together with what only this moment knows.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandView {
    /// The row.
    pub command: Command,
    /// Its agent is connected now.
    pub reachable: bool,
}

/// One page of a list of commands.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandList {
    /// Newest first.
    pub views: Vec<CommandView>,
    /// The cursor behind the page, when there may be more.
    pub next: Option<CommandId>,
}

/// A wish to stop a command, as a caller says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CancelWish {
    /// Why.
    pub reason: Option<String>,
    /// From the first signal to the kill; without it the command's own, and for a second wish none at all.
    pub grace: Option<Duration>,
    /// Makes a repeat of the call the same wish.
    pub key: Option<String>,
}

impl CommandView {
    /// Tells whether nothing about the command will change any more: its phase is final and every byte is here.
    #[must_use]
    pub fn complete(&self) -> bool {
        complete(&self.command)
    }
}

/// Tells whether the phase is final and every byte that will ever come is here.
#[must_use]
pub fn complete(command: &Command) -> bool {
    command.phase.is_final() && command.streams.iter().all(|stream| stream.end)
}

impl Service {
    /// Starts an operation on one or more agents; durable when it returns.
    ///
    /// # Errors
    /// When the caller may not, the request is wrong, an agent is unknown, or nothing can be recorded.
    pub async fn submit(
        &self,
        caller: &Caller,
        agents: Vec<Name>,
        request: Request,
        expires_in: Option<Duration>,
        as_job: bool,
        idempotency: Option<Idempotency>,
    ) -> Result<Submitted, ServiceError> {
        let submit = self.prepare(caller, agents, request, expires_in, as_job, idempotency).await?;
        let agents = submit.agents.clone();
        let submitted = self.store().submit(submit).await;
        let submitted = self.or_noted(caller, &agents, submitted).await?;
        if !submitted.replayed {
            self.counters().submitted.add(submitted.commands.len() as u64);
            self.wake().agents(agents);
        }
        Ok(submitted)
    }

    /// Starts an operation on one agent; durable when it returns, and on its way when the agent is here.
    ///
    /// # Errors
    /// When the caller may not, the request is wrong, the agent is unknown, or nothing can be recorded.
    pub async fn start(
        &self,
        caller: &Caller,
        agent: Name,
        request: Request,
        expires_in: Option<Duration>,
        idempotency: Option<Idempotency>,
    ) -> Result<CommandView, ServiceError> {
        let handle = self.registry().handle(&agent).filter(SessionHandle::reconciled);
        let places = handle.map(|handle| (handle.reserve(1), handle)).filter(|(places, _)| !places.is_empty());
        let Some((places, handle)) = places else {
            let submitted = self.submit(caller, vec![agent], request, expires_in, false, idempotency).await?;
            return self.first(&submitted).await;
        };
        let submit = self.prepare(caller, vec![agent.clone()], request, expires_in, false, idempotency).await?;
        let taker = Self::taker(&agent, &handle, places.len());
        let deliver = move |due: Vec<Due>| {
            if !due.is_empty() {
                // What was lost with its session is settled by the next inventory.
                let _ = fanout::hand_over(places, due);
            }
        };
        let started = self.store().submit_and_take(submit, taker, self.judge(), deliver).await;
        let started = self.or_noted(caller, std::slice::from_ref(&agent), started).await?;
        if !started.submitted.replayed {
            self.counters().submitted.add(1);
        }
        if let Some(command) = started.command {
            return Ok(self.view(command));
        }
        self.wake().agent(&agent);
        self.first(&started.submitted).await
    }

    /// Shows a command to who made it, whatever else they may see.
    async fn first(&self, submitted: &Submitted) -> Result<CommandView, ServiceError> {
        match submitted.commands.as_slice() {
            [id] => match self.store().command(*id).await? {
                Some(command) => Ok(self.view(command)),
                None => Err(ServiceError::not_found("command", id)),
            },
            _ => Err(ServiceError::Store(StoreError::Conflict { what: "a submit to one agent makes one command" })),
        }
    }

    /// Finds the agents that a target means, among those the caller may see, by name. Whoever joins later is not meant.
    ///
    /// # Errors
    /// When it names an agent that is not there for the caller, or means none.
    pub async fn resolve(&self, caller: &Caller, target: &Target) -> Result<Vec<Name>, ServiceError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let views = self.agents(caller, Some(target), after, MAX_PAGE).await?;
            let all_read = views.len() < MAX_PAGE;
            after = views.last().map(|view| view.agent.name.clone());
            found.extend(views.into_iter().map(|view| view.agent.name));
            if all_read {
                break;
            }
        }
        // Who writes a name means it: leaving it out in silence would run less than was asked for.
        for name in named(target) {
            let there = found.iter().any(|agent| agent.as_str() == name)
                || matches!(name.parse::<Name>(), Ok(name) if self.agent(caller, &name).await.is_ok());
            if !there {
                return Err(ServiceError::not_found("agent", name));
            }
        }
        if found.is_empty() {
            return Err(ServiceError::invalid("target", "means no agent"));
        }
        Ok(found)
    }

    /// The agents of a submit, in the order of its commands.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn agents_of(&self, submitted: &Submitted) -> Result<Vec<Name>, ServiceError> {
        let mut agents = Vec::with_capacity(submitted.commands.len());
        for id in &submitted.commands {
            let command = self.store().command(*id).await?;
            agents.push(command.ok_or_else(|| ServiceError::not_found("command", id))?.agent);
        }
        Ok(agents)
    }

    /// Checks a request and puts together what the store is to accept. A refusal is in the audit.
    async fn prepare(
        &self,
        caller: &Caller,
        agents: Vec<Name>,
        request: Request,
        expires_in: Option<Duration>,
        as_job: bool,
        idempotency: Option<Idempotency>,
    ) -> Result<Submit, ServiceError> {
        if let Err(refusal) = self.may_submit(caller, &agents, &request, expires_in) {
            self.note_refusal(caller, "command.submit", &names(&agents), &refusal.error).await;
            return Err(match refusal.about {
                Some(agent) => self.unless_hidden(caller, &agent, refusal.error).await,
                None => refusal.error,
            });
        }
        let request = Request { secrets: self.seals().seal(request.secrets)?, ..request };
        let now = self.now();
        let expires_at = now.saturating_add(millis(expires_in.unwrap_or(limits::DEFAULT_EXPIRY)));
        let (actor, authority) = (caller.actor.clone(), Some(caller.authority.clone()));
        Ok(Submit { agents, request, expires_at, actor, authority, as_job, idempotency, now })
    }

    /// Writes a refusal of the store into the audit.
    async fn or_noted<T>(
        &self,
        caller: &Caller,
        agents: &[Name],
        answer: Result<T, StoreError>,
    ) -> Result<T, ServiceError> {
        match answer.map_err(ServiceError::from) {
            Ok(answer) => Ok(answer),
            Err(refusal) => {
                self.note_refusal(caller, "command.submit", &names(agents), &refusal).await;
                Err(refusal)
            }
        }
    }

    fn may_submit(
        &self,
        caller: &Caller,
        agents: &[Name],
        request: &Request,
        expires_in: Option<Duration>,
    ) -> Result<(), Unsubmitted> {
        self.must_somewhere(caller, Permission::CommandRun)?;
        if self.draining() {
            return Err(ServiceError::Draining.into());
        }
        validate::agents(agents, self.settings().max_agents_per_request)?;
        validate::request(request)?;
        validate::expiry(expires_in)?;
        let (rights, now, need) = (self.rights(), self.now(), Permission::CommandRun);
        let (operation, user) = (request.operation.as_str(), runs_as(&request.operation, request.user.as_deref()));
        for agent in agents {
            if let Err(because) = rights.weigh(caller, need, About::Run { agent, user, operation }, now) {
                return Err(Unsubmitted {
                    error: ServiceError::Forbidden { need, because },
                    about: Some(agent.clone()),
                });
            }
        }
        Ok(())
    }

    /// Finds a command that exists for the caller.
    pub(super) async fn seen_command(&self, caller: &Caller, id: CommandId) -> Result<Command, ServiceError> {
        let command = self.store().command(id).await?.filter(|command| self.sees_command(caller, command));
        command.ok_or_else(|| ServiceError::not_found("command", id))
    }

    /// Finds a command, on that agent where one is named, that the caller may stop, pause and let go; a refusal is in the
    /// audit. Who may not see it may not touch it either.
    async fn controlled(
        &self,
        caller: &Caller,
        id: CommandId,
        agent: Option<&Name>,
        action: &str,
    ) -> Result<Command, ServiceError> {
        let need = Permission::CommandControl;
        self.must_somewhere(caller, need)?;
        let command = self.store().command(id).await?.filter(|command| agent.is_none_or(|name| *name == command.agent));
        let refusal = match command {
            None => return Err(ServiceError::not_found("command", id)),
            Some(command) if !self.sees_command(caller, &command) => ServiceError::not_found("command", id),
            Some(command) => match self.may(caller, need, About::Agent(&command.agent)) {
                Ok(()) => return Ok(command),
                Err(because) => ServiceError::Forbidden { need, because },
            },
        };
        self.note_refusal(caller, action, &format!("command:{id}"), &refusal).await;
        Err(refusal)
    }

    /// Shows one command.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn command(&self, caller: &Caller, id: CommandId) -> Result<CommandView, ServiceError> {
        self.must_somewhere(caller, Permission::CommandRead)?;
        self.seen_command(caller, id).await.map(|command| self.view(command))
    }

    /// Lists commands, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn commands(&self, caller: &Caller, mut filter: CommandFilter) -> Result<CommandList, ServiceError> {
        self.must_somewhere(caller, Permission::CommandRead)?;
        let limit = filter.limit.clamp(1, MAX_PAGE);
        let hidden = |agent: &Name| self.may(caller, Permission::CommandRead, About::Agent(agent)).is_err();
        if filter.agent.as_ref().is_some_and(hidden) {
            // A cursor would tell that there is something behind it.
            return Ok(CommandList { views: Vec::new(), next: None });
        }
        let mut views = Vec::new();
        // The past may be long and little of it be the caller's: a page that took enough looks ends early and says where to
        // go on.
        for _ in 0..LOOKS {
            filter.limit = limit - views.len();
            let CommandPage { commands, next } = self.store().commands(filter.clone()).await?;
            let seen = commands.into_iter().filter(|command| self.sees_command(caller, command));
            views.extend(seen.map(|command| self.view(command)));
            filter.before = next;
            if next.is_none() || views.len() >= limit {
                break;
            }
        }
        Ok(CommandList { views, next: filter.before })
    }

    /// Checks that there is an agent whose commands the caller may see.
    ///
    /// # Errors
    /// When there is none of that name for it.
    pub async fn has_commands(&self, caller: &Caller, agent: &Name) -> Result<(), ServiceError> {
        let seen = self.may(caller, Permission::CommandRead, About::Agent(agent)).is_ok();
        if seen && self.store().agent(agent).await?.is_some() {
            return Ok(());
        }
        Err(ServiceError::not_found("agent", agent))
    }

    /// Waits until a command is final and complete, or the time is up, and shows it as it is then.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn wait_command(
        &self,
        caller: &Caller,
        id: CommandId,
        at_most: Duration,
    ) -> Result<CommandView, ServiceError> {
        let deadline = Instant::now() + at_most.min(MAX_WAIT);
        // Watching begins before the first look, so that no change falls between them.
        let mut watch = self.store().watch_command(id);
        let mut rights = self.rights_changed();
        loop {
            let view = self.command(caller, id).await?;
            if view.complete() {
                return Ok(view);
            }
            tokio::select! {
                changed = timeout_at(deadline, watch.changed()) => if changed.is_err() {
                    return self.command(caller, id).await;
                },
                // Looked at again, and then there is nothing to wait for any more.
                _ = rights.changed() => {}
                () = self.shutdown().requested() => return Ok(view),
            }
        }
    }

    /// Cancels a command: at once when it was never sent, else the wish is durable and the agent is told.
    ///
    /// # Errors
    /// When there is no such command (on that agent), or the caller may not.
    pub async fn cancel(
        &self,
        caller: &Caller,
        id: CommandId,
        agent: Option<&Name>,
        wish: CancelWish,
    ) -> Result<(CancelAnswer, CommandView), ServiceError> {
        let command = self.controlled(caller, id, agent, "command.cancel").await?;
        validate::reason(wish.reason.as_deref())?;
        validate::grace(wish.grace)?;
        let now = self.now();
        let CancelWish { reason, grace, key } = wish;
        // A key is one of its caller: nobody else's repeat is taken for it.
        let keys = key.map(|key| format!("{}:{key}", caller.actor.0)).into_iter().collect();
        let wish = Cancel { by: caller.actor.clone(), reason, at: now, grace, begun: None, keys };
        let answer = self.store().cancel(id, wish, &caller.actor, now).await?;
        if matches!(answer, CancelAnswer::Pending { .. }) {
            self.wake().agent(&command.agent);
        }
        let view = self.command(caller, id).await?;
        Ok((answer, view))
    }

    /// Pauses a command: the wish is durable and the agent is told.
    ///
    /// # Errors
    /// When there is no such command, it was not started or is stopping or over, or the caller may not.
    pub async fn pause(&self, caller: &Caller, id: CommandId) -> Result<CommandView, ServiceError> {
        self.controlled(caller, id, None, "command.pause").await?;
        let answer = self.store().pause(id, &caller.actor, self.now()).await?;
        self.wished(caller, id, answer).await
    }

    /// Lets a paused command go on: the wish is durable and the agent is told.
    ///
    /// # Errors
    /// When there is no such command, it was not started or is stopping or over, or the caller may not.
    pub async fn resume(&self, caller: &Caller, id: CommandId) -> Result<CommandView, ServiceError> {
        self.controlled(caller, id, None, "command.resume").await?;
        let answer = self.store().resume(id, &caller.actor, self.now()).await?;
        self.wished(caller, id, answer).await
    }

    async fn wished(&self, caller: &Caller, id: CommandId, answer: PauseAnswer) -> Result<CommandView, ServiceError> {
        let refused = |code, text: String| Err(ServiceError::Conflict { code, text });
        match answer {
            PauseAnswer::Wished => {}
            PauseAnswer::Already => return self.command(caller, id).await,
            PauseAnswer::NotStarted => {
                return refused("not_started", format!("command {id} was not sent to its agent yet"));
            }
            PauseAnswer::Stopping => return refused("stopping", format!("command {id} is being stopped")),
            PauseAnswer::Final(phase) => return refused("already_final", format!("command {id} is over: {phase}")),
        }
        let view = self.command(caller, id).await?;
        self.wake().agent(&view.command.agent);
        Ok(view)
    }

    /// Lets a command go that waits because the store was restored.
    ///
    /// # Errors
    /// When there is no such command, or it does not wait for that.
    pub async fn release(&self, caller: &Caller, id: CommandId) -> Result<CommandView, ServiceError> {
        self.controlled(caller, id, None, "command.release").await?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        self.store().release_restored(id, &caller.actor, self.now()).await?;
        let view = self.command(caller, id).await?;
        self.wake().agent(&view.command.agent);
        Ok(view)
    }

    fn view(&self, command: Command) -> CommandView {
        let reachable = self.registry().connected(&command.agent);
        CommandView { command, reachable }
    }

    /// Writes the audit row of a refusal. Its failure is logged only: the refusal itself stands either way.
    pub(super) async fn note_refusal(&self, caller: &Caller, action: &str, object: &str, refusal: &ServiceError) {
        self.counters().refused.add(1);
        if matches!(
            refusal,
            ServiceError::Full | ServiceError::Store(_) | ServiceError::Busy { .. } | ServiceError::Draining
        ) {
            return;
        }
        let Some(skipped) = self.refusals().take(&caller.actor, Instant::now()) else { return };
        let mut details = serde_json::json!({ "code": refusal.code(), "text": refusal.to_string() });
        if skipped > 0 {
            details["not_written_before"] = skipped.into();
        }
        let entry = AuditEntry {
            actor: caller.actor.clone(),
            action: action.to_owned(),
            object: object.to_owned(),
            outcome: AuditOutcome::Refused,
            details: details.to_string(),
        };
        let written = self.store().audit(entry, self.now()).await;
        if let Err(error) = written {
            tracing::warn!(error = %common::error::Chain(&error), "a refusal could not be written to the audit");
        }
    }
}

/// Why a submit is refused; what is about an agent is heard only by who may see it.
struct Unsubmitted {
    error: ServiceError,
    about: Option<Name>,
}

impl From<ServiceError> for Unsubmitted {
    fn from(error: ServiceError) -> Self {
        Self { error, about: None }
    }
}

/// The names that a target asks for by themselves; what it leaves out need not be there.
fn named(target: &Target) -> Vec<&str> {
    match target {
        Target::Any(parts) | Target::All(parts) => parts.iter().flat_map(named).collect(),
        Target::Name(_) => target.single().into_iter().collect(),
        Target::Group(_) | Target::Not(_) => Vec::new(),
    }
}

/// Names for an audit row: all of a few, the number of many.
fn names(agents: &[Name]) -> String {
    match agents {
        [] => "agents: none".to_owned(),
        [one] => format!("agent:{one}"),
        many => format!("agents:{}", many.len()),
    }
}

pub(crate) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
