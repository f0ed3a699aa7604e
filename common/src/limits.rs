//! Every size, count and time limit of the link on one page, each with its reason.
//!
//! Numbers that the manager announces in `ServerHello` start from these values; an agent never exceeds its own copy,
//! whatever it is told.

use std::time::Duration;

/// Largest frame before the peer is authenticated: a hello with labels fits, a flood of buffers does not.
pub const MAX_FRAME_BEFORE_HELLO: usize = 16 * 1024;
/// Largest frame of an open session: one command with a large argument list or one page of an inventory.
pub const MAX_FRAME: usize = 1024 * 1024;
/// Largest payload in one output frame (protocol R-OUT-1): bounds how long a control frame waits behind a byte frame
/// (0.3 ms at 1 Gbit/s).
pub const MAX_OUTPUT_PAYLOAD: usize = 32 * 1024;
/// The length prefix of a frame: one `u32`, big-endian.
pub const FRAME_HEADER: usize = 4;

/// From accepted socket to `ServerHello`, all steps together: a few round trips of the slowest line, and no longer does
/// a stranger keep its place.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// One attempt of an agent to reach one address, before TLS: a dead address does not hold up the next for minutes.
pub const DIAL: Duration = Duration::from_secs(10);
/// How long a frame may take to leave: a peer that stops reading is dead, not slow, after it.
pub const WRITE_STALL: Duration = Duration::from_secs(30);

/// Sockets that have not said hello yet, all peers together; beyond it the oldest is closed first.
pub const MAX_UNAUTHENTICATED: usize = 2_000;
/// The same for one source address: leaves room for a fleet behind one NAT, but one host cannot fill the house.
pub const MAX_UNAUTHENTICATED_PER_ADDRESS: usize = 200;
/// Log lines about peers without identity in one second; the rest is only counted: strangers must not fill a disk.
pub const STRANGER_LOG_LINES_PER_SECOND: u32 = 5;

/// Shortest heartbeat interval.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(10);
/// Heartbeats the manager wants to see in one second from the whole fleet; longer fleets get longer intervals.
pub const HEARTBEATS_PER_SECOND: u64 = 2_000;
/// A peer is dead after this many intervals (in halves: 5 means 2.5) without any frame.
pub const DEAD_AFTER_HALF_INTERVALS: u32 = 5;
/// What an agent accepts as an interval, whatever the manager says.
pub const HEARTBEAT_RANGE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(300));
/// How long an older session may take to answer the ping that tells a restart from a clone.
pub const RIVAL_PING: Duration = Duration::from_secs(2);

/// Bytes of one stream that may be on their way: 1 MiB fills 100 Mbit/s at 80 ms.
pub const STREAM_CREDIT: u64 = 1024 * 1024;
/// The same for all streams of a session together.
pub const SESSION_CREDIT: u64 = 8 * 1024 * 1024;

/// Items in one page of an inventory: about 100 bytes each, far below [`MAX_FRAME`].
pub const INVENTORY_PAGE: usize = 1_000;
/// Labels in a hello: more than people keep an overview of.
pub const MAX_LABELS: usize = 64;
/// Bytes of one label key or value: a long host name fits.
pub const MAX_LABEL_BYTES: usize = 256;
/// Bytes of all labels together: a hello with them and the longest names still fits [`MAX_FRAME_BEFORE_HELLO`].
pub const MAX_LABELS_BYTES: usize = 8 * 1024;
/// Bytes of a reason or text that is meant for people: a line or two of a terminal.
pub const MAX_TEXT_BYTES: usize = 256;
/// Capabilities in a hello: one for each operation and optional behaviour, with room.
pub const MAX_CAPABILITIES: usize = 64;

/// Bytes of a certificate request: one with an RSA key and a page of names fits; only a public key is taken from it.
pub const MAX_CSR_BYTES: usize = 4 * 1024;
/// Bytes of a chain that was issued, PEM: a leaf with the longest names, its authority and cross-certificates.
pub const MAX_CHAIN_PEM: usize = 7 * 1024;
/// Bytes of a bundle of trusted authorities, PEM; with the chain it fits [`MAX_FRAME_BEFORE_HELLO`].
pub const MAX_BUNDLE_PEM: usize = 8 * 1024;
/// Certificates behind the leaf that are looked at in a handshake: ours sends fewer, and each costs a signature check.
pub const MAX_INTERMEDIATES: usize = 8;
/// Bytes of a hash on the wire: BLAKE3-256.
pub const HASH_BYTES: usize = 32;
/// Characters of the id of a join token: names it in lists and in the audit.
pub const JOIN_ID_CHARS: std::ops::RangeInclusive<usize> = 8..=32;
/// Bytes of the secret of a join token, as text: 128 bit in hexadecimal digits and more.
pub const JOIN_SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=128;
/// Addresses in a join token: every manager of a large cluster.
pub const MAX_JOIN_ADDRESSES: usize = 16;
/// Bytes of one of them: the longest DNS name with a port.
pub const MAX_ADDRESS_BYTES: usize = 260;
/// Bytes of a whole join token: the longest of all its parts, in base64.
pub const MAX_JOIN_TOKEN_BYTES: usize = 8 * 1024;

