//! Revisions of the site. Contents are stored once, by their hash, however many revisions have them.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::codes::{int, limit as sql_limit, uint};
use super::database::Database;
use super::writer::Tx;
use super::{audit, events};
use crate::error::StoreError;
use crate::limits::{BLOBS_AT_ONCE, PRUNED_AT_ONCE, REVISIONS_KEPT};
use crate::types::{Actor, Millis, NewRevision, SiteFile, SiteRevision, SiteStatus};

const COLUMNS: &str = "r.number, r.at, r.actor, r.source, r.hash, r.status, r.note,
     (SELECT count(*) FROM site_files f WHERE f.revision = r.number)";

/// A file with the hash of its content.
type Hashed = (String, [u8; 32], Arc<[u8]>);

impl Database {
    /// Adds a revision.
    pub(crate) async fn revision_add(
        &self,
        new: NewRevision,
        actor: &Actor,
        now: Millis,
    ) -> Result<SiteRevision, StoreError> {
        let files = new.files.clone();
        let hashed = tokio::task::spawn_blocking(move || hashed(files)).await;
        let files = Arc::new(hashed.map_err(|_| StoreError::Unavailable(None))?);
        // Contents first and in steps, so that a large site does not hold the writer; without a revision they are
        // removed by the next round of pruning.
        for (from, to) in steps(&files) {
            let files = Arc::clone(&files);
            self.write(move |tx| put_missing(tx, files.get(from..to).unwrap_or_default())).await?;
        }
        let actor = actor.clone();
        self.write(move |tx| add(tx, &new, &files, actor, now)).await
    }

    /// Finds the revision in force.
    pub(crate) async fn revision_live(&self) -> Result<Option<SiteRevision>, StoreError> {
        self.read(live).await
    }

    /// Finds a revision.
    pub(crate) async fn revision(&self, number: u64) -> Result<Option<SiteRevision>, StoreError> {
        self.read(move |connection| find(connection, number)).await
    }

    /// Lists revisions, newest first.
    pub(crate) async fn revisions(&self, limit: usize) -> Result<Vec<SiteRevision>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM site_revisions r ORDER BY r.number DESC LIMIT ?1"))?;
            let mut rows = statement.query([sql_limit(limit)])?;
            let mut revisions = Vec::new();
            while let Some(row) = rows.next()? {
                revisions.push(read(row)?);
            }
            Ok(revisions)
        })
        .await
    }

    /// Approves or rejects a held revision.
    pub(crate) async fn revision_decide(
        &self,
        number: u64,
        approve: bool,
        actor: &Actor,
        now: Millis,
    ) -> Result<SiteRevision, StoreError> {
        let actor = actor.clone();
        self.write(move |tx| decide(tx, number, approve, &actor, now)).await
    }

    /// Lists the files of a revision.
    pub(crate) async fn revision_files(&self, number: u64) -> Result<Vec<SiteFile>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT f.path, f.hash, length(b.content) FROM site_files f JOIN site_blobs b ON b.hash = f.hash
                 WHERE f.revision = ?1 ORDER BY f.path",
            )?;
            let rows = statement.query_map([int(number, "number")?], |row| {
                Ok(SiteFile { path: row.get(0)?, hash: row.get(1)?, size: uint(row.get(2)?) })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Reads one file of a revision.
    pub(crate) async fn revision_file(&self, number: u64, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = path.to_owned();
        self.read(move |connection| {
            let found: Option<([u8; 32], Option<Vec<u8>>)> = connection
                .prepare_cached(
                    "SELECT f.hash, b.content FROM site_files f LEFT JOIN site_blobs b ON b.hash = f.hash
                     WHERE f.revision = ?1 AND f.path = ?2",
                )?
                .query_row(params![int(number, "number")?, path], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            found.map(|(hash, content)| whole(hash, content)).transpose()
        })
        .await
    }

    /// Reads all files of a revision.
    pub(crate) async fn revision_tree(&self, number: u64) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(move |connection| {
            // One snapshot: the revision may be pruned meanwhile.
            let snapshot = connection.unchecked_transaction()?;
            let revision = find(&snapshot, number)?.ok_or_else(|| StoreError::not_found("revision", number))?;
            let mut statement = snapshot.prepare_cached(
                "SELECT f.path, f.hash, b.content FROM site_files f LEFT JOIN site_blobs b ON b.hash = f.hash
                 WHERE f.revision = ?1 ORDER BY f.path",
            )?;
            let mut rows = statement.query([int(revision.number, "number")?])?;
            let mut tree = Vec::new();
            while let Some(row) = rows.next()? {
                tree.push((row.get(0)?, whole(row.get(1)?, row.get(2)?)?));
            }
            Ok(tree)
        })
        .await
    }
}

/// Removes contents that no revision has: their revision went, or never came.
pub(super) fn prune_blobs(tx: &Tx<'_>) -> Result<usize, StoreError> {
    let removed = tx
        .prepare(
            "DELETE FROM site_blobs WHERE rowid IN (
                 SELECT b.rowid FROM site_blobs b
                 WHERE NOT EXISTS (SELECT 1 FROM site_files f WHERE f.hash = b.hash) LIMIT ?1)",
        )?
        .execute([PRUNED_AT_ONCE])?;
    Ok(removed)
}

