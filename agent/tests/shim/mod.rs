//! What a shim does with a command, from the outside.

mod backpressure;
mod behind;
mod birth;
mod crash;
mod ends;
mod fence;
mod filtered;
mod full;
mod guards;
mod kit;
mod output;
mod pause;
mod posture;
mod recycled;
mod rungs;
mod scripts;
mod secrets;
mod short;
mod stop;
mod storm;
mod strays;
mod stuck;
mod thieves;
