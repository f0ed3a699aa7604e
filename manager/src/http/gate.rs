//! Who is it, and may they: the permission of every route, in the only place where routes are registered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use common::id::{Generation, Name};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use site::permission::Permission as Right;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};

use super::problem::Refusal;
use crate::service::{Caller, Refused, Rights, Service, ServiceError};

/// How a request came in; put on it by the connection, never by the peer.
#[derive(Debug, Clone)]
pub(super) enum Door {
    /// Over TLS: a token says who it is.
    Network(SocketAddr),
    /// Over TLS, which has proven the key of an operator's certificate.
    Certificate {
        /// Where it comes from.
        peer: SocketAddr,
        /// From the certificate.
        name: Name,
        /// From the certificate.
        generation: Generation,
    },
    /// Over the Unix socket: the kernel said who it is.
    Local {
        /// The peer's user.
        uid: u32,
    },
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(peer) | Self::Certificate { peer, .. } => peer.fmt(f),
            Self::Local { uid } => write!(f, "uid {uid}"),
        }
    }
}

/// What a caller needs for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// Nothing: probes and the description of this API.
    Public,
    /// A caller, whoever it is.
    Anybody,
    /// A caller who has this for something at least; for what, is asked by the service.
    Needs(Right),
    /// A caller who has one of these.
    OneOf(&'static [Right]),
}

impl Permission {
    /// Asks the rights, before anybody knows what exactly is asked for.
    fn check(self, service: &Service, caller: &Caller) -> Result<(), ServiceError> {
        let needs = match &self {
            Self::Public | Self::Anybody => return service.still_stands(caller),
            Self::Needs(right) => std::slice::from_ref(right),
            Self::OneOf(rights) => rights,
        };
        let mut refused = None;
        for need in needs {
            match service.must_somewhere(caller, *need) {
                Ok(()) => return Ok(()),
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

/// The credential and the right a request came with, for answers that last: who loses either must not go on reading.
#[derive(Clone)]
pub(super) struct Standing {
    service: Service,
    caller: Caller,
    permission: Permission,
    bearer: Option<Arc<str>>,
    checked: Instant,
    rights: watch::Receiver<Arc<Rights>>,
}

impl Standing {
    /// How often a credential is looked at again, whether or not anybody said that rights changed.
    pub(super) const RECHECK: Duration = Duration::from_secs(2);

    /// Waits until somebody's rights may have changed.
    pub(super) async fn changed(&mut self) {
        if self.rights.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Tells whether the caller is still who it was and may still do what it came for. A store that cannot say so now will be
    /// asked again.
    pub(super) async fn holds(&mut self) -> bool {
        if self.permission.check(&self.service, &self.caller).is_err() {
            return false;
        }
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
    if permission == Permission::Public {
        return next.run(request).await;
    }
    let door = request.extensions().get::<Door>().cloned();
    let from = door.as_ref().map(ToString::to_string);
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
    if let Err(error) = permission.check(&service, &caller) {
        tracing::info!(actor = %caller.actor.0, peer.addr = from, "A request was refused: the caller does not have the permission");
        service.note_overreach(&caller, Refused { from, asked: &asked, code: error.code() }).await;
        return Refusal::from(error).into_response();
    }
    let rights = service.rights_changed();
    let standing = Standing { service, caller: caller.clone(), permission, bearer, checked: Instant::now(), rights };
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
        return Ok((Caller::local(uid), None));
    }
    // Who sends a token beside its certificate means the token; a bad one is not made good by the certificate.
    if let Some(Door::Certificate { name, generation, .. }) = &door
        && !headers.contains_key(AUTHORIZATION)
    {
        let caller = service.operator_caller(name, *generation);
        let refusal = || Refusal::unauthenticated("the certificate is not valid; it may have expired or been revoked");
        return caller.map(|caller| (caller, None)).ok_or_else(refusal);
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
