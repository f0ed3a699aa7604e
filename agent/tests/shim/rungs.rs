//! The ways to hold the processes of a command that this machine has.

use agent::shim::Base;
use common::id::Uid;

use super::kit::{House, not_run};

/// A house on each of them, the one without cgroups last. One that this machine does not have is said and left out.
pub(crate) fn each(test: &str) -> Vec<House> {
    let can = |choice: &&str| match Base::discover(choice, Uid::random()) {
        Ok(_) => true,
        Err(error) => {
            not_run(&format!("{test}::{choice}"), &error.to_string());
            false
        }
    };
    ["v2", "v2-freezer", "v1", "none"].into_iter().filter(can).map(House::with).collect()
}

/// Those with cgroups.
pub(crate) fn fenced(test: &str) -> Vec<House> {
    each(test).into_iter().filter(|house| house.base.tree().is_some()).collect()
}
