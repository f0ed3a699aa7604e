//! The manager's side of the link: who may knock, who is let in, and one task per session.
//!
//! ```text
//! listener ─(admission)─► TLS ─► greeting ─► service.open_session ─► session ◄─► agent
//!                                    └─► service.join, service.recover: a certificate and goodbye
//!                                                                   │  ▲
//!                                        orders (registry handle) ──┘  └── inbound: frame → service → answer
//! ```
//! A session owns its connection alone. Frames of the agent are handed to the service and answered only when the
//! store has committed; the order of answers is that of the commits.

pub mod admission;
mod complaints;
mod endings;
pub mod greeting;
pub mod inbound;
pub mod inflight;
pub mod knocks;
pub mod listener;
mod listing;
pub mod messages;
pub mod pace;
mod questions;
mod reconcile;
pub mod session;
mod standing;
pub mod strangers;
