//! Times for people: how long ago, how long it took.

use std::time::Duration;

use api::time::Time;

/// Says how long before `now` a moment was: `3s ago`, `2h ago`; of a moment to come: `in 5m`.
#[must_use]
pub fn ago(moment: Time, now: Time) -> String {
    match (now.0.saturating_sub(moment.0), moment.0.saturating_sub(now.0)) {
        // Clocks differ a little; what was just written is not in the future.
        (0..1_000, 0..1_000) => "now".to_owned(),
        (passed, 0) => format!("{} ago", rough(Duration::from_millis(passed))),
        (_, ahead) => format!("in {}", rough(Duration::from_millis(ahead))),
    }
}

/// Says how much time lies between two moments.
#[must_use]
pub fn between(start: Time, end: Time) -> String {
    span(Duration::from_millis(end.0.saturating_sub(start.0)))
}

/// Says a duration, with tenths below ten seconds.
#[must_use]
pub fn span(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{}ms", took.as_millis())
    } else if took < Duration::from_secs(10) {
        format!("{:.1}s", took.as_secs_f64())
    } else {
        rough(took)
    }
}

/// The largest unit of which there are at least two.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_use_one_unit() {
        let now = Time(1_800_000_000_000);
        let back = |seconds: u64| ago(Time(now.0 - seconds * 1_000), now);
        assert_eq!(back(0), "now");
        assert_eq!(back(3), "3s ago");
        assert_eq!(back(119), "119s ago");
        assert_eq!(back(120), "2m ago");
        assert_eq!(back(7_200), "2h ago");
        assert_eq!(back(172_800), "2d ago");
        assert_eq!(ago(Time(now.0 + 300_000), now), "in 5m");
        assert_eq!(ago(Time(now.0 + 200), now), "now");
    }

    #[test]
    fn spans_are_exact_while_they_are_short() {
        assert_eq!(between(Time(1_000), Time(1_042)), "42ms");
        assert_eq!(between(Time(1_000), Time(2_250)), "1.2s");
        assert_eq!(between(Time(1_000), Time(61_000)), "60s");
        assert_eq!(between(Time(1_000), Time(0)), "0ms");
    }
}
