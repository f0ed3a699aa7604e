//! Wire messages to records of the store and back, each in one function.
//!
//! What an agent says is cut to its limits here. What cannot be true is a malformed message: it is refused and changes
//! nothing, and the session goes on with everything else (protocol R-RES-6).

use std::collections::BTreeMap;
use std::time::Duration;

use common::handshake::truncate;
use common::id::{CommandId, Generation, JobId, Name, Uid};
use common::limits;
use common::model::{Outcome, StreamName};
use common::version::capability;
use common::wire::{self, nak};
use prost::Message;
use store::types::{
    AckAnswer, Cancel, Command, End, EndError, Gap, Held, HeldPhase, Import, Limits, Options, Pause, PauseHeard,
    Progress, ProgressReport, Reported, Request, SealedSecrets, Secrets, StreamEnd,
};

use crate::limits::{MAX_FLAGS, MAX_RESULT_PIECES, MAX_VALUE_BYTES};
use crate::service::validate::{GUARDS, SCRIPT_RUN};

/// What a command is called of which its agent remembers no more than the end.
const UNKNOWN_OPERATION: &str = "unknown";

/// What an agent said about one command cannot be true; the text says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

type Checked<T> = Result<T, Malformed>;

/// Reads the uid of a message.
pub fn uid(bytes: &[u8]) -> Checked<Uid> {
    Uid::from_wire(bytes).map_err(|_| Malformed("a uid has not 16 bytes"))
}

/// Reads the answer to a Command.
pub fn ack(ack: &wire::CommandAck) -> Checked<AckAnswer> {
    use wire::command_ack::Answer;
    Ok(match ack.answer() {
        Answer::Accepted => AckAnswer::Accepted,
        Answer::Duplicate => AckAnswer::Duplicate(phase(ack.phase)?),
        Answer::Deferred => AckAnswer::Deferred { until: ack.deferred_until_ms },
        Answer::Refused => AckAnswer::Refused { code: short(&ack.code), text: short(&ack.text) },
        Answer::Expired => AckAnswer::Expired,
        Answer::Unspecified => return Err(Malformed("an answer to a Command says nothing")),
    })
}

/// Reads how far a command has come.
pub fn progress(said: &wire::CommandProgress) -> Checked<ProgressReport> {
    let phase = phase(said.phase)?;
    if phase == HeldPhase::Ended {
        return Err(Malformed("an end is reported by CommandResult, not as progress"));
    }
    let waits = phase == HeldPhase::Waiting;
    // What a waiting command waits for is said once; its progress is its place in the queue.
    let about = if waits { "" } else { said.text.as_str() };
    let counts = said.total > 0 || said.current > 0 || !about.is_empty();
    Ok(ProgressReport {
        phase,
        progress: counts.then(|| Progress { current: said.current, total: said.total, text: short(about) }),
        waiting: waits.then(|| short(&said.text)),
        isolation: text(&said.isolation),
        at: some(said.at_ms),
    })
}

/// Reads the end of a command.
pub fn reported(said: &wire::CommandResult) -> Checked<Reported> {
    let outcome = Outcome::from_wire(said.outcome).ok_or(Malformed("a result has no outcome"))?;
    if said.value.len() > MAX_VALUE_BYTES {
        return Err(Malformed("the value of a result is too large"));
    }
    let pieces = |count: fn(&wire::StreamEnd) -> usize| said.streams.iter().map(count).sum::<usize>();
    if pieces(|stream| stream.gaps.len()) > MAX_RESULT_PIECES
        || pieces(|stream| stream.segments.len()) > MAX_RESULT_PIECES
    {
        return Err(Malformed("a result names too many gaps or segments"));
    }
    let value = match said.value.is_empty() {
        true => None,
        false => {
            Some(String::from_utf8(said.value.to_vec()).map_err(|_| Malformed("the value of a result is not UTF-8"))?)
        }
    };
    let error = (!said.error_code.is_empty())
        .then(|| EndError { code: short(&said.error_code), text: short(&said.error_text) });
    let end = End {
        outcome,
        changed: said.changed,
        exit_code: said.has_exit_code.then_some(said.exit_code),
        signal: (said.signal != 0).then_some(said.signal),
        core_dumped: said.core_dumped,
        oom: said.oom,
        error,
        duration_us: some(said.duration_us),
        cpu_us: some(said.cpu_us),
        memory_peak: some(said.memory_peak),
        io_read: some(said.io_read),
        io_written: some(said.io_written),
        tasks_peak: some(said.tasks_peak),
        flags: said.flags.iter().take(MAX_FLAGS).map(|flag| short(flag)).collect(),
        value,
        started_ms: some(said.started_ms),
        finished_ms: some(said.finished_ms),
        cancelled_by: text(&said.cancelled_by),
        cancel_reason: text(&said.cancel_reason),
        lengths_are_lower_bounds: said.lengths_are_lower_bounds,
    };
    let mut streams = Vec::with_capacity(said.streams.len().min(StreamName::ALL.len()));
    for stream in &said.streams {
        // A stream that this build does not know belongs to a newer agent; its bytes were never asked for.
        if let Some(name) = StreamName::from_wire(stream.stream) {
            streams.push(stream_end(name, stream)?);
        }
    }
    Ok(Reported { end, streams, isolation: text(&said.isolation) })
}

