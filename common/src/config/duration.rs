//! Durations as people write them: `30s`, `5m`, `2h 30m`. The units that are easy to get wrong are refused.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in a configuration, a request or an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// `M` is a month of 30.44 days and `y` a year of 365.25: nobody means that in a configuration.
    #[error(
        "`{0}` uses the unit `{1}`, which is refused because it is easily mistaken; write minutes as `m`, long times in days as `d`"
    )]
    Mistakable(String, &'static str),
    /// The text has no meaning.
    #[error("`{0}` is not a duration; write for example `30s`, `5m`, `2h 30m` or `7d`")]
    Unreadable(String),
}

/// Reads a duration.
///
/// # Errors
/// When the text has no meaning or uses months or years.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let units = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|unit| !unit.is_empty());
    for unit in units {
        let refused = match unit {
            "M" | "month" | "months" => Some("M"),
            "y" | "year" | "years" | "yr" | "yrs" => Some("y"),
            _ => None,
        };
        if let Some(unit) = refused {
            return Err(DurationError::Mistakable(text.to_owned(), unit));
        }
    }
    humantime::parse_duration(text).map_err(|_| DurationError::Unreadable(text.to_owned()))
}

impl FromStr for HumanDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        parse_duration(text).map(Self)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&humantime::format_duration(self.0), f)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_years_are_refused_and_everything_else_is_as_written() {
        for (text, seconds) in [("30s", 30), ("1m", 60), ("2h 30m", 9000), ("7d", 604_800), ("1w", 604_800)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("150ms"), Ok(Duration::from_millis(150)));
        for bad in ["1M", "1y", "2years", "1h 1M", "3 months"] {
            assert!(matches!(parse_duration(bad), Err(DurationError::Mistakable(..))), "{bad}");
        }
        for bad in ["", "5", "-5s", "s", "5 parsecs", "99999999999999999999s"] {
            assert!(matches!(parse_duration(bad), Err(DurationError::Unreadable(_))), "{bad:?}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let shown = HumanDuration(Duration::from_millis(3_661_001)).to_string();
        assert_eq!(shown.parse(), Ok(HumanDuration(Duration::from_millis(3_661_001))));
    }
}
