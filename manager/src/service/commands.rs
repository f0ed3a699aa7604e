//! Commands: start, look, wait, cancel, pause, release.

use std::time::Duration;

use common::id::{CommandId, Name};
use common::limits;
use store::StoreError;
use store::types::{
    AuditEntry, AuditOutcome, Cancel, CancelAnswer, Command, CommandFilter, CommandPage, Due, Idempotency, Millis,
    PauseAnswer, Request, Scope, Submit, Submitted,
};
use tokio::time::{Instant, timeout_at};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use super::validate;
use crate::fanout;
use crate::registry::SessionHandle;

/// Longest time one call may wait for the end of a command; callers ask again.
pub const MAX_WAIT: Duration = Duration::from_secs(300);
/// Commands in one page of a list.
pub const MAX_PAGE: usize = 1_000;

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
            return self.first(caller, &submitted).await;
        };
        let submit = self.prepare(caller, vec![agent.clone()], request, expires_in, false, idempotency).await?;
        let taker = Self::taker(&agent, &handle, places.len());
        let deliver = move |due: Vec<Due>| {
            if !due.is_empty() {
                // What was lost with its session is settled by the next inventory.
                let _ = fanout::hand_over(places, due);
            }
        };
        let started = self.store().submit_and_take(submit, taker, deliver).await;
        let started = self.or_noted(caller, std::slice::from_ref(&agent), started).await?;
        if !started.submitted.replayed {
            self.counters().submitted.add(1);
        }
        if let Some(command) = started.command {
            return Ok(self.view(command));
        }
        self.wake().agent(&agent);
        self.first(caller, &started.submitted).await
    }

    async fn first(&self, caller: &Caller, submitted: &Submitted) -> Result<CommandView, ServiceError> {
        match submitted.commands.as_slice() {
            [id] => self.command(caller, *id).await,
            _ => Err(ServiceError::Store(StoreError::Conflict { what: "a submit to one agent makes one command" })),
        }
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
            self.note_refusal(caller, "command.submit", &names(&agents), &refusal).await;
            return Err(refusal);
        }
        let now = self.now();
        let expires_at = now.saturating_add(millis(expires_in.unwrap_or(limits::DEFAULT_EXPIRY)));
        Ok(Submit { agents, request, expires_at, actor: caller.actor.clone(), as_job, idempotency, now })
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
    ) -> Result<(), ServiceError> {
        caller.may(Scope::Run)?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        validate::agents(agents, self.settings().max_agents_per_request)?;
        validate::request(request)?;
        validate::expiry(expires_in)
    }

    /// Shows one command.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn command(&self, caller: &Caller, id: CommandId) -> Result<CommandView, ServiceError> {
        caller.may(Scope::Read)?;
        let command = self.store().command(id).await?;
        command.map(|command| self.view(command)).ok_or_else(|| ServiceError::not_found("command", id))
    }

    /// Lists commands, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn commands(&self, caller: &Caller, mut filter: CommandFilter) -> Result<CommandList, ServiceError> {
        caller.may(Scope::Read)?;
        filter.limit = filter.limit.clamp(1, MAX_PAGE);
        let CommandPage { commands, next } = self.store().commands(filter).await?;
        Ok(CommandList { views: commands.into_iter().map(|command| self.view(command)).collect(), next })
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
        loop {
            let view = self.command(caller, id).await?;
            if view.complete() {
                return Ok(view);
            }
            tokio::select! {
                changed = timeout_at(deadline, watch.changed()) => if changed.is_err() {
                    return self.command(caller, id).await;
                },
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
        caller.may(Scope::Run)?;
        validate::reason(wish.reason.as_deref())?;
        validate::grace(wish.grace)?;
        let command = self.store().command(id).await?.filter(|command| agent.is_none_or(|name| *name == command.agent));
        let Some(command) = command else {
            return Err(ServiceError::not_found("command", id));
        };
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
        caller.may(Scope::Run)?;
        let answer = self.store().pause(id, &caller.actor, self.now()).await?;
        self.wished(caller, id, answer).await
    }

    /// Lets a paused command go on: the wish is durable and the agent is told.
    ///
    /// # Errors
    /// When there is no such command, it was not started or is stopping or over, or the caller may not.
    pub async fn resume(&self, caller: &Caller, id: CommandId) -> Result<CommandView, ServiceError> {
        caller.may(Scope::Run)?;
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
        caller.may(Scope::Run)?;
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
        let entry = AuditEntry {
            actor: caller.actor.clone(),
            action: action.to_owned(),
            object: object.to_owned(),
            outcome: AuditOutcome::Refused,
            details: serde_json::json!({ "code": refusal.code(), "text": refusal.to_string() }).to_string(),
        };
        let written = self.store().audit(entry, self.now()).await;
        if let Err(error) = written {
            tracing::warn!(error = %common::error::Chain(&error), "a refusal could not be written to the audit");
        }
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
