//! Delivery: output in turn, within credit and a bounded queue; results until they are acknowledged.

use std::collections::HashMap;

use bytes::Bytes;
use common::crash;
use common::error::Chain;
use common::id::Uid;
use common::limits::MAX_OUTPUT_PAYLOAD;
use common::link::Lane;
use common::model::StreamName;
use common::wire::frame::Body;
use common::wire::{CommandOutput, CommandResult, Nak};
use tracing::{error, trace, warn};

use super::dispatcher::{Dispatcher, Live};
use super::jobs::{self, Read, ReadOrder};
use super::ship::Want;
use super::table::{Delivery, Entry, Step};
use crate::commands::segment::{Piece, StreamReader};

/// Bytes that wait in the writer, at most: enough to keep the wire busy, little enough that credit and lanes decide.
pub(super) const QUEUE: usize = 512 * 1024;
/// Bytes of one stream in one turn: others come in between.
const TURN: u64 = 256 * 1024;
/// Reads under way at the same time: one is being sent while the next ones are read.
const READS: usize = 2;

/// Reads of an ended command's output that may fail in a row, six seconds all together, before it is given up.
const READ_TRIES: u32 = 7;

/// Open segment files of the session's streams.
pub(super) type Readers = HashMap<(Uid, StreamName), StreamReader>;
/// More open files than these are not kept between turns.
const READERS: usize = 64;

impl Dispatcher {
    /// The manager wants the rest of a command from these offsets on; a stream that is not named from 0.
    pub(super) fn attach(&mut self, uid: Uid, from: &[(StreamName, u64)]) {
        let (Some(entry), Some(live)) = (self.table.get_mut(uid), &mut self.live) else { return };
        entry.delivery.attached = true;
        entry.delivery.result_sent = false;
        for stream in StreamName::ALL {
            let first = from.iter().find(|(name, _)| *name == stream).map_or(0, |(_, offset)| *offset);
            if first > 0 || entry.streams().any(|(name, _)| name == stream) {
                entry.ship(stream).begin(first);
                live.window.open(uid, stream, first);
            }
        }
        self.progress(uid);
        self.ring_all(uid);
        self.deliver_result(uid);
    }

    /// Sends the end of a command, once per session until it is acknowledged (protocol R-RES-3). It does not wait for
    /// the output (R-RES-1).
    pub(super) fn deliver_result(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        let Step::Ended(result) = entry.step() else { return };
        let Delivery { attached, result_sent, result_refused, .. } = entry.delivery;
        let Some(live) = self.live.as_mut().filter(|_| attached && !result_sent && !result_refused) else { return };
        crash::point("agent.result.before");
        entry.delivery.result_seq = live.session.push(Lane::Control, Body::CommandResult(CommandResult::clone(result)));
        entry.delivery.result_sent = true;
        crash::point("agent.result.after");
    }

    /// The manager refused a frame. A result stays here, and this session does not bring it again: the answer would be
    /// the same.
    pub(super) fn refused(&mut self, seq: u64, nak: &Nak) {
        let (code, reason) = (nak.code(), common::escape::text(&nak.reason));
        if self.past_refused(seq, nak) {
            return;
        }
        let Some(uid) = self.table.uid_of_result(seq) else {
            warn!(reply_to = seq, ?code, %reason, "The manager refused a frame");
            return;
        };
        if let Some(entry) = self.table.get_mut(uid)
            && !std::mem::replace(&mut entry.delivery.result_refused, true)
        {
            error!(task.id = %uid, command.id = entry.id, ?code, %reason, "The manager refused a result; it is kept");
        }
    }

    /// Puts the streams of a command in turn.
    pub(super) fn ring_all(&mut self, uid: Uid) {
        for stream in StreamName::ALL {
            let Some(entry) = self.table.get(uid) else { return };
            if entry.streams().any(|(name, ship)| name == stream && ship.has_more()) {
                self.ring(uid, stream);
            }
        }
    }

    /// Puts one stream in turn.
    pub(super) fn ring(&mut self, uid: Uid, stream: StreamName) {
        if self.live.is_some() && self.work.ringed.insert((uid, stream)) {
            self.work.ring.push_back((uid, stream));
        }
    }

    /// Sends what may be sent now.
    pub(super) fn ship(&mut self) {
        self.work.hungry = false;
        for _ in 0..self.work.ring.len() {
            let Some(live) = &mut self.live else { return };
            if self.work.reads >= READS {
                return;
            }
            let coming = usize::try_from(live.reading).unwrap_or(usize::MAX);
            let queued = live.session.queued_bytes();
            if queued.saturating_add(coming) >= QUEUE {
                // Reads that come back wake the loop by themselves.
                self.work.hungry = self.work.reads == 0;
                return;
            }
            let Some((uid, stream)) = self.work.ring.pop_front() else { return };
            self.work.ringed.remove(&(uid, stream));
            let Some(entry) = self.table.get_mut(uid).filter(|entry| entry.delivery.attached) else { continue };
            let lane = lane(entry);
            let ship = entry.ship(stream);
            let allowed = live.window.allowed(uid, stream, ship.next()).saturating_sub(live.reading);
            match ship.want(allowed) {
                Want::Nothing if ship.has_more() => self.work.starved.push((uid, stream)),
                Want::Nothing => {}
                Want::End { at } => {
                    ship.sent(at, 0);
                    let end = CommandOutput { end: true, ..output(uid, stream, at) };
                    live.session.push(lane, Body::CommandOutput(end));
                }
                Want::Read { from, max } => {
                    let max = max.min(TURN);
                    ship.reading();
                    live.reading += max;
                    let session = live.number;
                    let reader = self.readers.remove(&(uid, stream));
                    self.work.reads += 1;
                    self.job(move |home| jobs::read(home, ReadOrder { session, uid, stream, from, max, reader }));
                }
            }
        }
    }

