//! Pages of lists: the same shape and the same two parameters everywhere.

use serde::{Deserialize, Serialize};

/// Items in a page when nobody asks for a number.
pub const DEFAULT_LIMIT: u32 = 100;
/// Most items in one page: keeps an answer within about a megabyte.
pub const MAX_LIMIT: u32 = 1_000;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor for `after=` that gives the next page; absent behind the last.
    pub next: Option<String>,
}
