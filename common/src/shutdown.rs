//! Stopping a daemon: one request that everybody hears, and a list of who has not stopped yet.
//!
//! Stopping has two stages: take no new work, then end work within a deadline. Whoever is late is named.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// The request to stop, shared by all who must hear it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Makes a request that nobody made yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a request that also comes true with this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Asks everybody to stop.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Tells whether somebody asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until somebody asks.
    ///
    /// # Cancel safety
    /// Safe: nothing is consumed.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }
}

/// Every task of a daemon, by name.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    alive: Arc<Mutex<HashMap<&'static str, usize>>>,
}

impl Tasks {
    /// Starts with no task.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that is counted under `name` until it ends. A panic in it is logged, and ends only it.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns; everybody else comes here")]
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let alive = Alive::enter(&self.alive, name);
        self.tracker.spawn(async move {
            let _alive = alive;
            future.await;
        });
    }

    /// Waits for all tasks, at most for `deadline`; answers the names of those that are late.
    pub async fn join(&self, deadline: Duration) -> Vec<&'static str> {
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        let mut late: Vec<_> = alive.keys().copied().collect();
        late.sort_unstable();
        late
    }
}

/// Counts a task while it lives.
struct Alive {
    alive: Arc<Mutex<HashMap<&'static str, usize>>>,
    name: &'static str,
}

impl Alive {
    fn enter(alive: &Arc<Mutex<HashMap<&'static str, usize>>>, name: &'static str) -> Self {
        *alive.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Self { alive: Arc::clone(alive), name }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(task = self.name, "A task panicked");
        }
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = alive.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                alive.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_do_not_stop_are_named() {
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let heard = shutdown.child();
        tasks.spawn("obedient", async move { heard.requested().await });
        tasks.spawn("deaf", std::future::pending());
        shutdown.request();
        assert_eq!(tasks.join(Duration::from_secs(5)).await, ["deaf"]);
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_and_is_not_waited_for() {
        let tasks = Tasks::new();
        tasks.spawn("unlucky", async { panic!("as the test wants") });
        assert!(tasks.join(Duration::from_secs(5)).await.is_empty());
    }
}