    /// Output was read.
    pub(super) fn read(&mut self, read: Read) {
        let Read { session, uid, stream, from, reserved, next_file, reader, piece } = read;
        self.work.reads -= 1;
        let Some(live) = self.live.as_mut().filter(|live| live.number == session) else { return };
        live.reading = live.reading.saturating_sub(reserved);
        let Some(entry) = self.table.get_mut(uid) else { return };
        let mut rest = None;
        match piece {
            Ok(Piece::Bytes(bytes)) => {
                if entry.is_active() {
                    rest = entry.ship(stream).overflow(from, bytes.len() as u64);
                }
                send(live, entry, uid, stream, from, bytes);
            }
            Ok(Piece::Gap(size)) => send_gap(live, entry, uid, stream, from, size),
            Ok(Piece::Nothing) => match missing(entry, stream, from) {
                Some(size) => send_gap(live, entry, uid, stream, from, size),
                None => {
                    // Bytes that are not there yet; the next note brings us back.
                    entry.ship(stream).read_nothing();
                    return;
                }
            },
            Err(error) => {
                let tries = entry.ship(stream).failed();
                let lost = lost(entry, stream, from, next_file).filter(|_| tries >= READ_TRIES && !error.is_passing());
                let Some(size) = lost else {
                    warn!(task.id = %uid, %stream, from, tries, error = %Chain(&error), "Output cannot be read");
                    return self.read_later(uid, stream, tries);
                };
                error!(
                    task.id = %uid, %stream, from, size, error = %Chain(&error),
                    "Output on the disk cannot be read; it is delivered as a gap"
                );
                send_gap(live, entry, uid, stream, from, size);
            }
        }
        if entry.ship(stream).has_more() {
            if self.readers.len() < READERS {
                self.readers.insert((uid, stream), reader);
            }
            match rest {
                Some(pause) => {
                    entry.ship(stream).rest();
                    self.rest(uid, stream, pause);
                }
                None => self.ring(uid, stream),
            }
        }
    }

    /// Sends bytes that a look brought along, where they are exactly what comes next.
    pub(super) fn send_pieces(&mut self, uid: Uid, pieces: Vec<(StreamName, u64, Bytes)>) {
        for (stream, from, bytes) in pieces {
            let (Some(entry), Some(live)) = (self.table.get_mut(uid), &mut self.live) else { return };
            let allowed = live.window.allowed(uid, stream, from).saturating_sub(live.reading);
            let size = bytes.len() as u64;
            let fits = entry.delivery.attached
                && entry.ship(stream).want(allowed) == Want::Read { from, max: size }
                && live.session.queued_bytes() < QUEUE;
            if fits {
                send(live, entry, uid, stream, from, bytes);
            }
        }
    }
}

/// Whether somebody may be following.
fn lane(entry: &Entry) -> Lane {
    if entry.delivery.backfill { Lane::Bulk } else { Lane::Followed }
}

/// A chunk without anything in it.
pub(super) fn output(uid: Uid, stream: StreamName, offset: u64) -> CommandOutput {
    CommandOutput { uid: uid.to_wire(), stream: stream.to_wire(), offset, ..CommandOutput::default() }
}

fn send(live: &mut Live, entry: &mut Entry, uid: Uid, stream: StreamName, from: u64, bytes: Bytes) {
    let lane = lane(entry);
    let most = live.session.welcome.max_output_payload.clamp(1, MAX_OUTPUT_PAYLOAD);
    let size = bytes.len() as u64;
    live.window.spend(size);
    let last = entry.ship(stream).sent(from, size);
    let (mut left, mut offset) = (bytes, from);
    while !left.is_empty() {
        let data = left.split_to(most.min(left.len()));
        let next = offset + data.len() as u64;
        let end = last && left.is_empty();
        live.session.push(lane, Body::CommandOutput(CommandOutput { data, end, ..output(uid, stream, offset) }));
        offset = next;
    }
    trace!(task.id = %uid, %stream, from, size, last, "Output sent");
}

/// Says how many bytes are lost, exactly and without any data (protocol R-OUT-3).
fn send_gap(live: &mut Live, entry: &mut Entry, uid: Uid, stream: StreamName, from: u64, gap: u64) {
    let lane = lane(entry);
    let end = entry.ship(stream).sent(from, gap);
    live.session.push(lane, Body::CommandOutput(CommandOutput { gap, end, ..output(uid, stream, from) }));
}

/// How many bytes at `from` are lost when their file cannot be read, for a command that has ended: the rest of that file.
/// While it runs its file is tried again and again.
fn lost(entry: &Entry, stream: StreamName, from: u64, next_file: Option<u64>) -> Option<u64> {
    let Step::Ended(result) = entry.step() else { return None };
    let end = result.streams.iter().find(|end| end.stream == stream.to_wire())?;
    let until = next_file.map_or(end.length, |next| next.min(end.length));
    until.checked_sub(from).filter(|size| *size > 0)
}

/// How many bytes at `from` will never come, for a command that has ended: up to the end of the gap that its end names,
/// or everything when bytes that should be there are not.
fn missing(entry: &mut Entry, stream: StreamName, from: u64) -> Option<u64> {
    let Step::Ended(result) = entry.step() else { return None };
    let end = result.streams.iter().find(|end| end.stream == stream.to_wire())?;
    let named = end
        .gaps
        .iter()
        .find(|gap| (gap.offset..gap.offset.saturating_add(gap.length)).contains(&from))
        .map(|gap| gap.offset.saturating_add(gap.length) - from);
    let rest = end.length.saturating_sub(from);
    named.or((rest > 0).then_some(rest))
}
