//! Who this agent is: certificates in the configured files and in two slots, which of them is used, and when the next one
//! is due.
//!
//! ```text
//!   cert, key, ca of agent.yml ──┐                                   half of its life is over, authorities changed
//!   identity/a ──────────────────┼─► choose ─► Keeper ─► dial ─► session ─► Renewal (link) ─┐
//!   identity/b ──────────────────┘     ▲                                                    │ key made here, CSR
//!                                      └────────── the slot that is not in use ◄────────────┘
//! ```
//! Private keys are made on this host and never leave it. Whom the agent trusts only moves forward: an older certificate
//! may be fallen back to, older authorities never.

mod choose;
mod schedule;

mod material;
mod slots;

mod credentials;
mod keeper;
mod time;

#[cfg(test)]
pub(crate) mod authority;

pub use credentials::CredentialsError;

pub(crate) use credentials::Credentials;
pub(crate) use keeper::{Keeper, Successor, SuccessorError};
pub(crate) use material::{Files, Material};
pub(crate) use schedule::{Age, Validity};
pub(crate) use slots::Pem;
pub(crate) use time::LinkTime;
