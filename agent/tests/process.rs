//! Shims with real processes: the one integration binary of this package.
//!
//! Every test runs with its own state directory; those that fence with cgroups make their own base and remove it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod shim;
