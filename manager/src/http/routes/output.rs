//! The output of a command: raw bytes of one stream, or events of all of them.

use api::commands::{NEXT_OFFSET, OutputCursor};
use api::problem::Problem;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use common::model::StreamName;
use http::header::{CONTENT_TYPE, TRAILER};

use crate::http::body::pulled;
use crate::http::extract::{Authenticated, Lasting, PathParts};
use crate::http::output::{Events, Raw, Reader};
use crate::http::problem::Refusal;
use crate::http::query::{Words, read as parse};
use crate::http::sse;
use crate::service::Service;

/// Reads output from an offset, live until its end.
///
/// Without `Accept: text/event-stream` the answer is the bytes of one stream. It ends with the stream, or before it with the
/// trailer `Paprika-Next-Offset` that says where to go on: behind a gap, where bytes no longer exist, or at the same place
/// when the manager is stopping or `follow` is not set. Over HTTP/1.1 trailers are sent to peers that ask with `TE: trailers`;
/// for others a body that ends early is cut off, so that it does not look complete.
///
/// With `Accept: text/event-stream` the answer is events of all streams: `output` with `{"stream","offset","b64"}` (or
/// `"gap"`), `phase` with the command whenever its phase changed, and a last `end` with the command. The id of an event is the
/// position behind it; send it as `Last-Event-ID` to go on there.
#[utoipa::path(
    get, path = "/commands/{id}/output", tag = "output",
    params(
        ("id" = u64, Path, description = "The command."),
        ("stream" = Option<String>, Query, description = "`stdout`, `stderr` or `steps`. Raw: `stdout` when absent; events: all when absent."),
        ("from" = Option<u64>, Query, description = "The offset to begin at; with events only together with `stream`."),
        ("follow" = Option<bool>, Query, description = "Wait for more until the end. Raw: `false` when absent; events: `true`."),
        ("Last-Event-ID" = Option<String>, Header, description = "Events: where to go on, `stdout=N;stderr=M`."),
    ),
    responses(
        (status = 200, description = "Bytes, or events.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn read(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Lasting(standing): Lasting,
    path: PathParts,
    mut words: Words,
    request: Request,
) -> Result<Response, Refusal> {
    let id = path.command()?;
    let stream = words.value::<StreamName>("stream")?;
    let from = words.value::<u64>("from")?;
    let follow = words.flag("follow")?;
    words.finish()?;
    let events = sse::wanted(request.headers());
    // Watching begins before the first look, so that no change falls between them.
    let watch = service.output_watch(id);
    let source = service.output_of(&caller, id).await?;
    let reader = Reader { service, caller, standing, id, source, follow: follow.unwrap_or(events), watch };
    if !events {
        let source =
            Raw::new(reader, stream.unwrap_or(StreamName::Stdout), from.unwrap_or(0), sse::takes_trailers(&request));
        let head = [(CONTENT_TYPE, "application/octet-stream"), (TRAILER, NEXT_OFFSET)];
        return Ok((head, pulled(source)).into_response());
    }
    let mut cursor: OutputCursor = match sse::last_event_id(request.headers()) {
        Some(id) => parse("last-event-id", id)?,
        None => OutputCursor::default(),
    };
    match (stream, from) {
        (Some(stream), Some(from)) if cursor == OutputCursor::default() => cursor.advance(stream, from),
        (None, Some(_)) => {
            return Err(Refusal::invalid("from", "with events, `from` is the offset of one `stream`; name it"));
        }
        _ => {}
    }
    Ok(sse::answer(pulled(Events::new(reader, stream, cursor))))
}
