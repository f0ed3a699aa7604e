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

mod bundle;
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

#[cfg(test)]
mod tests;