fn stream_end(name: StreamName, said: &wire::StreamEnd) -> Checked<StreamEnd> {
    let mut segments = Vec::with_capacity(said.segments.len());
    for segment in &said.segments {
        // An agent that does not know the hash of a segment says none; there is nothing to compare later.
        if segment.hash.is_empty() {
            continue;
        }
        let hash =
            <[u8; 32]>::try_from(&segment.hash[..]).map_err(|_| Malformed("the hash of a segment has not 32 bytes"))?;
        segments.push((segment.offset, segment.length, hash));
    }
    let gaps = said.gaps.iter().map(|gap| Gap { offset: gap.offset, length: gap.length }).collect();
    Ok(StreamEnd { name, length: said.length, gaps, segments })
}

/// Reads one line of an inventory.
pub fn held(item: &wire::InventoryItem) -> Checked<Held> {
    Ok(Held {
        uid: uid(&item.uid)?,
        id: CommandId(item.id),
        generation: Generation(item.generation),
        phase: phase(item.phase)?,
        started_ms: some(item.started_ms),
        tombstone: item.tombstone,
    })
}

/// Reads a command that only the agent knew, from the bytes it once received.
pub fn import(agent: &Name, journal: Uid, held: &Held, command: &[u8]) -> Checked<Import> {
    let command = wire::Command::decode(command).map_err(|_| Malformed("a described command cannot be read"))?;
    if uid(&command.uid)? != held.uid {
        return Err(Malformed("a described command has another uid than its line"));
    }
    let args = String::from_utf8(command.args.to_vec())
        .map_err(|_| Malformed("the arguments of a described command are not UTF-8"))?;
    let mut env = BTreeMap::new();
    for var in command.env {
        env.insert(var.name, String::from_utf8_lossy(&var.value).into_owned());
    }
    let limits = command.limits.unwrap_or_default();
    let or = |said: String, unsaid: &str| if said.is_empty() { unsaid.to_owned() } else { said };
    let request = Request {
        operation: or(short(&command.operation), UNKNOWN_OPERATION),
        args: or(args, "{}"),
        timeout: some(command.timeout_ms).map(Duration::from_millis),
        user: text(&command.user),
        env,
        cwd: text(&command.cwd),
        stdin: command.has_stdin.then(|| command.stdin.to_vec()),
        secrets: known_by_name(command.secrets.as_ref()),
        limits: Limits {
            memory: some(limits.memory_max),
            memory_high: some(limits.memory_high),
            cpu_percent: (limits.cpu_percent != 0).then_some(limits.cpu_percent),
            tasks: (limits.tasks != 0).then_some(limits.tasks),
            output: some(limits.output),
            best_effort: limits.best_effort,
        },
        options: Options {
            umask: command.has_umask.then_some(command.umask),
            nice: (command.nice != 0).then_some(command.nice),
            oom_score: (command.oom_score != 0).then_some(command.oom_score),
            keep_strays: command.keep_strays,
            stop_signal: (command.stop_signal != 0).then_some(command.stop_signal),
            stop_only_main: command.stop_only_main,
            grace: command.has_grace.then(|| Duration::from_millis(command.grace_ms.into())),
        },
        idempotent: command.idempotent,
    };
    Ok(Import {
        agent: agent.clone(),
        uid: held.uid,
        id: held.id,
        generation: held.generation,
        job: some(command.job_id).map(JobId),
        attempt: command.attempt.max(1),
        request,
        created_at: command.created_ms,
        expires_at: command.expires_ms,
        phase: held.phase,
        tombstone: held.tombstone,
        journal,
    })
}

/// What was secret of a command that only its agent knew: it names it, and keeps the values to itself.
fn known_by_name(secrets: Option<&wire::Secrets>) -> Secrets {
    let Some(secrets) = secrets else { return Secrets::None };
    let mut env: Vec<_> = secrets.env.keys().cloned().collect();
    env.sort_unstable();
    Secrets::Sealed(SealedSecrets { env, stdin: secrets.has_stdin, sealed: String::new() })
}

