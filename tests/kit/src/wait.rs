//! Waiting for a condition with a bound: what tests do instead of sleeping.
//!
//! A bound says "something is broken", not "this is fast"; it is generous because machines are shared.

use std::time::Duration;

use anyhow::{Context, anyhow};
use common::error::Chain;
use tokio::time::{Instant, sleep};

/// The usual bound: far beyond what a loaded machine needs, short enough to be waited for once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Pauses between two looks at the condition: short at first, so that fast things are seen fast.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// Asks `probe` again and again until it answers something, at most for `bound`.
///
/// A probe that fails is asked again as well; its last error is told when the time is up.
///
/// # Errors
/// When the bound has passed; `what` says what did not happen.
pub async fn wait_for<T>(
    bound: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut pause = PAUSES.0;
    loop {
        let left = bound.saturating_sub(started.elapsed());
        let error = match tokio::time::timeout(left.max(PAUSES.0), probe()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(anyhow!("the look itself took too long")),
        };
        if started.elapsed() >= bound {
            let late = format!("waited {bound:?} for {what}");
            return match error {
                Some(error) => Err(error).context(late),
                None => Err(anyhow!(late)),
            };
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// As [`wait_for`] with the usual bound.
///
/// # Errors
/// As [`wait_for`].
pub async fn soon<T>(what: &str, probe: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    wait_for(PATIENCE, what, probe).await
}

/// The whole chain of an error as one line.
#[must_use]
pub fn shown(error: &anyhow::Error) -> String {
    Chain(error.as_ref()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_is_seen_and_one_that_does_not_is_named() {
        let mut looks = 0;
        let found = soon("three looks", async || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        })
        .await;
        assert_eq!(found.ok(), Some(3));
        let never = wait_for::<()>(Duration::from_millis(20), "a miracle", async || Err(anyhow!("not today"))).await;
        let told = never.err().map(|error| shown(&error)).unwrap_or_default();
        assert!(told.contains("a miracle") && told.contains("not today"), "{told}");
    }
}
