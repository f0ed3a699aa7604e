//! Starting, showing, listing and stopping commands.

use std::str::FromStr;

use api::commands::{CancelAnswer as CancelAnswerBody, CancelRequest, Command, CommandRequest, JobRequest, JobStarted};
use api::page::Page;
use api::problem::Problem;
use axum::Json as Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use common::id::{CommandId, JobId, Name};
use common::model::Phase;
use http::StatusCode;
use http::header::LOCATION;
use store::types::{CancelAnswer, CommandFilter};

use crate::http::convert::{agents, commands as convert};
use crate::http::extract::{Authenticated, IdempotencyKey, Json, OptionalJson, PathParts};
use crate::http::problem::Refusal;
use crate::http::query::{Words, read};
use crate::service::{Caller, CancelWish, CommandList, Service};

/// Starts a command on one agent.
///
/// The answer comes when the command is durable; its end is seen with `GET /commands/{id}?wait=` or by following its output.
#[utoipa::path(
    post, path = "/agents/{name}/commands", tag = "commands", request_body = CommandRequest,
    params(
        ("name" = String, Path, description = "The agent."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat within 24 hours the same request."),
    ),
    responses(
        (status = 202, description = "The command is durable; `Location` leads to it.", body = Command),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn start(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
    IdempotencyKey(key): IdempotencyKey,
    Json(request): Json<CommandRequest>,
) -> Result<Response, Refusal> {
    let agent = path.name()?;
    let idempotency = convert::idempotency(&caller, service.seals(), key, &[&agent], &request)?;
    let (request, expires_in) = convert::request(request)?;
    let view = service.start(&caller, agent, request, expires_in, idempotency).await?;
    let location = [(LOCATION, format!("/commands/{}", view.command.id))];
    Ok((StatusCode::ACCEPTED, location, Body(convert::command(view))).into_response())
}

/// Starts a command on each of several agents: one job.
#[utoipa::path(
    post, path = "/commands", tag = "commands", request_body = JobRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat within 24 hours the same request.")),
    responses(
        (status = 202, description = "All commands are durable; `Location` leads to their list.", body = JobStarted),
        (status = "default", description = "A problem; then no command was made.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn start_job(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    IdempotencyKey(key): IdempotencyKey,
    Json(request): Json<JobRequest>,
) -> Result<Response, Refusal> {
    let target = request.target.clone();
    let (mut agents, request) = request.split();
    // With a target a repeat means the agents that were found the first time, whoever has joined since.
    let idempotency = match &target {
        Some(target) => convert::idempotency(&caller, service.seals(), key, target, &request)?,
        None => convert::idempotency(&caller, service.seals(), key, &agents, &request)?,
    };
    if let Some(text) = &target {
        if !agents.is_empty() {
            return Err(Refusal::invalid("target", "give `agents` or `target`, not both"));
        }
        agents = service.resolve(&caller, &agents::target("target", text)?).await?;
    }
    let (request, expires_in) = convert::request(request)?;
    let submitted = service.submit(&caller, agents.clone(), request, expires_in, true, idempotency).await?;
    if submitted.replayed && target.is_some() {
        agents = service.agents_of(&submitted).await?;
    }
    let started = convert::started(&submitted, &agents);
    let location = match started.job {
        Some(job) => format!("/commands?job={job}"),
        None => "/commands".to_owned(),
    };
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Body(started)).into_response())
}

/// Lists commands, newest first.
#[utoipa::path(
    get, path = "/commands", tag = "commands",
    params(
        ("agent" = Option<String>, Query, description = "Only those of this agent."),
        ("phase" = Option<Vec<String>>, Query, description = "Only those in one of these phases; repeated or with commas."),
        ("operation" = Option<String>, Query, description = "Only those of this operation."),
        ("job" = Option<u64>, Query, description = "Only those of this job."),
        ("after" = Option<String>, Query, description = "Go on behind this cursor."),
        ("limit" = Option<u32>, Query, description = "At most this many, 100 when absent, 1000 at most."),
    ),
    responses(
        (status = 200, description = "One page.", body = Page<Command>),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    mut words: Words,
) -> Result<Body<Page<Command>>, Refusal> {
    let agent = words.value::<Name>("agent")?;
    page(&service, &caller, agent, words).await
}

/// Lists the commands of one agent, newest first.
#[utoipa::path(
    get, path = "/agents/{name}/commands", tag = "commands",
    params(
        ("name" = String, Path, description = "The agent."),
        ("phase" = Option<Vec<String>>, Query, description = "Only those in one of these phases; repeated or with commas."),
        ("operation" = Option<String>, Query, description = "Only those of this operation."),
        ("job" = Option<u64>, Query, description = "Only those of this job."),
        ("after" = Option<String>, Query, description = "Go on behind this cursor."),
        ("limit" = Option<u32>, Query, description = "At most this many, 100 when absent, 1000 at most."),
    ),
    responses(
        (status = 200, description = "One page.", body = Page<Command>),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list_of_agent(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
    words: Words,
) -> Result<Body<Page<Command>>, Refusal> {
    let agent = path.name()?;
    service.has_commands(&caller, &agent).await?;
    page(&service, &caller, Some(agent), words).await
}

async fn page(
    service: &Service,
    caller: &Caller,
    agent: Option<Name>,
    mut words: Words,
) -> Result<Body<Page<Command>>, Refusal> {
    let limit = words.limit()?;
    let filter = CommandFilter {
        agent,
        job: words.value("job")?.map(JobId),
        phases: phases(&words.list("phase"))?,
        operation: words.text("operation")?,
        before: words.value("after")?.map(CommandId),
        limit,
    };
    words.finish()?;
    let CommandList { views, next } = service.commands(caller, filter).await?;
    let next = next.map(|id| id.to_string());
    Ok(Body(Page { items: views.into_iter().map(convert::command).collect(), next }))
}

fn phases(words: &[String]) -> Result<Vec<Phase>, Refusal> {
    let names = words.iter().flat_map(|word| word.split(',')).filter(|name| !name.is_empty());
    names.map(read_phase).collect()
}

fn read_phase(name: &str) -> Result<Phase, Refusal> {
    Phase::from_str(name).map_err(|_| {
        let known = Phase::ALL.map(Phase::as_str);
        let refusal = Refusal::invalid("phase", format!("`{}` is not a phase", common::escape::text(name)));
        match common::suggest::nearest(name, known) {
            Some(near) => refusal.hint(format!("did you mean `{near}`?")),
            None => refusal.hint(format!("known are: {}", known.join(", "))),
        }
    })
}

/// Shows a command; with `wait`, as soon as it is final and its streams are complete, or when the time is up.
#[utoipa::path(
    get, path = "/commands/{id}", tag = "commands",
    params(
        ("id" = u64, Path, description = "The command."),
        ("wait" = Option<String>, Query, description = "How long to wait for its end, for example `30s`; 5 minutes at most."),
    ),
    responses(
        (status = 200, description = "The command.", body = Command),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
    mut words: Words,
) -> Result<Body<Command>, Refusal> {
    let id = path.command()?;
    let wait = words.duration("wait")?;
    words.finish()?;
    let view = match wait {
        Some(wait) => service.wait_command(&caller, id, wait).await?,
        None => service.command(&caller, id).await?,
    };
    Ok(Body(convert::command(view)))
}

/// Stops a command.
#[utoipa::path(
    post, path = "/commands/{id}/cancel", tag = "commands", request_body = Option<CancelRequest>,
    params(
        ("id" = u64, Path, description = "The command."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat the same wish; without it a second cancel skips the grace."),
    ),
    responses(
        (status = 200, description = "It is cancelled and never ran, or it was over before.", body = CancelAnswerBody),
        (status = 202, description = "The wish is durable; the agent stops it as soon as it is reached.", body = CancelAnswerBody),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
    IdempotencyKey(key): IdempotencyKey,
    OptionalJson(request): OptionalJson<CancelRequest>,
) -> Result<Response, Refusal> {
    let id = path.command()?;
    stop(&service, &caller, id, None, wish(request, key)).await
}

/// Stops a command of an agent.
#[utoipa::path(
    delete, path = "/agents/{name}/commands/{id}", tag = "commands", request_body = Option<CancelRequest>,
    params(
        ("name" = String, Path, description = "The agent."),
        ("id" = u64, Path, description = "The command."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat the same wish; without it a second cancel skips the grace."),
    ),
    responses(
        (status = 200, description = "It is cancelled and never ran, or it was over before.", body = CancelAnswerBody),
        (status = 202, description = "The wish is durable; the agent stops it as soon as it is reached.", body = CancelAnswerBody),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel_of_agent(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
    IdempotencyKey(key): IdempotencyKey,
    OptionalJson(request): OptionalJson<CancelRequest>,
) -> Result<Response, Refusal> {
    let (name, id) = (path.name()?, path.command()?);
    stop(&service, &caller, id, Some(&name), wish(request, key)).await
}

fn wish(request: CancelRequest, key: Option<String>) -> CancelWish {
    CancelWish { reason: request.reason, grace: request.grace.map(|grace| grace.0), key }
}

async fn stop(
    service: &Service,
    caller: &Caller,
    id: CommandId,
    agent: Option<&Name>,
    wish: CancelWish,
) -> Result<Response, Refusal> {
    let (answer, view) = service.cancel(caller, id, agent, wish).await?;
    let status = match answer {
        CancelAnswer::Pending { .. } => StatusCode::ACCEPTED,
        CancelAnswer::Done | CancelAnswer::AlreadyFinal(_) => StatusCode::OK,
    };
    let location = [(LOCATION, format!("/commands/{id}"))];
    Ok((status, location, Body(convert::cancelled(&answer, view))).into_response())
}

/// Pauses a command: none of its processes runs until it goes on, and its timeout does not pass.
///
/// A command that waits on its agent starts paused. Saying it twice is the same as once.
#[utoipa::path(
    post, path = "/commands/{id}/pause", tag = "commands",
    params(("id" = u64, Path, description = "The command.")),
    responses(
        (status = 202, description = "The wish is durable; the agent pauses it as soon as it is reached.", body = Command),
        (status = 409, description = "It was not sent yet (`not_started`), is being stopped (`stopping`) or is over (`already_final`).", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn pause(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<Response, Refusal> {
    let view = service.pause(&caller, path.command()?).await?;
    Ok((StatusCode::ACCEPTED, Body(convert::command(view))).into_response())
}

/// Lets a paused command go on.
#[utoipa::path(
    post, path = "/commands/{id}/resume", tag = "commands",
    params(("id" = u64, Path, description = "The command.")),
    responses(
        (status = 202, description = "The wish is durable; the agent obeys as soon as it is reached.", body = Command),
        (status = 409, description = "It was not sent yet (`not_started`), is being stopped (`stopping`) or is over (`already_final`).", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn resume(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<Response, Refusal> {
    let view = service.resume(&caller, path.command()?).await?;
    Ok((StatusCode::ACCEPTED, Body(convert::command(view))).into_response())
}

/// Lets a command go that waits because the manager's store was restored from an older copy.
#[utoipa::path(
    post, path = "/commands/{id}/release", tag = "commands",
    params(("id" = u64, Path, description = "The command.")),
    responses(
        (status = 200, description = "It waits no longer.", body = Command),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn release(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    path: PathParts,
) -> Result<Body<Command>, Refusal> {
    let view = service.release(&caller, path.command()?).await?;
    Ok(Body(convert::command(view)))
}

/// Reads a cursor that is a number.
pub(super) fn number(words: &mut Words) -> Result<u64, Refusal> {
    let text = words.text("after")?;
    text.map_or(Ok(0), |text| read("after", &text))
}
