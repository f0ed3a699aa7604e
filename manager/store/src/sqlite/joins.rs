//! Join tokens, and the one change that lets an agent in with one.
//!
//! ```text
//! secret right? ─► revoked? ─► the same key again? ─► expired, used up? ─► admitted? ─► name free? ─► consume, make the agent
//!      no: nothing is written                yes: the same answer           no: a row in the audit
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use common::id::Generation;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::codes::{from_json, int, json, uint};
use super::database::Database;
use super::writer::Tx;
use super::{agents, audit, events, keys};
use crate::error::StoreError;
use crate::limits::{JOIN_REFUSAL_ROWS, JOIN_REFUSAL_WINDOW, JOIN_REPEAT, REFUSED_TOKENS_KEPT, TOKEN_ID};
use crate::revocations::Revoked;
use crate::types::{
    Actor, Agent, AuditEntry, AuditOutcome, JoinClaim, JoinOutcome, JoinRefused, JoinTokenRow, Millis, NewJoinToken,
    NotAdmitted,
};

const COLUMNS: &str =
    "id, created_at, created_by, expires_at, uses, used, name_pattern, groups, cidrs, revoked_at, hash";

type Joined = Result<JoinOutcome, JoinRefused>;

impl Database {
    /// Makes a join token.
    pub(crate) async fn join_token_create(
        &self,
        new: NewJoinToken,
        actor: &Actor,
        now: Millis,
    ) -> Result<JoinTokenRow, StoreError> {
        let actor = actor.clone();
        self.write(move |tx| create(tx, new, actor, now)).await
    }

    /// Lists join tokens, newest first.
    pub(crate) async fn join_tokens(&self) -> Result<Vec<JoinTokenRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM join_tokens ORDER BY created_at DESC, id"))?;
            let mut rows = statement.query([])?;
            let mut tokens = Vec::new();
            while let Some(row) = rows.next()? {
                tokens.push(read(row)?.0);
            }
            Ok(tokens)
        })
        .await
    }

    /// Takes a join token back; a repeat changes nothing.
    pub(crate) async fn join_token_revoke(&self, id: &str, actor: &Actor, now: Millis) -> Result<(), StoreError> {
        let (id, actor) = (id.to_owned(), actor.clone());
        let revocations = Arc::clone(&self.shared.revocations);
        self.write(move |tx| {
            let (token, _) = find(tx.connection(), &id)?.ok_or_else(|| StoreError::not_found("join token", &id))?;
            if token.revoked_at.is_some() {
                return Ok(());
            }
            revocations.add(&Revoked::JoinToken(id.clone()))?;
            tx.prepare("UPDATE join_tokens SET revoked_at = ?2 WHERE id = ?1")?
                .execute(params![id, int(now, "time")?])?;
            let details = serde_json::json!({ "id": id, "used": token.used, "uses": token.uses }).to_string();
            events::add(tx, now, "join_token.revoked", events::Subject::default(), &details)?;
            audit::done(tx, &actor, "join_token.revoke", &id, &details, now)
        })
        .await
    }

    /// Lets an agent in, or not.
    pub(crate) async fn join(
        &self,
        claim: JoinClaim,
        admit: impl FnOnce(&JoinTokenRow) -> Result<Vec<String>, NotAdmitted> + Send + 'static,
    ) -> Result<Joined, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.write(move |tx| join(tx, &claim, &shared.join_refusals, admit)).await
    }
}

/// Makes every join token worthless: a store that came back from a copy does not know which were used since.
pub(super) fn void_all(tx: &Tx<'_>, now: Millis) -> Result<usize, StoreError> {
    let now = int(now, "time")?;
    Ok(tx.prepare("UPDATE join_tokens SET revoked_at = ?1 WHERE revoked_at IS NULL")?.execute([now])?)
}

fn create(tx: &Tx<'_>, new: NewJoinToken, actor: Actor, now: Millis) -> Result<JoinTokenRow, StoreError> {
    if new.id.is_empty() || new.id.len() > TOKEN_ID || new.id.contains(char::is_whitespace) {
        return Err(StoreError::OutOfRange { field: "id" });
    }
    if new.uses == 0 {
        return Err(StoreError::OutOfRange { field: "uses" });
    }
    if new.expires_at <= now {
        return Err(StoreError::OutOfRange { field: "expiry" });
    }
    if find(tx.connection(), &new.id)?.is_some() {
        return Err(StoreError::Conflict { what: "a join token of this id exists" });
    }
    tx.prepare(
        "INSERT INTO join_tokens (id, hash, created_at, created_by, expires_at, uses, name_pattern, groups, cidrs)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        new.id,
        new.hash,
        int(now, "time")?,
        actor.0,
        int(new.expires_at, "expiry")?,
        new.uses,
        new.name_pattern,
        json(&new.groups)?,
        json(&new.cidrs)?,
    ])?;
    let details = serde_json::json!({
        "id": new.id, "uses": new.uses, "expires_at": new.expires_at, "name": new.name_pattern, "groups": new.groups,
        "addresses": new.cidrs,
    })
    .to_string();
    events::add(tx, now, "join_token.created", events::Subject::default(), &details)?;
    audit::done(tx, &actor, "join_token.create", &new.id, &details, now)?;
    Ok(JoinTokenRow {
        id: new.id,
        created_at: now,
        created_by: actor,
        expires_at: new.expires_at,
        uses: new.uses,
        used: 0,
        name_pattern: new.name_pattern,
        groups: new.groups,
        cidrs: new.cidrs,
        revoked_at: None,
    })
}

