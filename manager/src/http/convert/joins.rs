//! Join tokens.

use api::joins::{JoinToken, JoinTokenRequest};
use api::time::Time;
use store::types::JoinTokenRow;

use crate::service::JoinWish;

/// Reads a wish.
pub(in crate::http) fn wish(request: JoinTokenRequest) -> JoinWish {
    JoinWish {
        groups: request.groups,
        uses: request.uses,
        ttl: request.expires_in.map(|span| span.0),
        name: request.name,
        networks: request.addresses,
    }
}

/// Shows a join token.
pub(in crate::http) fn token(row: JoinTokenRow) -> JoinToken {
    JoinToken {
        id: row.id,
        groups: row.groups,
        uses: row.uses,
        used: row.used,
        name: row.name_pattern,
        addresses: row.cidrs,
        created_at: Time(row.created_at),
        created_by: row.created_by.0,
        expires_at: Time(row.expires_at),
        revoked_at: row.revoked_at.map(Time),
    }
}
