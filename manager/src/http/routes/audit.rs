//! The audit: its rows page by page or all at once, and its check.

use api::audit::{AuditFault, AuditHead, AuditRow, AuditVerification};
use api::page::Page;
use api::problem::Problem;
use axum::Json as Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;

use super::commands::number;
use crate::audit::hex;
use crate::http::body::{Cut, Source, Step, pulled};
use crate::http::convert::events as convert;
use crate::http::extract::Authenticated;
use crate::http::problem::Refusal;
use crate::http::query::Words;
use crate::service::audit::AuditFilter;
use crate::service::{Caller, Service};

/// Rows of one piece of an export.
const PIECE: usize = 500;
/// One JSON document a line.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Lists who did what, oldest first.
#[utoipa::path(
    get, path = "/audit", tag = "audit",
    params(
        ("after" = Option<u64>, Query, description = "Only rows behind this number."),
        ("limit" = Option<u32>, Query, description = "At most this many, 100 when absent, 1000 at most."),
        ("actor" = Option<String>, Query, description = "Only rows of this actor."),
        ("action" = Option<String>, Query, description = "Only rows of this action; with a dot at its end: of all that begin so."),
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
    let (after, limit, filter) = (number(&mut words)?, words.limit()?, filter(&mut words)?);
    words.finish()?;
    let page = service.audit_rows(&caller, after, limit, &filter).await?;
    let next = page.more.then(|| page.seen_to.to_string());
    Ok(Body(Page { items: page.rows.into_iter().map(convert::audit_row).collect(), next }))
}

/// Checks every row: the chain of their hashes, and the signed checkpoints.
#[utoipa::path(
    get, path = "/audit/verify", tag = "audit",
    responses(
        (status = 200, description = "What was found.", body = AuditVerification),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn verify(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    words: Words,
) -> Result<Body<AuditVerification>, Refusal> {
    words.finish()?;
    let verdict = service.audit_verdict(&caller).await?;
    let head = AuditHead { seq: verdict.head.seq, hash: hex(&verdict.head.hash) };
    Ok(Body(AuditVerification {
        rows: verdict.rows,
        head: (head.seq > 0).then_some(head),
        checkpoints: verdict.checkpoints,
        lost_to_restore: verdict.lost_to_restore,
        public_key: verdict.public_key.map(|key| hex(&key)),
        first_bad: verdict.fault.map(|(seq, text)| AuditFault { seq, text }),
    }))
}

/// All rows, one JSON document a line. A body that was cut says so by its missing end.
#[utoipa::path(
    get, path = "/audit/export", tag = "audit",
    params(
        ("after" = Option<u64>, Query, description = "Only rows behind this number."),
        ("actor" = Option<String>, Query, description = "Only rows of this actor."),
        ("action" = Option<String>, Query, description = "Only rows of this action; with a dot at its end: of all that begin so."),
    ),
    responses(
        (status = 200, description = "The rows.", body = String, content_type = "application/x-ndjson"),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn export(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    mut words: Words,
) -> Result<Response, Refusal> {
    let (after, filter) = (number(&mut words)?, filter(&mut words)?);
    words.finish()?;
    // Who may not is told so, before a body begins.
    service.audit_rows(&caller, after, 1, &filter).await?;
    let body = pulled(Export { service, caller, filter, after, more: true });
    Ok(([(CONTENT_TYPE, LINES)], body).into_response())
}

fn filter(words: &mut Words) -> Result<AuditFilter, Refusal> {
    Ok(AuditFilter { actor: words.text("actor")?, action: words.text("action")? })
}

/// The rest of an export. The right is asked for with every piece: who loses it meanwhile reads no further.
struct Export {
    service: Service,
    caller: Caller,
    filter: AuditFilter,
    after: u64,
    more: bool,
}

impl Source for Export {
    async fn next(&mut self) -> Step {
        while self.more && !self.service.draining() {
            let read = self.service.audit_rows(&self.caller, self.after, PIECE, &self.filter).await;
            let Ok(page) = read else { return Some(Err(Cut)) };
            (self.after, self.more) = (page.seen_to, page.more);
            if page.rows.is_empty() {
                continue;
            }
            let mut lines = Vec::new();
            for row in page.rows.into_iter().map(convert::audit_row) {
                if serde_json::to_writer(&mut lines, &row).is_err() {
                    return Some(Err(Cut));
                }
                lines.push(b'\n');
            }
            return Some(Ok(Frame::data(Bytes::from(lines))));
        }
        // A manager that stops has not said everything.
        self.more.then_some(Err(Cut))
    }
}
