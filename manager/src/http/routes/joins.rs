//! Join tokens: what lets a new host become an agent.

use api::joins::{JoinToken, JoinTokenRequest, NewJoinToken};
use api::page::Page;
use api::problem::Problem;
use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;

use crate::http::convert::joins as convert;
use crate::http::extract::{Authenticated, Json, PathParts};
use crate::http::problem::Refusal;
use crate::http::query::Words;
use crate::service::Service;

/// Lists join tokens, without their secrets.
#[utoipa::path(
    get, path = "/join-tokens", tag = "joins",
    params(
        ("after" = Option<String>, Query, description = "Go on behind this cursor."),
        ("limit" = Option<u32>, Query, description = "At most this many, 100 when absent, 1000 at most."),
    ),
    responses(
        (status = 200, description = "One page.", body = Page<JoinToken>),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    mut words: Words,
) -> Result<Body<Page<JoinToken>>, Refusal> {
    let (after, limit) = (words.text("after")?, words.limit()?);
    words.finish()?;
    let mut tokens = service.join_tokens(&caller).await?;
    tokens.sort_by(|left, right| left.id.cmp(&right.id));
    let behind = tokens.into_iter().filter(|token| after.as_ref().is_none_or(|after| token.id > *after));
    let items: Vec<JoinToken> = behind.take(limit).map(convert::token).collect();
    let next = items.get(limit - 1).map(|token| token.id.clone());
    Ok(Body(Page { items, next }))
}

/// Makes a join token. The line with its secret is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/join-tokens", tag = "joins", request_body = JoinTokenRequest,
    responses(
        (status = 201, description = "The token and its line.", body = NewJoinToken),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Json(request): Json<JoinTokenRequest>,
) -> Result<(StatusCode, Body<NewJoinToken>), Refusal> {
    let (row, text) = service.join_token_new(&caller, convert::wish(request)).await?;
    Ok((StatusCode::CREATED, Body(NewJoinToken { token: convert::token(row), text })))
}

/// Revokes a join token at once. Who joined with it stays an agent.
#[utoipa::path(
    delete, path = "/join-tokens/{id}", tag = "joins",
    params(("id" = String, Path, description = "The token's id, not its secret.")),
    responses(
        (status = 204, description = "It is revoked."),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn revoke(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<StatusCode, Refusal> {
    service.join_token_revoke(&caller, path.text("id")).await?;
    Ok(StatusCode::NO_CONTENT)
}
