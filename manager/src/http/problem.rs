//! How refusals look: every error of this door becomes a problem body here and nowhere else.

use axum::response::{IntoResponse, Response};
use common::error::Chain;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use api::problem::{CONTENT_TYPE as PROBLEM_JSON, Problem};

use super::convert;
use crate::service::{Denied, ServiceError};

/// A refusal on its way out. The envelope adds what only it knows, and writes the body.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    problem: Box<Problem>,
    header: Option<Extra>,
    /// What we must know and the peer must not.
    cause: Option<String>,
}

/// A header that goes with a refusal.
#[derive(Debug, Clone, Copy)]
enum Extra {
    Authenticate,
    RetryAfter { seconds: u64 },
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &str, title: &str) -> Self {
        Self { problem: Box::new(Problem::new(status.as_u16(), code, title)), header: None, cause: None }
    }

    /// A value of the request is wrong.
    pub(super) fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", "The request is not valid").field(field).detail(detail)
    }

    pub(super) fn unauthenticated(hint: &str) -> Self {
        let mut refusal =
            Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "The token is not valid or missing").hint(hint);
        refusal.header = Some(Extra::Authenticate);
        refusal
    }

    pub(super) fn internal(cause: String) -> Self {
        let mut refusal = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The manager failed")
            .detail("the manager failed to answer; its log has the reason under the request id");
        refusal.cause = Some(cause);
        refusal
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.problem.detail = Some(detail.into());
        self
    }

    pub(super) fn field(mut self, field: impl Into<String>) -> Self {
        self.problem.field = Some(field.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Writes the whole answer.
    pub(super) fn render(mut self, instance: &str, request_id: &str) -> Response {
        self.problem.instance = Some(instance.to_owned());
        self.problem.request_id = Some(request_id.to_owned());
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A struct of strings and numbers always becomes JSON.
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        match self.header {
            Some(Extra::Authenticate) => {
                let realm = HeaderValue::from_static("Bearer realm=\"paprika\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, realm);
            }
            Some(Extra::RetryAfter { seconds }) => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            None => {}
        }
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        use StatusCode as S;
        let code = error.code();
        let retryable = error.retryable();
        let mut refusal = match error {
            ServiceError::NotFound { what, hint } => {
                let refusal = Self::new(S::NOT_FOUND, code, "Not found").detail(format!("{what} does not exist"));
                match hint {
                    Some(hint) => refusal.hint(hint),
                    None => refusal,
                }
            }
            ServiceError::Invalid { field, text, hint, .. } => {
                let refusal = Self::new(S::BAD_REQUEST, code, "The request is not valid").field(field).detail(text);
                match hint {
                    Some(hint) => refusal.hint(hint),
                    None => refusal,
                }
            }
            ServiceError::Conflict { text, .. } => {
                Self::new(S::CONFLICT, code, "The request does not fit what is there").detail(text)
            }
            ServiceError::Forbidden { because, .. } => {
                let refusal = Self::new(S::FORBIDDEN, code, "Not allowed").detail(error.to_string());
                refusal.hint(match because {
                    Denied::Credential => "use a credential that is good",
                    Denied::Scope(_) => "use a token with a larger scope",
                    Denied::Roles => "roles.yml of the site says which roles allow what, and whose they are",
                })
            }
            ServiceError::Site { ref problems } => {
                let mut refusal = Self::new(S::BAD_REQUEST, code, "The site has mistakes").detail(error.to_string());
                refusal.problem.problems = convert::site::problems(problems);
                refusal
            }
            ServiceError::GivesMore { field, .. } => {
                Self::new(S::FORBIDDEN, code, "Not allowed").detail(error.to_string()).field(field)
            }
            ServiceError::Draining => {
                let mut refusal = Self::new(S::SERVICE_UNAVAILABLE, code, "The manager is stopping")
                    .detail("no new work is taken; ask again when the manager is back");
                refusal.header = Some(Extra::RetryAfter { seconds: 5 });
                refusal
            }
            ServiceError::Full => Self::new(S::INSUFFICIENT_STORAGE, code, "The store is full")
                .detail("the change could not be recorded and did not happen")
                .hint("make room on the manager's disk"),
            ServiceError::Busy { retry_after } => {
                let mut refusal = Self::new(S::SERVICE_UNAVAILABLE, code, "The manager is busy")
                    .detail("too much is waiting already; nothing happened");
                let seconds = retry_after.as_secs().max(1);
                refusal.header = Some(Extra::RetryAfter { seconds });
                refusal
            }
            ServiceError::Store(_) | ServiceError::Checkpoints(_) | ServiceError::Certificate(_) => {
                Self::internal(Chain(&error).to_string())
            }
        };
        refusal.problem.retryable = retryable;
        refusal
    }
}
