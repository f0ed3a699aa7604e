//! What the agent does after a session ended or was refused: a pure table.

use std::time::Duration;

use common::wire::bye::Code;

/// Longest pause a manager may ask for: a mistake on its side must not park a fleet for a day.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reaction {
    /// Shortest pause before the next attempt; the backoff may make it longer.
    pub(super) at_least: Duration,
    /// Whether the pause is drawn from the top of the backoff at once.
    pub(super) slow: bool,
    /// Whether other addresses are worth an attempt before the pause.
    pub(super) others_first: bool,
    /// Whether an operator has to do something.
    pub(super) act: bool,
}

/// Decides by the code of a Bye; `retry_after` is the manager's wish and lengthens every pause.
pub(super) fn react(code: Code, retry_after: Option<Duration>) -> Reaction {
    let calm = Reaction { at_least: Duration::ZERO, slow: false, others_first: false, act: false };
    let reaction = match code {
        // The manager stops or was restored; whoever is left serves us.
        Code::Normal | Code::Draining => Reaction { others_first: true, ..calm },
        Code::Overloaded => Reaction { at_least: Duration::from_secs(2), others_first: true, ..calm },
        // Another process speaks for us. Two that fight would supersede each other for ever.
        Code::Superseded => Reaction { at_least: Duration::from_secs(5), ..calm },
        Code::Timeout | Code::Unspecified => calm,
        // One side has a defect: repeating at once would only repeat it.
        Code::ProtocolError | Code::FrameTooLarge => {
            Reaction { at_least: Duration::from_secs(5), others_first: true, ..calm }
        }
        // An older or newer manager may stand beside this one.
        Code::UpgradeRequired => {
            Reaction { at_least: Duration::from_secs(10), slow: true, others_first: true, act: true }
        }
        // Only an operator can change the answer.
        Code::AuthFailed | Code::Banned => {
            Reaction { at_least: Duration::from_secs(10), slow: true, act: true, ..calm }
        }
    };
    let wish = retry_after.unwrap_or_default().min(LONGEST_RETRY);
    Reaction { at_least: reaction.at_least.max(wish), ..reaction }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn every_code_has_its_reaction() {
        let row = |code| {
            let Reaction { at_least, slow, others_first, act } = react(code, None);
            (at_least.as_secs(), slow, others_first, act)
        };
        assert_eq!(row(Code::Unspecified), (0, false, false, false));
        assert_eq!(row(Code::Normal), (0, false, true, false));
        assert_eq!(row(Code::Superseded), (5, false, false, false));
        assert_eq!(row(Code::AuthFailed), (10, true, false, true));
        assert_eq!(row(Code::UpgradeRequired), (10, true, true, true));
        assert_eq!(row(Code::ProtocolError), (5, false, true, false));
        assert_eq!(row(Code::FrameTooLarge), (5, false, true, false));
        assert_eq!(row(Code::Draining), (0, false, true, false));
        assert_eq!(row(Code::Overloaded), (2, false, true, false));
        assert_eq!(row(Code::Banned), (10, true, false, true));
        assert_eq!(row(Code::Timeout), (0, false, false, false));
    }

    #[test]
    fn the_managers_wish_lengthens_a_pause_within_reason_and_never_shortens_it() {
        assert_eq!(react(Code::Draining, Some(SECOND * 3)).at_least, SECOND * 3);
        assert_eq!(react(Code::Banned, Some(SECOND)).at_least, SECOND * 10);
        assert_eq!(react(Code::Overloaded, Some(SECOND * 86_400)).at_least, LONGEST_RETRY);
    }
}
