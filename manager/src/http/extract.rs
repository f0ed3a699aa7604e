//! How requests are read: the caller, the parts of the path, JSON bodies, idempotency keys. Whatever is wrong says where.

use axum::Json as AxumJson;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use bytes::Bytes;
use common::escape;
use common::id::{CommandId, Name};
use common::suggest;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::gate::Standing;
use super::problem::Refusal;
use super::query;
use crate::limits::{BODY_WAIT, MAX_KEY, MAX_PUSH, PUSH_WAITS, PUSHES_AT_ONCE};
use crate::service::{Caller, ServiceError};

/// Largest body: a megabyte, and standard input in base64 beside it.
pub(super) const MAX_BODY: usize = 1024 * 1024 + common::limits::MAX_STDIN_BYTES.div_ceil(3) * 4;

/// Who asks. The gate put it there.
pub(super) struct Authenticated(pub(super) Caller);

impl<S: Sync> FromRequestParts<S> for Authenticated {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller
            .map(Self)
            .ok_or_else(|| Refusal::internal("a route that needs a caller is registered as public".to_owned()))
    }
}

/// Who asks, for answers that last.
pub(super) struct Lasting(pub(super) Standing);

impl<S: Sync> FromRequestParts<S> for Lasting {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let standing = parts.extensions.get::<Standing>().cloned();
        standing
            .map(Self)
            .ok_or_else(|| Refusal::internal("a route that needs a caller is registered as public".to_owned()))
    }
}

/// The variable parts of the path.
pub(super) struct PathParts(RawPathParams);

impl<S: Send + Sync> FromRequestParts<S> for PathParts {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        params.map(Self).map_err(|_| Refusal::invalid("path", "the path is not UTF-8"))
    }
}

impl PathParts {
    /// The agent's name.
    pub(super) fn name(&self) -> Result<Name, Refusal> {
        query::read("name", self.text("name"))
    }

    /// The command's id.
    pub(super) fn command(&self) -> Result<CommandId, Refusal> {
        let text = self.text("id");
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let id = digits.then(|| text.parse().ok()).flatten().map(CommandId);
        id.ok_or_else(|| Refusal::invalid("id", format!("`{}` is not the number of a command", escape::text(text))))
    }

    /// A number that says which of its kind.
    pub(super) fn number(&self, name: &str) -> Result<u64, Refusal> {
        let text = self.text(name);
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| Refusal::invalid(name, format!("`{}` is not a number", escape::text(text))))
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        is_json(&parts.headers)?;
        read_json(&read_body(body, MAX_BODY).await?).map(Self)
    }
}

/// A JSON body that may be missing.
pub(super) struct OptionalJson<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(body, MAX_BODY).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        is_json(&parts.headers)?;
        read_json(&bytes).map(Self)
    }
}

/// Places for large bodies; all doors share them.
static LARGE: Semaphore = Semaphore::const_new(PUSHES_AT_ONCE);

/// A JSON body that may be large, and the place it takes while it is in memory.
pub(super) struct Pushed<T>(pub(super) T, pub(super) SemaphorePermit<'static>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Pushed<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        is_json(&parts.headers)?;
        // Who waits holds nothing yet, and who reads is cut off in time.
        let Ok(Ok(place)) = timeout(PUSH_WAITS, LARGE.acquire()).await else {
            return Err(ServiceError::Busy { retry_after: BODY_WAIT }.into());
        };
        let bytes = read_body(body, MAX_PUSH).await?;
        read_json(&bytes).map(|value| Self(value, place))
    }
}

/// The key that makes a repeat the same request.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let wrong = || {
            Refusal::invalid(
                "idempotency-key",
                format!("the key is one header with 1 to {MAX_KEY} visible ASCII characters"),
            )
        };
        let visible =
            |text: &&str| (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let key = value.to_str().ok().filter(visible).ok_or_else(wrong)?;
        if values.next().is_some() { Err(wrong()) } else { Ok(Self(Some(key.to_owned()))) }
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body is of the wrong type")
        .detail("the body must be JSON")
        .hint("send the header `Content-Type: application/json`"))
}

async fn read_body(body: Body, most: usize) -> Result<Bytes, Refusal> {
    match timeout(BODY_WAIT, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => {
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large")
                .detail(format!("a body has at most {most} bytes here")))
        }
        Ok(Err(_)) => Err(Refusal::invalid("body", "the body ended early")),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", "The body took too long")
            .detail(format!("a body must arrive within {} s", BODY_WAIT.as_secs()))),
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if found.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = found.source();
    }
    false
}

