//! Tells systemd that the manager is alive: the store answers and the runtime turns.

use std::time::Duration;

use common::error::Chain;
use common::shutdown::{Shutdown, Tasks};
use tokio::time::{interval, timeout};

use crate::service::Service;

/// Pings the service manager's watchdog, if it wants that, at half of its patience.
pub fn run(service: &Service, shutdown: &Shutdown, tasks: &Tasks) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    let (service, shutdown) = (service.clone(), shutdown.clone());
    let every = (patience / 2).max(Duration::from_millis(100));
    tasks.spawn("background.watchdog", async move {
        let mut timer = interval(every);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = timer.tick() => {}
            }
            // A question that goes through a reader of the store; a full disk does not fail it, a hanging one does.
            match timeout(every, service.store().agent_count()).await {
                Ok(Ok(_)) => tell(&[sd_notify::NotifyState::Watchdog]),
                Ok(Err(error)) => {
                    tracing::error!(error = %Chain(&error), "the store does not answer; the watchdog is not fed")
                }
                Err(_) => tracing::error!("the store does not answer in time; the watchdog is not fed"),
            }
        }
    });
}

/// Tells the service manager something, if there is one.
pub fn tell(words: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
