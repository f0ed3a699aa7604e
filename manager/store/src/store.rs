//! The facade: every question and every change the manager has for its store, each in one method. No SQL here; a
//! second back end takes the place of [`crate::sqlite`] behind the same methods.
//!
//! Every change writes its events and its audit row in its own transaction. A method that returned is durable, unless
//! its comment says otherwise. Dropping the future of a change does not take the change back.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use common::id::{CommandId, Epoch, Generation, Incarnation, Name, StorePosition, Uid};
use common::model::{Phase, StreamName};
use tokio::sync::watch;

use crate::error::StoreError;
pub use crate::sqlite::Appending;
use crate::sqlite::Database;
use crate::types::{
    AckAnswer, Actor, Agent, Answered, AuditEntry, AuditRow, Cancel, CancelAnswer, Chunk, Command, CommandFilter,
    CommandPage, Connect, Due, Event, EventFilter, Evidence, Held, Identity, Import, Millis, NewToken, OutputRead,
    PauseAnswer, PauseHeard, PhaseCounts, Position, ProgressReport, Pruned, Reported, ResultTaken, Retention, Started,
    Submit, Submitted, Taker, Token, Verdict,
};
use crate::watch::CommandWatch;

type Result<T> = std::result::Result<T, StoreError>;

/// The manager's memory. Clones share one.
#[derive(Debug, Clone)]
pub struct Store(Database);

/// Opening, closing, and what is true of the whole store.
impl Store {
    /// Opens the store of a folder, or makes it. The caller makes sure that no other process has it open.
    ///
    /// Sessions that a crash left open are recorded as ended now.
    ///
    /// # Errors
    /// Also when a newer release wrote it, or when what is stored cannot be read.
    pub async fn open(folder: &Path) -> Result<Self> {
        Database::open(folder).await.map(Self)
    }

    /// Answers which store this is, in which life.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.0.identity()
    }

    /// Answers how far it has come; grows with every committed change.
    #[must_use]
    pub fn position(&self) -> Position {
        self.0.position()
    }

    /// Wakes when events were committed; the value is the number of the last one.
    #[must_use]
    pub fn events_changed(&self) -> watch::Receiver<u64> {
        self.0.events_changed()
    }

    /// Wakes when the row or the output of a command changed.
    #[must_use]
    pub fn watch_command(&self, command: CommandId) -> CommandWatch {
        self.0.watch_command(command)
    }

    /// Tells whether an agent has heard more of this store than the store remembers: then it was restored from an older
    /// copy. To be asked with the agent's hello, before [`Store::agent_connected`].
    pub async fn is_behind(
        &self,
        generation: Generation,
        incarnation: Incarnation,
        heard: StorePosition,
    ) -> Result<bool> {
        self.0.is_behind(generation, incarnation, heard).await
    }

    /// Begins a new life of the store after it was found to be older than what an agent heard: a new incarnation, all
    /// counters jump, queued commands wait until they are released. The audit names the agent that claimed it.
    pub async fn declare_restored(&self, claimant: &Name, heard: StorePosition, now: Millis) -> Result<Identity> {
        self.0.declare_restored(claimant, heard, now).await
    }

    /// Removes what is older than its retention, a bounded number of rows at a time.
    pub async fn prune(&self, retention: Retention, now: Millis) -> Result<Pruned> {
        self.0.prune(retention, now).await
    }

    /// Writes a copy that can be opened as a store into a folder, which is made and must hold no other copy.
    pub async fn backup(&self, folder: &Path) -> Result<()> {
        self.0.backup(folder).await
    }

    /// Ends the writers after everything that waits. Later calls fail as unavailable.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// Agents and their sessions.
impl Store {
    /// Makes an agent if there is none of this name; tells whether it was made now.
    pub async fn ensure_agent(&self, name: &Name, actor: &Actor, now: Millis) -> Result<(Agent, bool)> {
        self.0.ensure_agent(name, actor, now).await
    }

    /// Finds an agent.
    pub async fn agent(&self, name: &Name) -> Result<Option<Agent>> {
        self.0.agent(name).await
    }

    /// Lists agents by name, behind `after`.
    pub async fn agents(&self, after: Option<Name>, limit: usize) -> Result<Vec<Agent>> {
        self.0.agents(after, limit).await
    }

    /// Counts agents.
    pub async fn agent_count(&self) -> Result<u64> {
        self.0.agent_count().await
    }

