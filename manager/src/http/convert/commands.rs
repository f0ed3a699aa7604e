//! Commands and requests for them.

use std::collections::BTreeMap;
use std::time::Duration;

use api::base64;
use api::commands::{
    Cancel, CancelAnswer, CancelOutcome, Command, CommandError, CommandRef, CommandRequest, Gap, JobStarted,
    LimitsRequest, Pause, Progress, SHOWN, Stream, TextOrSecret, Usage,
};
use api::signals;
use api::time::Time;
use common::config::{HumanDuration, SecretBytes, Size};
use common::id::Name;
use common::model::{Phase, StreamName};
use serde::Serialize;
use serde_json::Value;
use store::types::{self, Idempotency, Limits, OpenSecrets, Options, Request, Secrets, Submitted};

use crate::http::problem::Refusal;
use crate::http::query::read;
use crate::service::seals::Seals;
use crate::service::{Caller, CommandView};

/// Reads what is to be run; the second part is how long it may wait for its start.
pub(in crate::http) fn request(request: CommandRequest) -> Result<(Request, Option<Duration>), Refusal> {
    let (stdin, secret_stdin) = input(request.stdin, request.stdin_b64)?;
    let mut open = OpenSecrets { stdin: secret_stdin, ..OpenSecrets::default() };
    let mut env = BTreeMap::new();
    for (name, value) in request.env {
        match value {
            TextOrSecret::Text(text) => drop(env.insert(name, text)),
            TextOrSecret::Secret(secret) => drop(open.env.insert(name, secret)),
        }
    }
    let secrets = if open == OpenSecrets::default() { Secrets::None } else { Secrets::Open(open) };
    let converted = Request {
        operation: request.operation,
        args: request.args.to_string(),
        timeout: request.timeout.map(|timeout| timeout.0),
        user: request.user,
        env,
        cwd: request.cwd,
        stdin,
        limits: limits(request.limits.unwrap_or_default())?,
        options: Options {
            umask: request.umask.as_deref().map(umask).transpose()?,
            nice: request.nice,
            oom_score: request.oom_score,
            keep_strays: request.keep_strays,
            stop_signal: request.stop_signal.as_deref().map(signal).transpose()?,
            stop_only_main: request.stop_only_main,
            grace: request.grace.map(|grace| grace.0),
        },
        idempotent: request.idempotent,
        secrets,
    };
    Ok((converted, request.expires_in.map(|span| span.0)))
}

/// What the standard input is, as it is and as a secret; at most one of both.
fn input(
    text: Option<TextOrSecret>,
    b64: Option<TextOrSecret>,
) -> Result<(Option<Vec<u8>>, Option<SecretBytes>), Refusal> {
    // Says where a wrong byte is, never what stands there.
    let decode = |text: &str| base64::decode(text).map_err(|error| Refusal::invalid("stdin_b64", error.to_string()));
    Ok(match (text, b64) {
        (Some(_), Some(_)) => return Err(Refusal::invalid("stdin_b64", "give `stdin` or `stdin_b64`, not both")),
        (Some(TextOrSecret::Text(text)), None) => (Some(text.into_bytes()), None),
        (Some(TextOrSecret::Secret(text)), None) => (None, Some(SecretBytes::new(text.expose().as_bytes().to_vec()))),
        (None, Some(TextOrSecret::Text(text))) => (Some(decode(&text)?), None),
        (None, Some(TextOrSecret::Secret(text))) => (None, Some(SecretBytes::new(decode(text.expose())?))),
        (None, None) => (None, None),
    })
}

fn limits(limits: LimitsRequest) -> Result<Limits, Refusal> {
    let size = |field: &str, text: Option<String>| -> Result<Option<u64>, Refusal> {
        text.map(|text| read::<Size>(field, &text).map(|size| size.0)).transpose()
    };
    let cpu_percent = limits.cpu.as_deref().map(percent).transpose()?;
    Ok(Limits {
        memory: size("limits.memory", limits.memory)?,
        memory_high: size("limits.memory_high", limits.memory_high)?,
        cpu_percent,
        tasks: limits.tasks,
        output: size("limits.output", limits.output)?,
        best_effort: limits.best_effort,
    })
}

