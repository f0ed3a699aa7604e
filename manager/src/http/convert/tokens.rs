//! Tokens and their scopes.

use api::time::Time;
use api::tokens::{Scope, Token};
use store::types;

/// Reads a scope.
pub(in crate::http) fn scope(scope: Scope) -> types::Scope {
    match scope {
        Scope::Admin => types::Scope::Admin,
        Scope::Run => types::Scope::Run,
        Scope::Read => types::Scope::Read,
    }
}

/// Shows a scope.
pub(in crate::http) fn scope_shown(scope: types::Scope) -> Scope {
    match scope {
        types::Scope::Admin => Scope::Admin,
        types::Scope::Run => Scope::Run,
        types::Scope::Read => Scope::Read,
    }
}

/// Shows a token.
pub(in crate::http) fn token(token: types::Token) -> Token {
    let scope = scope_shown(token.scope);
    Token {
        id: token.id,
        name: token.name,
        scope,
        roles: token.roles,
        created_at: Time(token.created_at),
        created_by: token.created_by.0,
        expires_at: token.expires_at.map(Time),
        revoked_at: token.revoked_at.map(Time),
        last_used_at: token.last_used_at.map(Time),
    }
}
