//! The audit.

use api::audit::AuditRow;
use api::page::Page;
use api::problem::Problem;
use axum::Json as Body;
use axum::extract::State;

use super::commands::number;
use crate::http::convert::events as convert;
use crate::http::extract::Authenticated;
use crate::http::problem::Refusal;
use crate::http::query::Words;
use crate::service::Service;

/// Lists who did what, oldest first.
#[utoipa::path(
    get, path = "/audit", tag = "audit",
    params(
        ("after" = Option<u64>, Query, description = "Only rows behind this number."),
        ("limit" = Option<u32>, Query, description = "At most this many, 100 when absent, 1000 at most."),
    ),
    responses(
        (status = 200, description = "One page.", body = Page<AuditRow>),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    mut words: Words,
) -> Result<Body<Page<AuditRow>>, Refusal> {
    let (after, limit) = (number(&mut words)?, words.limit()?);
    words.finish()?;
    let rows = service.audit_rows(&caller, after, limit).await?;
    let next = rows.get(limit - 1).map(|row| row.seq.to_string());
    Ok(Body(Page { items: rows.into_iter().map(convert::audit_row).collect(), next }))
}
