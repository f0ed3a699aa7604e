//! Every bound of the agent that is not one of the link (`common::limits`), each with its reason.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Commands that run at the same time when the configuration says nothing: far more than a host does well at once, far
/// fewer than processes and descriptors run out.
pub const DEFAULT_MAX_RUNNING: u32 = 256;
/// What the configuration may say: none at all would be a host that takes work and never does it; beyond the upper end
/// the kernel has no process numbers left.
pub const MAX_RUNNING: RangeInclusive<u32> = 1..=100_000;
/// Descriptors of the agent beside the one for each command that runs: link, files of jobs, open segments.
pub const OWN_DESCRIPTORS: u64 = 512;

/// Waiting commands whose places are told again when they change: whoever stands further behind learns its place when
/// it begins to wait, and nobody follows it closely.
pub const PLACES_TOLD: usize = 64;
/// Places are told again at most this often.
pub const PLACES_EACH: Duration = Duration::from_secs(1);
/// Who waits for less than this is not called waiting: bursts of short commands would be mostly news of it.
pub const PLACES_LINGER: Duration = Duration::from_millis(100);
/// When the host cannot make another process, the next try comes after the first value, doubled up to the second.
pub const STARVED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Bytes of commands that wait for durability, those being written included: many large ones at once are asked to come
/// back instead of being held in memory.
pub const INTAKE_BYTES: usize = 8 * 1024 * 1024;
/// A ping of at most this many bytes is taken beyond that: whether the agent lives is asked when it is busy.
pub const SMALL_PING: usize = 4 * 1024;
/// Wishes to pause or go on that wait for the disk, per command: more come from nobody who waits for an answer.
pub const MAX_PAUSES: usize = 16;

/// Delivered directories that are kept for a look on the host, when their age is not 0.
pub const DEFAULT_KEEP_COUNT: u32 = 200;
/// Largest number: each of them is listed at every start.
pub const MAX_KEEP_COUNT: u32 = 100_000;
/// Bytes of all of them together: one command with a full quota, or many usual ones.
pub const DEFAULT_KEEP_BYTES: u64 = 256 * 1024 * 1024;
/// Longest age: the manager has everything; a year is a typing mistake of days.
pub const MAX_KEEP_AGE: Duration = Duration::from_secs(366 * 24 * 3600);

/// Disk that is kept back so that results can be written on a full one: thousands of tombstones.
pub const DEFAULT_RESERVE: u64 = 4 * 1024 * 1024;
/// What the configuration may say beside 0 (none): below it no batch of results fits, above it it is a mistake.
pub const RESERVE: RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;
/// Free space below which what is only kept for a look goes: what runs needs it.
pub const LOW_ROOM: u64 = 4 * 1024 * 1024;
/// How often the disk is looked at while something could be given up or taken back.
pub const ROOM_EACH: Duration = Duration::from_secs(5);
/// How often the cgroups of commands whose strays were kept are looked at, until all are gone: nothing hurries.
pub const SWEEP_EACH: Duration = Duration::from_secs(60);

/// A command that has written so much is a flood: from then on its shim stands back behind the work of others.
pub const FLOOD_BYTES: u64 = 32 * 1024 * 1024;
/// How far it stands back: it gets about a tenth of what they get of a busy processor.
pub const FLOOD_NICE: i32 = 10;
/// Bytes of one command that its shim takes in one of these spans at most once its output is over quota: 256 MiB in a second.
/// Most of them are thrown away anyway, and at full speed they take the processors from everybody else.
pub const OVERFLOW_BYTES: u64 = 4 * 1024 * 1024;
/// The span.
pub const OVERFLOW_SPAN: Duration = Duration::from_millis(16);
/// Bytes of one stream that are sent in a second while its command still runs and has long written more than is kept:
/// more than anybody reads; what the end keeps is sent at full speed.
pub const OVERFLOW_SENT: u64 = 64 * 1024 * 1024;
