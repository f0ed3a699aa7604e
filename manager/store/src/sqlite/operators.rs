//! Certificates of operators. The generation is the key: it stands in the certificate and is never given out twice; what
//! was revoked is also written outside the database.

use std::sync::Arc;

use common::id::{Generation, Name};
use rusqlite::{OptionalExtension, Row, params};

use super::codes::{int, name as name_of, uint};
use super::database::Database;
use super::{audit, events};
use crate::error::StoreError;
use crate::revocations::Revoked;
use crate::types::{Actor, Millis, OperatorCert};

const COLUMNS: &str = "generation, name, created_at, created_by, not_after, revoked_at";

impl Database {
    /// Draws the generation of a certificate.
    pub(crate) async fn operator_cert_create(
        &self,
        name: &Name,
        not_after: Millis,
        actor: &Actor,
        now: Millis,
    ) -> Result<Generation, StoreError> {
        let (name, actor) = (name.clone(), actor.clone());
        self.write(move |tx| {
            let generation = tx
                .prepare("INSERT INTO operators (name, created_at, created_by, not_after) VALUES (?1, ?2, ?3, ?4)")?
                .insert(params![name.as_str(), int(now, "time")?, actor.0, int(not_after, "expiry")?])?;
            let details =
                serde_json::json!({ "name": name.as_str(), "generation": generation, "not_after": not_after })
                    .to_string();
            events::add(tx, now, "operator.certified", events::Subject::default(), &details)?;
            audit::done(tx, &actor, "operator.certificate", name.as_str(), &details, now)?;
            Ok(Generation(uint(generation)))
        })
        .await
    }

    /// Finds a certificate.
    pub(crate) async fn operator_cert(&self, generation: Generation) -> Result<Option<OperatorCert>, StoreError> {
        self.read(move |connection| {
            // What no certificate of ours can carry was never given out.
            let Ok(generation) = int(generation.0, "generation") else { return Ok(None) };
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM operators WHERE generation = ?1"))?
                .query_row([generation], |row| Ok(read(row)))
                .optional()?
                .transpose()
        })
        .await
    }

    /// Lists certificates, newest first.
    pub(crate) async fn operator_certs(&self) -> Result<Vec<OperatorCert>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM operators ORDER BY generation DESC"))?;
            let mut rows = statement.query([])?;
            let mut certs = Vec::new();
            while let Some(row) = rows.next()? {
                certs.push(read(row)?);
            }
            Ok(certs)
        })
        .await
    }

    /// Takes all certificates of an operator back; a repeat changes nothing.
    pub(crate) async fn operator_revoke(
        &self,
        name: &Name,
        actor: &Actor,
        now: Millis,
    ) -> Result<Vec<Generation>, StoreError> {
        let (name, actor) = (name.clone(), actor.clone());
        let revocations = Arc::clone(&self.shared.revocations);
        self.write(move |tx| {
            let all: Vec<(i64, bool)> = tx
                .prepare(
                    "SELECT generation, revoked_at IS NOT NULL FROM operators WHERE name = ?1 ORDER BY generation",
                )?
                .query_map([name.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            if all.is_empty() {
                return Err(StoreError::not_found("operator", &name));
            }
            let open: Vec<i64> =
                all.iter().filter(|(_, revoked)| !revoked).map(|(generation, _)| *generation).collect();
            if open.is_empty() {
                return Ok(Vec::new());
            }
            for generation in &open {
                revocations.add(&Revoked::Operator(uint(*generation)))?;
                tx.prepare("UPDATE operators SET revoked_at = ?2 WHERE generation = ?1")?
                    .execute(params![generation, int(now, "time")?])?;
            }
            let details = serde_json::json!({ "name": name.as_str(), "generations": open }).to_string();
            events::add(tx, now, "operator.revoked", events::Subject::default(), &details)?;
            audit::done(tx, &actor, "operator.revoke", name.as_str(), &details, now)?;
            Ok(open.into_iter().map(|generation| Generation(uint(generation))).collect())
        })
        .await
    }
}

fn read(row: &Row<'_>) -> Result<OperatorCert, StoreError> {
    let name: String = row.get(1)?;
    Ok(OperatorCert {
        generation: Generation(uint(row.get(0)?)),
        name: name_of(&name)?,
        created_at: uint(row.get(2)?),
        created_by: Actor(row.get(3)?),
        not_after: uint(row.get(4)?),
        revoked_at: row.get::<_, Option<i64>>(5)?.map(uint),
    })
}
