//! Calls about commands: start, look, stop, read.

use std::time::Duration;

use common::config::HumanDuration;
use common::id::Name;
use common::model::StreamName;
use http::Method;

use super::calls::{Client, Words};
use super::error::ClientError;
use super::output::{OutputStream, RawOutput};
use crate::commands::{
    CancelAnswer, CancelRequest, Command, CommandQuery, CommandRequest, JobRequest, JobStarted, OutputCursor,
};
use crate::page::Page;

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Starts a command on one agent.
    pub async fn start(&self, agent: &Name, request: &CommandRequest) -> Result<Command, ClientError> {
        let path = format!("/agents/{agent}/commands");
        self.call(self.post(path, request)?.keyed()).await
    }

    /// Starts a command on each of several agents.
    pub async fn start_job(&self, request: &JobRequest) -> Result<JobStarted, ClientError> {
        self.call(self.post("/commands".to_owned(), request)?.keyed()).await
    }

    /// Reads a command.
    pub async fn command(&self, id: u64) -> Result<Command, ClientError> {
        self.call(self.get(format!("/commands/{id}"))).await
    }

    /// Waits until a command is final and its streams are complete, at most for `wait`; answers it as it is then.
    pub async fn wait_command(&self, id: u64, wait: Duration) -> Result<Command, ClientError> {
        let wait = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let shown = HumanDuration(wait).to_string().replace(' ', "");
        let mut call = self.get(format!("/commands/{id}?wait={shown}"));
        call.deadline = call.deadline.saturating_add(wait);
        self.call(call).await
    }

    /// Lists commands, newest first.
    pub async fn commands(&self, query: &CommandQuery) -> Result<Page<Command>, ClientError> {
        let mut words = Words::default();
        words.add("agent", query.agent.as_ref());
        for phase in &query.phases {
            words.add("phase", Some(phase));
        }
        words.add("operation", query.operation.as_ref());
        words.add("job", query.job);
        words.add("after", query.after.as_ref());
        words.add("limit", query.limit);
        self.call(self.get(words.behind("/commands"))).await
    }

    /// Stops a command. Each call is a wish of its own: a second one skips the grace of the first. A call that is sent
    /// again because its answer was lost stays the same wish, by its key.
    pub async fn cancel(&self, id: u64, request: &CancelRequest) -> Result<CancelAnswer, ClientError> {
        self.call(self.post(format!("/commands/{id}/cancel"), request)?.keyed()).await
    }

    /// Pauses a command.
    pub async fn pause(&self, id: u64) -> Result<Command, ClientError> {
        self.call(self.bare(Method::POST, format!("/commands/{id}/pause")).repeatable()).await
    }

    /// Lets a paused command go on.
    pub async fn resume(&self, id: u64) -> Result<Command, ClientError> {
        self.call(self.bare(Method::POST, format!("/commands/{id}/resume")).repeatable()).await
    }

    /// Lets a command go that waits because the manager's store was restored.
    pub async fn release(&self, id: u64) -> Result<Command, ClientError> {
        self.call(self.bare(Method::POST, format!("/commands/{id}/release")).repeatable()).await
    }

    /// Follows all streams of a command from a position until they are complete.
    #[must_use]
    pub fn follow(&self, id: u64, from: OutputCursor) -> OutputStream {
        OutputStream::new(self.clone(), id, from, true)
    }

    /// Reads what there is of all streams of a command, from a position, without waiting for more.
    #[must_use]
    pub fn output(&self, id: u64, from: OutputCursor) -> OutputStream {
        OutputStream::new(self.clone(), id, from, false)
    }

    /// Reads the bytes of one stream from an offset; with `follow` until the stream is complete.
    #[must_use]
    pub fn raw_output(&self, id: u64, stream: StreamName, from: u64, follow: bool) -> RawOutput {
        RawOutput::new(self.clone(), id, stream, from, follow)
    }
}
