//! How a command runs: as whom, where, with which environment, limits and options.

use common::config::SecretBytes;
use common::limits;
use store::types::{Limits, Options, Request, Secrets};

use super::Checked;
use crate::limits::{MAX_BYTES, MAX_CPU, MAX_PATH, MAX_TASKS, MAX_USER, MIN_MEMORY};
use crate::service::error::ServiceError;

/// Checks everything around the arguments of a command that runs a process.
pub(super) fn check(request: &Request) -> Checked {
    if let Some(user) = &request.user {
        check_user(user)?;
    }
    if let Some(cwd) = &request.cwd {
        check_path("cwd", cwd)?;
    }
    environment(request)?;
    resources(&request.limits)?;
    options(&request.options)
}

/// Refuses what means nothing where no process runs.
pub(super) fn none(request: &Request) -> Checked {
    let options = &request.options;
    let odd = [
        ("stdin", request.stdin.is_some() || secret_stdin(request).is_some()),
        ("cwd", request.cwd.is_some()),
        ("env", !request.env.is_empty() || !request.secrets.is_none()),
        ("user", request.user.is_some()),
        ("limits", request.limits != Limits::default()),
        ("umask", options.umask.is_some()),
        ("nice", options.nice.is_some()),
        ("oom_score", options.oom_score.is_some()),
        ("keep_strays", options.keep_strays),
        ("stop_signal", options.stop_signal.is_some()),
        ("stop_only_main", options.stop_only_main),
        ("grace", options.grace.is_some()),
    ];
    match odd.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(ServiceError::invalid(field, "means nothing to agent.ping, which runs no process")),
        None => Ok(()),
    }
}

fn check_user(user: &str) -> Checked {
    if user.is_empty() || user.chars().count() > MAX_USER {
        return Err(ServiceError::invalid("user", format!("must have 1 to {MAX_USER} characters")));
    }
    if user.contains(|c: char| matches!(c, ':' | '/') || c.is_control() || c.is_whitespace()) {
        return Err(ServiceError::invalid("user", "must be a name or a number, without ':', '/' and blanks"));
    }
    // What some reader could take for a number is one exactly as everybody reads it: rights are decided by the text, and
    // `+0` or `00` would be root.
    let digits = user.strip_prefix('+').unwrap_or(user);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && common::user::number(user).is_none() {
        let text = format!("must be at most {} as a number, without a sign or zeros in front", u32::MAX - 1);
        return Err(ServiceError::invalid("user", text));
    }
    if user.starts_with('+') {
        return Err(ServiceError::invalid("user", "must not begin with '+'"));
    }
    Ok(())
}

/// The standard input, when it is a secret that was not sealed yet.
pub(super) fn secret_stdin(request: &Request) -> Option<&SecretBytes> {
    match &request.secrets {
        Secrets::Open(open) => open.stdin.as_ref(),
        Secrets::None | Secrets::Sealed(_) => None,
    }
}

/// All variables. Secret ones count like others; no error repeats a value.
fn environment(request: &Request) -> Checked {
    let plain = request.env.iter().map(|(name, value)| (name, value.as_str()));
    let secret = match &request.secrets {
        Secrets::Open(open) => Some(open.env.iter().map(|(name, value)| (name, value.expose()))),
        Secrets::None | Secrets::Sealed(_) => None,
    };
    let all: Vec<_> = plain.chain(secret.into_iter().flatten()).collect();
    if all.len() > limits::MAX_ENV {
        return Err(ServiceError::invalid("env", format!("must have at most {} variables", limits::MAX_ENV)));
    }
    let bytes: usize = all.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits::MAX_ENV_BYTES {
        return Err(ServiceError::invalid("env", format!("must have at most {} bytes", limits::MAX_ENV_BYTES)));
    }
    for (name, value) in all {
        let field = format!("env.{}", common::escape::text(name));
        if name.is_empty() || name.contains('=') {
            return Err(ServiceError::invalid(field, "must have a name, without '='"));
        }
        no_nul(&field, name)?;
        no_nul(&field, value)?;
    }
    Ok(())
}

/// Checks an absolute path.
pub(super) fn check_path(field: &str, path: &str) -> Checked {
    if !path.starts_with('/') {
        return Err(ServiceError::invalid(field, "must be an absolute path"));
    }
    if path.len() >= MAX_PATH {
        return Err(ServiceError::invalid(field, "is longer than a path can be"));
    }
    no_nul(field, path)
}

/// Refuses a text that no system call takes.
pub(super) fn no_nul(field: &str, text: &str) -> Checked {
    if text.contains('\0') { Err(ServiceError::invalid(field, "contains a NUL")) } else { Ok(()) }
}

fn resources(limits: &Limits) -> Checked {
    for (field, bytes, least) in [
        ("limits.memory", limits.memory, MIN_MEMORY),
        ("limits.memory_high", limits.memory_high, MIN_MEMORY),
        ("limits.output", limits.output, common::limits::MIN_OUTPUT_QUOTA),
    ] {
        match bytes {
            Some(0) => return Err(ServiceError::invalid(field, "must be more than 0")),
            Some(bytes) if bytes < least => {
                return Err(ServiceError::invalid(field, format!("must be at least {}", common::config::Size(least))));
            }
            Some(bytes) if bytes > MAX_BYTES => return Err(ServiceError::invalid(field, "is more than any host has")),
            _ => {}
        }
    }
    if let (Some(high), Some(most)) = (limits.memory_high, limits.memory)
        && high > most
    {
        return Err(ServiceError::invalid("limits.memory_high", "must be at most limits.memory"));
    }
    if limits.cpu_percent.is_some_and(|percent| !(1..=MAX_CPU).contains(&percent)) {
        return Err(ServiceError::invalid("limits.cpu", format!("must be from 1% to {MAX_CPU}%")));
    }
    if limits.tasks.is_some_and(|tasks| !(1..=MAX_TASKS).contains(&tasks)) {
        return Err(ServiceError::invalid("limits.tasks", format!("must be from 1 to {MAX_TASKS}")));
    }
    Ok(())
}

fn options(options: &Options) -> Checked {
    if options.umask.is_some_and(|mask| mask > limits::MAX_UMASK) {
        return Err(ServiceError::invalid("umask", format!("must be at most {:04o}", limits::MAX_UMASK)));
    }
    let ranges = [("nice", options.nice, limits::NICE), ("oom_score", options.oom_score, limits::OOM_SCORE)];
    for (field, value, range) in ranges {
        if value.is_some_and(|value| !range.contains(&value)) {
            return Err(ServiceError::invalid(field, format!("must be from {} to {}", range.start(), range.end())));
        }
    }
    if options.stop_signal.is_some_and(|signal| !(1..=limits::MAX_SIGNAL).contains(&signal)) {
        return Err(ServiceError::invalid("stop_signal", format!("must be from 1 to {}", limits::MAX_SIGNAL)));
    }
    super::grace(options.grace)
}
