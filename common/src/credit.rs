//! Flow control of output: absolute grants per stream and one budget per session. No I/O.
//!
//! Grants are absolute offsets, so a repeated or reordered one is harmless (protocol R-CREDIT-2). Credit says that
//! bytes are readable on the manager; only `ResultAck` says that they are durable.

use std::collections::HashMap;

use crate::id::Uid;
use crate::model::StreamName;

/// The sender's side: how many bytes may leave (protocol R-CREDIT-1).
#[derive(Debug)]
pub struct SendWindow {
    stream_credit: u64,
    granted: HashMap<(Uid, StreamName), u64>,
    session_granted: u64,
    session_spent: u64,
}

impl SendWindow {
    /// Starts a session with what the manager announced.
    #[must_use]
    pub fn new(stream_credit: u64, session_credit: u64) -> Self {
        Self { stream_credit, granted: HashMap::new(), session_granted: session_credit, session_spent: 0 }
    }

    /// Opens a stream from the offset the manager wants first.
    pub fn open(&mut self, uid: Uid, stream: StreamName, from: u64) {
        let first = from.saturating_add(self.stream_credit);
        let granted = self.granted.entry((uid, stream)).or_insert(first);
        *granted = (*granted).max(first);
    }

    /// Takes a grant for a stream.
    pub fn grant(&mut self, uid: Uid, stream: StreamName, offset: u64) {
        let granted = self.granted.entry((uid, stream)).or_insert(self.stream_credit);
        *granted = (*granted).max(offset);
    }

    /// Takes a grant for the session.
    pub fn grant_session(&mut self, bytes: u64) {
        self.session_granted = self.session_granted.max(bytes);
    }

    /// How many bytes of a stream may leave from `offset` on.
    #[must_use]
    pub fn allowed(&self, uid: Uid, stream: StreamName, offset: u64) -> u64 {
        let granted = self.granted.get(&(uid, stream)).copied().unwrap_or(self.stream_credit);
        let of_stream = granted.saturating_sub(offset);
        let of_session = self.session_granted.saturating_sub(self.session_spent);
        of_stream.min(of_session)
    }

    /// Records that bytes left.
    pub fn spend(&mut self, bytes: u64) {
        self.session_spent = self.session_spent.saturating_add(bytes);
    }

    /// Forgets the streams of a command.
    pub fn close(&mut self, uid: Uid) {
        self.granted.retain(|(of, _), _| *of != uid);
    }
}

/// The receiver's side: when to grant how much.
///
/// A grant leaves when a quarter of the window was used up: often enough that the sender never starves, seldom enough
/// that grants are not traffic of their own.
#[derive(Debug)]
pub struct ReceiveWindow {
    stream_credit: u64,
    session_credit: u64,
    granted: HashMap<(Uid, StreamName), u64>,
    session_granted: u64,
    session_received: u64,
    session_readable: u64,
}

/// A grant to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Absolute offset for the stream.
    pub offset: u64,
    /// Absolute number of bytes for the session.
    pub session_bytes: u64,
}

/// The sender went beyond what it was granted, which ends the session (protocol R-CREDIT-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("output beyond the granted credit")]
pub struct Overdrawn;

impl ReceiveWindow {
    /// Starts a session with what was announced in `ServerHello`.
    #[must_use]
    pub fn new(stream_credit: u64, session_credit: u64) -> Self {
        Self {
            stream_credit,
            session_credit,
            granted: HashMap::new(),
            session_granted: session_credit,
            session_received: 0,
            session_readable: 0,
        }
    }

    /// Opens a stream at the offset that was asked for.
    pub fn open(&mut self, uid: Uid, stream: StreamName, from: u64) {
        let first = from.saturating_add(self.stream_credit);
        let granted = self.granted.entry((uid, stream)).or_insert(first);
        *granted = (*granted).max(first);
    }

    /// Counts bytes that arrived for a stream and end at `end`.
    ///
    /// # Errors
    /// When the sender had no credit for them.
    pub fn received(&mut self, uid: Uid, stream: StreamName, end: u64, bytes: u64) -> Result<(), Overdrawn> {
        let granted = *self.granted.entry((uid, stream)).or_insert(self.stream_credit);
        self.session_received = self.session_received.saturating_add(bytes);
        if end > granted || self.session_received > self.session_granted {
            return Err(Overdrawn);
        }
        Ok(())
    }

