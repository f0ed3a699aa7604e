//! What the end of a command says about its processes. Decides, and does nothing: no clock, no files.

use common::model::{Flag, Outcome};
use common::wire::Command;
use nix::errno::Errno;
use rustix::process::WaitStatus;

use super::guards::{Guard, Question};
use super::program::{Program, Words};
use super::run::ShimError;
use super::spawn::{NotStarted, Step};
use super::watch::{Cause, Watch};
use crate::commands::{End, RecordError};

/// How far a command came.
pub(super) enum Course {
    /// The main process was let go; it may have failed before its program began.
    Ran(Option<NotStarted>),
    /// A guard found that there is nothing to do; the value that says which.
    Skipped(String),
    /// A guard gave no answer.
    GuardFailed(String),
    /// A guard was asked, and then the main process could not be made.
    NotMade(String),
    /// Cancelled or out of time before the main process.
    Stopped,
}

/// When a command began, as START has it, and when it was over: Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) started_ms: u64,
    pub(super) finished_ms: u64,
}

/// The end, without what the kernel counted and without streams.
pub(super) fn end(command: &Command, program: &Program, watch: &Watch<'_>, course: Course, span: Span) -> End {
    let status = match course {
        Course::Ran(_) => watch.status(),
        _ => None,
    };
    let code = status.and_then(WaitStatus::exit_status);
    let outcome = match (&watch.cause, &course) {
        (Some(Cause::Cancel(_)), _) => Outcome::Cancelled,
        (Some(Cause::Timeout), _) => Outcome::TimedOut,
        (None, Course::Skipped(_)) => Outcome::Succeeded,
        (None, Course::Ran(_)) if code == Some(0) => Outcome::Succeeded,
        (None, _) => Outcome::Failed,
    };
    let mut end = End::without_process(outcome, span.finished_ms);
    end.flags.extend(watch.flags.iter().map(ToString::to_string));
    if watch.crew.as_ref().is_some_and(|crew| crew.escaped) {
        end.flags.push(Flag::Escaped.to_string());
    }
    match &watch.cause {
        Some(Cause::Cancel(request)) => {
            end.cancelled_by.clone_from(&request.by);
            end.cancel_reason.clone_from(&request.reason);
        }
        Some(Cause::Timeout) => {
            let text = format!("it did not end within {} ms", command.timeout_ms);
            end = end.because("timeout", text);
        }
        None => {}
    }
    let before_main = !program.guards.is_empty() || matches!(course, Course::Skipped(_));
    let because = match course {
        Course::Ran(Some(not)) => Some((not.step.code(), explain(command, &program.main, not))),
        Course::GuardFailed(text) => Some(("guard", text)),
        Course::NotMade(text) => Some(("fork", text)),
        Course::Skipped(value) => {
            end.flags.push(Flag::Skipped.to_string());
            end.value = value;
            None
        }
        Course::Ran(None) => {
            end.changed = true;
            end.exit_code = code;
            end.signal = status.and_then(WaitStatus::terminating_signal).map(i32::unsigned_abs);
            end.core_dumped = end.signal.is_some() && status.is_some_and(|status| libc::WCOREDUMP(status.as_raw()));
            None
        }
        Course::Stopped => None,
    };
    if let Some((code, text)) = because
        && end.error.is_none()
    {
        end = end.because(code, text);
    }
    // A process that was refused its program has not begun; a guard that was asked has.
    if let Some(duration) = watch.duration().filter(|_| end.changed || before_main) {
        end.started_ms = span.started_ms;
        end.duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    }
    end
}

/// Why a guard could not be asked.
pub(super) fn guard_not_started(command: &Command, program: &Program, guard: &Guard, not: NotStarted) -> String {
    let kind = guard.kind.word();
    let why = match &guard.question {
        Question::Words(words) => explain(command, words, not),
        Question::Path(_) if not.step == Step::Look => {
            format!("cannot look at {}: {}", guard.subject(), errno(not.errno))
        }
        Question::Path(_) => explain(command, &program.main, not),
    };
    format!("the guard {kind}: {why}")
}

/// Why START is not on the disk: a stable code and a sentence.
pub(super) fn not_recorded(error: &ShimError) -> (&'static str, String) {
    let full = matches!(error, ShimError::Record(RecordError::File(error)) if error.is_full());
    let code = if full { "no_space" } else { "record" };
    (code, format!("the start could not be recorded, so nothing was run: {}", common::error::Chain(error)))
}

fn explain(command: &Command, words: &Words, not: NotStarted) -> String {
    let what = match not.step {
        Step::Setup => "prepare the process".to_owned(),
        Step::Fence => "enter the cgroup".to_owned(),
        Step::User => format!("become user {}", common::escape::text(&command.user)),
        Step::Cwd => format!("enter the directory {}", common::escape::text(&command.cwd)),
        Step::Nice => format!("change the priority by {}", command.nice),
        Step::OomScore => format!("set the OOM score to {}", command.oom_score),
        Step::Look => "look".to_owned(),
        Step::Exec | Step::Loader => format!("execute {}", words.name()),
    };
    let mut text = format!("cannot {what}: {}", errno(not.errno));
    match (not.step, &words.path) {
        (Step::Loader, _) => text.push_str("; the file is there, but not the interpreter or loader it names"),
        (Step::Exec, Some(path)) if not.errno == libc::ENOENT => {
            text.push_str(&format!("; looked for in {}", common::escape::text(path)));
        }
        _ => {}
    }
    text
}

fn errno(code: i32) -> String {
    let errno = Errno::from_raw(code);
    format!("{} ({errno:?})", errno.desc())
}
