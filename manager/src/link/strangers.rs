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

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    unsaid: u64,
}

/// Whether a line may be written, and how many were not since the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Say { unsaid: u64 },
    Count,
}

impl Window {
    fn turn(&mut self, now: Instant) -> Turn {
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
        Self { window: Mutex::new(Window { began: Instant::now(), lines: 0, unsaid: 0 }) }
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
        let mut window = Window { began: start, lines: 0, unsaid: 0 };
        let said = (0..100).filter(|_| window.turn(start) != Turn::Count).count();
        assert_eq!(said, STRANGER_LOG_LINES_PER_SECOND as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!(window.turn(later), Turn::Say { unsaid: 95 });
        assert_eq!(window.turn(later), Turn::Say { unsaid: 0 });
    }
}