/// Reads JSON; an error names line, column, the path of the value and, for unknown fields, the nearest known one.
pub(super) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| explain::<T>(bytes, &error))
}

fn explain<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Refusal {
    let bad = |code: &str| Refusal::new(StatusCode::BAD_REQUEST, code, "The request is not valid");
    let whole = error.to_string();
    if error.classify() != Category::Data {
        let detail = if bytes.is_empty() {
            "the body is empty, JSON is expected".to_owned()
        } else {
            format!("the body is not JSON: {whole}")
        };
        return bad("invalid_json").detail(escape::text(detail.as_str()));
    }
    let path = path_of::<T>(bytes, &whole);
    let unknown = whole.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    let Some((field, rest)) = unknown else {
        let refusal = bad("invalid").detail(escape::text(whole.as_str()));
        return if path.is_empty() { refusal } else { refusal.field(escape::text(path.as_str())) };
    };
    let parent = path.strip_suffix(field).unwrap_or(&path).trim_end_matches('.');
    let place = if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") };
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let position = format!("at line {} column {}", error.line(), error.column());
    let refusal = bad("unknown_field")
        .field(escape::text(place.as_str()))
        .detail(format!("there is no field `{}` here, {position}", escape::text(field)));
    match suggest::nearest(field, known.iter().copied()) {
        Some(near) => refusal.hint(format!("did you mean `{near}`?")),
        None => refusal.hint(format!("known are: {}", known.join(", "))),
    }
}

/// Finds where in the document an error is. axum reads with paths, and writes the path before serde's own text.
fn path_of<T: DeserializeOwned>(bytes: &[u8], whole: &str) -> String {
    let Err(rejection) = AxumJson::<T>::from_bytes(bytes) else {
        return String::new();
    };
    let text = rejection.body_text();
    let Some(before) = text.strip_suffix(whole).and_then(|text| text.strip_suffix(": ")) else {
        return String::new();
    };
    // `Failed to …: path`, or only the first part when there is no path.
    before.split_once(": ").map_or(String::new(), |(_, path)| path.trim_start_matches("./").to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use api::commands::CommandRequest;

    use super::*;

    fn refusal(body: &str) -> api::problem::Problem {
        let error = read_json::<CommandRequest>(body.as_bytes()).unwrap_err();
        let response = error.render("/x", "id");
        let body = response.into_body();
        let bytes = futures_free(to_bytes(body, 100_000)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// A body in memory is ready at once.
    fn futures_free<F: Future>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(output) => output,
            std::task::Poll::Pending => panic!("a body in memory is ready at once"),
        }
    }

    #[test]
    fn broken_json_says_line_and_column() {
        let problem = refusal("{\"operation\": \"x\",\n  oops}");
        assert_eq!(problem.code, "invalid_json");
        assert!(problem.detail.unwrap().contains("line 2 column 3"));
        assert_eq!(refusal("").code, "invalid_json");
        assert_eq!(refusal("{\"operation\":\"x\"} trailing").code, "invalid_json");
    }

    #[test]
    fn unknown_fields_are_named_with_the_nearest_known_one() {
        let problem = refusal(r#"{"operation":"x","timout":"1s"}"#);
        assert_eq!((problem.code.as_str(), problem.field.as_deref()), ("unknown_field", Some("timout")));
        assert_eq!(problem.hint.as_deref(), Some("did you mean `timeout`?"));
        let problem = refusal(r#"{"operation":"x","limits":{"memry":"1M"}}"#);
        assert_eq!(problem.field.as_deref(), Some("limits.memry"));
        assert_eq!(problem.hint.as_deref(), Some("did you mean `memory`?"));
    }

    #[test]
    fn wrong_types_are_found_by_their_path() {
        for (body, field) in [
            (r#"{"operation":"x","limits":{"tasks":"many"}}"#, Some("limits.tasks")),
            (r#"{"operation":"x","timeout":"1M"}"#, Some("timeout")),
            (r#"{"operation":"x","env":{"A":1}}"#, Some("env.A")),
            (r#"{"operation":7}"#, Some("operation")),
            (r#"{"args":{}}"#, None),
            ("[]", None),
        ] {
            let problem = refusal(body);
            assert_eq!((problem.code.as_str(), problem.field.as_deref()), ("invalid", field), "{body}");
        }
    }
}
