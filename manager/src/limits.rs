//! Every bound of the manager with its reason: what a caller, an agent or a session may ask for, send, hold or wait for.
//!
//! Bounds of the wire stand in `common::limits`, those of the store in its own crate, what operators set in `config`.

use std::time::Duration;

use crate::link::pace::Pace;

// What operators may ask for.

/// Longest timeout: anything above it is a typing mistake.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// Longest name of a token.
pub(crate) const MAX_TOKEN_NAME: usize = 64;
/// Longest name of a user that Linux tools make.
pub(crate) const MAX_USER: usize = 32;
/// Bytes of a path, its end included: what the kernel takes.
pub(crate) const MAX_PATH: usize = 4_096;
/// Smallest limit of memory: below it no program can even be loaded, and the command would die without a word.
pub(crate) const MIN_MEMORY: u64 = 1024 * 1024;
/// Largest number of bytes in a limit: what the kernel's files take.
pub(crate) const MAX_BYTES: u64 = i64::MAX as u64;
/// Largest share of processors, in hundredths of one: a thousand cores.
pub(crate) const MAX_CPU: u32 = 100_000;
/// Largest number of processes: the kernel has no more.
pub(crate) const MAX_TASKS: u32 = 4_194_304;

// Sessions of agents: what one of them may say, hold or wait for.

/// Largest answer of an operation without a process.
pub(crate) const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Flags of one result.
pub(crate) const MAX_FLAGS: usize = 64;
/// Gaps and segments of one result, all streams together: an agent keeps a thousand of each, and every reader of the row
/// pays for them. (protocol R-RES-7)
pub(crate) const MAX_RESULT_PIECES: usize = 2_000;
/// How long a goodbye may take.
pub(crate) const GOODBYE: Duration = Duration::from_secs(2);
/// Answers that may wait for a slow agent before its frames are no longer read.
pub(crate) const MAX_ANSWERS: usize = 1_024;
/// Bytes that may wait before orders are no longer taken: a few large commands.
pub(crate) const MAX_QUEUED: usize = 2 * 1024 * 1024;
/// Orders that are taken before the writer gets its turn: they leave in one write.
pub(crate) const ORDERS_AT_ONCE: usize = 64;
/// Calls of the store that one session may have under way; beyond it the session stops reading.
pub(crate) const MAX_IN_FLIGHT: usize = 256;
/// Pieces of output that may wait while an append is under way. Credit bounds their bytes; gaps and single bytes cost as
/// much as the frames they came in.
pub(crate) const MAX_OUTPUT_PIECES: usize = 1_024;
/// When to come back after output did not join what is stored.
pub(crate) const RETRY_AFTER_HOLE: Duration = Duration::from_millis(500);
/// Items that one inventory may list: ten years of tombstones of a busy host.
pub(crate) const MAX_LISTED: usize = 1_000_000;
/// Commands that one session may bring that nobody here knows: the past of a busy host since any backup. The next session
/// may bring more.
pub(crate) const MAX_DESCRIBED: usize = 10_000;
/// Pages that wait for the one under judgement.
pub(crate) const MAX_PAGES: usize = 4;
/// Questions whose answer is awaited; older ones are forgotten here, which costs only the meaning of a late answer: what
/// was not answered is asked again.
pub(crate) const MAX_AWAITED: usize = 10_000;
/// When an agent that was told to wait may be asked again.
pub(crate) const BUSY_AGENT: Duration = Duration::from_secs(1);
/// Malformed frames that a session survives within [`MALFORMED_SPAN`]: many more than a fleet's worst bug made so far, few
/// enough that refusing them costs nothing.
pub(crate) const MAX_MALFORMED: u32 = 1_000;
pub(crate) const MALFORMED_SPAN: Duration = Duration::from_secs(60);
/// Orders that wait for one session: two full answers of the store's `due`, so that reading and sending overlap.
pub(crate) const ORDERS: usize = 128;

