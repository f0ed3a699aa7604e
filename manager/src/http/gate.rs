//! Who is it, and may they: the permission of every route, in the only place where routes are registered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use store::types::Scope;
use tokio::time::Instant;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};

use super::problem::Refusal;
use crate::service::{Caller, Refused, Service};

/// How a request came in; put on it by the connection, never by the peer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door {
    /// Over TLS: a token says who it is.
    Network(SocketAddr),
    /// Over the Unix socket: the kernel said who it is.
    Local {
        /// The peer's user.
        uid: u32,
    },
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(peer) => peer.fmt(f),
            Self::Local { uid } => write!(f, "uid {uid}"),
        }
    }
}

/// What a caller needs for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// Nothing: probes and the description of this API.
    Public,
    /// A caller with at least this scope.
    Scope(Scope),
}

impl Permission {
    pub(super) const READ: Self = Self::Scope(Scope::Read);
    pub(super) const RUN: Self = Self::Scope(Scope::Run);
    pub(super) const ADMIN: Self = Self::Scope(Scope::Admin);
}

/// The token a request came with, for answers that last: a token that is revoked meanwhile must not go on reading.
#[derive(Clone)]
pub(super) struct Standing {
    service: Service,
    bearer: Option<Arc<str>>,
    checked: Instant,
}

impl Standing {
    /// How often a token is looked at again.
    pub(super) const RECHECK: Duration = Duration::from_secs(2);

    /// Tells whether the caller is still who it was. A store that cannot say so now will be asked again.
    pub(super) async fn holds(&mut self) -> bool {
        let Some(bearer) = self.bearer.clone() else {
            return true;
        };
        if self.checked.elapsed() < Self::RECHECK {
            return true;
        }
        self.checked = Instant::now();
        !matches!(self.service.authenticate(&bearer).await, Ok(None))
    }
}

/// A route as it was registered.
#[derive(Debug, Clone)]
#[cfg_attr(not(test), expect(dead_code, reason = "read by the test that tries every route with every caller"))]
pub(super) struct Registered {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) permission: Permission,
}

/// Collects routes. There is no way to add one without saying what it needs.
pub(super) struct Routes {
    service: Service,
    router: OpenApiRouter<Service>,
    registered: Vec<Registered>,
}

impl Routes {
    pub(super) fn new(service: Service, document: OpenApi) -> Self {
        Self { service, router: OpenApiRouter::with_openapi(document), registered: Vec::new() }
    }

    /// Adds what `routes!(handler, …)` made.
    pub(super) fn add(mut self, permission: Permission, routes: UtoipaMethodRouter<Service>) -> Self {
        for (path, item) in &routes.1.paths {
            let methods = [
                (&item.get, Method::GET),
                (&item.post, Method::POST),
                (&item.put, Method::PUT),
                (&item.patch, Method::PATCH),
                (&item.delete, Method::DELETE),
            ];
            for (_, method) in methods.into_iter().filter(|(operation, _)| operation.is_some()) {
                self.registered.push(Registered { method, path: path.clone(), permission });
            }
        }
        let gate = from_fn_with_state((self.service.clone(), permission), check);
        self.router = self.router.routes(routes.map(|methods| methods.route_layer(gate)));
        self
    }

    pub(super) fn finish(self) -> (Router, OpenApi, Vec<Registered>) {
        let (router, document) = self.router.split_for_parts();
        (router.with_state(self.service), document, self.registered)
    }
}

/// Lets a request pass, with its caller, or refuses it.
async fn check(
    State((service, permission)): State<(Service, Permission)>,
    mut request: Request,
    next: Next,
) -> Response {
    let Permission::Scope(need) = permission else {
        return next.run(request).await;
    };
    let door = request.extensions().get::<Door>().copied();
    let from = door.map(|door| door.to_string());
    let from = from.as_deref().unwrap_or("nowhere");
    let asked = format!("{} {}", request.method(), request.uri().path());
    let (caller, bearer) = match identify(&service, door, request.headers()).await {
        Ok(identified) => identified,
        Err(refusal) => {
            tracing::debug!(peer.addr = from, "A request was refused: nobody is recognised");
            let answer = refusal.into_response();
            // A store that could not say who it is has refused nobody.
            if answer.status() == StatusCode::UNAUTHORIZED {
                let refused = Refused { from, asked: &asked, code: "unauthenticated" };
                service.note_stranger(bearer_of(request.headers()), refused).await;
            }
            return answer;
        }
    };
    if let Err(error) = caller.may(need) {
        tracing::info!(actor = %caller.actor.0, peer.addr = from, "A request was refused: the caller's scope is too small");
        service.note_overreach(&caller, Refused { from, asked: &asked, code: error.code() }).await;
        return Refusal::from(error).into_response();
    }
    let standing = Standing { service, bearer, checked: Instant::now() };
    request.extensions_mut().insert(standing);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

async fn identify(
    service: &Service,
    door: Option<Door>,
    headers: &HeaderMap,
) -> Result<(Caller, Option<Arc<str>>), Refusal> {
    if let Some(Door::Local { uid }) = door {
        return Ok((service.local_caller(uid), None));
    }
    let Some(bearer) = bearer_of(headers) else {
        return Err(Refusal::unauthenticated("send exactly one header of the form `Authorization: Bearer <token>`"));
    };
    match service.authenticate(bearer).await? {
        Some(caller) => Ok((caller, Some(bearer.into()))),
        // Wrong, expired and revoked look the same from outside.
        None => Err(Refusal::unauthenticated("the token is not valid; it may have expired or been revoked")),
    }
}

/// The token of a request, if it has exactly one.
fn bearer_of(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
