//! What failed for a reason that may pass, and is tried again later: places that are not durable, removals, reads.
//! Each has its own clock, so that one that goes on failing holds up nothing else.

use std::time::Duration;

use common::error::Chain;
use common::id::Uid;
use common::model::StreamName;
use tokio::time::Instant;
use tracing::warn;

use super::burial::Delivered;
use super::dispatcher::Dispatcher;
use super::jobs;
use crate::commands::FileError;

/// A place that is not durable is looked after this often: the manager asks again as often.
const SETTLE: Duration = Duration::from_secs(1);
/// A removal that failed is tried again after this.
const FORGET: Duration = Duration::from_secs(5);
/// A read that failed is tried again after this, doubled each time up to the second value.
const READ: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// What waits to be tried again.
#[derive(Default)]
pub(super) struct Again {
    unsettled: Vec<Uid>,
    settle_at: Option<Instant>,
    unforgotten: Vec<Uid>,
    forget_at: Option<Instant>,
    /// With the number of the session that wanted it.
    reads: Vec<(Instant, u64, Uid, StreamName)>,
}

impl Again {
    /// When the next one is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let reads = self.reads.iter().map(|(at, ..)| *at);
        reads.chain(self.settle_at).chain(self.forget_at).min()
    }
}

impl Dispatcher {
    /// A command's directory may or may not outlive a crash.
    pub(super) fn settle_later(&mut self, uid: Uid) {
        self.work.again.unsettled.push(uid);
        self.work.again.settle_at.get_or_insert_with(|| Instant::now() + SETTLE);
    }

    /// Delivered commands could not be replaced by their tombstones.
    pub(super) fn forget_later(&mut self, failed: Vec<(Uid, FileError)>) {
        if let Some((uid, error)) = failed.first() {
            let count = failed.len();
            warn!(task.id = %uid, error = %Chain(error), count, "Delivered commands could not be removed");
            self.work.again.unforgotten.extend(failed.into_iter().map(|(uid, _)| uid));
            self.work.again.forget_at.get_or_insert_with(|| Instant::now() + FORGET);
        }
    }

    /// Output could not be read, for the `tries`th time in a row. The stream counts as being read until then, so that
    /// nothing else hurries it.
    pub(super) fn read_later(&mut self, uid: Uid, stream: StreamName, tries: u32) {
        let pause = READ.0.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(READ.1);
        self.rest(uid, stream, pause);
    }

    /// A stream is left alone for a while; it counts as being read until then.
    pub(super) fn rest(&mut self, uid: Uid, stream: StreamName, pause: Duration) {
        let session = self.session_number();
        self.work.again.reads.push((Instant::now() + pause, session, uid, stream));
    }

    /// Tries what is due.
    pub(super) fn try_again(&mut self, now: Instant) {
        let again = &mut self.work.again;
        let mut settle = Vec::new();
        if again.settle_at.is_some_and(|at| at <= now) {
            again.settle_at = None;
            settle = std::mem::take(&mut again.unsettled);
        }
        let mut forget = Vec::new();
        if again.forget_at.is_some_and(|at| at <= now) {
            again.forget_at = None;
            forget = std::mem::take(&mut again.unforgotten);
        }
        let due: Vec<_> = again.reads.extract_if(.., |(at, ..)| *at <= now).collect();
        if !settle.is_empty() {
            self.job(move |home| jobs::settle_places(home, settle));
        }
        for uid in forget {
            if let Some(entry) = self.table.get(uid) {
                self.work.forget.push(Delivered::new(uid, entry));
                self.work.forget_at = Some(now);
            }
        }
        for (_, session, uid, stream) in due {
            if session == self.session_number()
                && let Some(entry) = self.table.get_mut(uid)
                && entry.ship(stream).resume()
            {
                self.ring(uid, stream);
            }
        }
    }
}
