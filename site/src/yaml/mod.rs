//! Strict YAML 1.2 as a tree that knows where every value stands.
//!
//! Duplicate keys, several documents in one file, unknown tags and keys that are no text are mistakes. Aliases share what they
//! stand for, so a bomb costs nothing to read and is refused by its weight.

mod compose;
mod node;
mod scalar;

pub use compose::parse;
pub use node::{Entry, Kind, Map, Node, Tag};
pub use scalar::{Plain, Scalar};
