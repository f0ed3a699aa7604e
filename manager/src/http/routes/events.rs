//! Every change: as a page, or as a stream that can be resumed.

use api::events::Event;
use api::page::Page;
use api::problem::Problem;
use axum::Json as Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use common::error::Chain;
use common::id::CommandId;
use http_body::Frame;
use store::types::EventFilter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::commands::number;
use crate::http::body::{Cut, Source, Step, pulled};
use crate::http::convert::events as convert;
use crate::http::extract::{Authenticated, Lasting};
use crate::http::gate::Standing;
use crate::http::problem::Refusal;
use crate::http::query::{Words, read};
use crate::http::sse;
use crate::limits::EVENTS_AT_ONCE;
use crate::service::{Caller, Service, ServiceError};

/// Lists changes, oldest first; with `Accept: text/event-stream` follows them for ever.
///
/// The stream begins with an event `position` whose id is where it begins; every following event is a change and its id is the
/// number of the change. Send the last id as `Last-Event-ID` to go on behind it. Without one, and without `after`, the stream
/// begins now.
#[utoipa::path(
    get, path = "/events", tag = "events",
    params(
        ("after" = Option<u64>, Query, description = "Only changes behind this number."),
        ("agent" = Option<String>, Query, description = "Only changes about this agent."),
        ("command" = Option<u64>, Query, description = "Only changes about this command."),
        ("kind" = Option<String>, Query, description = "Only kinds that begin like this, for example `command.`."),
        ("limit" = Option<u32>, Query, description = "At most this many in a page, 100 when absent, 1000 at most."),
        ("Last-Event-ID" = Option<String>, Header, description = "Stream: go on behind this change."),
    ),
    responses(
        (status = 200, description = "One page, or the stream.", body = Page<Event>),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Lasting(standing): Lasting,
    mut words: Words,
    request: Request,
) -> Result<Response, Refusal> {
    let filter = EventFilter {
        agent: words.value("agent")?,
        command: words.value("command")?.map(CommandId),
        kind_prefix: words.text("kind")?,
    };
    if sse::wanted(request.headers()) {
        let asked = words.value::<u64>("after")?;
        words.finish()?;
        let changed = service.events_changed();
        let last = sse::last_event_id(request.headers()).map(|id| read("last-event-id", id)).transpose()?;
        let after = last.or(asked).unwrap_or_else(|| *changed.borrow());
        return Ok(sse::answer(pulled(Changes { service, caller, standing, after, filter, changed, begun: false })));
    }
    let (after, limit) = (number(&mut words)?, words.limit()?);
    words.finish()?;
    let page = service.events(&caller, after, limit, filter).await?;
    let next = page.more.then(|| page.seen_to.to_string());
    let items: Vec<Event> = page.events.into_iter().map(convert::event).collect();
    Ok(Body(Page { items, next }).into_response())
}

/// Changes as they are committed.
struct Changes {
    service: Service,
    caller: Caller,
    standing: Standing,
    after: u64,
    filter: EventFilter,
    changed: watch::Receiver<u64>,
    begun: bool,
}

impl Changes {
    fn begin(&mut self) -> Step {
        self.begun = true;
        let position = serde_json::json!({ "seq": self.after });
        sse::event(Some("position"), &self.after.to_string(), &position).ok().map(|bytes| Ok(Frame::data(bytes)))
    }
}

impl Source for Changes {
    async fn next(&mut self) -> Step {
        if !self.begun {
            return self.begin();
        }
        let silent_until = Instant::now() + sse::KEEP_ALIVE;
        loop {
            if !self.standing.holds().await {
                return None;
            }
            // Marked as seen before reading: what comes meanwhile wakes again.
            let newest = *self.changed.borrow_and_update();
            let page = match self.service.events(&self.caller, self.after, EVENTS_AT_ONCE, self.filter.clone()).await {
                Ok(page) => page,
                // The right to read on ended: so does the stream.
                Err(ServiceError::Forbidden { .. }) => return None,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "A follower of events was cut because of an error");
                    return Some(Err(Cut));
                }
            };
            let mut out = BytesMut::new();
            for event in page.events {
                let id = event.seq.to_string();
                let shown: Event = convert::event(event);
                if let Ok(bytes) = sse::event(None, &id, &shown) {
                    out.extend_from_slice(&bytes);
                }
            }
            self.after = self.after.max(page.seen_to);
            if !page.more {
                // What the filter left out need not be looked at again.
                self.after = self.after.max(newest);
            }
            if !out.is_empty() {
                return Some(Ok(Frame::data(out.freeze())));
            }
            if page.more {
                // A long way without anything for this reader: others get their turn, and so does the check above.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() {
                    return None;
                },
                () = self.standing.changed() => {}
                () = sleep(Standing::RECHECK) => if Instant::now() >= silent_until {
                    return Some(Ok(Frame::data(sse::comment())));
                },
                () = self.service.shutdown().requested() => return None,
            }
        }
    }
}
