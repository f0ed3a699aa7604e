//! `paprika dev`: a manager in this process and agents as its children, in one folder that is kept between runs.
//!
//! ```text
//! DIR/env               what `source` and curl need, mode 0600
//! DIR/manager/          the manager's folder
//! DIR/agents/dev-N/     certificate, key, agent.yml, agent.log, state/
//! ```
//! It starts what the daemons start by themselves elsewhere, and does nothing that they cannot: certificates come from
//! the API, agents are the same binary. It ends only the children it started, by their ids.

mod children;
mod house;
mod paste;

pub(crate) use house::{DevArgs, main};
