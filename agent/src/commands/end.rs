//! Everything that is known when a command has ended, as it stands in END and travels as `CommandResult`.

use std::collections::HashSet;

use bytes::Bytes;
use common::handshake::truncate;
use common::id::Uid;
use common::limits;
use common::model::{Outcome, StreamName};
use common::wire;
use serde::{Deserialize, Serialize};

/// The version that START and END payloads carry.
pub(crate) const VERSION: u32 = 1;
/// Gaps of one stream: more would make an end that no record, tombstone or frame has to carry. A disk that is full and
/// not full in turn makes ten in a second.
pub(crate) const MAX_GAPS: usize = 1_000;
/// Kept files of one stream that an end names; the hashes of the others are left out.
pub(crate) const MAX_SEGMENTS: usize = 1_000;

/// Flags that an end keeps when it is cut.
const MAX_CUT_FLAGS: usize = 16;

/// Why a command ended as interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The machine was started anew since.
    Reboot,
    /// The shim ended without writing END.
    ShimKilled,
    /// The record cannot be understood.
    RecordCorrupt,
}

impl Evidence {
    /// The stable code in `error.code`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::ShimKilled => "shim_killed",
            Self::RecordCorrupt => "record_corrupt",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Reboot => "the machine was restarted while the command ran",
            Self::ShimKilled => {
                "the process that watches the command was killed; what was found of it was killed after it"
            }
            Self::RecordCorrupt => "the record of the command on the agent's disk cannot be read",
        }
    }
}

/// A stable code and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: String,
    /// For people.
    pub text: String,
}

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Version of this payload.
    pub v: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it may have changed something: its process was let go.
    #[serde(default)]
    pub changed: bool,
    /// What the main process gave to `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u32>,
    /// Whether that left a core.
    #[serde(default)]
    pub core_dumped: bool,
    /// Whether the kernel killed something of it for memory.
    #[serde(default)]
    pub oom: bool,
    /// What went wrong apart from the program's own status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Wall clock when the process was let go, Unix milliseconds; 0: never.
    #[serde(default)]
    pub started_ms: u64,
    /// Wall clock at the end, Unix milliseconds.
    pub finished_ms: u64,
    /// From the monotonic clock.
    #[serde(default)]
    pub duration_us: u64,
    /// User and system time of everything it ran.
    #[serde(default)]
    pub cpu_us: u64,
    /// Bytes.
    #[serde(default)]
    pub memory_peak: u64,
    /// Bytes read from devices.
    #[serde(default)]
    pub io_read: u64,
    /// Bytes written to devices.
    #[serde(default)]
    pub io_written: u64,
    /// Most processes and threads at once; 0: not counted.
    #[serde(default)]
    pub tasks_peak: u64,
    /// Streams that have bytes or gaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamEnd>,
    /// Who cancelled it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cancelled_by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cancel_reason: String,
    /// How well it was fenced in: `cgroup` or `best_effort`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isolation: String,
    /// What else is worth knowing, as stable words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// The stream lengths are what was found, not what was written.
    #[serde(default)]
    pub lower_bounds: bool,
    /// What an operation without a process answers, JSON.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// One stream at the end of its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// Which one.
    pub stream: StreamName,
    /// Bytes the process wrote, gaps counted.
    pub length: u64,
    /// What is not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<GapRange>,
    /// What is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentEnd>,
}

/// Bytes that a quota or a full disk took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRange {
    /// Where they were.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// One kept file of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEnd {
    /// Offset of its first byte.
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// BLAKE3 in hex; empty when nobody saw all its bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub blake3: String,
}

impl End {
    /// An end without a process: the caller fills in what it knows beyond that.
    #[must_use]
    pub fn without_process(outcome: Outcome, now_ms: u64) -> Self {
        Self {
            v: VERSION,
            outcome,
            changed: false,
            exit_code: None,
            signal: None,
            core_dumped: false,
            oom: false,
            error: None,
            started_ms: 0,
            finished_ms: now_ms,
            duration_us: 0,
            cpu_us: 0,
            memory_peak: 0,
            io_read: 0,
            io_written: 0,
            tasks_peak: 0,
            streams: Vec::new(),
            cancelled_by: String::new(),
            cancel_reason: String::new(),
            isolation: String::new(),
            flags: Vec::new(),
            lower_bounds: false,
            value: String::new(),
        }
    }

    /// The end of a command that somebody cancelled before it had a process.
    #[must_use]
    pub fn cancelled(by: &str, reason: &str, now_ms: u64) -> Self {
        Self {
            cancelled_by: by.to_owned(),
            cancel_reason: reason.to_owned(),
            ..Self::without_process(Outcome::Cancelled, now_ms)
        }
    }

