//! The OpenAPI document: made from the routes themselves, and checked in as `api/openapi.json` so that a change of the
//! contract is seen in review.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};

use crate::service::Service;

/// What stands above the routes.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Paprika")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Start, watch and stop work on named agents.\n\nEvery error is a problem body (RFC 9457) with a stable `code`. Lists \
             come in pages: `next` is the cursor for `after`. Times are RFC 3339 in UTC with milliseconds, durations look like \
             `30s`, `5m` or `2h 30m`.",
        ));
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description =
        Some("A token made with `POST /tokens`, or the one in `admin.token` of the manager's folder.".to_owned());
    OpenApiBuilder::new()
        .info(info.build())
        .components(Some(ComponentsBuilder::new().security_scheme("token", SecurityScheme::Http(bearer)).build()))
        .security(Some([SecurityRequirement::new("token", [] as [&str; 0])]))
        .build()
}

/// The document as it is served and checked in.
pub(super) fn render(document: &OpenApi) -> String {
    // A document of strings and maps always becomes JSON.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The document of a service, for the test that compares it with the one that is checked in.
#[must_use]
pub fn document(service: Service) -> String {
    let (_, document, _) = super::routes::table(service);
    render(&document)
}
