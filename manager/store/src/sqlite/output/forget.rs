//! Removes bytes with the commands that they belong to.

use common::id::CommandId;
use rusqlite::Connection;

use crate::error::StoreError;
use crate::sqlite::codes::int;
use crate::sqlite::writer::Tx;

/// Removes all bytes of these commands.
pub(in crate::sqlite) fn forget(tx: &Tx<'_>, commands: &[CommandId]) -> Result<(), StoreError> {
    for command in commands {
        let id = int(command.0, "id")?;
        tx.prepare("DELETE FROM streams WHERE command = ?1")?.execute([id])?;
        tx.prepare("DELETE FROM chunks WHERE command = ?1")?.execute([id])?;
        tx.prepare("DELETE FROM gaps WHERE command = ?1")?.execute([id])?;
    }
    Ok(())
}

/// Removes bytes of commands that the main file has never heard of: it was restored without this one, and their ids
/// will be given to others.
pub(in crate::sqlite) fn forget_beyond(connection: &Connection, last: u64) -> Result<(), StoreError> {
    let last = int(last, "id")?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute("DELETE FROM streams WHERE command > ?1", [last])?;
    connection.execute("DELETE FROM chunks WHERE command > ?1", [last])?;
    connection.execute("DELETE FROM gaps WHERE command > ?1", [last])?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}