    /// The end of a command whose validity passed before it had a process.
    #[must_use]
    pub fn expired(now_ms: u64) -> Self {
        Self::without_process(Outcome::Expired, now_ms).because("expired", "its validity passed before it was started")
    }

    /// The end of a command that was started and whose end nobody saw.
    #[must_use]
    pub fn interrupted(evidence: Evidence, now_ms: u64) -> Self {
        let end = Self { lower_bounds: true, ..Self::without_process(Outcome::Interrupted, now_ms) };
        end.because(evidence.code(), evidence.text())
    }

    /// The same end with a code and a sentence.
    #[must_use]
    pub fn because(mut self, code: &str, text: impl Into<String>) -> Self {
        self.error = Some(Failure { code: code.to_owned(), text: text.into() });
        self
    }

    /// The same end without the lists of what is kept and what is not: its size no longer depends on the output.
    #[must_use]
    pub fn lengths_only(mut self) -> Self {
        for stream in &mut self.streams {
            stream.gaps = Vec::new();
            stream.segments = Vec::new();
        }
        self
    }

    /// The same end with its texts cut: a few kilobytes, whatever was in it.
    #[must_use]
    pub(crate) fn cut(self) -> Self {
        let mut end = self.lengths_only();
        end.value = String::new();
        end.flags.truncate(MAX_CUT_FLAGS);
        let texts = [&mut end.cancelled_by, &mut end.cancel_reason, &mut end.isolation];
        for text in texts.into_iter().chain(&mut end.flags) {
            truncate(text, limits::MAX_TEXT_BYTES);
        }
        if let Some(error) = &mut end.error {
            truncate(&mut error.code, limits::MAX_TEXT_BYTES);
            truncate(&mut error.text, limits::MAX_TEXT_BYTES);
        }
        end
    }

    /// The length of one stream; 0 when it has none.
    #[must_use]
    pub fn length(&self, stream: StreamName) -> u64 {
        self.streams.iter().find(|end| end.stream == stream).map_or(0, |end| end.length)
    }

    /// The message that carries this end to the manager.
    #[must_use]
    pub fn to_result(&self, uid: Uid, id: u64) -> wire::CommandResult {
        let (error_code, error_text) = match &self.error {
            Some(failure) => (failure.code.clone(), failure.text.clone()),
            None => (String::new(), String::new()),
        };
        wire::CommandResult {
            uid: uid.to_wire(),
            id,
            outcome: self.outcome.to_wire(),
            changed: self.changed,
            has_exit_code: self.exit_code.is_some(),
            exit_code: self.exit_code.unwrap_or_default(),
            signal: self.signal.unwrap_or_default(),
            core_dumped: self.core_dumped,
            oom: self.oom,
            error_code,
            error_text,
            started_ms: self.started_ms,
            finished_ms: self.finished_ms,
            duration_us: self.duration_us,
            cpu_us: self.cpu_us,
            memory_peak: self.memory_peak,
            io_read: self.io_read,
            io_written: self.io_written,
            tasks_peak: self.tasks_peak,
            streams: self.streams.iter().map(StreamEnd::to_wire).collect(),
            cancelled_by: self.cancelled_by.clone(),
            cancel_reason: self.cancel_reason.clone(),
            isolation: self.isolation.clone(),
            flags: self.flags.clone(),
            lengths_are_lower_bounds: self.lower_bounds,
            value: Bytes::copy_from_slice(self.value.as_bytes()),
        }
    }
}

/// Joins gaps until there are at most [`MAX_GAPS`]: those with the fewest bytes between them. Answers the segments
/// that stood there and now belong to a gap: their files have to go, so that what is said stays true.
pub(crate) fn narrow(gaps: &mut Vec<GapRange>, segments: &mut Vec<SegmentEnd>) -> Vec<SegmentEnd> {
    let excess = gaps.len().saturating_sub(MAX_GAPS);
    if excess == 0 {
        return Vec::new();
    }
    let mut between: Vec<_> = gaps
        .iter()
        .zip(gaps.iter().skip(1))
        .enumerate()
        .map(|(index, (gap, next))| (next.offset.saturating_sub(gap.end()), index + 1))
        .collect();
    between.sort_unstable();
    let joined: HashSet<_> = between.into_iter().take(excess).map(|(_, index)| index).collect();
    let mut kept: Vec<GapRange> = Vec::with_capacity(MAX_GAPS);
    for (index, gap) in std::mem::take(gaps).into_iter().enumerate() {
        match kept.last_mut().filter(|_| joined.contains(&index)) {
            Some(last) => last.length = gap.end().saturating_sub(last.offset),
            None => kept.push(gap),
        }
    }
    let (lost, left) = std::mem::take(segments).into_iter().partition(|segment| {
        let before = kept.partition_point(|gap| gap.offset <= segment.offset);
        before.checked_sub(1).and_then(|at| kept.get(at)).is_some_and(|gap| segment.offset < gap.end())
    });
    *gaps = kept;
    *segments = left;
    lost
}

