//! Tokens of operators. Only hashes of secrets are stored; what was revoked is also written outside the database.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::codes::{from_json, int, json, uint};
use super::database::Database;
use super::writer::Tx;
use super::{audit, events};
use crate::error::StoreError;
use crate::limits::TOKEN_ID;
use crate::revocations::Revoked;
use crate::types::{Actor, Millis, NewToken, Scope, Token};

/// How often uses of tokens are written: people ask for days, not seconds.
const USES_EVERY: Millis = 30_000;
const COLUMNS: &str = "id, name, scope, created_at, created_by, expires_at, revoked_at, last_used_at, hash, roles";

impl Database {
    /// Makes a token.
    pub(crate) async fn token_create(&self, new: NewToken, actor: &Actor, now: Millis) -> Result<Token, StoreError> {
        let actor = actor.clone();
        self.write(move |tx| create(tx, new, actor, now)).await
    }

    /// Finds a token with the hash of its secret.
    pub(crate) async fn token_by_id(&self, id: &str) -> Result<Option<(Token, [u8; 32])>, StoreError> {
        let id = id.to_owned();
        self.read(move |connection| find(connection, &id)).await
    }

    /// Lists all tokens, newest first.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens ORDER BY created_at DESC, id"))?;
            let mut rows = statement.query([])?;
            let mut tokens = Vec::new();
            while let Some(row) = rows.next()? {
                tokens.push(read(row)?.0);
            }
            Ok(tokens)
        })
        .await
    }

    /// Takes a token back; a repeat changes nothing.
    pub(crate) async fn token_revoke(&self, id: &str, actor: &Actor, now: Millis) -> Result<(), StoreError> {
        let (id, actor) = (id.to_owned(), actor.clone());
        let revocations = Arc::clone(&self.shared.revocations);
        self.write(move |tx| {
            let (token, _) = find(tx.connection(), &id)?.ok_or_else(|| StoreError::not_found("token", &id))?;
            if token.revoked_at.is_some() {
                return Ok(());
            }
            revocations.add(&Revoked::Token(id.clone()))?;
            tx.prepare("UPDATE tokens SET revoked_at = ?2 WHERE id = ?1")?.execute(params![id, int(now, "time")?])?;
            events::add(tx, now, "token.revoked", events::Subject::default(), &body(&id, &token.name))?;
            audit::done(tx, &actor, "token.revoke", &id, &body(&id, &token.name), now)
        })
        .await
    }

    /// Notes a use; written with others now and then.
    pub(crate) fn token_used(&self, id: &str, now: Millis) {
        let mut uses = self.shared.token_uses.lock().unwrap_or_else(PoisonError::into_inner);
        match uses.get_mut(id) {
            Some(at) => *at = now.max(*at),
            None => {
                uses.insert(id.to_owned(), now);
            }
        }
        drop(uses);
        if now.saturating_sub(self.shared.token_uses_written.load(Ordering::Relaxed)) >= USES_EVERY {
            self.shared.token_uses_written.store(now, Ordering::Relaxed);
            self.flush_token_uses();
        }
    }

    /// Writes the uses that are not written yet, without waiting.
    pub(super) fn flush_token_uses(&self) {
        let uses = std::mem::take(&mut *self.shared.token_uses.lock().unwrap_or_else(PoisonError::into_inner));
        if uses.is_empty() {
            return;
        }
        // Best effort by contract: a full queue loses a time of use and nothing else.
        let _ = self.shared.main.try_run(move |tx| {
            for (id, at) in &uses {
                tx.prepare("UPDATE tokens SET last_used_at = max(COALESCE(last_used_at, 0), ?2) WHERE id = ?1")?
                    .execute(params![id, int(*at, "time")?])?;
            }
            Ok(())
        });
    }
}

fn create(tx: &Tx<'_>, new: NewToken, actor: Actor, now: Millis) -> Result<Token, StoreError> {
    if new.id.is_empty() || new.id.len() > TOKEN_ID || new.id.contains(char::is_whitespace) {
        return Err(StoreError::OutOfRange { field: "id" });
    }
    if find(tx.connection(), &new.id)?.is_some() {
        return Err(StoreError::Conflict { what: "a token of this id exists" });
    }
    let expires = new.expires_at.map(|at| int(at, "expiry")).transpose()?;
    tx.prepare(
        "INSERT INTO tokens (id, hash, name, scope, created_at, created_by, expires_at, roles)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        new.id,
        new.hash,
        new.name,
        scope_text(new.scope),
        int(now, "time")?,
        actor.0,
        expires,
        json(&new.roles)?,
    ])?;
    events::add(tx, now, "token.created", events::Subject::default(), &body(&new.id, &new.name))?;
    let details = serde_json::json!({
        "id": new.id, "name": new.name, "scope": scope_text(new.scope), "roles": new.roles, "expires_at": new.expires_at,
    });
    audit::done(tx, &actor, "token.create", &new.id, &details.to_string(), now)?;
    Ok(Token {
        id: new.id,
        name: new.name,
        scope: new.scope,
        roles: new.roles,
        created_at: now,
        created_by: actor,
        expires_at: new.expires_at,
        revoked_at: None,
        last_used_at: None,
    })
}

fn find(connection: &Connection, id: &str) -> Result<Option<(Token, [u8; 32])>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE id = ?1"))?;
    let found = statement.query_row([id], |row| Ok(read(row))).optional()?;
    found.transpose()
}

fn read(row: &Row<'_>) -> Result<(Token, [u8; 32]), StoreError> {
    let (scope, roles): (String, String) = (row.get(2)?, row.get(9)?);
    let token = Token {
        id: row.get(0)?,
        name: row.get(1)?,
        scope: scope_of(&scope)?,
        roles: from_json(&roles, "roles")?,
        created_at: uint(row.get(3)?),
        created_by: Actor(row.get(4)?),
        expires_at: row.get::<_, Option<i64>>(5)?.map(uint),
        revoked_at: row.get::<_, Option<i64>>(6)?.map(uint),
        last_used_at: row.get::<_, Option<i64>>(7)?.map(uint),
    };
    Ok((token, row.get(8)?))
}

fn body(id: &str, name: &str) -> String {
    serde_json::json!({ "id": id, "name": name }).to_string()
}

fn scope_text(scope: Scope) -> &'static str {
    match scope {
        Scope::Admin => "admin",
        Scope::Run => "run",
        Scope::Read => "read",
    }
}

fn scope_of(text: &str) -> Result<Scope, StoreError> {
    match text {
        "admin" => Ok(Scope::Admin),
        "run" => Ok(Scope::Run),
        "read" => Ok(Scope::Read),
        _ => Err(StoreError::corrupt("scope")),
    }
}
