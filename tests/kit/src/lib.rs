//! What system tests, examples and benchmarks share: a house of real processes, a scripted agent, a test PKI, a faulty
//! proxy, and the checks that prove promise 1.
//!
//! It tests the product from outside: it starts programs, speaks the protocol and reads answers. It never reaches into
//! the daemons, and it ends only processes that it started or that carry its own mark.
//!
//! Reading order: [`wait`] and [`process`], the [`house`], its peers ([`pki`], [`peer`], [`scripted_manager`],
//! [`proxy`], [`web`]), the checks ([`effects`], [`checker`], [`survivors`]), the [`keeper`] of the badly behaved
//! programs in `src/bin/zoo`, and [`ground`] for what a machine cannot do.

pub mod process;
pub mod wait;

pub mod house;
mod settings;

pub mod peer;
pub mod pki;
pub mod proxy;
pub mod scripted_manager;
pub mod web;

pub mod canaries;
pub mod checker;
pub mod effects;
pub mod ground;
pub mod keeper;
pub mod survivors;

pub use house::House;
pub use settings::HouseOptions;
pub use wait::{soon, wait_for};