impl GapRange {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

impl StreamEnd {
    fn to_wire(&self) -> wire::StreamEnd {
        // A segment that nobody could hash is no evidence: it is left out, never sent with half of one.
        let hashed = |segment: &SegmentEnd| {
            let hash = blake3::Hash::from_hex(&segment.blake3).ok()?;
            Some(wire::SegmentHash {
                offset: segment.offset,
                length: segment.length,
                hash: Bytes::copy_from_slice(hash.as_bytes()),
            })
        };
        // Records of before the limit may name more gaps than a manager takes; the output says them anyway.
        let gaps = if self.gaps.len() > MAX_GAPS { &[] } else { self.gaps.as_slice() };
        wire::StreamEnd {
            stream: self.stream.to_wire(),
            length: self.length,
            gaps: gaps.iter().map(|gap| wire::Gap { offset: gap.offset, length: gap.length }).collect(),
            segments: self.segments.iter().filter_map(hashed).take(MAX_SEGMENTS).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_gaps_are_joined_where_the_fewest_bytes_are_lost() {
        let gap = |at: u64, length| GapRange { offset: at, length };
        let segment = |offset, length| SegmentEnd { offset, length, blake3: String::new() };
        // 10 bytes of gap, 90 of output, and so on; behind the second gap only 5 bytes stand.
        let mut gaps: Vec<_> = (0..MAX_GAPS as u64).map(|n| gap(n * 100, 10)).collect();
        let mut segments: Vec<_> = (0..MAX_GAPS as u64).map(|n| segment(n * 100 + 10, 90)).collect();
        assert!(narrow(&mut gaps, &mut segments).is_empty());
        assert_eq!((gaps.len(), segments.len()), (MAX_GAPS, MAX_GAPS));
        gaps.insert(2, gap(115, 60));
        segments[1] = segment(110, 5);
        assert_eq!(narrow(&mut gaps, &mut segments), [segment(110, 5)]);
        assert_eq!(gaps.len(), MAX_GAPS);
        assert_eq!(gaps[..3], [gap(0, 10), gap(100, 75), gap(200, 10)]);
        assert_eq!(segments.len(), MAX_GAPS - 1);
    }

    #[test]
    fn whatever_an_end_holds_it_can_be_cut_to_a_few_kilobytes() {
        let long = "x".repeat(1 << 20);
        let mut end = End::cancelled(&long, &long, 1).because(&long, long.clone());
        end.flags = vec![long.clone(); 1_000];
        end.value = long;
        let gaps = vec![GapRange { offset: 1, length: 1 }; 100_000];
        end.streams.push(StreamEnd { stream: StreamName::Stdout, length: 9, gaps, segments: Vec::new() });
        let result = end.to_result(Uid([1; 16]), 7);
        assert!(result.streams[0].gaps.is_empty(), "a list that no manager takes is not sent");
        let cut = end.cut();
        assert_eq!((cut.outcome, cut.length(StreamName::Stdout)), (Outcome::Cancelled, 9));
        assert!(serde_json::to_vec(&cut).is_ok_and(|json| json.len() < 16 * 1024));
    }

    #[test]
    fn a_segment_without_a_hash_is_not_reported() {
        let known = blake3::hash(b"abc");
        let segment = |offset, blake3: &str| SegmentEnd { offset, length: 3, blake3: blake3.to_owned() };
        let segments = vec![segment(0, ""), segment(3, &known.to_hex()), segment(6, "zz")];
        let mut end = End::interrupted(Evidence::ShimKilled, 1);
        end.streams.push(StreamEnd { stream: StreamName::Stdout, length: 9, gaps: Vec::new(), segments });
        let result = end.to_result(Uid([1; 16]), 7);
        assert_eq!(result.streams.len(), 1);
        assert_eq!(result.streams[0].length, 9);
        let told: Vec<_> = result.streams[0].segments.iter().map(|one| (one.offset, one.hash.to_vec())).collect();
        assert_eq!(told, vec![(3, known.as_bytes().to_vec())]);
    }
}
