//! Futures under way, polled by their owner in the order they came.
//!
//! The order of first polls is the order in which the store's writer sees the calls, and the writer groups whatever
//! waits into one commit. So a session keeps the order of its frames and still has many of them in one commit.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A list of futures without tasks of their own: dropping it drops them.
pub struct InFlight<T> {
    futures: Vec<Boxed<T>>,
}

impl<T> InFlight<T> {
    /// Starts with none; an idle session holds no memory for it.
    #[must_use]
    pub fn new() -> Self {
        Self { futures: Vec::new() }
    }

    /// Adds one. It is polled for the first time by the next [`InFlight::next`], after all older ones.
    pub fn push(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.futures.push(Box::pin(future));
    }

    /// Counts those that are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.futures.len()
    }

    /// Tells whether none is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.futures.is_empty()
    }

    /// Waits for any of them to end; for ever when there is none.
    ///
    /// # Cancel safety
    /// Safe: a result is handed out or its future is still in the list.
    pub async fn next(&mut self) -> T {
        poll_fn(|context| {
            for at in 0..self.futures.len() {
                let polled = self.futures.get_mut(at).map(|future| future.as_mut().poll(context));
                if let Some(Poll::Ready(result)) = polled {
                    // Not `swap_remove`: those that were never polled must keep their order.
                    drop(self.futures.remove(at));
                    if self.futures.is_empty() {
                        self.futures = Vec::new();
                    }
                    return Poll::Ready(result);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn first_polls_keep_the_order_of_pushes_whatever_ends_in_between() -> Result<(), oneshot::error::RecvError> {
        let polled = Arc::new(Mutex::new(Vec::new()));
        let mut flight = InFlight::new();
        let mut ends = Vec::new();
        for number in 0..10 {
            let (end, ended) = oneshot::channel::<()>();
            let polled = Arc::clone(&polled);
            flight.push(async move {
                if let Ok(mut polled) = polled.lock() {
                    polled.push(number);
                }
                ended.await.map(|()| number)
            });
            ends.push(end);
            if number == 4 {
                // Ends the first two while others were never polled.
                for end in ends.drain(..2) {
                    let _ = end.send(());
                }
                assert_eq!(flight.next().await?, 0);
            }
        }
        for end in ends {
            let _ = end.send(());
        }
        for _ in 0..9 {
            flight.next().await?;
        }
        assert!(flight.is_empty());
        assert_eq!(polled.lock().map(|order| order.clone()).unwrap_or_default(), (0..10).collect::<Vec<_>>());
        Ok(())
    }
}
