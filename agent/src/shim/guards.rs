//! Guards: questions that are asked before the main process, and whose answers may make it needless.
//!
//! Each is a process of its own, made like the main one: in the same fence, with the same user, directory, environment
//! and posture, counted for the timeout, and stopped by a cancel. What it prints is thrown away.

use std::ffi::CString;

use rustix::process::WaitStatus;
use serde_json::json;

use super::program::Words;
use super::spawn::{NOT_THERE, THERE, Task};

/// What a guard means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GuardKind {
    /// Nothing to do when the path exists.
    Creates,
    /// Nothing to do when the path does not exist.
    Removes,
    /// Nothing to do when the program succeeds.
    Unless,
    /// Nothing to do when the program fails.
    OnlyIf,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Question {
    Path(CString),
    Words(Words),
}

/// One guard.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) kind: GuardKind,
    pub(super) question: Question,
}

/// How the process of a guard ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Code(i32),
    Signal(i32),
    Unseen,
}

impl From<Option<WaitStatus>> for Answer {
    fn from(status: Option<WaitStatus>) -> Self {
        let code = status.and_then(WaitStatus::exit_status).map(Self::Code);
        code.or_else(|| status.and_then(WaitStatus::terminating_signal).map(Self::Signal)).unwrap_or(Self::Unseen)
    }
}

/// What an answer means for the main process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Needed,
    /// The wanted result is there already; a sentence says by what it is known.
    Needless(String),
    /// No answer: neither yes nor no.
    Unknown(String),
}

impl GuardKind {
    /// The word in arguments and values.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Creates => "creates",
            Self::Removes => "removes",
            Self::Unless => "unless",
            Self::OnlyIf => "only_if",
        }
    }
}

impl Guard {
    /// What its process does.
    pub(super) fn task(&self) -> Task<'_> {
        match &self.question {
            Question::Path(path) => Task::Look(path),
            Question::Words(words) => Task::Exec(words),
        }
    }

    /// What is asked, for people.
    pub(super) fn subject(&self) -> String {
        let text = match &self.question {
            Question::Path(path) => path.to_string_lossy().into_owned(),
            // Of a line for the shell, the line.
            Question::Words(words) => match words.argv.as_slice() {
                [_, option, line] if option.as_c_str() == c"-c" => line.to_string_lossy().into_owned(),
                argv => argv.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
            },
        };
        let mut text = common::escape::text(&text);
        common::handshake::truncate(&mut text, common::limits::MAX_TEXT_BYTES);
        text
    }

    /// Reads the answer.
    pub(super) fn judge(&self, answer: Answer) -> Verdict {
        let (subject, word) = (self.subject(), self.kind.word());
        let code = match answer {
            Answer::Code(code) => code,
            Answer::Signal(signal) => {
                return Verdict::Unknown(format!("the guard {word} was ended by signal {signal}: {subject}"));
            }
            Answer::Unseen => return Verdict::Unknown(format!("nobody saw how the guard {word} ended: {subject}")),
        };
        // With these a shell says that a program of the line was not found or could not be executed: a mistake in the line is
        // no answer.
        if matches!(code, 126 | 127) && self.is_line() {
            return Verdict::Unknown(format!("the shell could not run the guard {word} (code {code}): {subject}"));
        }
        let text = match (self.kind, code) {
            (GuardKind::Creates, THERE) => format!("{subject} exists"),
            (GuardKind::Removes, NOT_THERE) => format!("{subject} does not exist"),
            (GuardKind::Unless, 0) => format!("it succeeded: {subject}"),
            (GuardKind::OnlyIf, 1..) => format!("it ended with {code}: {subject}"),
            _ => return Verdict::Needed,
        };
        Verdict::Needless(text)
    }

    /// It is a line for the shell.
    fn is_line(&self) -> bool {
        matches!(&self.question, Question::Words(words) if words.argv.get(1).is_some_and(|word| &**word == c"-c"))
    }

    /// The value of a command that was not needed.
    pub(super) fn value(&self, text: &str) -> String {
        json!({"skipped": self.kind.word(), "text": text}).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_every_guard_has_one_meaning() {
        let path = |kind| Guard { kind, question: Question::Path(c"/x\n".to_owned()) };
        let words = |kind| {
            let argv = vec![c"/bin/sh".to_owned(), c"-c".to_owned(), c"a b".to_owned()];
            Guard { kind, question: Question::Words(Words { argv, candidates: Vec::new(), path: None }) }
        };
        let needless = |text: &str| Verdict::Needless(text.to_owned());
        for (guard, code, expected) in [
            (path(GuardKind::Creates), THERE, needless("/x\\n exists")),
            (path(GuardKind::Creates), NOT_THERE, Verdict::Needed),
            (path(GuardKind::Removes), THERE, Verdict::Needed),
            (path(GuardKind::Removes), NOT_THERE, needless("/x\\n does not exist")),
            (words(GuardKind::Unless), 0, needless("it succeeded: a b")),
            (words(GuardKind::Unless), 1, Verdict::Needed),
            (words(GuardKind::OnlyIf), 0, Verdict::Needed),
            (words(GuardKind::OnlyIf), 255, needless("it ended with 255: a b")),
        ] {
            assert_eq!(guard.judge(Answer::Code(code)), expected);
        }
        let program = |kind| {
            let argv = vec![c"/opt/check".to_owned(), c"it".to_owned()];
            Guard { kind, question: Question::Words(Words { argv, candidates: Vec::new(), path: None }) }
        };
        for kind in [GuardKind::Unless, GuardKind::OnlyIf] {
            for code in [126, 127] {
                let said = words(kind).judge(Answer::Code(code));
                assert!(matches!(said, Verdict::Unknown(_)), "a line that the shell cannot run is no answer");
                assert!(
                    !matches!(program(kind).judge(Answer::Code(code)), Verdict::Unknown(_)),
                    "a program's own code is"
                );
            }
        }
        for no_answer in [Answer::Unseen, Answer::Signal(9)] {
            assert!(matches!(words(GuardKind::Unless).judge(no_answer), Verdict::Unknown(_)));
        }
    }
}
