//! The certificate authority and the three steps of its rotation.

use api::authority::{Authority, AuthorityChange};
use api::problem::Problem;
use axum::Json as Body;
use axum::extract::State;

use crate::http::convert::authority as convert;
use crate::http::extract::{Authenticated, OptionalJson};
use crate::http::problem::Refusal;
use crate::service::Service;

/// Shows which certificates are trusted, which one signs, and how many agents the next step would meet unprepared.
#[utoipa::path(
    get, path = "/ca", tag = "ca",
    responses(
        (status = 200, description = "The authority.", body = Authority),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
) -> Result<Body<Authority>, Refusal> {
    Ok(Body(convert::authority(service.authority_view(&caller).await?)))
}

/// Makes the next certificate of the authority. It is trusted from now on and signs nothing yet; agents are told to renew.
#[utoipa::path(
    post, path = "/ca/prepare", tag = "ca", request_body = AuthorityChange,
    responses(
        (status = 200, description = "The authority as it is now.", body = Authority),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn prepare(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    OptionalJson(_): OptionalJson<AuthorityChange>,
) -> Result<Body<Authority>, Refusal> {
    Ok(Body(convert::authority(service.authority_prepare(&caller).await?)))
}

/// Signs with the prepared certificate from now on. Agents are told to renew; nobody is shut out.
#[utoipa::path(
    post, path = "/ca/activate", tag = "ca", request_body = AuthorityChange,
    responses(
        (status = 200, description = "The authority as it is now.", body = Authority),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn activate(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    OptionalJson(_): OptionalJson<AuthorityChange>,
) -> Result<Body<Authority>, Refusal> {
    Ok(Body(convert::authority(service.authority_activate(&caller).await?)))
}

/// Trusts the earlier certificates no more. Refused while agents would be shut out by it, unless forced.
#[utoipa::path(
    post, path = "/ca/retire", tag = "ca", request_body = AuthorityChange,
    responses(
        (status = 200, description = "The authority as it is now.", body = Authority),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn retire(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    OptionalJson(change): OptionalJson<AuthorityChange>,
) -> Result<Body<Authority>, Refusal> {
    Ok(Body(convert::authority(service.authority_retire(&caller, change.force).await?)))
}
