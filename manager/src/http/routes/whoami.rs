//! Who the caller is to the manager.

use api::problem::Problem;
use api::whoami::Whoami;
use axum::Json as Body;
use axum::extract::State;

use crate::http::convert::whoami as convert;
use crate::http::extract::Authenticated;
use crate::service::Service;

/// Shows who the caller is, by what it showed that, and what it may do.
#[utoipa::path(
    get, path = "/whoami", tag = "operators",
    responses(
        (status = 200, description = "The caller.", body = Whoami),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(State(service): State<Service>, Authenticated(caller): Authenticated) -> Body<Whoami> {
    Body(convert::whoami(service.whoami(caller)))
}
