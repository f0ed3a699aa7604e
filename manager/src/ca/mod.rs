//! The certificate authority of a cluster: made at the first start, kept in `<dir>/ca`, it issues every certificate
//! of the link and the API, and can be exchanged without a host having to join again.
//!
//! ```text
//! {1*}  ─ prepare ─►  {1*, 2}  ─ activate ─►  {1, 2*}  ─ retire ─►  {2*}        * signs; all of the set are trusted
//! ```
//! - While two are trusted, agents learn both by renewing; whoever was away finds the manager proven under the one it
//!   knows, because the newer one is also certified by the older one.
//! - Certificates are built from our own parameters only; of a peer's request nothing but its public key is taken.
//! - Keys never leave the folder, which only the manager's user can read.
//! - Each step is one replacement of `authorities.json`, after everything it names is on disk. Files that it does not
//!   name were left by a step that was cut short, and are made again.

mod authority;
mod certificate;
mod csr;
mod error;
mod rotation;

pub use authority::{Authority, Issued};
pub use error::CaError;
pub use rotation::Trusted;

#[cfg(test)]
mod tests;
