//! When to ping and when a peer is dead: a pure timer object. No I/O, no clock of its own.
//!
//! Any frame counts as life. A side that heard nothing for one interval pings; after 2.5 intervals of silence the peer
//! is dead (protocol R-LIVE-1).

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{DEAD_AFTER_HALF_INTERVALS, HEARTBEAT_MIN, HEARTBEATS_PER_SECOND};

/// Watches one peer.
#[derive(Debug)]
pub struct Liveness {
    interval: Duration,
    heard: Instant,
    pinged: Option<Instant>,
}

/// What the timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing before this instant.
    Wait(Instant),
    /// Send a ping now.
    Ping,
    /// Close: the peer is dead.
    Dead,
}

impl Liveness {
    /// Starts to watch a peer that was just heard.
    #[must_use]
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, heard: now, pinged: None }
    }

    /// Records that a frame arrived.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// Says what is due.
    pub fn poll(&mut self, now: Instant) -> Pulse {
        let dead_at = self.heard + self.interval / 2 * DEAD_AFTER_HALF_INTERVALS;
        if now >= dead_at {
            return Pulse::Dead;
        }
        let ping_at = self.pinged.unwrap_or(self.heard) + self.interval;
        if now >= ping_at {
            self.pinged = Some(now);
            return Pulse::Ping;
        }
        Pulse::Wait(ping_at.min(dead_at))
    }
}

/// The heartbeat interval for a fleet: large fleets beat slower, so that beats never become load.
#[must_use]
pub fn interval_for(agents: usize) -> Duration {
    let millis = (agents as u64).saturating_mul(1000) / HEARTBEATS_PER_SECOND;
    HEARTBEAT_MIN.max(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    /// Protocol R-LIVE-1.
    #[test]
    fn a_silent_peer_is_pinged_after_one_interval_and_dead_after_two_and_a_half() {
        let start = Instant::now();
        let mut watch = Liveness::new(TEN, start);
        assert_eq!(watch.poll(start), Pulse::Wait(start + TEN));
        assert_eq!(watch.poll(start + TEN), Pulse::Ping);
        assert_eq!(watch.poll(start + TEN), Pulse::Wait(start + TEN * 2));
        assert_eq!(watch.poll(start + TEN * 2), Pulse::Ping);
        assert_eq!(watch.poll(start + TEN * 2), Pulse::Wait(start + TEN * 5 / 2));
        assert_eq!(watch.poll(start + TEN * 5 / 2), Pulse::Dead);
    }

    #[test]
    fn any_frame_is_life() {
        let start = Instant::now();
        let mut watch = Liveness::new(TEN, start);
        assert_eq!(watch.poll(start + TEN), Pulse::Ping);
        watch.heard(start + TEN * 2);
        assert_eq!(watch.poll(start + TEN * 5 / 2), Pulse::Wait(start + TEN * 3));
    }

    #[test]
    fn large_fleets_beat_slower() {
        assert_eq!(interval_for(0), TEN);
        assert_eq!(interval_for(20_000), TEN);
        assert_eq!(interval_for(50_000), Duration::from_secs(25));
    }
}
