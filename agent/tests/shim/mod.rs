//! What a shim does with a command, from the outside.

mod crash;
mod ends;
mod fence;
mod full;
mod guards;
mod kit;
mod output;
mod pause;
mod posture;
mod scripts;
mod stop;
mod strays;
mod stuck;
