//! The fleet.

use api::agents::{Agent, AgentCertificate, AgentChange};
use api::page::Page;
use api::problem::Problem;
use axum::Json as Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::http::convert::agents as convert;
use crate::http::extract::{Authenticated, Json, PathParts};
use crate::http::problem::Refusal;
use crate::http::query::Words;
use crate::service::Service;

/// Lists agents by name.
#[utoipa::path(
    get, path = "/agents", tag = "agents",
    params(
        ("target" = Option<String>, Query, description = "Only agents that this expression means, for example `@web and not web3`."),
        ("after" = Option<String>, Query, description = "Go on behind this cursor."),
        ("limit" = Option<u32>, Query, description = "At most this many, 100 when absent, 1000 at most."),
    ),
    responses(
        (status = 200, description = "One page.", body = Page<Agent>),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    mut words: Words,
) -> Result<Body<Page<Agent>>, Refusal> {
    let (target, after, limit) = (words.text("target")?, words.value("after")?, words.limit()?);
    words.finish()?;
    let target = target.map(|text| convert::target("target", &text)).transpose()?;
    let views = service.agents(&caller, target.as_ref(), after, limit).await?;
    let next = views.get(limit - 1).map(|view| view.agent.name.to_string());
    Ok(Body(Page { items: views.into_iter().map(convert::agent).collect(), next }))
}

/// Shows an agent.
#[utoipa::path(
    get, path = "/agents/{name}", tag = "agents",
    params(("name" = String, Path, description = "The agent.")),
    responses(
        (status = 200, description = "The agent.", body = Agent),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<Body<Agent>, Refusal> {
    let view = service.agent(&caller, &path.name()?).await?;
    Ok(Body(convert::agent(view)))
}

/// Drains an agent, resumes it, or lifts its quarantine.
#[utoipa::path(
    patch, path = "/agents/{name}", tag = "agents", request_body = AgentChange,
    params(("name" = String, Path, description = "The agent.")),
    responses(
        (status = 200, description = "The agent as it is now.", body = Agent),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn change(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
    Json(change): Json<AgentChange>,
) -> Result<Body<Agent>, Refusal> {
    let name = path.name()?;
    if change.accept == Some(false) {
        return Err(
            Refusal::invalid("accept", "an agent can be accepted, not unaccepted").hint("remove it to refuse it")
        );
    }
    let accepted = match change.accept {
        Some(_) => Some(service.accept_agent(&caller, &name).await?),
        None => None,
    };
    let view = match (change.drained, accepted) {
        (Some(drained), _) => service.set_drained(&caller, &name, drained).await?,
        (None, Some(view)) => view,
        (None, None) => {
            return Err(Refusal::invalid("drained", "nothing is to be changed").hint("give `drained` or `accept`"));
        }
    };
    Ok(Body(convert::agent(view)))
}

/// Removes an agent: its certificate is worth nothing, its name is free, its commands end.
#[utoipa::path(
    delete, path = "/agents/{name}", tag = "agents",
    params(("name" = String, Path, description = "The agent.")),
    responses(
        (status = 204, description = "It is gone."),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn remove(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<StatusCode, Refusal> {
    service.remove_agent(&caller, &path.name()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Issues a certificate for an agent, and makes the agent when there is none of the name.
///
/// The private key is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/agents/{name}/certificate", tag = "agents",
    params(("name" = String, Path, description = "The agent.")),
    responses(
        (status = 200, description = "The certificate; the agent existed.", body = AgentCertificate),
        (status = 201, description = "The certificate; the agent was made.", body = AgentCertificate),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn certificate(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<Response, Refusal> {
    let issued = service.agent_certificate(&caller, &path.name()?).await?;
    let status = if issued.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Body(convert::certificate(issued))).into_response())
}