fn percent(text: &str) -> Result<u32, Refusal> {
    let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| Refusal::invalid("limits.cpu", "a share of one core looks like `50%` or `200%`"))
}

/// Reads a mask as `umask` of the shell does: always octal.
fn umask(text: &str) -> Result<u32, Refusal> {
    let octal = (1..=4).contains(&text.len()) && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    let mask = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mask.ok_or_else(|| Refusal::invalid("umask", "a mask is octal and looks like `0027`"))
}

fn signal(text: &str) -> Result<u32, Refusal> {
    signals::number(text).map_err(|error| {
        let refusal = Refusal::invalid("stop_signal", format!("`{}`: {error}", common::escape::text(text)));
        match error.nearest {
            Some(near) => refusal.hint(format!("did you mean `{near}`?")),
            None => refusal,
        }
    })
}

/// Shows limits as they are asked for.
fn shown_limits(limits: Limits) -> Option<LimitsRequest> {
    if limits == Limits::default() {
        return None;
    }
    let size = |bytes: Option<u64>| bytes.map(|bytes| Size(bytes).to_string());
    Some(LimitsRequest {
        memory: size(limits.memory),
        memory_high: size(limits.memory_high),
        cpu: limits.cpu_percent.map(|percent| format!("{percent}%")),
        tasks: limits.tasks,
        output: size(limits.output),
        best_effort: limits.best_effort,
    })
}

/// Makes a key one of its caller, and says what request it stands for.
pub(in crate::http) fn idempotency(
    caller: &Caller,
    seals: &Seals,
    key: Option<String>,
    whom: &impl Serialize,
    request: &CommandRequest,
) -> Result<Option<Idempotency>, Refusal> {
    let Some(key) = key else {
        return Ok(None);
    };
    let whole = serde_json::to_vec(&(whom, request)).map_err(|error| Refusal::internal(error.to_string()))?;
    let whole = SecretBytes::new(whole);
    // The hash is kept, and a short secret could be guessed by it: then only the holder of the key can make one.
    let fingerprint = match request.has_secrets() {
        true => seals.fingerprint(whole.expose())?,
        false => *blake3::hash(whole.expose()).as_bytes(),
    };
    Ok(Some(Idempotency { key: format!("{}:{key}", caller.actor.0), fingerprint }))
}

/// Shows a command.
pub(in crate::http) fn command(view: CommandView) -> Command {
    let CommandView { command, reachable } = view;
    let is_final = command.phase.is_final();
    let end = command.end;
    let streams = streams(command.streams, is_final);
    let cancel = cancel(command.cancel, end.as_ref(), command.phase);
    let options = command.request.options;
    let mut shown = Command {
        id: command.id.0,
        uid: command.uid,
        agent: command.agent,
        operation: command.request.operation,
        args: json(&command.request.args),
        phase: command.phase,
        waiting: command.waiting,
        job: command.job.map(|job| job.0),
        attempt: command.attempt,
        created_at: Time(command.created_at),
        created_by: command.created_by.0,
        expires_at: Time(command.expires_at),
        timeout: command.request.timeout.map(HumanDuration),
        user: command.request.user,
        cwd: command.request.cwd,
        secrets: command.request.secrets.names().into_iter().map(|name| (name, SHOWN.to_owned())).collect(),
        limits: shown_limits(command.request.limits),
        umask: options.umask.map(|mask| format!("{mask:04o}")),
        nice: options.nice,
        oom_score: options.oom_score,
        keep_strays: options.keep_strays,
        stop_signal: options.stop_signal.map(signals::text),
        stop_only_main: options.stop_only_main,
        grace: options.grace.map(HumanDuration),
        idempotent: command.request.idempotent,
        accepted_at: command.accepted_at.map(Time),
        started_at: command.started_at.map(Time),
        finished_at: command.finished_at.map(Time),
        progress: command.progress.map(progress),
        changed: None,
        exit_code: None,
        signal: None,
        core_dumped: false,
        oom: false,
        error: None,
        cancel,
        pause: command.pause.map(|wish| pause(wish, is_final)),
        streams,
        usage: None,
        isolation: command.isolation,
        value: None,
        flags: Vec::new(),
        agent_reachable: reachable,
    };
    if let Some(end) = end {
        shown.changed = Some(end.changed);
        shown.exit_code = end.exit_code;
        shown.signal = end.signal;
        shown.core_dumped = end.core_dumped;
        shown.oom = end.oom;
        shown.usage = usage(&end);
        shown.error = end.error.map(|error| CommandError { code: error.code, text: error.text });
        shown.value = end.value.as_deref().map(json);
        shown.flags = end.flags;
    }
    shown
}

