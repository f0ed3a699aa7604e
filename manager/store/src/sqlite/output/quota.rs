//! How many bytes of a stream may stay: what the command was given, or the default.
//!
//! It stands in the command's row in the other file. It is read when a stream first has more bytes than the smallest quota,
//! and then kept beside the stream: short streams, which are most, never ask.

use common::id::CommandId;
use common::limits;
use rusqlite::{Connection, OptionalExtension};
use serde::Deserialize;

use crate::error::StoreError;
use crate::sqlite::codes::{from_json, int};
use crate::types::Limits;

/// What of a request matters here.
#[derive(Debug, Deserialize)]
struct Asked {
    limits: Limits,
}

/// Reads the quota of the streams of a command.
pub(super) fn of(connection: &Connection, command: CommandId) -> Result<u64, StoreError> {
    let found: Option<(String, bool)> = connection
        .prepare_cached(
            "SELECT COALESCE(c.request, j.request, ''), c.created_by LIKE 'agent:%'
             FROM commands c LEFT JOIN jobs j ON j.id = c.job WHERE c.id = ?1",
        )?
        .query_row([int(command.0, "id")?], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    // A command that is gone has nothing that anybody waits for.
    let Some((request, imported)) = found else { return Ok(limits::MIN_OUTPUT_QUOTA) };
    let asked: Asked = from_json(&request, "request")?;
    Ok(granted(asked.limits.output, imported))
}

/// What is kept for a wish. Of an imported command the wish is the agent's word, which must not fill this disk.
fn granted(wish: Option<u64>, imported: bool) -> u64 {
    let wish = wish.filter(|wish| *wish > 0).unwrap_or(limits::DEFAULT_OUTPUT_QUOTA);
    let most = if imported { limits::DEFAULT_OUTPUT_QUOTA } else { i64::MAX as u64 };
    wish.clamp(limits::MIN_OUTPUT_QUOTA, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_counts_within_its_bounds_and_an_agents_word_not_above_the_default() {
        let default = limits::DEFAULT_OUTPUT_QUOTA;
        for (wish, imported, quota) in [
            (None, false, default),
            (Some(0), false, default),
            (Some(1), false, limits::MIN_OUTPUT_QUOTA),
            (Some(1 << 20), false, 1 << 20),
            (Some(1 << 40), false, 1 << 40),
            (Some(u64::MAX), false, i64::MAX as u64),
            (Some(1 << 20), true, 1 << 20),
            (Some(1 << 40), true, default),
        ] {
            assert_eq!(granted(wish, imported), quota, "{wish:?} {imported}");
        }
    }
}
