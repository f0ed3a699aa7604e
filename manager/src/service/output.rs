//! Output of commands: read by offset, and woken when there is more.

use common::id::CommandId;
use common::model::StreamName;
use store::CommandWatch;
use store::types::{OutputRead, Scope};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;

/// Most bytes of one read: what a stalled reader may cost.
pub const MAX_READ: usize = 256 * 1024;

impl Service {
    /// Reads up to `max` bytes of a stream from an offset. Whether the command exists is the caller's question.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn output_read(
        &self,
        caller: &Caller,
        id: CommandId,
        stream: StreamName,
        offset: u64,
        max: usize,
    ) -> Result<OutputRead, ServiceError> {
        caller.may(Scope::Read)?;
        Ok(self.store().read_output(id, stream, offset, max.clamp(1, MAX_READ)).await?)
    }

    /// Watches a command: wakes when its row or its output changed, carries nothing.
    #[must_use]
    pub fn output_watch(&self, id: CommandId) -> CommandWatch {
        self.store().watch_command(id)
    }
}
