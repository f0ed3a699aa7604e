//! The exchange of hellos: what each side says, and how the other judges it. No I/O.
//!
//! ```text
//! agent                                     manager
//!   hello ─────────────────────────────────► read_first ─► First::Session
//!   read_welcome ◄──────────────────────────  welcome, or Bye with a named reason
//!
//!   join_hello (no certificate, a token) ──► read_first ─► First::Join
//!   recover_hello (ended lately) ──────────► read_first ─► First::Recover
//!   read_issued ◄───────────────────────────  issued, then Bye; or Bye with a named reason
//! ```
//! The certificate decides which of the three a peer may say; the hello is compared with it, never believed.

mod first;
mod hello;
mod issued;
mod refusal;
mod welcome;

pub use first::{First, JoinHello, JoinParams, RecoverHello, join_hello, read_first, recover_hello};
pub use hello::{Hello, HelloParams, hello};
pub use issued::{IssuedAnswer, IssuedParams, IssuedText, Renewal, issued, read_issued, read_renew};
pub use refusal::{Refusal, truncate};
pub use welcome::{Welcome, WelcomeError, WelcomeParams, read_welcome, refused, welcome};

/// A hash that may be told or not: none when it is empty, an error when it has another length.
fn optional_hash(bytes: &[u8]) -> Result<Option<[u8; crate::limits::HASH_BYTES]>, &'static str> {
    if bytes.is_empty() {
        return Ok(None);
    }
    bytes.try_into().map(Some).map_err(|_| "the hash of the bundle has not 32 bytes")
}

/// The wire form of such a hash.
fn hash_bytes(hash: Option<[u8; crate::limits::HASH_BYTES]>) -> bytes::Bytes {
    hash.map_or_else(bytes::Bytes::new, |hash| bytes::Bytes::copy_from_slice(&hash))
}

#[cfg(test)]
mod tests;
