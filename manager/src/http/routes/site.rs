//! The site: what is in force, what waits, and how another one gets there.

use api::base64;
use api::page::Page;
use api::problem::Problem;
use api::site::{SiteFile, SitePush, SitePushed, SiteRevision, SiteRevisionFiles, SiteStatus};
use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;

use crate::http::convert::site as convert;
use crate::http::extract::{Authenticated, PathParts, Pushed};
use crate::http::problem::Refusal;
use crate::http::query::Words;
use crate::service::Service;

/// Shows how the site is: which revision is in force, what waits for approval, what is wrong with the folder.
#[utoipa::path(
    get, path = "/site", tag = "site",
    responses(
        (status = 200, description = "How it is.", body = SiteStatus),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
) -> Result<Body<SiteStatus>, Refusal> {
    Ok(Body(convert::view(service.site_view(&caller).await?)))
}

/// Lists revisions, newest first.
#[utoipa::path(
    get, path = "/site/revisions", tag = "site",
    params(
        ("after" = Option<u64>, Query, description = "Go on behind this number."),
        ("limit" = Option<u32>, Query, description = "At most this many, 100 when absent, 1000 at most."),
    ),
    responses(
        (status = 200, description = "One page.", body = Page<SiteRevision>),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn revisions(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    mut words: Words,
) -> Result<Body<Page<SiteRevision>>, Refusal> {
    let (after, limit) = (words.value::<u64>("after")?, words.limit()?);
    words.finish()?;
    let rows = service.site_revisions(&caller).await?.into_iter();
    let behind = rows.filter(|row| after.is_none_or(|after| row.number < after));
    let items: Vec<SiteRevision> = behind.take(limit).map(convert::revision).collect();
    let next = items.get(limit - 1).map(|row| row.number.to_string());
    Ok(Body(Page { items, next }))
}

/// Shows a revision with the hashes of its files.
#[utoipa::path(
    get, path = "/site/revisions/{number}", tag = "site",
    params(("number" = u64, Path, description = "The revision.")),
    responses(
        (status = 200, description = "The revision.", body = SiteRevisionFiles),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn revision(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<Body<SiteRevisionFiles>, Refusal> {
    Ok(Body(convert::files(service.site_revision(&caller, path.number("number")?).await?)))
}

/// Reads a file of the revision in force.
#[utoipa::path(
    get, path = "/site/files", tag = "site",
    params(("path" = String, Query, description = "The file, for example `groups.yml`.")),
    responses(
        (status = 200, description = "The file.", body = SiteFile),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn file(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    mut words: Words,
) -> Result<Body<SiteFile>, Refusal> {
    let path = words.text("path")?;
    words.finish()?;
    let path = path.ok_or_else(|| Refusal::invalid("path", "say which file with `?path=`"))?;
    let (revision, content) = service.site_file(&caller, &path).await?;
    Ok(Body(SiteFile { path, revision, b64: base64::encode(&content) }))
}

/// Puts a whole site in force, or only checks it.
///
/// What differs from the revision in force and grants rights or runs on the manager (`agents.yml`, `groups.yml`, `roles.yml`,
/// `operations/`, `requests/`) needs the permission `site.trust` besides.
#[utoipa::path(
    post, path = "/site/revisions", tag = "site", request_body = SitePush,
    responses(
        (status = 200, description = "Nothing differs, or it was only checked.", body = SitePushed),
        (status = 201, description = "It is in force.", body = SitePushed),
        (status = 400, description = "The site has mistakes (`site_invalid`): `problems` lists them.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another revision is in force than `base` (`site_changed`).", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn push(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Pushed(push, _place): Pushed<SitePush>,
) -> Result<(StatusCode, Body<SitePushed>), Refusal> {
    let pushed = service.site_push(&caller, convert::push(push)?).await?;
    let status = if pushed.revision.is_some() { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Body(convert::pushed(pushed))))
}

/// Puts a held revision in force.
#[utoipa::path(
    post, path = "/site/revisions/{number}/approve", tag = "site",
    params(("number" = u64, Path, description = "The revision.")),
    responses(
        (status = 200, description = "It is in force.", body = SiteRevision),
        (status = 409, description = "It is not held, or a newer one is in force (`conflict`).", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn approve(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<Body<SiteRevision>, Refusal> {
    Ok(Body(convert::revision(service.site_approve(&caller, path.number("number")?).await?)))
}

/// Refuses a held revision.
#[utoipa::path(
    post, path = "/site/revisions/{number}/reject", tag = "site",
    params(("number" = u64, Path, description = "The revision.")),
    responses(
        (status = 200, description = "It will not come into force.", body = SiteRevision),
        (status = 409, description = "It is not held (`conflict`).", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn reject(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<Body<SiteRevision>, Refusal> {
    Ok(Body(convert::revision(service.site_reject(&caller, path.number("number")?).await?)))
}
