//! Every route with the permission it needs, and what is said where no route is.

use ::site::permission::Permission as Right;
use axum::Router;
use axum::middleware::from_fn;
use http::{Method, StatusCode, Uri};
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

use super::{agents, audit, authority, commands, docs, events, health, joins, operators, output, site, tokens, whoami};
use crate::http::envelope::envelope;
use crate::http::gate::{Permission, Registered, Routes};
use crate::http::openapi;
use crate::http::problem::Refusal;
use crate::service::Service;
use crate::service::events::EVENT_READERS;

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
        .add(Permission::Needs(Right::CommandRun), routes!(commands::start))
        .add(Permission::Needs(Right::CommandRead), routes!(commands::list_of_agent))
        .add(Permission::Needs(Right::CommandControl), routes!(commands::cancel_of_agent))
        .add(Permission::Needs(Right::CommandRun), routes!(commands::start_job))
        .add(Permission::Needs(Right::CommandRead), routes!(commands::list))
        .add(Permission::Needs(Right::CommandRead), routes!(commands::show))
        .add(Permission::Needs(Right::CommandControl), routes!(commands::cancel))
        .add(Permission::Needs(Right::CommandControl), routes!(commands::pause))
        .add(Permission::Needs(Right::CommandControl), routes!(commands::resume))
        .add(Permission::Needs(Right::CommandControl), routes!(commands::release))
        .add(Permission::Needs(Right::OutputRead), routes!(output::read))
        .add(Permission::OneOf(&EVENT_READERS), routes!(events::list))
        .add(Permission::Needs(Right::AgentRead), routes!(agents::list))
        .add(Permission::Needs(Right::AgentRead), routes!(agents::show))
        .add(Permission::Needs(Right::AgentManage), routes!(agents::change))
        .add(Permission::Needs(Right::AgentManage), routes!(agents::remove))
        .add(Permission::Needs(Right::AgentManage), routes!(agents::certificate))
        .add(Permission::Needs(Right::OperatorManage), routes!(tokens::list))
        .add(Permission::Needs(Right::OperatorManage), routes!(tokens::create))
        .add(Permission::Needs(Right::OperatorManage), routes!(tokens::revoke))
        .add(Permission::Needs(Right::OperatorManage), routes!(operators::list))
        .add(Permission::Needs(Right::OperatorManage), routes!(operators::certificate))
        .add(Permission::Needs(Right::OperatorManage), routes!(operators::revoke))
        .add(Permission::Needs(Right::JoinManage), routes!(joins::list))
        .add(Permission::Needs(Right::JoinManage), routes!(joins::create))
        .add(Permission::Needs(Right::JoinManage), routes!(joins::revoke))
        .add(Permission::Needs(Right::CaManage), routes!(authority::show))
        .add(Permission::Needs(Right::CaManage), routes!(authority::prepare))
        .add(Permission::Needs(Right::CaManage), routes!(authority::activate))
        .add(Permission::Needs(Right::CaManage), routes!(authority::retire))
        .add(Permission::Needs(Right::SiteRead), routes!(site::show))
        .add(Permission::Needs(Right::SiteRead), routes!(site::revisions))
        .add(Permission::Needs(Right::SiteWrite), routes!(site::push))
        .add(Permission::Needs(Right::SiteRead), routes!(site::revision))
        .add(Permission::Needs(Right::SiteTrust), routes!(site::approve))
        .add(Permission::Needs(Right::SiteTrust), routes!(site::reject))
        .add(Permission::Needs(Right::SiteRead), routes!(site::file))
        .add(Permission::Anybody, routes!(whoami::show))
        .add(Permission::Needs(Right::AuditRead), routes!(audit::list))
        .add(Permission::Needs(Right::AuditRead), routes!(audit::verify))
        .add(Permission::Needs(Right::AuditRead), routes!(audit::export))
        .add(Permission::Needs(Right::StatusRead), routes!(health::status))
        .add(Permission::Needs(Right::StatusRead), routes!(health::metrics))
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
