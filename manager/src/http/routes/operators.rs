//! Operators' certificates.

use api::operators::{Operator, OperatorCertificate, OperatorCertificateRequest};
use api::page::Page;
use api::problem::Problem;
use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;

use crate::http::convert::operators as convert;
use crate::http::extract::{Authenticated, OptionalJson, PathParts};
use crate::http::problem::Refusal;
use crate::http::query::Words;
use crate::service::Service;

/// Lists operators' certificates, newest first, revoked and expired ones included.
#[utoipa::path(
    get, path = "/operators", tag = "operators",
    params(
        ("after" = Option<u64>, Query, description = "Go on behind this generation."),
        ("limit" = Option<u32>, Query, description = "At most this many, 100 when absent, 1000 at most."),
    ),
    responses(
        (status = 200, description = "One page.", body = Page<Operator>),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    mut words: Words,
) -> Result<Body<Page<Operator>>, Refusal> {
    let (after, limit) = (words.value::<u64>("after")?, words.limit()?);
    words.finish()?;
    let views = service.operators(&caller).await?;
    let behind = views.into_iter().filter(|view| after.is_none_or(|after| view.row.generation.0 < after));
    let items: Vec<Operator> = behind.take(limit).map(convert::operator).collect();
    let next = items.get(limit - 1).map(|operator| operator.generation.to_string());
    Ok(Body(Page { items, next }))
}

/// Issues a certificate for an operator.
///
/// Without a request of its own the key is made here; then it is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/operators/{name}/certificate", tag = "operators", request_body = OperatorCertificateRequest,
    params(("name" = String, Path, description = "The operator.")),
    responses(
        (status = 201, description = "The certificate.", body = OperatorCertificate),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn certificate(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
    OptionalJson(request): OptionalJson<OperatorCertificateRequest>,
) -> Result<(StatusCode, Body<OperatorCertificate>), Refusal> {
    let ttl = request.expires_in.map(|span| span.0);
    let issued = service.operator_certificate(&caller, &path.name()?, ttl, request.csr.as_deref()).await?;
    Ok((StatusCode::CREATED, Body(convert::certificate(issued))))
}

/// Revokes every certificate of an operator: requests are refused at once, streams end within two seconds.
#[utoipa::path(
    delete, path = "/operators/{name}", tag = "operators",
    params(("name" = String, Path, description = "The operator.")),
    responses(
        (status = 204, description = "They are revoked."),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn revoke(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<StatusCode, Refusal> {
    service.operator_revoke(&caller, &path.name()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