fn join(
    tx: &Tx<'_>,
    claim: &JoinClaim,
    refusals: &Refusals,
    admit: impl FnOnce(&JoinTokenRow) -> Result<Vec<String>, NotAdmitted>,
) -> Result<Joined, StoreError> {
    let Some((token, hash)) = find(tx.connection(), &claim.token_id)? else {
        return Ok(Err(JoinRefused::Unknown));
    };
    if aws_lc_rs::constant_time::verify_slices_are_equal(&hash, &claim.secret_hash).is_err() {
        return Ok(Err(JoinRefused::Unknown));
    }
    let refuse = |refused: JoinRefused, why: &str| refuse(tx, claim, refusals, refused, why).map(Err);
    if token.revoked_at.is_some() {
        return refuse(JoinRefused::Revoked, "the join token was revoked");
    }
    match before(tx, claim)? {
        Before::Never => {}
        Before::Same(agent) => {
            if let Some(reason) = agent.quarantined {
                return Err(StoreError::Quarantined { agent: agent.name, reason });
            }
            // The site may have changed since.
            return match admit(&token) {
                Ok(_) => again(tx, claim, *agent).map(Ok),
                Err(not) => refuse(not.refused, &not.why),
            };
        }
        Before::Other(why) => return refuse(JoinRefused::Name, &why),
    }
    if token.expires_at <= claim.now {
        return refuse(JoinRefused::Expired, "the join token has expired");
    }
    if token.used >= token.uses {
        return refuse(JoinRefused::Used, "the join token is used up");
    }
    let groups = match admit(&token) {
        Ok(groups) => groups,
        Err(not) => return refuse(not.refused, &not.why),
    };
    if agents::find(tx.connection(), &claim.name)?.is_some() {
        return refuse(JoinRefused::Taken, "an agent of this name exists");
    }
    // The one statement that decides who got the use; what was asked before only finds the reason of a refusal.
    let consumed = tx
        .prepare(
            "UPDATE join_tokens SET used = used + 1
             WHERE id = ?1 AND hash = ?2 AND used < uses AND expires_at > ?3 AND revoked_at IS NULL",
        )?
        .execute(params![token.id, hash, int(claim.now, "time")?])?;
    if consumed != 1 {
        return refuse(JoinRefused::Used, "the join token is used up");
    }
    let generation = admitted(tx, claim, &groups)?;
    Ok(Ok(JoinOutcome { agent: claim.name.clone(), generation, groups, repeated: false }))
}

/// Makes the agent, with everything that belongs to it.
fn admitted(tx: &Tx<'_>, claim: &JoinClaim, groups: &[String]) -> Result<Generation, StoreError> {
    let generation = agents::insert(tx, &claim.name, groups, Some(&claim.token_id), claim.now)?;
    keys::insert(tx, generation, &claim.spki, Some((claim.issuer, claim.not_after)), None, claim.now)?;
    // A row of the same key is that of an agent that was removed since.
    tx.prepare("INSERT OR REPLACE INTO joins (token, spki, name, generation, at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            claim.token_id,
            claim.spki,
            claim.name.as_str(),
            int(generation.0, "generation")?,
            int(claim.now, "time")?,
        ])?;
    let details = serde_json::json!({
        "token": claim.token_id, "address": claim.address, "generation": generation.0, "groups": groups,
        "key": keys::hex(&claim.spki),
    })
    .to_string();
    agents::note(tx, &claim.name, "agent.created", &actor(claim), "agent.join", &details, claim.now)?;
    Ok(generation)
}

/// What the key did with this token before.
enum Before {
    Never,
    /// It joined as the same agent a moment ago, which is still there.
    Same(Box<Agent>),
    /// It joined as another one.
    Other(String),
}

