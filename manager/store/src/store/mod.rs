//! The facade: every question and every change the manager has for its store, each in one method. No SQL here; a
//! second back end takes the place of [`crate::sqlite`] behind the same methods.
//!
//! Every change writes its events and its audit row in its own transaction. A method that returned is durable, unless
//! its comment says otherwise. Dropping the future of a change does not take the change back.

mod whole;

mod agents;
mod commands;
mod exchange;
mod history;
mod site;
mod trust;

pub use crate::sqlite::Appending;
pub use whole::Store;

type Result<T> = std::result::Result<T, crate::error::StoreError>;
