//! What goes to agents and what comes back: commands on their way, and output.

use std::collections::HashSet;
use std::time::Duration;

use common::id::{CommandId, Generation, Name, Uid};
use common::model::{Phase, StreamName};

use super::{Result, Store};
use crate::sqlite::Appending;
use crate::types::{
    AckAnswer, Answered, Chunk, Due, Held, Import, Judge, Millis, OutputRead, PauseHeard, ProgressReport, Reported,
    ResultTaken, Taker, Verdict,
};

/// Commands on their way to agents and back.
impl Store {
    /// Takes what is to be sent to an agent now: first what is to be stopped, then commands in order. What this returns
    /// as `Send` is recorded as sent; it comes again after `resend` unless the agent has answered. A command with a
    /// cancel wish never comes as `Send`. What was never sent and the judge does not let go is refused in the same change.
    ///
    /// # Errors
    /// `Fenced` for another generation than the present one.
    pub async fn due(&self, taker: Taker, judge: &Judge, now: Millis) -> Result<Vec<Due>> {
        self.0.due(taker, judge, now).await
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
