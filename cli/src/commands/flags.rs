//! What the agent observed about the end of a command: stable words for programs, sentences for people.

use common::model::Flag;

/// Every observation, what it means, and whether it is told unasked: about what may still be there, and about bytes that
/// are missing.
const WORDS: [(Flag, bool, &str); Flag::ALL.len()] = [
    (Flag::Skipped, false, "a guard skipped it: nothing was run"),
    (Flag::StraysKilled, false, "what it left running was killed when it had ended"),
    (Flag::StraysKept, false, "what it left running was left alone, as --keep-strays asks"),
    (Flag::PipeHeld, true, "something outside of it held its output open; what that wrote later is not kept"),
    (
        Flag::OutputCut,
        true,
        "what it left running held its output open for too long; what that writes later is dropped",
    ),
    (Flag::DiskFull, true, "the host's disk was full; the output that found no room is a gap"),
    (Flag::DiskError, true, "the host's disk failed to keep its output; what is here may not be all of it"),
    (Flag::Stuck, false, "processes of it hung in the kernel and took long to die when they were killed"),
    (Flag::Escaped, true, "processes of it had left its control group"),
    (Flag::NoCgroup, false, "it had no control group of its own"),
    (
        Flag::LimitsNotEnforced,
        true,
        "the host cannot enforce a limit of it; it ran without that limit, as --best-effort allows",
    ),
    (
        Flag::OomByHost,
        false,
        "the kernel killed in it because the whole host was short of memory, not because of its own limit",
    ),
    (Flag::Alive, true, "processes of it may still be alive"),
];

/// Says what a flag means; the word itself where nobody here knows it.
pub(super) fn sentence(flag: &str) -> String {
    match known(flag) {
        Some((sentence, _, "")) => sentence.to_owned(),
        Some((sentence, _, detail)) => format!("{sentence} ({detail})"),
        None => flag.to_owned(),
    }
}

/// Tells whether a person who follows the command must hear of it.
pub(super) fn is_worth_a_note(flag: &str) -> bool {
    known(flag).is_none_or(|(_, is_told, _)| is_told)
}

/// Looks a flag up; what stands behind a colon is its detail.
fn known(text: &str) -> Option<(&'static str, bool, &str)> {
    let (flag, detail) = Flag::read(text)?;
    let (_, is_told, sentence) = WORDS.into_iter().find(|(known, ..)| *known == flag)?;
    Some((sentence, is_told, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_sentences_and_keep_their_detail() {
        assert_eq!(sentence("strays_killed"), "what it left running was killed when it had ended");
        assert_eq!(sentence("alive:3"), "processes of it may still be alive (3)");
        assert_eq!(
            sentence("stuck: pids 12 13"),
            "processes of it hung in the kernel and took long to die when they were killed (pids 12 13)"
        );
        assert_eq!(sentence("from_the_future"), "from_the_future");
        assert!(is_worth_a_note("escaped") && is_worth_a_note("alive:3") && is_worth_a_note("from_the_future"));
        assert!(!is_worth_a_note("strays_killed") && !is_worth_a_note("skipped"));
    }

    #[test]
    fn every_flag_has_its_sentence_and_stands_in_both_pages() {
        let operators = include_str!("../../../docs/commands.md");
        let protocol = include_str!("../../../docs/protocol.md");
        let (_, list) = protocol.split_once("`flags` of a result are stable words").unwrap_or_default();
        let (list, _) = list.split_once("\n\n").unwrap_or_default();
        for flag in Flag::ALL {
            assert!(known(flag.word()).is_some(), "{flag} has no sentence");
            assert!(operators.contains(&format!("| `{flag}`")), "docs/commands.md does not explain {flag}");
            assert!(list.contains(&format!("`{flag}`")), "docs/protocol.md does not list {flag}");
        }
    }
}
