//! Points in time in JSON: RFC 3339 in UTC with milliseconds, and nothing else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const DAY: u64 = 86_400_000;
/// The first day after the year 9999 as Unix milliseconds: years have four digits.
const END: u64 = 253_402_300_800_000;

/// A point in time, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.min(END - 1);
        let (year, month, day) = civil(at / DAY);
        let ms = at % DAY;
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
    }
}

/// A text is not a time as this API writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time looks like 2026-01-31T12:00:00.000Z")]
pub struct NotATime;

impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let body = text.strip_suffix('Z').ok_or(NotATime)?;
        let (date, clock) = body.split_once('T').ok_or(NotATime)?;
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
        if !(1..=9).contains(&fraction.len()) || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(NotATime);
        }
        let thousandths = format!("{fraction:0<3}");
        let ms: u64 = thousandths.get(..3).and_then(|digits| digits.parse().ok()).ok_or(NotATime)?;
        if year < 1970 || hour > 23 || minute > 59 || second > 59 {
            return Err(NotATime);
        }
        let days = days_from_civil(year, month, day);
        if civil(days) != (year, month, day) {
            return Err(NotATime);
        }
        Ok(Self(days * DAY + hour * 3_600_000 + minute * 60_000 + second * 1_000 + ms))
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads three numbers with fixed widths.
fn numbers(text: &str, between: char, widths: [usize; 3]) -> Result<[u64; 3], NotATime> {
    let mut parts = text.split(between);
    let mut out = [0; 3];
    for (number, width) in out.iter_mut().zip(widths) {
        let part = parts.next().ok_or(NotATime)?;
        if part.len() != width || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(NotATime);
        }
        *number = part.parse().map_err(|_| NotATime)?;
    }
    if parts.next().is_some() { Err(NotATime) } else { Ok(out) }
}

/// The date of a day counted from 1970-01-01, after Howard Hinnant's `civil_from_days`: years begin in March, so that
/// the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil`] for real dates from 1970 on; anything else does not come back the same.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month_index + 2) / 5 + day.saturating_sub(1);
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
            (END - 1, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Time(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Time(ms)));
        }
        assert_eq!(Time(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn days_of_all_centuries_come_back() {
        for day in (0..END / DAY).step_by(11) {
            let time = Time(day * DAY + 1);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "Z",
            "2026-02-30T00:00:00.000Z",
            "2026-13-01T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00Z",
            "1969-12-31T00:00:00Z",
            "2026-1-01T00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00.0é0Z",
        ] {
            assert_eq!(text.parse::<Time>(), Err(NotATime), "{text}");
        }
    }
}