/// Builds the Command frame, all but its secrets: those are opened when it is on its way.
pub fn command(command: &Command, store_position: u64) -> wire::Command {
    let request = &command.request;
    let (limits, options) = (&request.limits, &request.options);
    let env = request
        .env
        .iter()
        .map(|(name, value)| wire::EnvVar { name: name.clone(), value: value.clone().into_bytes().into() })
        .collect();
    wire::Command {
        uid: command.uid.to_wire(),
        id: command.id.0,
        operation: request.operation.clone(),
        args: request.args.clone().into_bytes().into(),
        expires_ms: command.expires_at,
        timeout_ms: request.timeout.map_or(0, |timeout| millis(timeout).max(1)),
        user: request.user.clone().unwrap_or_default(),
        env,
        cwd: request.cwd.clone().unwrap_or_default(),
        stdin: request.stdin.clone().unwrap_or_default().into(),
        has_stdin: request.stdin.is_some(),
        limits: (*limits != Limits::default()).then(|| wire::CommandLimits {
            memory_max: limits.memory.unwrap_or(0),
            memory_high: limits.memory_high.unwrap_or(0),
            cpu_percent: limits.cpu_percent.unwrap_or(0),
            tasks: limits.tasks.unwrap_or(0),
            output: limits.output.unwrap_or(0),
            best_effort: limits.best_effort,
        }),
        idempotent: request.idempotent,
        generation: command.generation.0,
        job_id: command.job.map_or(0, |job| job.0),
        attempt: command.attempt,
        store_position,
        created_ms: command.created_at,
        umask: options.umask.unwrap_or(0),
        has_umask: options.umask.is_some(),
        nice: options.nice.unwrap_or(0),
        oom_score: options.oom_score.unwrap_or(0),
        keep_strays: options.keep_strays,
        stop_signal: options.stop_signal.unwrap_or(0),
        stop_only_main: options.stop_only_main,
        needs: needs(request).into_iter().map(str::to_owned).collect(),
        grace_ms: options.grace.map_or(0, grace_ms),
        has_grace: options.grace.is_some(),
        secrets: None,
    }
}

/// Names what an agent must know to run a request as it is meant.
fn needs(request: &Request) -> Vec<&'static str> {
    let Options { umask, nice, oom_score, keep_strays, stop_signal, stop_only_main, grace } = &request.options;
    let numbers = [*nice, *oom_score].into_iter().flatten().any(|number| number != 0);
    let options = umask.is_some() || numbers || stop_signal.is_some() || *stop_only_main || grace.is_some();
    let used = [
        (capability::GUARDS, has_guards(&request.args)),
        (capability::SCRIPT, request.operation == SCRIPT_RUN),
        (capability::OPTIONS, options),
        (capability::KEEP_STRAYS, *keep_strays),
        (capability::SECRETS, !request.secrets.is_none()),
    ];
    used.into_iter().filter_map(|(word, used)| used.then_some(word)).collect()
}

fn has_guards(args: &str) -> bool {
    // Most arguments are not worth reading a second time, and some are half a megabyte.
    let may = GUARDS.iter().any(|guard| args.contains(guard));
    may && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(args)
        .is_ok_and(|args| GUARDS.iter().any(|guard| args.contains_key(*guard)))
}

/// Builds the CommandPause frame.
pub fn pause(uid: Uid, id: CommandId, wish: &Pause, generation: Generation) -> wire::CommandPause {
    wire::CommandPause {
        uid: uid.to_wire(),
        id: id.0,
        paused: wish.paused,
        by: short(&wish.by.0),
        wish: wish.wish,
        generation: generation.0,
    }
}

/// Reads a Nak to a CommandPause; `None` when the agent may be asked again.
pub fn pause_heard(code: nak::Code) -> Option<PauseHeard> {
    let refused = |code: &str| Some(PauseHeard::Refused(code.to_owned()));
    match code {
        nak::Code::Busy => None,
        nak::Code::Unknown => Some(PauseHeard::Unknown),
        nak::Code::Unsupported => refused("unsupported"),
        nak::Code::NotMine => refused("not_mine"),
        nak::Code::Conflict => refused("conflict"),
        nak::Code::Invalid | nak::Code::Unspecified => refused("invalid"),
    }
}

/// Builds the CommandCancel frame.
pub fn cancel(uid: Uid, id: CommandId, wish: &Cancel, expires_ms: u64, generation: Generation) -> wire::CommandCancel {
    let grace = wish.grace.map_or(limits::GRACE_UNSET, grace_ms);
    wire::CommandCancel {
        uid: uid.to_wire(),
        id: id.0,
        by: short(&wish.by.0),
        reason: short(wish.reason.as_deref().unwrap_or_default()),
        grace_ms: grace,
        expires_ms,
        generation: generation.0,
    }
}