fn usage(end: &types::End) -> Option<Usage> {
    let ms = |us: u64| us.div_ceil(1_000);
    let usage = Usage {
        duration_ms: end.duration_us.map(ms),
        cpu_ms: end.cpu_us.map(ms),
        memory_peak: end.memory_peak,
        io_read: end.io_read,
        io_written: end.io_written,
        tasks_peak: end.tasks_peak,
    };
    (usage != Usage::default()).then_some(usage)
}

fn pause(wish: types::Pause, is_final: bool) -> Pause {
    Pause {
        paused: wish.paused,
        by: wish.by.0,
        at: Time(wish.at),
        pending: wish.pending && !is_final,
        refused: wish.refused,
    }
}

/// JSON that was checked when it came in; what cannot be read is shown as the text it is.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn progress(progress: types::Progress) -> Progress {
    Progress { current: progress.current, total: progress.total, text: progress.text }
}

fn streams(known: Vec<types::Stream>, is_final: bool) -> BTreeMap<StreamName, Stream> {
    // Both are always there, so that readers need not ask whether they are.
    let none = Stream { length: 0, end: is_final, gaps: Vec::new() };
    let mut shown = BTreeMap::from([StreamName::Stdout, StreamName::Stderr].map(|name| (name, none.clone())));
    for stream in known {
        let gaps = stream.gaps.into_iter().map(|gap| Gap { offset: gap.offset, length: gap.length }).collect();
        shown.insert(stream.name, Stream { length: stream.length, end: stream.end, gaps });
    }
    shown
}

fn cancel(wish: Option<types::Cancel>, end: Option<&types::End>, phase: Phase) -> Option<Cancel> {
    if let Some(wish) = wish {
        return Some(Cancel {
            by: wish.by.0,
            reason: wish.reason,
            at: Some(Time(wish.at)),
            pending: !phase.is_final(),
        });
    }
    // A wish that only the agent remembers, for example of a command that was imported as history.
    let end = end?;
    let by = end.cancelled_by.clone()?;
    Some(Cancel { by, reason: end.cancel_reason.clone(), at: None, pending: false })
}

/// Shows what was started.
pub(in crate::http) fn started(submitted: &Submitted, agents: &[Name]) -> JobStarted {
    let commands = submitted.commands.iter().zip(agents);
    JobStarted {
        job: submitted.job.map(|job| job.0),
        commands: commands.map(|(id, agent)| CommandRef { id: id.0, agent: agent.clone() }).collect(),
    }
}

/// Shows what became of a wish to stop a command.
pub(in crate::http) fn cancelled(answer: &types::CancelAnswer, view: CommandView) -> CancelAnswer {
    let (answer, phase) = match answer {
        types::CancelAnswer::Done => (CancelOutcome::Cancelled, Phase::Queued),
        types::CancelAnswer::Pending { phase, .. } => (CancelOutcome::CancelPending, *phase),
        types::CancelAnswer::AlreadyFinal(phase) => (CancelOutcome::AlreadyFinal, *phase),
    };
    CancelAnswer { answer, phase, command: command(view) }
}
