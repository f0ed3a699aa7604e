//! Every route with the permission it needs, and what is said where no route is.

use axum::Router;
use axum::middleware::from_fn;
use http::{Method, StatusCode, Uri};
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

use super::{agents, audit, commands, docs, events, health, output, tokens};
use crate::http::envelope::envelope;
use crate::http::gate::{Permission, Registered, Routes};
use crate::http::openapi;
use crate::http::problem::Refusal;
use crate::service::Service;

/// Everything behind the doors.
pub(in crate::http) fn app(service: Service) -> Router {
    let (router, document, _) = table(service);
    let document = openapi::render(&document).into();
    router
        .merge(docs::document(document))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(envelope))
}

/// The routes, what they look like to the outside, and what they need.
pub(in crate::http) fn table(service: Service) -> (Router, OpenApi, Vec<Registered>) {
    Routes::new(service, openapi::head())
        .add(Permission::RUN, routes!(commands::start))
        .add(Permission::READ, routes!(commands::list_of_agent))
        .add(Permission::RUN, routes!(commands::cancel_of_agent))
        .add(Permission::RUN, routes!(commands::start_job))
        .add(Permission::READ, routes!(commands::list))
        .add(Permission::READ, routes!(commands::show))
        .add(Permission::RUN, routes!(commands::cancel))
        .add(Permission::RUN, routes!(commands::pause))
        .add(Permission::RUN, routes!(commands::resume))
        .add(Permission::RUN, routes!(commands::release))
        .add(Permission::READ, routes!(output::read))
        .add(Permission::READ, routes!(events::list))
        .add(Permission::READ, routes!(agents::list))
        .add(Permission::READ, routes!(agents::show))
        .add(Permission::ADMIN, routes!(agents::change))
        .add(Permission::ADMIN, routes!(agents::remove))
        .add(Permission::ADMIN, routes!(agents::certificate))
        .add(Permission::ADMIN, routes!(tokens::list))
        .add(Permission::ADMIN, routes!(tokens::create))
        .add(Permission::ADMIN, routes!(tokens::revoke))
        .add(Permission::ADMIN, routes!(audit::list))
        .add(Permission::READ, routes!(health::status))
        .add(Permission::READ, routes!(health::metrics))
        .add(Permission::Public, routes!(health::healthz))
        .add(Permission::Public, routes!(health::readyz))
        .add(Permission::Public, routes!(docs::page))
        .add(Permission::Public, routes!(docs::script))
        .add(Permission::Public, routes!(docs::style))
        .finish()
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", "Not found")
        .detail(format!("there is nothing at {}", common::escape::text(uri.path())))
        .hint("the calls are described at /docs and in /openapi.json")
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Wrong method")
        .detail(format!("{method} is not possible at {}", common::escape::text(uri.path())))
        .hint("the header `Allow` names what is")
}
