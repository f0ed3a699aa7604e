//! Brings a database file to the schema of this release. Migrations are numbered files that never change once they were
//! applied somewhere; a file with a newer schema, or with another text under a known number, is refused.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::error::StoreError;

/// One step of a schema.
#[derive(Debug)]
pub(super) struct Migration {
    pub(super) version: u32,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// The schema of `paprika.db`.
pub(super) const MAIN: &[Migration] = &[
    Migration { version: 1, name: "start", sql: include_str!("../../migrations/sqlite/main/0001_start.sql") },
    Migration {
        version: 2,
        name: "skipped_ids",
        sql: include_str!("../../migrations/sqlite/main/0002_skipped_ids.sql"),
    },
    Migration { version: 3, name: "pause", sql: include_str!("../../migrations/sqlite/main/0003_pause.sql") },
    Migration { version: 4, name: "trust", sql: include_str!("../../migrations/sqlite/main/0004_trust.sql") },
];

/// The schema of `output.db`.
pub(super) const OUTPUT: &[Migration] = &[
    Migration { version: 1, name: "start", sql: include_str!("../../migrations/sqlite/output/0001_start.sql") },
    Migration { version: 2, name: "quota", sql: include_str!("../../migrations/sqlite/output/0002_quota.sql") },
];

/// Applies what is missing, in one transaction.
pub(super) fn migrate(connection: &mut Connection, path: &Path, known: &[Migration]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (
             version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum BLOB NOT NULL
         ) STRICT",
    )?;
    let newest = known.last().map_or(0, |migration| migration.version);
    let found: u32 = transaction.query_row("SELECT COALESCE(max(version), 0) FROM migrations", [], |row| row.get(0))?;
    if found > newest {
        return Err(StoreError::NewerSchema { path: path.to_owned(), found, known: newest });
    }
    for migration in known {
        let checksum = blake3::hash(migration.sql.as_bytes());
        let applied: Option<Vec<u8>> = transaction
            .query_row("SELECT checksum FROM migrations WHERE version = ?1", [migration.version], |row| row.get(0))
            .optional()?;
        match applied {
            Some(applied) if applied == checksum.as_bytes() => {}
            Some(_) => {
                return Err(StoreError::ChangedMigration { path: path.to_owned(), version: migration.version });
            }
            None => {
                transaction.execute_batch(migration.sql)?;
                transaction.execute(
                    "INSERT INTO migrations (version, name, checksum) VALUES (?1, ?2, ?3)",
                    params![migration.version, migration.name, checksum.as_bytes()],
                )?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const ONE: Migration = Migration { version: 1, name: "one", sql: "CREATE TABLE a (x INTEGER)" };
    const TWO: Migration = Migration { version: 2, name: "two", sql: "CREATE TABLE b (x INTEGER)" };

    #[test]
    fn what_is_missing_is_applied_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x"), &[ONE]).unwrap();
        migrate(&mut connection, Path::new("x"), &[ONE, TWO]).unwrap();
        migrate(&mut connection, Path::new("x"), &[ONE, TWO]).unwrap();
        connection.execute_batch("SELECT x FROM a; SELECT x FROM b").unwrap();
    }

    #[test]
    fn commands_of_version_0_1_wish_for_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x"), &MAIN[..2]).unwrap();
        connection
            .execute_batch(
                "INSERT INTO commands (uid, agent, attempt, operation, phase, created_at, created_by, expires_at)
                 VALUES (x'00', 1, 1, 'agent.ping', 4, 1, 'admin', 2)",
            )
            .unwrap();
        migrate(&mut connection, Path::new("x"), MAIN).unwrap();
        let wish: (Option<String>, i64, Option<i64>) = connection
            .query_row("SELECT pause, pause_wish, pause_due FROM commands", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!(wish, (None, 0, None));
    }

    #[test]
    fn what_version_0_2_let_in_may_do_what_it_could() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x"), &MAIN[..3]).unwrap();
        connection
            .execute_batch(
                "INSERT INTO tokens (id, hash, name, scope, created_at, created_by) VALUES ('t', x'00', 'ci', 'run', 1, 'a');
                 INSERT INTO agents (name, epoch, created_at) VALUES ('web1', 1, 1);
                 INSERT INTO commands (uid, agent, attempt, operation, phase, created_at, created_by, expires_at)
                 VALUES (x'00', 1, 1, 'agent.ping', 0, 1, 'admin', 2)",
            )
            .unwrap();
        migrate(&mut connection, Path::new("x"), MAIN).unwrap();
        let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap();
        assert_eq!(text("SELECT roles FROM tokens").as_deref(), Some(r#"["admin"]"#));
        assert_eq!(text("SELECT groups FROM agents").as_deref(), Some("[]"));
        assert_eq!(text("SELECT authority FROM commands"), None);
    }

    #[test]
    fn newer_and_changed_schemas_are_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x"), &[ONE, TWO]).unwrap();
        let newer = migrate(&mut connection, Path::new("x"), &[ONE]).unwrap_err();
        assert!(matches!(newer, StoreError::NewerSchema { found: 2, known: 1, .. }));
        let edited = Migration { sql: "CREATE TABLE c (x INTEGER)", ..ONE };
        let changed = migrate(&mut connection, Path::new("x"), &[edited, TWO]).unwrap_err();
        assert!(matches!(changed, StoreError::ChangedMigration { version: 1, .. }));
    }

    #[test]
    fn a_migration_that_fails_leaves_the_old_schema() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x"), &[ONE]).unwrap();
        let bad = Migration { version: 2, name: "bad", sql: "CREATE TABLE c (x INTEGER); NONSENSE" };
        migrate(&mut connection, Path::new("x"), &[ONE, bad]).unwrap_err();
        assert!(connection.execute_batch("SELECT x FROM c").is_err());
        migrate(&mut connection, Path::new("x"), &[ONE, TWO]).unwrap();
    }
}