    /// Removes an agent: the name is free, its generation never comes back, its queued commands are cancelled and its
    /// other unfinished ones interrupted. Answers the commands that ended.
    pub async fn remove_agent(&self, name: &Name, actor: &Actor, now: Millis) -> Result<Vec<CommandId>> {
        self.0.remove_agent(name, actor, now).await
    }

    /// Lifts a quarantine; without one nothing changes.
    pub async fn accept_agent(&self, name: &Name, actor: &Actor, now: Millis) -> Result<Agent> {
        self.0.accept_agent(name, actor, now).await
    }

    /// Serves nobody of this name until an operator accepts one.
    pub async fn quarantine(&self, name: &Name, reason: &str, now: Millis) -> Result<()> {
        self.0.quarantine(name, reason, now).await
    }

    /// Stops or resumes sending new commands.
    pub async fn set_drained(&self, name: &Name, drained: bool, actor: &Actor, now: Millis) -> Result<Agent> {
        self.0.set_drained(name, drained, actor, now).await
    }

    /// Records a new session and answers its epoch, one above all earlier ones.
    ///
    /// # Errors
    /// `NotFound`, `Fenced` for another generation, `Quarantined`.
    pub async fn agent_connected(&self, connect: Connect, now: Millis) -> Result<Epoch> {
        self.0.agent_connected(connect, now).await
    }

    /// Records the end of a session, if it is still the newest.
    pub async fn agent_disconnected(&self, name: &Name, epoch: Epoch, now: Millis) -> Result<()> {
        self.0.agent_disconnected(name, epoch, now).await
    }
}

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
        deliver: impl FnOnce(Vec<Due>) + Send + 'static,
    ) -> Result<Started> {
        self.0.submit_and_take(submit, taker, deliver).await
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

    /// Lists what was reported about a command after the manager had ended it itself.
    pub async fn evidence(&self, id: CommandId) -> Result<Vec<Evidence>> {
        self.0.evidence(id).await
    }
}

/// Commands on their way to agents and back.
impl Store {
    /// Takes what is to be sent to an agent now: first what is to be stopped, then commands in order. What this returns
    /// as `Send` is recorded as sent; it comes again after `resend` unless the agent has answered. A command with a
    /// cancel wish never comes as `Send`.
    ///
    /// # Errors
    /// `Fenced` for another generation than the present one.
    pub async fn due(
        &self,
        agent: &Name,
        generation: Generation,
        journal: Uid,
        limit: usize,
        resend: Duration,
        now: Millis,
    ) -> Result<Vec<Due>> {
        self.0.due(agent, generation, journal, limit, resend, now).await
    }

    /// Names the agents for which [`Store::due`] may have something.
    pub async fn due_agents(&self, resend: Duration, now: Millis) -> Result<Vec<Name>> {
        self.0.due_agents(resend, now).await
    }

    /// Takes an agent's answer to a Command; repeats and old news change nothing.
    ///
    /// # Errors
    /// `NotFound`, `NotMine`.
    pub async fn acked(&self, uid: &Uid, agent: &Name, answer: AckAnswer, now: Millis) -> Result<Answered> {
        self.0.acked(uid, agent, answer, now).await
    }

    /// Takes an agent's answer to the wish `number` that a command pauses or goes on; old news changes nothing.
    ///
    /// # Errors
    /// `NotFound`, `NotMine`.
    pub async fn pause_heard(
        &self,
        uid: &Uid,
        agent: &Name,
        number: u64,
        heard: PauseHeard,
        now: Millis,
    ) -> Result<()> {
        self.0.pause_heard(uid, agent, number, heard, now).await
    }

    /// Takes an agent's word on how far a command is; old news changes nothing.
    ///
    /// # Errors
    /// `NotFound`, `NotMine`.
    pub async fn progress(
        &self,
        uid: &Uid,
        agent: &Name,
        report: ProgressReport,
        now: Millis,
    ) -> Result<(CommandId, Phase)> {
        self.0.progress(uid, agent, report, now).await
    }

    /// Takes the end that an agent reports; repeats change nothing.
    ///
    /// # Errors
    /// `NotFound`, `NotMine`.
    pub async fn result(&self, uid: &Uid, agent: &Name, reported: Reported, now: Millis) -> Result<ResultTaken> {
        self.0.result(uid, agent, reported, now).await
    }

    /// Tells whether the end and every byte of a command are stored. Sync the output before telling the agent.
    pub async fn ready_for_ack(&self, id: CommandId) -> Result<bool> {
        self.0.ready_for_ack(id).await
    }