/// How far back the beginning of an agent's certificate is dated, so that a host whose clock is late accepts it.
pub const BACK_DATED: Duration = Duration::from_secs(5 * 60);
/// How far back authorities and managers are dated: the beginning of their validity guards nothing of ours, and a host
/// that starts with the clock of its firmware must be able to hear the right time.
pub const AUTHORITY_BACK_DATED: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long after its end a certificate may still ask for the next one; longer absences need somebody who decides.
pub const RECOVERY_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reconnect: full jitter between zero and a bound that doubles from the first to the second value.
pub const RECONNECT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// A session must have lived this long before the bound starts again from the bottom.
pub const RECONNECT_HEALTHY: Duration = Duration::from_secs(60);

/// Longest validity of a command: tombstones live one hour longer, so this bounds an agent's memory of the past.
pub const MAX_EXPIRY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Validity when the caller names none.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// How much longer than its validity the memory of a command is kept.
pub const TOMBSTONE_GRACE: Duration = Duration::from_secs(3600);
/// Stop ladder: from TERM to kill when nobody says otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Longest grace a caller may ask for: a database that shuts down in order; more is a command that is not stopped.
pub const MAX_GRACE: Duration = Duration::from_secs(3600);
/// `CommandCancel.grace_ms` that means "the default".
pub const GRACE_UNSET: u32 = u32::MAX;

/// Bytes of the arguments of an operation: leaves room for the rest of the command in one frame.
pub const MAX_ARGS_BYTES: usize = 512 * 1024;
/// Bytes of standard input given with a command: fits into one frame beside the largest arguments and environment.
pub const MAX_STDIN_BYTES: usize = 256 * 1024;
/// Variables in the environment of a command: ten times a large one.
pub const MAX_ENV: usize = 1_000;
/// Bytes of all names and values of the environment together: what one frame has left beside arguments and input.
pub const MAX_ENV_BYTES: usize = 128 * 1024;

/// Kept of one stream when a command names no quota: a day of a chatty service, and a thousand of them fit a disk.
pub const DEFAULT_OUTPUT_QUOTA: u64 = 256 * 1024 * 1024;
/// Smallest quota: below it head and tail would be no use to anybody.
pub const MIN_OUTPUT_QUOTA: u64 = 512 * 1024;
/// What a quota never takes from the beginning of a stream; less where the quota is small ([`output_head`]).
pub const OUTPUT_HEAD: u64 = 10 * 1024 * 1024;
/// The head is at most this part of the quota: the end of a stream mostly says more than its beginning.
pub const OUTPUT_HEAD_SHARE: u64 = 8;
/// Words in `Command.needs`: one for each optional behaviour, with room.
pub const MAX_NEEDS: usize = 16;
/// Range of `Command.nice`, as the kernel has it.
pub const NICE: std::ops::RangeInclusive<i32> = -20..=19;
/// Range of `Command.oom_score`, as the kernel has it.
pub const OOM_SCORE: std::ops::RangeInclusive<i32> = -1000..=1000;
/// Largest umask.
pub const MAX_UMASK: u32 = 0o777;
/// Largest signal of Linux.
pub const MAX_SIGNAL: u32 = 64;
/// How long streams that strays hold open may last after the main process when strays are kept.
pub const STRAY_DRAIN: Duration = Duration::from_secs(60);

/// How much of the beginning of a stream a quota never takes. Agent and manager keep by this one rule, so that what a
/// host kept is not cut differently afterwards.
#[must_use]
pub const fn output_head(quota: u64) -> u64 {
    let share = quota / OUTPUT_HEAD_SHARE;
    if share < OUTPUT_HEAD { share } else { OUTPUT_HEAD }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_head_is_kept_from_a_quota_of_eight_heads_on_and_a_share_below() {
        let edge = OUTPUT_HEAD * OUTPUT_HEAD_SHARE;
        assert_eq!(edge, 80 * 1024 * 1024);
        assert_eq!(output_head(edge - OUTPUT_HEAD_SHARE), OUTPUT_HEAD - 1);
        assert_eq!(output_head(edge), OUTPUT_HEAD);
        assert_eq!(output_head(u64::MAX), OUTPUT_HEAD);
        assert_eq!(output_head(MIN_OUTPUT_QUOTA), 64 * 1024);
    }
}
