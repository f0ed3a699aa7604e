//! What surrounds every request: its id, a net for panics, security headers, and the body of a refusal.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use common::id::Uid;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use tokio::time::Instant;
use tracing::{Instrument, debug, error, info_span};

use super::problem::Refusal;
use crate::limits::MAX_REQUEST_ID;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Answers are JSON or bytes: nothing in them may be run, loaded or framed.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Surrounds a request.
pub(super) async fn envelope(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = info_span!("request", request.id = %id);
    let answered = CatchPanic(Box::pin(next.run(request))).instrument(span.clone()).await;
    let _entered = span.enter();
    let mut response = match answered {
        Ok(response) => response,
        Err(panic) => Refusal::internal(format!("panic: {}", text_of(panic.as_ref()))).into_response(),
    };
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        if let Some(cause) = refusal.cause() {
            error!(%method, %path, error = %cause, "A request failed");
        }
        response = refusal.render(&path, &id);
    }
    debug!(%method, %path, status = response.status().as_u16(), took_us = started.elapsed().as_micros() as u64, "Answered");
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NOTHING);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Takes the peer's id for the request when it is harmless in logs and headers; makes one otherwise.
fn request_id(request: &Request) -> String {
    let harmless = |text: &&str| {
        (1..=MAX_REQUEST_ID).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(harmless);
    given.map_or_else(|| Uid::random().to_string(), str::to_owned)
}

/// Turns a panic of the future into a value: it ends one request, not the connection with all its others.
struct CatchPanic<F>(Pin<Box<F>>);

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The future is never polled again after a panic, so nobody sees what it left half done.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn ask(id: &str) -> Response {
        let app = Router::new()
            .route("/ok", get(|| async { "fine" }))
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("on purpose")
                    }
                }),
            )
            .layer(from_fn(envelope));
        let (path, id) = id.split_once(' ').unwrap();
        let request = Request::get(path).header("x-request-id", id).body(Body::empty()).unwrap();
        app.oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_becomes_a_problem_that_does_not_tell_why() {
        let response = ask("/panic abc").await;
        assert_eq!(response.status(), 500);
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let problem: api::problem::Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!((problem.code.as_str(), problem.request_id.as_deref()), ("internal", Some("abc")));
        assert!(!String::from_utf8_lossy(&body).contains("on purpose"));
    }

    #[tokio::test]
    async fn harmless_request_ids_are_kept_and_others_replaced() {
        let response = ask("/ok Abc-1._").await;
        assert_eq!(response.headers()[REQUEST_ID], "Abc-1._");
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        for bad in ["a b", "a\"b", "é", &"x".repeat(65), ""] {
            let response = ask(&format!("/ok {bad}")).await;
            assert_eq!(response.headers()[REQUEST_ID].len(), 32, "{bad}");
        }
    }
}
