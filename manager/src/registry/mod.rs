//! Who is connected to this manager right now.
//!
//! Memory only: the epoch in the store says who may be connected anywhere, the registry says by which handle. One
//! live session per name; inserting a newer one fences the older.

pub mod handle;
pub mod sessions;

pub use handle::{Bearer, Closing, Order, Orders, Places, SessionHandle, Watcher};
pub use sessions::{Registry, SessionInfo};
