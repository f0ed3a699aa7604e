//! Output of commands: read by offset, and woken when there is more.

use common::id::{CommandId, Name};
use common::model::StreamName;
use site::permission::Permission;
use store::CommandWatch;
use store::types::{Command, OutputRead};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use super::rights::About;

/// Most bytes of one read: what a stalled reader may cost.
pub const MAX_READ: usize = 256 * 1024;

/// The output of one command, found for a caller.
#[derive(Debug, Clone)]
pub struct OutputSource {
    id: CommandId,
    agent: Name,
}

impl Service {
    /// Finds the output of a command.
    ///
    /// # Errors
    /// When there is no such command for the caller, or its output is not for it; a refusal is in the audit.
    pub async fn output_of(&self, caller: &Caller, id: CommandId) -> Result<OutputSource, ServiceError> {
        self.must_somewhere(caller, Permission::OutputRead)?;
        let Command { agent, .. } = self.seen_command(caller, id).await?;
        let source = OutputSource { id, agent };
        if let Err(refusal) = self.may_read(caller, &source) {
            self.note_refusal(caller, "output.read", &format!("command:{id}"), &refusal).await;
            return Err(refusal);
        }
        Ok(source)
    }

    /// Reads up to `max` bytes of a stream from an offset. The right to it is weighed for every piece.
    ///
    /// # Errors
    /// When the right is gone, or the store cannot be read.
    pub async fn output_read(
        &self,
        caller: &Caller,
        source: &OutputSource,
        stream: StreamName,
        offset: u64,
        max: usize,
    ) -> Result<OutputRead, ServiceError> {
        self.may_read(caller, source)?;
        Ok(self.store().read_output(source.id, stream, offset, max.clamp(1, MAX_READ)).await?)
    }

    fn may_read(&self, caller: &Caller, source: &OutputSource) -> Result<(), ServiceError> {
        let need = Permission::OutputRead;
        let allowed = self.may(caller, need, About::Agent(&source.agent));
        allowed.map_err(|because| ServiceError::Forbidden { need, because })
    }

    /// Watches a command: wakes when its row or its output changed, carries nothing.
    #[must_use]
    pub fn output_watch(&self, id: CommandId) -> CommandWatch {
        self.store().watch_command(id)
    }
}