fn phase(value: i32) -> Checked<HeldPhase> {
    use wire::CommandPhase as P;
    match P::try_from(value) {
        Ok(P::Accepted) => Ok(HeldPhase::Accepted),
        Ok(P::Waiting) => Ok(HeldPhase::Waiting),
        Ok(P::Running) => Ok(HeldPhase::Running),
        Ok(P::Paused) => Ok(HeldPhase::Paused),
        Ok(P::Stopping) => Ok(HeldPhase::Stopping),
        Ok(P::Ended) => Ok(HeldPhase::Ended),
        Ok(P::Unspecified) | Err(_) => Err(Malformed("a phase is missing")),
    }
}

fn short(text: &str) -> String {
    let mut text = text.to_owned();
    truncate(&mut text, limits::MAX_TEXT_BYTES);
    text
}

fn text(said: &str) -> Option<String> {
    (!said.is_empty()).then(|| short(said))
}

/// Zero stands for "never" or "none" on the wire.
fn some(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

/// A grace, never mistaken for the word that none was named.
fn grace_ms(grace: Duration) -> u32 {
    u32::try_from(millis(grace)).unwrap_or(u32::MAX).min(limits::GRACE_UNSET - 1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_true_is_malformed() {
        assert!(uid(&[0; 15]).is_err());
        assert!(ack(&wire::CommandAck::default()).is_err());
        assert!(progress(&wire::CommandProgress::default()).is_err());
        let ended = wire::CommandProgress { phase: wire::CommandPhase::Ended.into(), ..Default::default() };
        assert!(progress(&ended).is_err());
        assert!(reported(&wire::CommandResult::default()).is_err());
        let result = wire::CommandResult { outcome: wire::Outcome::Succeeded.into(), ..Default::default() };
        assert!(reported(&result).is_ok());
        let large = wire::CommandResult { value: vec![b'1'; MAX_VALUE_BYTES + 1].into(), ..result.clone() };
        assert!(reported(&large).is_err());
        let binary = wire::CommandResult { value: vec![0xff].into(), ..result.clone() };
        assert!(reported(&binary).is_err());
        let segments = vec![wire::SegmentHash { hash: vec![0; 31].into(), ..Default::default() }];
        let streams = vec![wire::StreamEnd { stream: wire::Stream::Stdout.into(), segments, ..Default::default() }];
        assert!(reported(&wire::CommandResult { streams, ..result }).is_err());
    }

    /// Protocol R-RES-7.
    #[test]
    fn a_result_names_so_many_gaps_and_segments_and_no_more() {
        let result = |gaps: usize, segments: usize| {
            let end = |stream: wire::Stream, gaps, segments| wire::StreamEnd {
                stream: stream.into(),
                gaps: vec![wire::Gap::default(); gaps],
                segments: vec![wire::SegmentHash::default(); segments],
                ..Default::default()
            };
            // Shared among the streams: what counts is what one row has to hold.
            let streams = vec![
                end(wire::Stream::Stdout, gaps / 2, segments / 2),
                end(wire::Stream::Stderr, gaps - gaps / 2, segments - segments / 2),
            ];
            reported(&wire::CommandResult { outcome: wire::Outcome::Succeeded.into(), streams, ..Default::default() })
        };
        assert!(result(MAX_RESULT_PIECES, MAX_RESULT_PIECES).is_ok());
        assert!(result(MAX_RESULT_PIECES + 1, 0).is_err());
        assert!(result(0, MAX_RESULT_PIECES + 1).is_err());
    }

    #[test]
    fn a_segment_without_a_hash_is_one_that_is_not_known() {
        let segments = vec![
            wire::SegmentHash { offset: 0, length: 3, ..Default::default() },
            wire::SegmentHash { offset: 3, length: 2, hash: vec![7; 32].into() },
        ];
        let end = wire::StreamEnd { stream: wire::Stream::Stdout.into(), length: 5, segments, ..Default::default() };
        let result =
            wire::CommandResult { outcome: wire::Outcome::Succeeded.into(), streams: vec![end], ..Default::default() };
        let kept: Vec<_> = reported(&result).into_iter().flat_map(|said| said.streams).collect();
        assert!(matches!(kept.as_slice(), [end] if end.length == 5 && end.segments == [(3, 2, [7; 32])]), "{kept:?}");
    }

    #[test]
    fn a_grace_is_never_mistaken_for_the_default() {
        let wish = |grace| Cancel {
            by: store::types::Actor("a".to_owned()),
            reason: None,
            at: 0,
            grace,
            begun: None,
            keys: Vec::new(),
        };
        let sent = |grace| cancel(Uid([1; 16]), CommandId(1), &wish(grace), 0, Generation(1)).grace_ms;
        assert_eq!(sent(None), limits::GRACE_UNSET);
        assert_eq!(sent(Some(Duration::ZERO)), 0);
        assert_eq!(sent(Some(Duration::from_millis(limits::GRACE_UNSET.into()))), limits::GRACE_UNSET - 1);
    }
}
