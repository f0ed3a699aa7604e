//! The site language: what operators write about their fleet, read with positions and without mercy for mistakes.
//!
//! ```text
//! folder or push ──► source (bytes) ──► yaml (tree with positions) ──► agents, groups, roles … ──► Site
//!                                             │                              │
//!                                             └──────── problem ◄────────────┘   file:line:column, path, hint
//! ```
//! Pure apart from [`folder`]: no sockets, no store, no clock. The manager serves what is loaded here, and the command line
//! checks with the same code.

pub mod limits;
pub mod problem;
pub mod source;

pub mod yaml;

pub mod fields;

pub mod agents;
pub mod glob;
pub mod groups;
pub mod permission;
pub mod roles;
pub mod target;

pub mod folder;
pub mod site;
pub mod tree;

pub use problem::{Problem, Problems};
pub use site::Site;
pub use source::{Place, Source, Span};