/// A content must be what its hash says: rights are granted by these files.
fn whole(hash: [u8; 32], content: Option<Vec<u8>>) -> Result<Vec<u8>, StoreError> {
    content.filter(|content| *blake3::hash(content).as_bytes() == hash).ok_or(StoreError::corrupt("content of a site"))
}

fn hashed(files: Vec<(String, Arc<[u8]>)>) -> Vec<Hashed> {
    files.into_iter().map(|(path, content)| (path, *blake3::hash(&content).as_bytes(), content)).collect()
}

/// Cuts files into runs of bounded size.
fn steps(files: &[Hashed]) -> Vec<(usize, usize)> {
    let mut steps = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (index, (_, _, content)) in files.iter().enumerate() {
        if index > from && bytes + content.len() > BLOBS_AT_ONCE {
            steps.push((from, index));
            (from, bytes) = (index, 0);
        }
        bytes += content.len();
    }
    if from < files.len() {
        steps.push((from, files.len()));
    }
    steps
}

fn put_missing(tx: &Tx<'_>, files: &[Hashed]) -> Result<(), StoreError> {
    let mut known = tx.prepare("SELECT 1 FROM site_blobs WHERE hash = ?1")?;
    let mut put = tx.prepare("INSERT INTO site_blobs (hash, content) VALUES (?1, ?2)")?;
    for (_, hash, content) in files {
        if !known.exists([hash])? {
            put.execute(params![hash, content.as_ref()])?;
        }
    }
    Ok(())
}

fn add(
    tx: &Tx<'_>,
    new: &NewRevision,
    files: &[Hashed],
    actor: Actor,
    now: Millis,
) -> Result<SiteRevision, StoreError> {
    let live = live(tx.connection())?;
    if new.base.is_some_and(|base| base != live.as_ref().map_or(0, |live| live.number)) {
        return Err(StoreError::Conflict { what: "another revision is in force" });
    }
    if let Some(known) = known(tx.connection(), new, live)? {
        return Ok(known);
    }
    let number = tx
        .prepare("INSERT INTO site_revisions (at, actor, source, hash, status, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .insert(params![int(now, "time")?, actor.0, new.source, new.hash, status_text(new.status), new.note])?;
    {
        let mut insert = tx.prepare("INSERT INTO site_files (revision, path, hash) VALUES (?1, ?2, ?3)")?;
        for (path, hash, _) in files {
            insert.execute(params![number, path, hash])?;
        }
    }
    // Pruning may have taken some between the steps.
    put_missing(tx, files)?;
    drop_old(tx)?;
    let added = expect(tx.connection(), uint(number))?;
    note(tx, &added, "site.revision", &actor, now)?;
    Ok(added)
}

/// The revision that a new one would only repeat.
fn known(
    connection: &Connection,
    new: &NewRevision,
    live: Option<SiteRevision>,
) -> Result<Option<SiteRevision>, StoreError> {
    if new.status == SiteStatus::Live {
        return Ok(live.filter(|live| live.hash == new.hash));
    }
    let newest: Option<SiteRevision> = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM site_revisions r WHERE r.source = ?1 ORDER BY r.number DESC LIMIT 1"
        ))?
        .query_row([&new.source], |row| Ok(read(row)))
        .optional()?
        .transpose()?;
    Ok(newest.filter(|newest| newest.hash == new.hash && newest.status != SiteStatus::Live))
}

