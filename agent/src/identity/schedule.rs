//! When a certificate is renewed, and what can still be done with one that has ended. Pure: the time is an argument.

use std::time::Duration;

use common::limits::{BACK_DATED, RECOVERY_WINDOW};

use crate::limits::{RENEW_AGAIN, RENEW_SPREAD};

/// From when to when a certificate is valid, Unix milliseconds of the manager. The order is that of their making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Validity {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
}

/// How old a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// It opens a session.
    Valid,
    /// It has ended, and its key may still ask for the next one.
    Ended,
    /// It has ended too long ago: an operator decides whether this host is still the one it was.
    Gone {
        /// How long ago it ended.
        since: Duration,
    },
}

impl Validity {
    /// When it was made: its beginning is dated back for hosts whose clock is late.
    fn made_ms(self) -> u64 {
        let made = self.from_ms.saturating_add(millis(BACK_DATED));
        if made < self.until_ms { made } else { self.from_ms }
    }

    /// How long it was meant to be used.
    fn life(self) -> Duration {
        Duration::from_millis(self.until_ms.saturating_sub(self.made_ms()))
    }

    /// When the next one is asked for: after half of its life, earlier or later by a tenth of that, by a `fraction` from 0
    /// to 1 that belongs to the certificate. A fleet that joined in one minute does not renew in one.
    pub(crate) fn renew_at_ms(self, fraction: f64) -> u64 {
        let spread = (fraction.clamp(0.0, 1.0) * 2.0 - 1.0) * RENEW_SPREAD;
        self.made_ms().saturating_add(millis(self.life().div_f64(2.0).mul_f64(1.0 + spread)))
    }

    /// How long to wait after a renewal that failed: some attempts are left before the end, however short the life.
    pub(crate) fn again_after(self) -> Duration {
        (self.life() / 20).clamp(RENEW_AGAIN.0, RENEW_AGAIN.1)
    }

    /// Judges it at a moment.
    pub(crate) fn age(self, now_ms: u64) -> Age {
        let since = Duration::from_millis(now_ms.saturating_sub(self.until_ms));
        if now_ms <= self.until_ms {
            Age::Valid
        } else if since <= RECOVERY_WINDOW {
            Age::Ended
        } else {
            Age::Gone { since }
        }
    }
}

/// The fraction that belongs to a certificate: the same after every restart, another one for every certificate.
pub(crate) fn fraction(certificate: &[u8]) -> f64 {
    let hash = blake3::hash(certificate);
    let mut first = [0; 8];
    first.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    (u64::from_le_bytes(first) >> 11) as f64 / (1u64 << 53) as f64
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    /// Made at 100 h, valid for 72 h.
    const USUAL: Validity = Validity { from_ms: 100 * HOUR - 300_000, until_ms: 172 * HOUR };

    #[test]
    fn a_certificate_is_renewed_at_half_its_life_give_or_take_a_tenth_of_that() {
        assert_eq!(USUAL.renew_at_ms(0.5), 136 * HOUR);
        assert_eq!(USUAL.renew_at_ms(0.0), 100 * HOUR + HOUR * 324 / 10);
        assert_eq!(USUAL.renew_at_ms(1.0), 100 * HOUR + HOUR * 396 / 10);
        assert_eq!(USUAL.renew_at_ms(7.0), USUAL.renew_at_ms(1.0), "whatever it is given, it stays between");
    }

    #[test]
    fn the_back_dating_is_no_part_of_a_short_life() {
        let short = Validity { from_ms: 700_000, until_ms: 1_030_000 };
        assert_eq!(short.renew_at_ms(0.5), 1_015_000, "made at 1,000,000 for 30 s");
        let odd = Validity { from_ms: 1_000, until_ms: 21_000 };
        assert_eq!(odd.renew_at_ms(0.5), 11_000, "not dated back at all");
        let upside_down = Validity { from_ms: 50, until_ms: 20 };
        assert_eq!(upside_down.renew_at_ms(0.5), 50);
        let endless = Validity { from_ms: 0, until_ms: u64::MAX };
        assert!(endless.renew_at_ms(1.0) > u64::MAX / 4);
    }

    #[test]
    fn a_failed_renewal_is_tried_again_while_there_is_time() {
        assert_eq!(USUAL.again_after(), RENEW_AGAIN.1);
        let short = Validity { from_ms: 700_000, until_ms: 1_030_000 };
        assert_eq!(short.again_after(), Duration::from_millis(1500));
        assert_eq!(Validity { from_ms: 0, until_ms: 1 }.again_after(), RENEW_AGAIN.0);
    }

    #[test]
    fn what_has_ended_can_recover_for_thirty_days_and_no_longer() {
        let end = USUAL.until_ms;
        assert_eq!(USUAL.age(0), Age::Valid, "a beginning in the future is for TLS to judge");
        assert_eq!(USUAL.age(end), Age::Valid);
        assert_eq!(USUAL.age(end + 1), Age::Ended);
        assert_eq!(USUAL.age(end + 30 * DAY), Age::Ended);
        let since = Duration::from_millis(30 * DAY + 1);
        assert_eq!(USUAL.age(end + 30 * DAY + 1), Age::Gone { since });
    }

    #[test]
    fn fractions_are_spread_and_belong_to_their_certificate() {
        let all: Vec<f64> = (0..1000u32).map(|number| fraction(&number.to_le_bytes())).collect();
        let mean = all.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "mean {mean}");
        assert!(all.iter().all(|one| (0.0..1.0).contains(one)));
        assert_eq!(fraction(b"one").to_bits(), fraction(b"one").to_bits());
    }
}
