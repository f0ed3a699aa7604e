//! Commands as operators see them.

use std::time::Duration;

use common::id::{CommandId, Uid};

use super::{Result, Store};
use crate::types::{
    Actor, Cancel, CancelAnswer, Command, CommandFilter, CommandPage, Due, Evidence, Judge, Millis, PauseAnswer,
    PhaseCounts, Started, Submit, Submitted, Taker,
};

/// Commands as operators see them.
impl Store {
    /// Accepts commands: all of them and everything that belongs to them, or nothing. An agent named twice gets one.
    ///
    /// # Errors
    /// `UnknownAgent`, `KeyReused`, `Conflict` when no agent is named.
    pub async fn submit(&self, submit: Submit) -> Result<Submitted> {
        self.0.submit(submit).await
    }

    /// Accepts a command for an agent that is connected, and takes in the same commit what is due for that agent, which
    /// is recorded as sent. `deliver` gets it right after the commit, also when the caller has gone; it runs on the
    /// writer's thread and must not wait for anything.
    pub async fn submit_and_take(
        &self,
        submit: Submit,
        taker: Taker,
        judge: &Judge,
        deliver: impl FnOnce(Vec<Due>) + Send + 'static,
    ) -> Result<Started> {
        self.0.submit_and_take(submit, taker, judge, deliver).await
    }

    /// Finds a command.
    pub async fn command(&self, id: CommandId) -> Result<Option<Command>> {
        self.0.command(id).await
    }

    /// Finds a command by what the machines call it.
    pub async fn command_by_uid(&self, uid: &Uid) -> Result<Option<Command>> {
        self.0.command_by_uid(uid).await
    }

    /// Lists commands, newest first. A page ends early when its commands are large.
    pub async fn commands(&self, filter: CommandFilter) -> Result<CommandPage> {
        self.0.commands(filter).await
    }

    /// Counts the commands of every phase that has any.
    pub async fn phase_counts(&self) -> Result<PhaseCounts> {
        self.0.phase_counts().await
    }

    /// Stops a command: at once if it was never sent, else by a durable wish that its agent is told.
    pub async fn cancel(&self, id: CommandId, cancel: Cancel, actor: &Actor, now: Millis) -> Result<CancelAnswer> {
        self.0.cancel(id, cancel, actor, now).await
    }

    /// Wishes that a command pauses; its agent is told until it answers.
    pub async fn pause(&self, id: CommandId, actor: &Actor, now: Millis) -> Result<PauseAnswer> {
        self.0.pause(id, true, actor, now).await
    }

    /// Wishes that a paused command goes on; its agent is told until it answers.
    pub async fn resume(&self, id: CommandId, actor: &Actor, now: Millis) -> Result<PauseAnswer> {
        self.0.pause(id, false, actor, now).await
    }

    /// Lets a command go that waits since the store was restored.
    pub async fn release_restored(&self, id: CommandId, actor: &Actor, now: Millis) -> Result<()> {
        self.0.release_restored(id, actor, now).await
    }

    /// Ends queued commands whose validity has passed; answers how many.
    pub async fn expire_queued(&self, now: Millis) -> Result<usize> {
        self.0.expire_queued(now).await
    }

    /// Ends sent commands of agents that are gone for good: not connected for `lost_after`, and the validity of the
    /// command is over for an hour. Answers which.
    pub async fn give_up_lost(&self, now: Millis, lost_after: Duration) -> Result<Vec<CommandId>> {
        self.0.give_up_lost(now, lost_after).await
    }

    /// Ends as refused what was never sent and may not be any more. Answers which.
    pub async fn refuse_queued(&self, judge: &Judge, now: Millis) -> Result<Vec<CommandId>> {
        self.0.refuse_queued(judge, now).await
    }

    /// Lists what was reported about a command after the manager had ended it itself.
    pub async fn evidence(&self, id: CommandId) -> Result<Vec<Evidence>> {
        self.0.evidence(id).await
    }
}
