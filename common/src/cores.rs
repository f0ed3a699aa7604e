//! Memory dumps: a daemon that crashes must not leave the secrets it held in a file.
//!
//! The soft limit alone is set to nothing, because what a daemon starts for others begins with the limit that its
//! administrator meant for it. Programs that take dumps by themselves (`systemd-coredump`, `apport`) keep by the limit too.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit with which this process began.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Lets this process leave no dump from now on. What it starts inherits that, unless it is given [`before`] again.
pub fn forbid() {
    let Rlimit { current, maximum } = getrlimit(Resource::Core);
    let _ = BEFORE.set(current);
    // To lower a soft limit is always allowed.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
}

/// The soft limit of dumps, in bytes, that others are meant to have; `None` is without limit.
#[must_use]
pub fn before() -> Option<u64> {
    BEFORE.get().copied().unwrap_or_else(|| getrlimit(Resource::Core).current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_are_meant_to_have_is_remembered() {
        let began = getrlimit(Resource::Core);
        assert_eq!(before(), began.current);
        forbid();
        forbid();
        let now = getrlimit(Resource::Core);
        assert_eq!((now.current, now.maximum), (Some(0), began.maximum));
        assert_eq!(before(), began.current);
        assert!(setrlimit(Resource::Core, began).is_ok());
    }
}
