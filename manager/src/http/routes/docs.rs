//! The description of this API: the document for programs, and a page that shows it without anything from elsewhere.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

/// The page loads its own script and style, and asks its own origin for the document; nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The document. It describes the routes, so that it can only be added when they are complete.
pub(super) fn document(rendered: Bytes) -> Router {
    let answer = move || async move { ([(CONTENT_TYPE, "application/json")], rendered) };
    Router::new().route("/openapi.json", get(answer))
}

/// A page that shows this API.
#[utoipa::path(
    get, path = "/docs", tag = "docs", security(()),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub(super) async fn page() -> Response {
    asset("text/html; charset=utf-8", include_str!("../assets/docs.html"))
}

/// The script of the page.
#[utoipa::path(
    get, path = "/docs/docs.js", tag = "docs", security(()),
    responses((status = 200, description = "The script.", body = String, content_type = "text/javascript")),
)]
pub(super) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../assets/docs.js"))
}

/// The style of the page.
#[utoipa::path(
    get, path = "/docs/docs.css", tag = "docs", security(()),
    responses((status = 200, description = "The style.", body = String, content_type = "text/css")),
)]
pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("../assets/docs.css"))
}

fn asset(kind: &'static str, content: &'static str) -> Response {
    ([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY)], content).into_response()
}
