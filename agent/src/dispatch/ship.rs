//! How far one stream of one command has travelled in this session. Pure: offsets in, decisions out.

use std::time::Duration;

use common::limits::DEFAULT_OUTPUT_QUOTA;

use crate::limits::{OUTRUN_SENT, OVERFLOW_SENT};

/// Where one stream stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ship {
    /// The next offset to read and send.
    next: u64,
    /// How many bytes are known to exist.
    known: u64,
    /// The final length, once the command has ended.
    end: Option<u64>,
    /// The manager was told in this session that the stream ends.
    end_told: bool,
    /// A read is under way: the next one waits for it, so that chunks leave in order.
    reading: bool,
    /// How many reads in a row failed; the pause after one counts as being read.
    failures: u32,
    paused: bool,
    /// How many bytes were known when some were last sent over the quota, and how many more full pace could have sent since.
    paced: Option<(u64, u64)>,
}

/// What to do next for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Nothing until something changes.
    Nothing,
    /// Read from here, at most this many bytes.
    Read { from: u64, max: u64 },
    /// Say that it ends here; there are no more bytes.
    End { at: u64 },
}

impl Ship {
    /// Begins a session in which the manager wants bytes from `from` on.
    pub(super) fn begin(&mut self, from: u64) {
        self.next = from;
        self.end_told = false;
        self.reading = false;
        self.failures = 0;
        self.paused = false;
        self.paced = None;
    }

    /// Learns that the stream has at least `length` bytes.
    pub(super) fn learn(&mut self, length: u64) {
        self.known = self.known.max(length);
    }

    /// Learns the final length.
    pub(super) fn finish(&mut self, length: u64) {
        self.end = Some(length);
        self.known = length;
    }

    /// The next offset to send.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How many bytes are known to exist.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    /// Tells whether there is something to do, credit aside.
    pub(super) fn has_more(&self) -> bool {
        !self.reading && self.want(u64::MAX) != Want::Nothing
    }

    /// Decides what is next when `allowed` bytes may leave.
    pub(super) fn want(&self, allowed: u64) -> Want {
        if self.reading {
            return Want::Nothing;
        }
        let left = self.known.saturating_sub(self.next).min(allowed);
        if left > 0 {
            return Want::Read { from: self.next, max: left };
        }
        match self.end {
            // An empty stream needs no farewell: its length stands in the result (protocol R-OUT-4).
            Some(end) if end == self.next && end > 0 && !self.end_told => Want::End { at: end },
            _ => Want::Nothing,
        }
    }

    /// A read was started.
    pub(super) fn reading(&mut self) {
        self.reading = true;
    }

    /// A read came back without a byte that could be sent.
    pub(super) fn read_nothing(&mut self) {
        self.reading = false;
    }