fn before(tx: &Tx<'_>, claim: &JoinClaim) -> Result<Before, StoreError> {
    let found: Option<(String, i64, i64, bool)> = tx
        .prepare(
            "SELECT name, generation, at, EXISTS (
                 SELECT 1 FROM agent_keys k WHERE k.generation = j.generation AND k.spki = j.spki)
             FROM joins j WHERE token = ?1 AND spki = ?2",
        )?
        .query_row(params![claim.token_id, claim.spki], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((name, generation, at, bound)) = found else { return Ok(Before::Never) };
    let name = super::codes::name(&name)?;
    let present = agents::find(tx.connection(), &name)?.filter(|agent| agent.generation.0 == uint(generation));
    let Some(agent) = present else { return Ok(Before::Never) };
    if name != claim.name {
        return Ok(Before::Other(format!("the key joined as {name} before")));
    }
    // Its key may have been replaced since: whoever still holds the old one is not the agent any more.
    let repeats = bound && claim.now < uint(at).saturating_add(JOIN_REPEAT);
    Ok(if repeats { Before::Same(Box::new(agent)) } else { Before::Never })
}

/// Answers the same key once more.
fn again(tx: &Tx<'_>, claim: &JoinClaim, agent: Agent) -> Result<JoinOutcome, StoreError> {
    keys::reissued(tx, agent.generation, &claim.spki, (claim.issuer, claim.not_after), claim.now)?;
    let details = serde_json::json!({ "token": claim.token_id, "address": claim.address, "repeated": true });
    audit::done(tx, &actor(claim), "agent.join", claim.name.as_str(), &details.to_string(), claim.now)?;
    Ok(JoinOutcome { agent: agent.name, generation: agent.generation, groups: agent.groups, repeated: true })
}

/// The rows that refusals of each token have left a moment ago. There are as many entries as tokens whose secret somebody
/// knows, and those that rest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<String, Spent>>);

#[derive(Debug, Default)]
struct Spent {
    since: Millis,
    rows: u32,
    skipped: u64,
}

impl Refusals {
    /// Takes the right to write a row; answers how many refusals were not written since the last one. A token that is used
    /// up still has its secret lying around: whoever finds it must not write the audit full.
    fn take(&self, token: &str, now: Millis) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REFUSED_TOKENS_KEPT {
            all.retain(|_, spent| now < spent.since.saturating_add(JOIN_REFUSAL_WINDOW));
        }
        let spent = all.entry(token.to_owned()).or_default();
        if now >= spent.since.saturating_add(JOIN_REFUSAL_WINDOW) {
            (spent.since, spent.rows) = (now, 0);
        }
        if spent.rows >= JOIN_REFUSAL_ROWS {
            spent.skipped += 1;
            return None;
        }
        spent.rows += 1;
        Some(std::mem::take(&mut spent.skipped))
    }
}

/// Writes down a refusal of somebody who knew the secret.
fn refuse(
    tx: &Tx<'_>,
    claim: &JoinClaim,
    refusals: &Refusals,
    refused: JoinRefused,
    why: &str,
) -> Result<JoinRefused, StoreError> {
    let Some(skipped) = refusals.take(&claim.token_id, claim.now) else { return Ok(refused) };
    let details = serde_json::json!({
        "token": claim.token_id, "address": claim.address, "why": why, "not_written_before": skipped,
    });
    let entry = AuditEntry {
        actor: actor(claim),
        action: "agent.join".to_owned(),
        object: claim.name.to_string(),
        outcome: AuditOutcome::Refused,
        details: details.to_string(),
    };
    audit::add(tx, &entry, claim.now)?;
    Ok(refused)
}

fn actor(claim: &JoinClaim) -> Actor {
    Actor(format!("join:{}", claim.token_id))
}

fn find(connection: &Connection, id: &str) -> Result<Option<(JoinTokenRow, [u8; 32])>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM join_tokens WHERE id = ?1"))?;
    let found = statement.query_row([id], |row| Ok(read(row))).optional()?;
    found.transpose()
}

fn read(row: &Row<'_>) -> Result<(JoinTokenRow, [u8; 32]), StoreError> {
    let (groups, cidrs): (String, String) = (row.get(7)?, row.get(8)?);
    let token = JoinTokenRow {
        id: row.get(0)?,
        created_at: uint(row.get(1)?),
        created_by: Actor(row.get(2)?),
        expires_at: uint(row.get(3)?),
        uses: row.get(4)?,
        used: row.get(5)?,
        name_pattern: row.get(6)?,
        groups: from_json(&groups, "groups")?,
        cidrs: from_json(&cidrs, "addresses")?,
        revoked_at: row.get::<_, Option<i64>>(9)?.map(uint),
    };
    Ok((token, row.get(10)?))
}