    /// Learns that a stream is readable up to `offset` and that `bytes` more of the session left memory.
    /// Answers with a grant when one is worth a frame.
    pub fn readable(&mut self, uid: Uid, stream: StreamName, offset: u64, bytes: u64) -> Option<Grant> {
        self.session_readable = self.session_readable.saturating_add(bytes);
        let wanted = offset.saturating_add(self.stream_credit);
        let session_wanted = self.session_readable.saturating_add(self.session_credit);
        let granted = self.granted.entry((uid, stream)).or_insert(self.stream_credit);
        let worth = wanted.saturating_sub(*granted) >= self.stream_credit / 4
            || session_wanted.saturating_sub(self.session_granted) >= self.session_credit / 4;
        if !worth {
            return None;
        }
        *granted = (*granted).max(wanted);
        self.session_granted = self.session_granted.max(session_wanted);
        Some(Grant { offset: *granted, session_bytes: self.session_granted })
    }

    /// Forgets the streams of a command.
    pub fn close(&mut self, uid: Uid) {
        self.granted.retain(|(of, _), _| *of != uid);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUT: StreamName = StreamName::Stdout;

    /// Protocol R-CREDIT-1, R-CREDIT-2.
    #[test]
    fn credit_ends_exactly_at_its_edge_and_repeated_grants_change_nothing() {
        let uid = Uid([1; 16]);
        let mut window = SendWindow::new(100, 150);
        assert_eq!(window.allowed(uid, OUT, 0), 100);
        assert_eq!(window.allowed(uid, OUT, 100), 0);
        window.grant(uid, OUT, 300);
        window.grant(uid, OUT, 200);
        assert_eq!(window.allowed(uid, OUT, 100), 150, "the session's budget is the tighter one");
        window.spend(150);
        assert_eq!(window.allowed(uid, OUT, 100), 0);
        window.grant_session(160);
        window.grant_session(10);
        assert_eq!(window.allowed(uid, OUT, 100), 10);
    }

    /// Protocol R-CREDIT-4.
    #[test]
    fn a_sender_that_takes_more_than_it_was_given_is_found() {
        let uid = Uid([1; 16]);
        let mut window = ReceiveWindow::new(100, 1000);
        assert_eq!(window.received(uid, OUT, 100, 100), Ok(()));
        assert_eq!(window.received(uid, OUT, 101, 1), Err(Overdrawn));
        let mut window = ReceiveWindow::new(100, 150);
        assert_eq!(window.received(uid, OUT, 100, 100), Ok(()));
        assert_eq!(window.received(uid, StreamName::Stderr, 51, 51), Err(Overdrawn));
    }

    proptest! {
        /// Whatever the pieces, sender and receiver agree and the stream never stalls.
        #[test]
        fn the_two_windows_agree_and_the_stream_reaches_its_end(pieces in proptest::collection::vec(1u64..70, 1..200), from in 0u64..1000) {
            let uid = Uid([2; 16]);
            let (mut sender, mut receiver) = (SendWindow::new(64, 256), ReceiveWindow::new(64, 256));
            sender.open(uid, OUT, from);
            receiver.open(uid, OUT, from);
            let mut offset = from;
            let total: u64 = from + pieces.iter().sum::<u64>();
            let mut pieces = pieces.into_iter();
            while offset < total {
                let want = pieces.next().unwrap_or(64).min(total - offset);
                let take = sender.allowed(uid, OUT, offset).min(want);
                prop_assert!(take > 0, "stalled at {offset} of {total}");
                sender.spend(take);
                offset += take;
                prop_assert_eq!(receiver.received(uid, OUT, offset, take), Ok(()));
                if let Some(grant) = receiver.readable(uid, OUT, offset, take) {
                    sender.grant(uid, OUT, grant.offset);
                    sender.grant_session(grant.session_bytes);
                }
            }
        }
    }
}
