//! Operators' tokens.

use api::page::Page;
use api::problem::Problem;
use api::tokens::{NewToken, Token, TokenRequest};
use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;

use crate::http::convert::tokens as convert;
use crate::http::extract::{Authenticated, Json, PathParts};
use crate::http::problem::Refusal;
use crate::http::query::Words;
use crate::service::Service;

/// Lists tokens, without their secrets.
#[utoipa::path(
    get, path = "/tokens", tag = "tokens",
    params(
        ("after" = Option<String>, Query, description = "Go on behind this cursor."),
        ("limit" = Option<u32>, Query, description = "At most this many, 100 when absent, 1000 at most."),
    ),
    responses(
        (status = 200, description = "One page.", body = Page<Token>),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    mut words: Words,
) -> Result<Body<Page<Token>>, Refusal> {
    let (after, limit) = (words.text("after")?, words.limit()?);
    words.finish()?;
    let mut tokens = service.tokens(&caller).await?;
    tokens.sort_by(|left, right| left.id.cmp(&right.id));
    let behind = tokens.into_iter().filter(|token| after.as_ref().is_none_or(|after| token.id > *after));
    let items: Vec<Token> = behind.take(limit).map(convert::token).collect();
    let next = items.get(limit - 1).map(|token| token.id.clone());
    Ok(Body(Page { items, next }))
}

/// Makes a token. Its secret is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/tokens", tag = "tokens", request_body = TokenRequest,
    responses(
        (status = 201, description = "The token and its secret.", body = NewToken),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Json(request): Json<TokenRequest>,
) -> Result<(StatusCode, Body<NewToken>), Refusal> {
    let ttl = request.expires_in.map(|span| span.0);
    let scope = convert::scope(request.scope);
    let (token, secret) = service.token_new(&caller, &request.name, scope, request.roles, ttl).await?;
    Ok((StatusCode::CREATED, Body(NewToken { token: convert::token(token), secret })))
}

/// Revokes a token; it stops to work within two seconds.
#[utoipa::path(
    delete, path = "/tokens/{id}", tag = "tokens",
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
    service.token_revoke(&caller, path.text("id")).await?;
    Ok(StatusCode::NO_CONTENT)
}
