//! Server-sent events as bytes, and the head of an answer that is a stream of them.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Request};
use serde::Serialize;

/// How often a silent stream shows that it lives: below the usual 30 s of proxies.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The type of a stream of events.
const EVENT_STREAM: &str = "text/event-stream";

/// Tells whether the peer wants events.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accept.flat_map(|value| value.split(',')).any(|kind| kind.split(';').next().unwrap_or("").trim() == EVENT_STREAM)
}

/// Where the peer stopped reading last time.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id").and_then(|value| value.to_str().ok()).filter(|id| !id.is_empty())
}

/// Answers with a stream of events.
pub(super) fn answer(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    // Proxies that buffer would turn a live stream into a late one.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A comment that only shows that the stream lives.
pub(super) fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// Writes one event. JSON has no line breaks, so that its data is one line.
pub(super) fn event(name: Option<&str>, id: &str, data: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    let mut out = Vec::with_capacity(256);
    for (field, value) in [("id", Some(id).filter(|id| !id.is_empty())), ("event", name)] {
        if let Some(value) = value {
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.push(b'\n');
        }
    }
    out.extend_from_slice(b"data: ");
    serde_json::to_writer(&mut out, data)?;
    out.extend_from_slice(b"\n\n");
    Ok(out.into())
}

/// Tells whether the peer can be told something behind the body.
pub(super) fn takes_trailers<B>(request: &Request<B>) -> bool {
    let asked = request.headers().get_all(http::header::TE).iter().filter_map(|value| value.to_str().ok());
    request.version() >= http::Version::HTTP_2
        || asked.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_event_is_id_name_and_one_line_of_data() {
        let bytes = event(Some("output"), "stdout=1", &serde_json::json!({"a": "b\nc"})).unwrap();
        assert_eq!(bytes, "id: stdout=1\nevent: output\ndata: {\"a\":\"b\\nc\"}\n\n");
        assert_eq!(event(None, "", &1).unwrap(), "data: 1\n\n");
    }

    #[test]
    fn what_the_peer_wants_is_read_from_any_list() {
        let request = |name: &str, value: &str| Request::get("/").header(name, value).body(()).unwrap();
        for (value, wants) in
            [("text/event-stream", true), ("application/json, text/event-stream;q=0.5", true), ("*/*", false)]
        {
            assert_eq!(wanted(request("accept", value).headers()), wants, "{value}");
        }
        for (value, takes) in [("trailers", true), ("deflate, Trailers", true), ("gzip", false)] {
            assert_eq!(takes_trailers(&request("te", value)), takes, "{value}");
        }
    }
}
