//! How the manager is: for people, for probes, for Prometheus.

use api::problem::Problem;
use api::status::Status;
use axum::Json as Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::http::convert::status as convert;
use crate::http::extract::Authenticated;
use crate::http::problem::Refusal;
use crate::service::Service;

/// Shows how the manager is.
#[utoipa::path(
    get, path = "/status", tag = "health",
    responses(
        (status = 200, description = "How it is.", body = Status),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn status(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
) -> Result<Body<Status>, Refusal> {
    Ok(Body(convert::status(service.status(&caller).await?)))
}

/// Shows every counter in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "The counters.", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Refusal> {
    let text = service.metrics(&caller)?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Tells that the process lives.
#[utoipa::path(
    get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It lives.", body = String, content_type = "text/plain")),
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Tells whether the manager takes work.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses(
        (status = 200, description = "It takes work.", body = String, content_type = "text/plain"),
        (status = 503, description = "It is starting or stopping.", body = String, content_type = "text/plain"),
    ),
)]
pub(super) async fn readyz(State(service): State<Service>) -> (StatusCode, &'static str) {
    if service.ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}