    /// Records that the agent was told it may forget these.
    pub async fn mark_result_acked(&self, ids: Vec<CommandId>) -> Result<()> {
        self.0.mark_result_acked(ids).await
    }

    /// Judges one page of what an agent holds, in its order.
    pub async fn reconcile_page(
        &self,
        agent: &Name,
        generation: Generation,
        journal: Uid,
        page: Vec<Held>,
        now: Millis,
    ) -> Result<Vec<(Uid, Verdict)>> {
        self.0.reconcile_page(agent, generation, journal, page, now).await
    }

    /// Ends an inventory: `listed` is everything that its pages named. What was sent under another journal, or accepted
    /// under this one, and is not listed is interrupted; what was sent and never accepted is due again. Answers the
    /// commands that ended.
    pub async fn reconcile_finish(
        &self,
        agent: &Name,
        generation: Generation,
        journal: Uid,
        listed: HashSet<Uid>,
        now: Millis,
    ) -> Result<Vec<CommandId>> {
        self.0.reconcile_finish(agent, generation, journal, listed, now).await
    }

    /// Takes in a command that only its agent knew. Its id is kept when it is free and one that this store skipped when it
    /// began a new life. Nothing known is overwritten.
    ///
    /// # Errors
    /// `NotFound` for the agent, `NotMine` for another generation or a uid of another agent.
    pub async fn import(&self, import: Import, now: Millis) -> Result<CommandId> {
        self.0.import(import, now).await
    }
}

/// Output.
impl Store {
    /// Queues bytes, in the order of the calls, and answers a future that resolves when they are readable. Bytes that
    /// are stored already are ignored. After a crash of the machine the newest may be gone until
    /// [`Store::sync_output`] returned.
    ///
    /// # Errors
    /// `Busy` at once when too much waits; the future fails with `Hole` when the bytes do not join.
    pub fn append_output(&self, chunks: Vec<Chunk>) -> Result<Appending> {
        self.0.append_output(chunks)
    }

    /// Makes durable everything whose append has resolved.
    pub async fn sync_output(&self) -> Result<()> {
        self.0.sync_output().await
    }

    /// Answers how far the streams of a command are stored; streams without bytes are not named.
    pub async fn stored_lengths(&self, id: CommandId) -> Result<Vec<(StreamName, u64)>> {
        self.0.stored_lengths(id).await
    }

    /// Reads at an offset, at most `max` bytes.
    pub async fn read_output(&self, id: CommandId, stream: StreamName, offset: u64, max: usize) -> Result<OutputRead> {
        self.0.read_output(id, stream, offset, max).await
    }
}

/// Events, audit and tokens.
impl Store {
    /// Lists events behind `after`, oldest first.
    pub async fn events(&self, after: u64, limit: usize, filter: EventFilter) -> Result<Vec<Event>> {
        self.0.events(after, limit, filter).await
    }

    /// Writes an audit row for something that changes nothing here, such as a refusal.
    pub async fn audit(&self, entry: AuditEntry, now: Millis) -> Result<()> {
        self.0.audit(entry, now).await
    }

    /// Lists audit rows behind `after`, oldest first.
    pub async fn audit_rows(&self, after: u64, limit: usize) -> Result<Vec<AuditRow>> {
        self.0.audit_rows(after, limit).await
    }

    /// Checks the chain of the audit and answers how many rows hold.
    ///
    /// # Errors
    /// `AuditBroken` with the first row that does not.
    pub async fn verify_audit(&self) -> Result<u64> {
        self.0.verify_audit().await
    }

    /// Makes a token.
    ///
    /// # Errors
    /// `Conflict` when the id is taken.
    pub async fn token_create(&self, token: NewToken, actor: &Actor, now: Millis) -> Result<Token> {
        self.0.token_create(token, actor, now).await
    }

    /// Finds a token and the hash of its secret.
    pub async fn token_by_id(&self, id: &str) -> Result<Option<(Token, [u8; 32])>> {
        self.0.token_by_id(id).await
    }

    /// Lists all tokens, newest first.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        self.0.tokens().await
    }

    /// Takes a token back for ever, also from restored copies of this store in this folder.
    pub async fn token_revoke(&self, id: &str, actor: &Actor, now: Millis) -> Result<()> {
        self.0.token_revoke(id, actor, now).await
    }

    /// Notes that a token was used. Best effort: written now and then, without waiting.
    pub fn token_used(&self, id: &str, now: Millis) {
        self.0.token_used(id, now);
    }
}
