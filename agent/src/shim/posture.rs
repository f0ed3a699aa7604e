//! What a process has before its program begins, apart from its user, place and streams: nothing of it is the agent's
//! or its starter's by accident.
//!
//! The limits of the kernel (`ulimit`) stay as the agent has them, because an administrator sets them on its unit for
//! everything it runs; one is made explicit, see [`OPEN_FILES`], and that of memory dumps is given back, which the agent
//! took from itself.

use common::limits;
use common::wire::Command;

/// Soft limit of open files. Programs that use `select` break with more, and some close every number up to the limit at
/// their start; who needs more raises it up to the hard limit, which stays.
pub(super) const OPEN_FILES: libc::rlim_t = 1024;
/// Mode bits that new files do not get.
const UMASK: u32 = 0o022;

/// What a command asks for, within what the kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Posture {
    pub(super) umask: libc::mode_t,
    /// Added to our own.
    pub(super) nice: libc::c_int,
    /// For `/proc/self/oom_score_adj`.
    pub(super) oom_score: String,
    /// It was asked for: then a refusal of the kernel is one of the start.
    pub(super) oom_score_wanted: bool,
    /// Soft limit of memory dumps; none: as the shim has it.
    pub(super) core: Option<libc::rlim_t>,
}

impl Posture {
    /// Reads a command.
    pub(super) fn of(command: &Command) -> Self {
        let umask = if command.has_umask { command.umask & limits::MAX_UMASK } else { UMASK };
        let oom_score = command.oom_score.clamp(*limits::OOM_SCORE.start(), *limits::OOM_SCORE.end());
        Self {
            umask,
            nice: command.nice.clamp(*limits::NICE.start(), *limits::NICE.end()),
            oom_score: oom_score.to_string(),
            oom_score_wanted: oom_score != 0,
            core: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_neutral_and_what_is_too_much_is_cut() {
        let plain = Posture::of(&Command::default());
        assert_eq!((plain.umask, plain.nice, plain.oom_score.as_str()), (0o022, 0, "0"));
        assert!(!plain.oom_score_wanted);
        let wild = Command { umask: u32::MAX, has_umask: true, nice: -100, oom_score: 9_999, ..Command::default() };
        let wild = Posture::of(&wild);
        assert_eq!((wild.umask, wild.nice, wild.oom_score.as_str()), (0o777, -20, "1000"));
        let open = Command { umask: 0, has_umask: true, ..Command::default() };
        assert_eq!(Posture::of(&open).umask, 0);
    }
}
