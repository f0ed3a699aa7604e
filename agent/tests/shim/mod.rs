//! What a shim does with a command, from the outside.

mod crash;
mod ends;
mod kit;
mod output;
mod stop;
