//! What an agent observed about the end of a command beside its outcome: stable words on the wire and in answers.
//!
//! The words are final: records on hosts and rows in stores hold them. Whoever reads flags passes on a word that it does
//! not know, because a newer agent may have more of them.

use std::fmt;

/// One observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    /// A guard found that there was nothing to do.
    Skipped,
    /// What the main process left running was killed with its end.
    StraysKilled,
    /// What the main process left running was left alone, as was asked.
    StraysKept,
    /// Somebody outside of the command held its output open; what that wrote later is not kept.
    PipeHeld,
    /// Kept strays held the output open for too long: what they write later is dropped.
    OutputCut,
    /// The disk had no room for all of the output.
    DiskFull,
    /// The disk failed to keep the output.
    DiskError,
    /// Processes took long to die.
    Stuck,
    /// Processes had left the cgroup.
    Escaped,
    /// The command had no cgroup of its own although the agent had chosen one.
    NoCgroup,
    /// The host cannot enforce a limit that the command asked for.
    LimitsNotEnforced,
    /// The kernel killed in it because the whole host was short of memory.
    OomByHost,
    /// Processes may still be alive; how many stands behind a colon.
    Alive,
}

impl Flag {
    /// All of them, in the order in which they are explained to people.
    pub const ALL: [Self; 13] = [
        Self::Skipped,
        Self::StraysKilled,
        Self::StraysKept,
        Self::PipeHeld,
        Self::OutputCut,
        Self::DiskFull,
        Self::DiskError,
        Self::Stuck,
        Self::Escaped,
        Self::NoCgroup,
        Self::LimitsNotEnforced,
        Self::OomByHost,
        Self::Alive,
    ];

    /// The stable word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::StraysKilled => "strays_killed",
            Self::StraysKept => "strays_kept",
            Self::PipeHeld => "pipe_held",
            Self::OutputCut => "output_cut",
            Self::DiskFull => "disk_full",
            Self::DiskError => "disk_error",
            Self::Stuck => "stuck",
            Self::Escaped => "escaped",
            Self::NoCgroup => "no_cgroup",
            Self::LimitsNotEnforced => "limits_not_enforced",
            Self::OomByHost => "oom_by_host",
            Self::Alive => "alive",
        }
    }

    /// The flag as it travels when it carries a number: `alive:3`.
    #[must_use]
    pub fn with_count(self, count: usize) -> String {
        format!("{}:{count}", self.word())
    }

    /// Reads a flag as it travels: which one it is, and the detail behind its colon. `None`: a newer agent's.
    #[must_use]
    pub fn read(text: &str) -> Option<(Self, &str)> {
        let (word, detail) = text.split_once(':').unwrap_or((text, ""));
        let flag = Self::ALL.into_iter().find(|flag| flag.word() == word.trim())?;
        Some((flag, detail.trim()))
    }

    /// Tells whether it is among those that travelled.
    #[must_use]
    pub fn is_in(self, flags: &[String]) -> bool {
        flags.iter().any(|text| Self::read(text).is_some_and(|(flag, _)| flag == self))
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_found_by_its_word_and_keeps_its_detail() {
        for flag in Flag::ALL {
            assert_eq!(Flag::read(flag.word()), Some((flag, "")));
            assert_eq!(Flag::read(&flag.with_count(3)), Some((flag, "3")));
        }
        assert_eq!(Flag::read("stuck: pids 12 13"), Some((Flag::Stuck, "pids 12 13")));
        assert_eq!(Flag::read("from_the_future"), None);
        assert_eq!(Flag::Alive.with_count(2), "alive:2");
    }

    #[test]
    fn no_word_stands_for_two_flags() {
        let words: std::collections::BTreeSet<_> = Flag::ALL.into_iter().map(Flag::word).collect();
        assert_eq!(words.len(), Flag::ALL.len());
    }

    #[test]
    fn a_flag_is_found_among_those_that_travelled() {
        let flags = ["strays_kept".to_owned(), "alive:3".to_owned(), "newer".to_owned()];
        assert!(Flag::StraysKept.is_in(&flags) && Flag::Alive.is_in(&flags));
        assert!(!Flag::Stuck.is_in(&flags) && !Flag::Stuck.is_in(&[]));
    }
}
