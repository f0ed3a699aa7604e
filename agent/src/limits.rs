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
/// The same while the stream grows faster than that: nobody keeps up with it, and the manager only throws away what it is
/// sent. Each byte is encrypted, written twice and synced on the way there.
pub const OUTRUN_SENT: u64 = 8 * 1024 * 1024;

/// Threads for file work: more would not make one disk faster, and each costs memory.
pub const FILE_THREADS: usize = 4;
/// They are kept for good: a pool that is empty while the host can make no thread would be the end of the agent.
pub const FILE_THREAD_KEPT: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// How long reads may last when everything else of the agent has ended.
pub const LAST_READS: Duration = Duration::from_secs(2);

/// How long the pipes of a command that is gone may be held open by somebody else.
pub const DRAIN: Duration = Duration::from_secs(2);
/// One read of a command's output: a turn of the loop takes no longer than this needs.
pub const SHIM_READ: usize = 256 * 1024;
/// A kill is repeated so often while something lives: forks may have been on their way.
pub const KILL_AGAIN: Duration = Duration::from_millis(100);
/// After so long it is said that something does not die, and which processes that are.
pub const STUCK: Duration = Duration::from_secs(5);
/// From then on it is killed, looked for and named this often: whatever holds it takes its time.
pub const STUCK_AGAIN: Duration = Duration::from_secs(1);
/// What cannot be held at once is tried again after this.
pub const HOLD_AGAIN: Duration = Duration::from_millis(100);
/// What is held by signals alone, without a cgroup, can be woken by anybody: it is looked after this often.
pub const HOLD_LOOK: Duration = Duration::from_secs(1);
/// Names of processes that do not die: more would not help anybody.
pub const STUCK_NAMED: usize = 32;

/// What a shim waits for, room for END or a process, is tried again after the first value, doubled each time up to the second.
pub const SHIM_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// For so long: a person who is called by an alarm has made room by then.
pub const SHIM_AGAIN_FOR: Duration = Duration::from_secs(3600);
/// One read of what is thrown away.
pub const SINK: usize = 16 * 1024;

/// How often those that appeared meanwhile are stopped too: a fork bomb within a limit stands after a few.
pub const STOP_ROUNDS: u32 = 64;
/// What lives is looked for so often until a deadline.
pub const LEFT_LOOK: Duration = Duration::from_millis(5);

/// Directory services ask over the network, and try again by themselves for less than this.
pub const DIRECTORY_ANSWERS: Duration = Duration::from_secs(20);

/// An answer of a program of the host is a line or two; no pipe holds less, so a program that ends has written all of it.
pub const MAX_ANSWER: u64 = 64 * 1024;

/// How long a kill waits until everything stands still. What sleeps uninterruptibly never does, and is killed all the
/// same; what forks meanwhile is met by the next kill.
pub const FREEZE_WITHIN: Duration = Duration::from_millis(200);
/// Version 1 has no event for "frozen now".
pub const FROZEN_LOOK: Duration = Duration::from_millis(1);

/// How long systemd may take to say whether the machine goes down. Asked while it stops everything at once.
pub const SYSTEMD_ANSWERS: Duration = Duration::from_secs(5);
/// From TERM to kill for what runs when the machine goes down: the usual grace, whatever a command was given.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// All ends of a shutdown together, with time to write the ends. The unit's `TimeoutStopSec` must be longer, with [`SYSTEMD_ANSWERS`] on top.
pub const END_WITHIN: Duration = Duration::from_secs(20);

/// Shims that are started at the same time: a storm of commands never takes all threads of the pool.
pub const SPAWNS: usize = 3;

/// Batches of commands that are made durable at the same time: one syncs while the next one gathers.
pub const INTAKES: usize = 2;
/// Commands that may wait for durability before the manager is told to come back later.
pub const MAX_INTAKE: usize = 4096;
/// Directories are removed this much later than possible, many at once and out of the way of what is urgent.
pub const FORGET_LINGER: Duration = Duration::from_millis(100);
/// More than these do not wait for the linger.
pub const FORGET_MANY: usize = 512;
/// How often directories of active commands are looked at without a reason, plus a bit for each of them.
pub const RESCAN: Duration = Duration::from_secs(2);
/// The bit: a thousand commands are not all looked at at once.
pub const RESCAN_EACH: Duration = Duration::from_millis(10);
/// The first pause before a shim that cannot be watched yet is looked at again; doubled each time. A process that was
/// just forked has its parent's lock for microseconds, a shim opens `wake` within a millisecond.
pub const ADOPT_PAUSE: Duration = Duration::from_millis(2);
/// So often a shim is looked at that cannot be watched yet; together half a second.
pub const ADOPTIONS: u8 = 8;
/// A certificate is renewed earlier or later than at half of its life by this part of that half: a fleet that joined in
/// one minute does not renew in one.
pub const RENEW_SPREAD: f64 = 0.1;
/// Pause after a renewal that failed: a twentieth of the certificate's life, within these two. Some attempts are left
/// before the end of the shortest, and a manager that refuses is not asked all day.
pub const RENEW_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// How long a manager may take to answer a request for a certificate: one write of its store, behind a storm of others.
pub const RENEW_ANSWERS: Duration = Duration::from_secs(30);
/// When the authorities change, all agents renew at once; they are spread over this.
pub const RENEW_NOW_SPREAD: Duration = Duration::from_secs(2);
/// A renewal that did not bring the authorities that a manager names is not repeated for their sake before this.
pub const RENEW_SAME_BUNDLE: Duration = Duration::from_secs(600);

/// How long a join tries to reach a manager: one that restarts is back by then, and a person waits for it.
pub const JOIN_WITHIN: Duration = Duration::from_secs(30);
/// The pauses between its attempts: up to the first value at first, later up to the second.
pub const JOIN_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// With a new identity the manager is dialled at once, at most this often: one that is never taken must not make a circle.
pub const AT_ONCE_EACH: Duration = Duration::from_secs(5);

/// How long what was heard of time and manager may stay unsaved.
pub const SAVE: Duration = Duration::from_secs(30);
/// Addresses of managers that are remembered.
pub const MAX_ADDRESSES: usize = 16;
/// How long jobs may take when the agent stops.
pub const STOP_JOBS: Duration = Duration::from_secs(5);

/// Bytes of commands that one job reads for a description.
pub const DESCRIBE_BYTES: usize = 1024 * 1024;
/// Commands that one job reads to describe them; it stops earlier when they are large.
pub const DESCRIBE_MANY: usize = 64;
/// Descriptions in one page are cut at this many bytes: far below a frame, so that one large command still fits.
pub const DESCRIBE_PAGE: usize = 64 * 1024;

/// How often it is looked whether a shim has read what wakes it, while its command is being cancelled.
pub const DEAF_LOOK: Duration = Duration::from_secs(1);
/// A shim that has read nothing for so long, although it was sent on each time, is killed: its command can be ended
/// then. Long, because it costs what the shim knows of its command.
pub const DEAF_FOR: Duration = Duration::from_secs(30);