fn decide(tx: &Tx<'_>, number: u64, approve: bool, actor: &Actor, now: Millis) -> Result<SiteRevision, StoreError> {
    let revision = expect(tx.connection(), number)?;
    if revision.status != SiteStatus::Held {
        return Err(StoreError::Conflict { what: "the revision is not held" });
    }
    let newer = live(tx.connection())?.is_some_and(|live| live.number > number);
    if approve && newer {
        // It was made from what was in force before: to approve it would take the newer one back.
        return Err(StoreError::Conflict { what: "a newer revision is in force" });
    }
    let (status, action) =
        if approve { (SiteStatus::Live, "site.approve") } else { (SiteStatus::Rejected, "site.reject") };
    tx.prepare("UPDATE site_revisions SET status = ?2 WHERE number = ?1")?
        .execute(params![int(number, "number")?, status_text(status)])?;
    let decided = SiteRevision { status, ..revision };
    note(tx, &decided, action, actor, now)?;
    Ok(decided)
}

/// Removes the oldest revisions beyond those that are kept, never the one in force.
fn drop_old(tx: &Tx<'_>) -> Result<(), StoreError> {
    let live = live(tx.connection())?.map_or(0, |live| live.number);
    let old: Vec<i64> = tx
        .prepare("SELECT number FROM site_revisions ORDER BY number DESC LIMIT -1 OFFSET ?1")?
        .query_map([REVISIONS_KEPT], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for number in old.into_iter().filter(|number| uint(*number) != live) {
        tx.prepare("DELETE FROM site_files WHERE revision = ?1")?.execute([number])?;
        tx.prepare("DELETE FROM site_revisions WHERE number = ?1")?.execute([number])?;
    }
    Ok(())
}

fn note(tx: &Tx<'_>, revision: &SiteRevision, action: &str, actor: &Actor, now: Millis) -> Result<(), StoreError> {
    let details = serde_json::json!({
        "number": revision.number, "status": status_text(revision.status), "source": revision.source,
        "files": revision.files, "note": revision.note,
    })
    .to_string();
    events::add(tx, now, "site.revision", events::Subject::default(), &details)?;
    audit::done(tx, actor, action, &format!("revision {}", revision.number), &details, now)
}

fn live(connection: &Connection) -> Result<Option<SiteRevision>, StoreError> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM site_revisions r WHERE r.status = 'live' ORDER BY r.number DESC LIMIT 1"
        ))?
        .query_row([], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

fn find(connection: &Connection, number: u64) -> Result<Option<SiteRevision>, StoreError> {
    let Ok(number) = int(number, "number") else { return Ok(None) };
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM site_revisions r WHERE r.number = ?1"))?
        .query_row([number], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

fn expect(connection: &Connection, number: u64) -> Result<SiteRevision, StoreError> {
    find(connection, number)?.ok_or_else(|| StoreError::not_found("revision", number))
}

fn read(row: &Row<'_>) -> Result<SiteRevision, StoreError> {
    let status: String = row.get(5)?;
    Ok(SiteRevision {
        number: uint(row.get(0)?),
        at: uint(row.get(1)?),
        actor: Actor(row.get(2)?),
        source: row.get(3)?,
        hash: row.get(4)?,
        status: status_of(&status)?,
        note: row.get(6)?,
        files: uint(row.get(7)?),
    })
}

fn status_text(status: SiteStatus) -> &'static str {
    match status {
        SiteStatus::Live => "live",
        SiteStatus::Held => "held",
        SiteStatus::Rejected => "rejected",
    }
}

fn status_of(text: &str) -> Result<SiteStatus, StoreError> {
    match text {
        "live" => Ok(SiteStatus::Live),
        "held" => Ok(SiteStatus::Held),
        "rejected" => Ok(SiteStatus::Rejected),
        _ => Err(StoreError::corrupt("status of a revision")),
    }
}
