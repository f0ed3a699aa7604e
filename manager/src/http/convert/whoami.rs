//! Who a caller is.

use api::time::Time;
use api::whoami::{Via, Whoami};
use store::types;

use super::tokens;
use crate::service::callers::CallerView;

/// Shows a caller.
pub(in crate::http) fn whoami(view: CallerView) -> Whoami {
    let CallerView { caller, roles, permissions, expires_at, cluster } = view;
    let (via, token) = match caller.authority.via {
        types::Via::Token { id } => (Via::Token, Some(id)),
        types::Via::Certificate { .. } => (Via::Certificate, None),
        types::Via::Local { .. } => (Via::Local, None),
    };
    Whoami {
        actor: caller.actor.0,
        via,
        token,
        scope: tokens::scope_shown(caller.scope),
        roles,
        permissions: permissions.into_iter().map(|permission| permission.to_string()).collect(),
        expires_at: expires_at.map(Time),
        cluster,
    }
}
