//! Calls about changes, and a follower that goes on behind the last one when the connection breaks.

use common::backoff::Backoff;
use tokio::time::{Instant, sleep};

use super::calls::{Client, PAUSES, Words};
use super::error::ClientError;
use super::sse::SseStream;
use crate::events::Event;
use crate::page::Page;

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Follows every change behind the event numbered `after`; `None`: from now on.
    #[must_use]
    pub fn follow_events(&self, after: Option<u64>) -> EventStream {
        EventStream::new(self.clone(), after)
    }

    /// Lists changes behind the event numbered `after`.
    pub async fn events(&self, after: u64, limit: Option<u32>) -> Result<Page<Event>, ClientError> {
        let mut words = Words::default();
        words.add("after", Some(after));
        words.add("limit", limit);
        self.call(self.get(words.behind("/events"))).await
    }
}

/// An endless stream of changes.
pub struct EventStream {
    client: Client,
    after: Option<u64>,
    open: Option<SseStream>,
    pauses: Backoff,
    broken_since: Option<Instant>,
}

impl EventStream {
    pub(super) fn new(client: Client, after: Option<u64>) -> Self {
        Self { client, after, open: None, pauses: Backoff::new(PAUSES.0, PAUSES.1), broken_since: None }
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// When the manager refuses, or stays away for longer than the client is patient.
    ///
    /// # Cancel safety
    /// Safe: a change is either returned or still to come.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            match self.try_next().await {
                Ok(event) => {
                    self.pauses.reset();
                    self.broken_since = None;
                    return Ok(event);
                }
                Err(error) => {
                    self.open = None;
                    let since = *self.broken_since.get_or_insert_with(Instant::now);
                    // A manager that was never reached is not worth waiting for.
                    let never = self.after.is_none() && matches!(error, ClientError::Unreachable { .. });
                    if never || !error.is_transient() || since.elapsed() >= self.client.shared.patience {
                        return Err(error);
                    }
                    sleep(self.pauses.next()).await;
                }
            }
        }
    }

    async fn try_next(&mut self) -> Result<Event, ClientError> {
        let stream = match &mut self.open {
            Some(open) => open,
            None => {
                let mut words = Words::default();
                words.add("after", self.after);
                let last = self.after.map(|seq| seq.to_string());
                self.open.insert(SseStream::open(&self.client, &words.behind("/events"), last).await?)
            }
        };
        loop {
            let event = stream.next().await?.ok_or_else(|| self.client.shared.dialer.lost("the event stream ended"))?;
            if event.name == "position" {
                // Where the stream begins, so that a break before the first change loses nothing.
                self.after = event.id.as_deref().and_then(|id| id.parse().ok()).or(self.after);
                continue;
            }
            let change: Event = serde_json::from_str(&event.data)
                .map_err(|error| ClientError::Malformed { what: "GET /events".to_owned(), source: error.into() })?;
            self.after = Some(change.seq);
            return Ok(change);
        }
    }
}
