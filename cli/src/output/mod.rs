//! What reaches the screen: data on stdout, the rest on stderr, tables for people and documents for programs.
//!
//! Whatever came from a host or from the manager is escaped before a terminal or a message line sees it.

mod printer;
mod table;

mod live;
mod sink;

mod moment;

pub use live::{Escaper, Lines, Passage};
pub use moment::{ago, between, span};
pub use printer::{Printer, columns, has_colour, note, now, print};
pub use sink::{Sink, Target};
pub use table::{Align, Table, card};