// Those who ask for their first certificate, or for one after theirs expired.

/// Requests of one address: a fleet behind one router comes in within a minute, and somebody who guesses gets nowhere.
pub(crate) const JOINS_OF_ADDRESS: Pace = Pace { burst: 256, interval: Duration::from_millis(20) };
/// The same for all addresses together: a fifth of what one core can sign in a second.
pub(crate) const JOINS_OVERALL: Pace = Pace { burst: 1_024, interval: Duration::from_millis(5) };
/// Certificates of agents that are not asked for in a session, all together: they wait for no stranger, and no stranger
/// for them.
pub(crate) const RECOVERIES_OVERALL: Pace = Pace { burst: 1_024, interval: Duration::from_millis(5) };
/// The same for one agent: one is usual, two more for answers that got lost. Each is a signature and a row of the audit.
pub(crate) const RECOVERIES: Pace = Pace { burst: 3, interval: Duration::from_secs(10) };
/// How long a connection may take to its first byte before it is the first to make room: a round trip to the other side of
/// the world with a lost packet.
pub(crate) const MAY_BE_SILENT: Duration = Duration::from_secs(1);
/// Addresses that are remembered before those that may ask again are forgotten. More cannot be busy at once: the overall
/// pace lets in fewer before the first of them has rested.
pub(crate) const KNOCKERS_KEPT: usize = 8_192;
/// How long the certificate of an agent is valid: a stolen one is worth nothing after a long weekend, and an agent that
/// renews at half of it survives one.
pub(crate) const CERTIFICATE_VALID: Duration = Duration::from_secs(72 * 3600);
/// Shortest validity that may be set: below it agents would do nothing but renew.
pub(crate) const MIN_CERTIFICATE_VALID: Duration = Duration::from_secs(30);
/// How long a join token is good when nobody says otherwise: long enough to walk over and type it.
pub(crate) const JOIN_TTL: Duration = Duration::from_secs(3600);
/// Longest life of a join token: one that lies around is a key under the mat.
pub(crate) const MAX_JOIN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Hosts that one join token may let in: a large fleet.
pub(crate) const MAX_JOIN_USES: u32 = 100_000;
/// Renewals of one session: one is usual, a few more follow the steps of a rotation.
pub(crate) const RENEWALS: Pace = Pace { burst: 8, interval: Duration::from_secs(10) };
/// Agents that are told to renew in one second: each costs a signature, a commit and a reconnect.
pub(crate) const RENEWALS_PER_SECOND: u32 = 200;
/// Longest time that a session is given by the end of a certificate; it only keeps arithmetic in bounds.
pub(crate) const LONGEST_SESSION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How often the manager issues its own certificate anew: far more often than it ends.
pub(crate) const PAPERS_EXCHANGED: Duration = Duration::from_secs(24 * 3600);
/// How long an operator's certificate is good when nobody says otherwise.
pub(crate) const OPERATOR_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// Longest life of an operator's certificate.
pub(crate) const MAX_OPERATOR_TTL: Duration = Duration::from_secs(2 * 365 * 24 * 3600);
/// When a peer that was told to wait comes back.
pub(crate) const RETRY_AFTER_KNOCK: Duration = Duration::from_secs(1);

// Work of the manager by itself.