    /// A read failed: nothing more is read until [`Self::resume`]. Answers how many failed in a row.
    pub(super) fn failed(&mut self) -> u32 {
        self.paused = true;
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Nothing more is read until [`Self::resume`], because enough was sent for now.
    pub(super) fn rest(&mut self) {
        self.reading = true;
        self.paused = true;
    }

    /// How long to rest after `bytes` from `from` on were sent, when the command still runs. Only a stream with more bytes
    /// than are kept rests at all. One that grows faster than full pace is sent slowly: it is far ahead of whoever
    /// follows it, and most of what leaves now is thrown away at the other end. It goes on at full pace once it grows no
    /// faster than that.
    pub(super) fn overflow(&mut self, from: u64, bytes: u64) -> Option<Duration> {
        if self.known < DEFAULT_OUTPUT_QUOTA {
            return None;
        }
        let outrun = self.paced.is_some_and(|(known, could)| self.known.saturating_sub(known) > could);
        let rate = if outrun { OUTRUN_SENT } else { OVERFLOW_SENT };
        self.paced = Some((self.known, bytes.saturating_mul(OVERFLOW_SENT / rate)));
        let pause = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        (outrun || from >= DEFAULT_OUTPUT_QUOTA).then_some(pause)
    }

    /// The pause after a failed read, or a rest, is over; `false` when there is none any more.
    pub(super) fn resume(&mut self) -> bool {
        let paused = std::mem::take(&mut self.paused);
        self.reading &= !paused;
        paused
    }

    /// `bytes` from `from` on were sent, or a gap of that size was told; answers whether the last of them is the last
    /// of the stream, in which case the manager is being told so.
    pub(super) fn sent(&mut self, from: u64, bytes: u64) -> bool {
        self.reading = false;
        self.failures = 0;
        self.paused = false;
        self.next = from.saturating_add(bytes);
        self.known = self.known.max(self.next);
        let last = self.end == Some(self.next);
        self.end_told |= last;
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protocol R-OUT-4.
    #[test]
    fn bytes_leave_in_order_within_credit_and_the_end_rides_on_the_last_chunk() {
        let mut ship = Ship::default();
        assert_eq!(ship.want(10), Want::Nothing);
        ship.learn(25);
        assert_eq!(ship.want(10), Want::Read { from: 0, max: 10 });
        ship.reading();
        assert_eq!(ship.want(10), Want::Nothing, "one read at a time");
        assert!(!ship.sent(0, 10));
        assert_eq!(ship.want(0), Want::Nothing, "no credit");
        assert!(ship.has_more());
        ship.finish(25);
        assert_eq!(ship.want(100), Want::Read { from: 10, max: 15 });
        assert!(ship.sent(10, 15), "the last byte carries the end");
        assert!(!ship.has_more());
    }

    #[test]
    fn an_end_that_comes_after_the_last_byte_is_told_by_itself_and_once() {
        let mut ship = Ship::default();
        ship.learn(5);
        assert!(!ship.sent(0, 5));
        ship.finish(5);
        assert_eq!(ship.want(0), Want::End { at: 5 }, "it needs no credit");
        assert!(ship.sent(5, 0));
        assert_eq!(ship.want(9), Want::Nothing);
    }

    #[test]
    fn after_a_failed_read_nothing_is_read_until_the_pause_is_over() {
        let mut ship = Ship::default();
        ship.learn(5);
        ship.reading();
        assert_eq!(ship.failed(), 1);
        ship.learn(9);
        assert!(!ship.has_more());
        assert!(ship.resume());
        assert_eq!(ship.want(9), Want::Read { from: 0, max: 9 });
        ship.reading();
        assert_eq!(ship.failed(), 2);
        ship.begin(0);
        assert!(!ship.resume(), "the pause of another session hurries nothing");
        ship.reading();
        ship.sent(0, 9);
        ship.learn(10);
        ship.reading();
        assert_eq!(ship.failed(), 1, "only failures in a row count");
    }

    #[test]
    fn what_grows_faster_than_it_is_sent_is_sent_slowly_until_it_does_not() {
        const BYTES: u64 = 256 * 1024;
        let (full, slow) = (OVERFLOW_SENT, OUTRUN_SENT);
        let pause = |rate: u64| Some(Duration::from_nanos(BYTES * 1_000_000_000 / rate));
        let mut ship = Ship::default();
        ship.learn(DEFAULT_OUTPUT_QUOTA - 1);
        assert_eq!(ship.overflow(0, BYTES), None, "all of it is kept");
        ship.learn(DEFAULT_OUTPUT_QUOTA);
        assert_eq!(ship.overflow(0, BYTES), None, "nothing says yet that it goes on");
        assert_eq!(ship.overflow(DEFAULT_OUTPUT_QUOTA - 1, BYTES), None, "what is kept, of a stream that stands still");
        assert_eq!(ship.overflow(DEFAULT_OUTPUT_QUOTA, BYTES), pause(full), "beyond it");
        let mut grow = |bytes| {
            ship.learn(ship.known() + bytes);
            ship.overflow(DEFAULT_OUTPUT_QUOTA, BYTES)
        };
        assert_eq!(grow(BYTES), pause(full), "as fast as it is sent");
        assert_eq!(grow(BYTES + 1), pause(slow), "faster");
        // The pause was longer: more may have come meanwhile.
        assert_eq!(grow(BYTES * (full / slow) + 1), pause(slow), "still faster");
        assert_eq!(grow(BYTES * (full / slow)), pause(full), "not any more");
        assert_eq!(grow(0), pause(full));
        ship.learn(DEFAULT_OUTPUT_QUOTA * 4);
        assert_eq!(ship.overflow(0, BYTES), pause(slow), "also what it has within the quota");
        ship.begin(0);
        assert_eq!(ship.overflow(0, BYTES), None, "a new session has seen nothing yet");
    }

    #[test]
    fn an_empty_stream_says_nothing_and_a_new_session_starts_where_the_manager_wants() {
        let mut ship = Ship::default();
        ship.finish(0);
        assert!(!ship.has_more());
        let mut ship = Ship::default();
        ship.finish(100);
        ship.sent(0, 100);
        ship.begin(60);
        assert_eq!(ship.want(500), Want::Read { from: 60, max: 40 });
        ship.begin(100);
        assert_eq!(ship.want(500), Want::End { at: 100 });
        ship.begin(101);
        assert_eq!(ship.want(500), Want::Nothing, "longer bytes on the manager stand");
    }
}
