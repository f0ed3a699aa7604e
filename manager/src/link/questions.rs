//! What a session asked its agent and was not answered yet, and what a refusal of it means. No calls of the store here.

use std::collections::HashMap;

use common::id::Uid;
use common::wire::nak;
use store::types::{AckAnswer, Millis, PauseHeard};

use super::messages;
use crate::limits::{BUSY_AGENT, MAX_AWAITED};

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// A Command was sent.
    Command(Uid),
    /// A CommandPause was sent, with the number of the wish.
    Pause(Uid, u64),
}

/// The news in a refusal of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// As an answer to the Command.
    Command(Uid, AckAnswer),
    /// As an answer to the wish; `None`: it is to be told again later.
    Pause(Uid, u64, Option<PauseHeard>),
}

/// The questions of one session by the sequence numbers of their frames.
#[derive(Debug, Default)]
pub(super) struct Questions(HashMap<u64, Question>);

impl Questions {
    /// Remembers a question that was asked in the frame `seq`.
    pub(super) fn ask(&mut self, seq: u64, question: Question) {
        if self.0.len() >= MAX_AWAITED {
            self.0.clear();
        }
        self.0.insert(seq, question);
    }

    /// Takes the question that a frame answers.
    pub(super) fn answered(&mut self, reply_to: u64) -> Option<Question> {
        self.0.remove(&reply_to)
    }
}

impl Question {
    /// The command it is about.
    pub(super) fn uid(&self) -> Uid {
        match self {
            Self::Command(uid) | Self::Pause(uid, _) => *uid,
        }
    }

    /// Reads a Nak. A Command that was not understood is refused; nothing of it runs.
    pub(super) fn refused(self, code: nak::Code, reason: &str, now: Millis) -> Refused {
        let uid = match self {
            Self::Pause(uid, wish) => return Refused::Pause(uid, wish, messages::pause_heard(code)),
            Self::Command(uid) => uid,
        };
        let refused = |code: &str| AckAnswer::Refused { code: code.to_owned(), text: reason.to_owned() };
        let answer = match code {
            nak::Code::Busy => AckAnswer::Deferred { until: now.saturating_add(BUSY_AGENT.as_millis() as u64) },
            nak::Code::Conflict => refused("conflict"),
            nak::Code::Unsupported => refused("unsupported"),
            _ => refused("invalid"),
        };
        Refused::Command(uid, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: Uid = Uid([3; 16]);

    #[test]
    fn a_question_is_answered_once_and_so_many_are_remembered() {
        let mut questions = Questions::default();
        questions.ask(1, Question::Command(UID));
        questions.ask(2, Question::Pause(UID, 9));
        assert_eq!(questions.answered(2), Some(Question::Pause(UID, 9)));
        assert_eq!((questions.answered(2), questions.answered(0)), (None, None));
        for seq in 3..=MAX_AWAITED as u64 + 1 {
            questions.ask(seq, Question::Command(UID));
        }
        assert!(questions.answered(1).is_some(), "the last that fits did not push anything out");
        questions.ask(1, Question::Command(UID));
        questions.ask(MAX_AWAITED as u64 + 2, Question::Command(UID));
        assert_eq!(questions.answered(1), None);
    }

    #[test]
    fn a_refusal_means_what_was_asked() {
        let read = |question: Question, code| question.refused(code, "why", 5_000);
        let refused =
            |code: &str| Refused::Command(UID, AckAnswer::Refused { code: code.to_owned(), text: "why".to_owned() });
        assert_eq!(read(Question::Command(UID), nak::Code::Unsupported), refused("unsupported"));
        assert_eq!(read(Question::Command(UID), nak::Code::Unknown), refused("invalid"));
        let later = Refused::Command(UID, AckAnswer::Deferred { until: 6_000 });
        assert_eq!(read(Question::Command(UID), nak::Code::Busy), later);
        let wish = Question::Pause(UID, 7);
        assert_eq!(read(wish, nak::Code::Busy), Refused::Pause(UID, 7, None));
        assert_eq!(read(wish, nak::Code::Unknown), Refused::Pause(UID, 7, Some(PauseHeard::Unknown)));
        for (code, word) in [
            (nak::Code::Unsupported, "unsupported"),
            (nak::Code::NotMine, "not_mine"),
            (nak::Code::Conflict, "conflict"),
            (nak::Code::Invalid, "invalid"),
        ] {
            assert_eq!(read(wish, code), Refused::Pause(UID, 7, Some(PauseHeard::Refused(word.to_owned()))));
        }
    }
}
