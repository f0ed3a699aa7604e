//! Every bound of the store with its reason: what waits, what is taken at once, what one agent or caller may cause.
//!
//! Bounds of the wire stand in `common::limits`.

use std::time::Duration;

use crate::types::Millis;

// What waits for the writers, and what they take at once.

/// Changes of the main file that wait for the writer: some groups; callers beyond it wait a while, then hear `Busy`.
pub(crate) const MAIN_QUEUE: usize = 2048;
/// Appends that wait for the writer. Their bytes are bounded by the credit that sessions were granted.
pub(crate) const OUTPUT_QUEUE: usize = 8192;
/// Changes in one commit: bounds how long the first of a group waits for its answer.
pub(crate) const GROUP: usize = 256;
/// How long a change may wait for room in the queue before the answer is `Busy`.
pub(crate) const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// How long patient changes wait for others. Long enough that the word of a short command's start meets the word of its
/// end, short enough that nobody who looks sees a delay.
pub(crate) const PATIENCE: Duration = Duration::from_millis(4);
/// Reads at the same time: a list that is slow must not keep single rows waiting, and more would only share two cores.
pub(crate) const READERS: usize = 4;
/// Commands ended in one change: the writer belongs to submits in between.
pub(crate) const EXPIRED_AT_ONCE: i64 = 500;
/// Commands refused in one change, for the same reason: each is an update, an event and a row of the audit.
pub(crate) const REFUSED_AT_ONCE: usize = 500;
/// Rows looked at in one step.
pub(crate) const PRUNED_AT_ONCE: i64 = 500;

// Commands, and what their agents and callers may say of them.

/// Moves of one command by its agent that make events: a pause and a going on every minute for three days. An agent that
/// flips a command for ever fills no disk; the phase itself still follows it, and its end is an event in any case.
pub(crate) const MAX_MOVES: i64 = 10_000;
/// Characters of requests and ends in one page of a list: a thousand usual ones, or eight of the largest that fit into
/// a frame. Whoever lists goes on behind the cursor, so a caller cannot make the manager hold gigabytes.
pub(crate) const PAGE_WEIGHT: u64 = 8 * 1024 * 1024;
/// How long a key is known.
pub(crate) const KEYS_KEPT: Millis = 24 * 3600 * 1000;
/// Longest id of a token: keeps lines of the revocation file short.
pub(crate) const TOKEN_ID: usize = 128;
/// How long a host may ask again for the certificate of its join: it crashed, or the answer was lost.
pub(crate) const JOIN_REPEAT: Millis = 3600 * 1000;
/// Rows in the audit of refused joins with one token in [`JOIN_REFUSAL_WINDOW`]: enough to see what goes on.
pub(crate) const JOIN_REFUSAL_ROWS: u32 = 10;
/// The time that [`JOIN_REFUSAL_ROWS`] are for.
pub(crate) const JOIN_REFUSAL_WINDOW: Millis = 60 * 1000;
/// Tokens whose refusals are counted before those without a recent one are forgotten.
pub(crate) const REFUSED_TOKENS_KEPT: usize = 1_000;
/// How long a join token or a certificate of an operator is listed after its end: people look for what happened last
/// month; what is older stands in the audit.
pub(crate) const ENDED_KEPT: Millis = 30 * 24 * 3600 * 1000;
/// Keys of calls that a wish to cancel remembers: two people who lose patience, and their repeats.
pub(crate) const CANCEL_KEYS: usize = 8;

// Output.

/// How far the writer of output stands back behind the other threads: bytes wait for submits and results, never the other
/// way round.
pub(crate) const OUTPUT_NICE: i32 = 5;
/// Gaps that are kept of one stream; the rest of a stream with more is one gap. An honest agent cuts at a quota and
/// loses a segment now and then; a row for every other byte would only fill the disk.
pub(crate) const MAX_GAPS: usize = 1_000;
/// How much a stream may grow above its quota before bytes are taken: this part of the quota, within bounds. Smaller steps
/// would look for rows with every append, larger ones would hold the writer for longer than anybody should wait for it.
pub(crate) const SLACK_SHARE: u64 = 16;
/// The bounds of that part.
pub(crate) const SLACK: (u64, u64) = (128 * 1024, 4 * 1024 * 1024);
/// Bytes taken at once, so that a stream which is far above its quota, as an older release left it, does not hold the
/// writer for seconds.
pub(crate) const STEP: u64 = 8 * 1024 * 1024;

// The site.

/// Revisions of the site that are kept: some weeks of a busy team, to look at and to go back to.
pub(crate) const REVISIONS_KEPT: i64 = 50;
/// Bytes of contents in one change, so that a large site does not hold the writer for seconds.
pub(crate) const BLOBS_AT_ONCE: usize = 8 * 1024 * 1024;
