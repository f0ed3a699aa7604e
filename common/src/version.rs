//! Protocol versions as an enum with history, and the choice of the one both sides speak.

/// A version of the link protocol. Old variants stay as long as a manager serves them (two minor versions back).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Version {
    /// Frames, hello, commands, output with credit, results, inventory. Negotiated by capability: guards, scripts,
    /// options (0.2), joining in the hello, `Renew` and secrets of commands (0.3).
    V1 = 1,
}

impl Version {
    /// The oldest version this build speaks.
    pub const OLDEST: Self = Self::V1;
    /// The newest version this build speaks.
    pub const NEWEST: Self = Self::V1;

    /// Chooses the newest version that both this build and a peer with the range `min..=max` speak.
    #[must_use]
    pub fn choose(min: u32, max: u32) -> Option<Self> {
        [Self::V1].into_iter().rev().find(|version| (min..=max).contains(&(*version as u32)))
    }
}

/// Optional behaviour that is negotiated by name, never inferred from a version.
pub mod capability {
    /// The agent runs `command.run`.
    pub const COMMAND_RUN: &str = "command.run";
    /// It obeys `creates`, `removes`, `unless` and `only_if`.
    pub const GUARDS: &str = "guards";
    /// It runs `script.run`.
    pub const SCRIPT: &str = "script";
    /// It obeys umask, nice, oom_score, grace and the first signal of a stop.
    pub const OPTIONS: &str = "options";
    /// It can leave alone what lives on after the main process.
    pub const KEEP_STRAYS: &str = "keep_strays";
    /// It renews its certificate over the live link. A manager sends `Renew` only to agents that named it.
    pub const RENEW: &str = "renew";
    /// It keeps `Command.secrets` sealed and gives them to nobody but the command.
    pub const SECRETS: &str = "secrets";
    /// The words that `Command.needs` may hold. An agent that knows one says so in its hello: one that is too old to
    /// read `needs` would run the command without what it needs.
    pub const NEEDS: [&str; 5] = [GUARDS, SCRIPT, OPTIONS, KEEP_STRAYS, SECRETS];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protocol R-SESSION-3.
    #[test]
    fn the_newest_common_version_is_chosen_or_none() {
        assert_eq!(Version::choose(1, 1), Some(Version::V1));
        assert_eq!(Version::choose(1, 9), Some(Version::V1));
        assert_eq!(Version::choose(2, 9), None);
        assert_eq!(Version::choose(0, 0), None);
        assert_eq!(Version::choose(9, 1), None, "an inverted range holds nothing");
    }
}
