//! Signals of Linux as people write them: `INT`, `SIGINT`, `2`. The numbers are those of x86 and ARM.

/// The names, each at the place of its number from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// The largest number; those above the names are the real-time signals.
const LAST: u32 = 64;

/// A text is not a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signal is a name such as `INT` or a number from 1 to 64")]
pub struct NotASignal {
    /// The name that was probably meant.
    pub nearest: Option<&'static str>,
}

/// Reads a name, with or without `SIG`, or a number.
///
/// # Errors
/// When there is no such signal.
pub fn number(text: &str) -> Result<u32, NotASignal> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().ok().filter(|number| (1..=LAST).contains(number));
        return number.ok_or(NotASignal { nearest: None });
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    match (1..).zip(NAMES).find(|(_, known)| *known == bare) {
        Some((number, _)) => Ok(number),
        None => Err(NotASignal { nearest: common::suggest::nearest(bare, NAMES) }),
    }
}

/// Names a signal; real-time signals have no names.
#[must_use]
pub fn name(number: u32) -> Option<&'static str> {
    let at = usize::try_from(number).ok()?.checked_sub(1)?;
    NAMES.get(at).copied()
}

/// Writes a signal so that [`number`] reads it: its name where it has one.
#[must_use]
pub fn text(number: u32) -> String {
    name(number).map_or_else(|| number.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_and_come_back() {
        for (written, read) in [("INT", 2), ("SIGINT", 2), ("sigterm", 15), ("9", 9), ("64", 64), ("1", 1), ("SYS", 31)]
        {
            assert_eq!(number(written), Ok(read), "{written}");
        }
        for signal in 1..=LAST {
            assert_eq!(number(&text(signal)), Ok(signal));
        }
        assert_eq!((name(15), name(0), name(34)), (Some("TERM"), None, None));
    }

    #[test]
    fn what_is_no_signal_is_refused_with_the_nearest_name() {
        for bad in ["", "0", "65", "-2", "+2", "SIG", "SIGSIGINT", "99999999999999999999", "I\0T"] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
        assert_eq!(number("TREM"), Err(NotASignal { nearest: Some("TERM") }));
        assert_eq!(number("banana"), Err(NotASignal { nearest: None }));
    }
}
