//! Waiting longer after each failure, with full jitter.

use std::time::Duration;

/// Draws pauses between zero and a bound that doubles up to a cap.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts at `base`; the bound never exceeds `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap: cap.max(base), failures: 0 }
    }

    /// Draws the next pause.
    #[expect(clippy::should_implement_trait, reason = "an endless source of pauses is not meant to be iterated")]
    pub fn next(&mut self) -> Duration {
        let mut bytes = [0; 8];
        // Without randomness the pause is the whole bound: later than needed, never a stampede of zeros.
        let fraction = match aws_lc_rs::rand::fill(&mut bytes) {
            Ok(()) => (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64,
            Err(_) => 1.0,
        };
        self.next_at(fraction)
    }

    /// Computes the next pause for a fraction between 0 and 1.
    pub fn next_at(&mut self, fraction: f64) -> Duration {
        let factor = 2u32.saturating_pow(self.failures.min(31));
        let bound = self.base.saturating_mul(factor).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(fraction.clamp(0.0, 1.0))
    }

    /// Lets the next bound be the cap: for failures that will not pass soon.
    pub fn to_cap(&mut self) {
        self.failures = 31;
    }

    /// Starts again from the bottom.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_to_its_cap_and_a_reset_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        let bounds: Vec<_> = (0..9).map(|_| backoff.next_at(1.0).as_millis()).collect();
        assert_eq!(bounds, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
        backoff.reset();
        assert_eq!(backoff.next_at(1.0).as_millis(), 500);
    }

    #[test]
    fn jitter_is_full_and_spread() {
        let draws: Vec<_> = (0..2000)
            .map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).next().as_secs_f64())
            .collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((0.45..0.55).contains(&mean), "mean {mean}");
        assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
    }
}
