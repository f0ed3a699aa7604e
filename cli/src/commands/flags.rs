//! What the agent observed about the end of a command: stable words for programs, sentences for people.

/// Every word an agent knows, what it means, and whether it is told unasked: about what may still be there, and about
/// bytes that are missing.
const WORDS: [(&str, bool, &str); 13] = [
    ("skipped", false, "a guard skipped it: nothing was run"),
    ("strays_killed", false, "what it left running was killed when it had ended"),
    ("strays_kept", false, "what it left running was left alone, as --keep-strays asks"),
    ("pipe_held", true, "something outside of it held its output open; what that wrote later is not kept"),
    ("output_cut", true, "what it left running held its output open for too long; what that writes later is dropped"),
    ("disk_full", true, "the host's disk was full; the output that found no room is a gap"),
    ("disk_error", true, "the host's disk failed to keep its output; what is here may not be all of it"),
    ("stuck", false, "processes of it hung in the kernel and took long to die when they were killed"),
    ("escaped", true, "processes of it had left its control group"),
    ("no_cgroup", false, "it had no control group of its own"),
    (
        "limits_not_enforced",
        true,
        "the host cannot enforce a limit of it; it ran without that limit, as --best-effort allows",
    ),
    (
        "oom_by_host",
        false,
        "the kernel killed in it because the whole host was short of memory, not because of its own limit",
    ),
    ("alive", true, "processes of it may still be alive"),
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
fn known(flag: &str) -> Option<(&'static str, bool, &str)> {
    let (word, detail) = flag.split_once(':').unwrap_or((flag, ""));
    let (_, is_told, sentence) = WORDS.into_iter().find(|(known, ..)| *known == word.trim())?;
    Some((sentence, is_told, detail.trim()))
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
    fn the_page_for_operators_has_every_flag() {
        let page = include_str!("../../../docs/commands.md");
        for (word, ..) in WORDS {
            assert!(page.contains(&format!("| `{word}`")), "docs/commands.md does not explain {word}");
        }
    }
}