/// Agents that are looked after at the same time: fills the store's grouped commits without filling its queue.
pub(crate) const AGENTS_AT_ONCE: usize = 128;
/// Rows of one agent that are taken at once: half of what a session can hold.
pub(crate) const DUE_AT_ONCE: usize = 64;
/// How often everything due is looked for without being woken.
pub(crate) const DUE_POLL: Duration = Duration::from_secs(2);
/// A command that was sent and not answered is sent again after this long; the agent knows repeats.
pub(crate) const RESEND: Duration = Duration::from_secs(15);
/// When to come back after the manager could not record something.
pub(crate) const RETRY_AFTER_TROUBLE: Duration = Duration::from_secs(5);
/// When to come back after the manager found a new life of its store: at once, but not all in the same moment.
pub(crate) const RETRY_AFTER_RESTORE: Duration = Duration::from_millis(500);
/// Newcomers of one name that overtake each other so often are refused for now.
pub(crate) const ROUNDS: usize = 8;
/// Rows each second of one share: more than people cause, less than what fills a disk in a week.
pub(crate) const REFUSAL_ROWS: u32 = 10;
/// Callers that have a share of their own: more than cause refusals within one [`REFUSAL_WINDOW`]; others have one together.
pub(crate) const ACTORS_KEPT: usize = 1_000;
/// The time that [`REFUSAL_ROWS`] are for.
pub(crate) const REFUSAL_WINDOW: Duration = Duration::from_secs(1);
/// How long a token that was read from the store is believed: revocation elsewhere bites within this time.
pub(crate) const TOKEN_BELIEVED: Duration = Duration::from_secs(1);
/// Tokens kept in memory: far more than one manager's operators use in a second.
pub(crate) const TOKENS_KEPT: usize = 1_000;
/// The wall clock may be behind by this much before anybody is told: smaller steps are how clocks are kept right.
pub(crate) const WORTH_A_WORD: Duration = Duration::from_secs(5);
/// Events at the end of the history that tell how far time had come before this process began. Opening the store writes
/// some of its own, by the wall clock.
pub(crate) const LOOK_BACK: u64 = 1_000;

// The site.

/// Revisions that are listed: all that the store keeps.
pub(crate) const REVISIONS_LISTED: usize = 50;
/// Trusted files that the note of a held revision names: the revision itself lists all of them.
pub(crate) const TRUSTED_NAMED: usize = 10;
/// Quiet time after a change of the folder before it is read: whoever writes several files is let finish.
pub(crate) const SITE_SETTLES: Duration = Duration::from_millis(100);
/// Changes that follow each other without a pause hold back the reading no longer than this.
pub(crate) const SITE_SETTLES_AT_MOST: Duration = Duration::from_secs(2);
/// Folders of a site that are watched for changes; what is changed in others is found by the poll.
pub(crate) const SITE_FOLDERS_WATCHED: usize = 4_096;
/// Bytes of a pushed site as JSON. It stands in memory twice; larger sites are watched as a folder.
pub(crate) const MAX_PUSH: usize = 64 * 1024 * 1024;
/// Pushes that are read at the same time: what bounds the memory of all of them.
pub(crate) const PUSHES_AT_ONCE: usize = 2;
/// How long a push waits for its place: those before it are mostly done in less.
pub(crate) const PUSH_WAITS: Duration = Duration::from_secs(5);

// The port of operators.

/// How long a body may take to arrive.
pub(crate) const BODY_WAIT: Duration = Duration::from_secs(30);
/// Longest idempotency key.
pub(crate) const MAX_KEY: usize = 255;
/// From the accepted socket to the end of the TLS handshake.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests in progress may take to end when the manager stops.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// Header lines of a request: ours have ten.
pub(crate) const MAX_HEADERS: usize = 64;
/// Bytes of a head, and bytes of an answer that wait for a slow reader.
pub(crate) const MAX_BUFFER: usize = 64 * 1024;
/// Longest request id that is taken from a peer: a UUID with room.
pub(crate) const MAX_REQUEST_ID: usize = 64;
/// Events read at once: enough to catch up fast, small enough that a stalled reader costs little.
pub(crate) const EVENTS_AT_ONCE: usize = 64;
/// Bytes of one piece of a raw body.
pub(crate) const RAW_PIECE: usize = 64 * 1024;
/// Bytes of one event: 64 KiB when written in base64.
pub(crate) const EVENT_PIECE: usize = 48 * 1024;
/// How old the row may be while a flood of output is read: so long a change of phase may wait behind it.
pub(crate) const ROW_AGE: Duration = Duration::from_millis(250);
