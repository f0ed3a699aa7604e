//! The whole of a request, and the small values around commands: agents, validity, reason, grace, names of tokens.

use std::time::Duration;

use common::id::Name;
use common::limits;
use site::roles::{ADMIN, Roles};
use store::types::Request;

use super::arguments::{self, AGENT_PING};
use super::{Checked, posture};
use crate::limits::{MAX_TIMEOUT, MAX_TOKEN_NAME};
use crate::service::error::ServiceError;

/// Actors of the audit that are nobody's name.
const OURS: [&str; 2] = ["manager", "unknown"];

/// Checks the list of agents.
///
/// # Errors
/// When it is empty, too long, or names one twice.
pub fn agents(agents: &[Name], most: usize) -> Checked {
    if agents.is_empty() {
        return Err(ServiceError::invalid("agents", "names no agent"));
    }
    if agents.len() > most {
        return Err(ServiceError::invalid(
            "agents",
            format!("names {} agents, at most {most} are taken at once", agents.len()),
        ));
    }
    let mut seen = std::collections::HashSet::with_capacity(agents.len());
    match agents.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(ServiceError::invalid("agents", format!("names {twice} twice"))),
        None => Ok(()),
    }
}

/// Checks what is to be done.
///
/// # Errors
/// The first thing that is wrong, with the path of the value.
pub fn request(request: &Request) -> Checked {
    arguments::check(&request.operation, &request.args)?;
    if request.operation == AGENT_PING {
        posture::none(request)?;
    }
    if request.timeout.is_some_and(|timeout| timeout.is_zero() || timeout > MAX_TIMEOUT) {
        return Err(ServiceError::invalid("timeout", "must be more than 0 and at most 365 days"));
    }
    let secret = posture::secret_stdin(request).map_or(0, |stdin| stdin.expose().len());
    if request.stdin.as_ref().map_or(secret, Vec::len) > limits::MAX_STDIN_BYTES {
        return Err(ServiceError::invalid("stdin", format!("must have at most {} bytes", limits::MAX_STDIN_BYTES)));
    }
    posture::check(request)
}

/// Checks how long a request is valid.
///
/// # Errors
/// When it is never valid or valid for too long.
pub fn expiry(expires_in: Option<Duration>) -> Checked {
    match expires_in {
        Some(validity) if validity.is_zero() => Err(ServiceError::invalid("expires_in", "must be more than 0")),
        Some(validity) if validity > limits::MAX_EXPIRY => {
            Err(ServiceError::invalid("expires_in", "must be at most 30 days"))
        }
        _ => Ok(()),
    }
}

/// Checks the reason of a cancel.
///
/// # Errors
/// When it is longer than the link carries.
pub fn reason(reason: Option<&str>) -> Checked {
    match reason {
        Some(reason) if reason.len() > limits::MAX_TEXT_BYTES => {
            Err(ServiceError::invalid("reason", format!("must have at most {} bytes", limits::MAX_TEXT_BYTES)))
        }
        _ => Ok(()),
    }
}

/// Checks the grace of a cancel.
///
/// # Errors
/// When it is longer than an hour.
pub fn grace(grace: Option<Duration>) -> Checked {
    match grace {
        Some(grace) if grace > limits::MAX_GRACE => Err(ServiceError::invalid("grace", "must be at most 1 hour")),
        _ => Ok(()),
    }
}

/// Checks that roles are roles, each once.
///
/// # Errors
/// The first that is none, with the nearest one.
pub fn roles(wanted: &[String], known: &Roles) -> Checked {
    for (at, role) in wanted.iter().enumerate() {
        let wrong = |text: String, hint| {
            Err(ServiceError::Invalid { code: "invalid", field: format!("roles[{at}]"), text, hint })
        };
        let shown = common::escape::text(role);
        if wanted.iter().take(at).any(|other| other == role) {
            return wrong(format!("the role {shown} stands twice in this list"), None);
        }
        if role != ADMIN && known.rules(role).is_none() {
            let names = known.names().chain([ADMIN]);
            let hint = common::suggest::nearest(role, names).map(|near| format!("did you mean {near}?"));
            return wrong(format!("there is no role {shown}"), hint);
        }
    }
    Ok(())
}

/// Checks the name of a token; it appears in audit rows and in `created_by`.
///
/// # Errors
/// When it is not a short name.
pub fn token_name(name: &str) -> Checked {
    if OURS.contains(&name) {
        return Err(ServiceError::invalid("name", format!("{name} is how the audit names what no operator did")));
    }
    let short = name.len() <= MAX_TOKEN_NAME && name.parse::<Name>().is_ok();
    if short {
        Ok(())
    } else {
        Err(ServiceError::invalid("name", "must have 1 to 64 characters of letters, digits, '.', '-' and '_'"))
    }
}
