//! What is said in the log about peers that never became a session: a few lines a second, the rest is counted.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::limits::STRANGER_LOG_LINES_PER_SECOND;
use tokio::time::Instant;

/// Keeps the log readable while somebody knocks ten thousand times.
#[derive(Debug)]
pub struct Strangers {
    window: Mutex<Window>,
}

/// So many lines in each second.
#[derive(Debug)]
pub(super) struct Window {
    began: Instant,
    lines: u32,
    unsaid: u64,
}

/// Whether a line may be written, and how many were not since the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may; so many were not.
    Say { unsaid: u64 },
    /// It may not, and is counted.
    Count,
}

impl Window {
    /// Begins with nothing said.
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, lines: 0, unsaid: 0 }
    }

    /// Takes the turn of one line.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        if now.duration_since(self.began) >= Duration::from_secs(1) {
            (self.began, self.lines) = (now, 0);
        }
        if self.lines >= STRANGER_LOG_LINES_PER_SECOND {
            self.unsaid += 1;
            return Turn::Count;
        }
        self.lines += 1;
        Turn::Say { unsaid: std::mem::take(&mut self.unsaid) }
    }
}

impl Strangers {
    /// Starts with a clean log.
    #[must_use]
    pub fn new() -> Self {
        Self { window: Mutex::new(Window::new(Instant::now())) }
    }

    /// Notes why a peer was not served. `what` may quote the peer; it is escaped and cut here.
    pub fn note(&self, peer: SocketAddr, what: &str) {
        let turn = self.window.lock().unwrap_or_else(PoisonError::into_inner).turn(Instant::now());
        if let Turn::Say { unsaid } = turn {
            let reason = common::escape::text(what);
            tracing::warn!(peer.addr = %peer, reason, unsaid, "a connection on the agent port was not served");
        }
    }
}

impl Default for Strangers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gives_a_few_lines_a_second_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let said = (0..100).filter(|_| window.turn(start) != Turn::Count).count();
        assert_eq!(said, STRANGER_LOG_LINES_PER_SECOND as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!(window.turn(later), Turn::Say { unsaid: 95 });
        assert_eq!(window.turn(later), Turn::Say { unsaid: 0 });
    }
}
