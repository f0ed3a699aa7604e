//! Starts shims out of the agent: in the command's cgroup, with nothing inherited.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use common::cores;
use common::id::Uid;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::cgroup::{self, Base, Place, Rung};
use super::spawn;

/// The command's cgroup of version 2: all that shims of version 0.1 know. Neither this nor the next set: best effort.
const CGROUP_VARIABLE: &str = "PAPRIKA_SHIM_CGROUP";
/// The same and more, as JSON ([`Place`]).
const PLACE_VARIABLE: &str = "PAPRIKA_SHIM_PLACE";
/// Set when the shim has to move itself there.
const JOIN_VARIABLE: &str = "PAPRIKA_SHIM_JOIN";
/// Until when the command may be started, in milliseconds of the clock that begins with the boot.
const UNTIL_VARIABLE: &str = "PAPRIKA_SHIM_UNTIL";
/// The soft limit of memory dumps that the command begins with: the agent itself leaves none, and what it starts inherits
/// that. `unlimited`, or bytes.
const CORE_VARIABLE: &str = "PAPRIKA_SHIM_CORE";
const UNLIMITED: &str = "unlimited";
/// The agent's name, for the command's environment.
pub(super) const AGENT_VARIABLE: &str = "PAPRIKA_AGENT";
/// Handed on to shims where tests set them.
const TEST_VARIABLES: [&str; 3] = ["PAPRIKA_CRASH_POINT", "PAPRIKA_STRAY_DRAIN_MS", common::clock::OFFSET_VARIABLE];

/// How a shim is started.
#[derive(Debug, Clone)]
pub struct ShimCommand {
    /// The program; the running one by default, also after its file was replaced.
    pub exe: PathBuf,
    /// What stands before `shim DIR`: `agent` where one binary is everything.
    pub prefix: Vec<OsString>,
    /// The agent's name.
    pub agent: String,
}

impl Default for ShimCommand {
    fn default() -> Self {
        Self { exe: PathBuf::from("/proc/self/exe"), prefix: Vec::new(), agent: String::new() }
    }
}

/// A shim that is a child of this process. Dropping it leaves a zombie until this process ends: wait for it.
#[derive(Debug)]
pub struct ShimProcess {
    pid: i32,
    handle: OwnedFd,
}

impl ShimCommand {
    /// Starts the shim of a command's directory. Blocks until its program has begun, about a millisecond.
    ///
    /// # Errors
    /// When it cannot be made or its program cannot be executed.
    pub fn spawn(&self, dir: &Path, base: &Base) -> io::Result<ShimProcess> {
        self.spawn_until(dir, base, u64::MAX)
    }

    /// The same for a command that may only be started until the clock that begins with the boot shows `until_boot_ms`:
    /// the shim may have to wait for what a process is made of.
    ///
    /// # Errors
    /// When it cannot be made or its program cannot be executed.
    pub fn spawn_until(&self, dir: &Path, base: &Base, until_boot_ms: u64) -> io::Result<ShimProcess> {
        let uid: Uid = dir.file_name().and_then(|name| name.to_str()?.parse().ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the directory of a command is named by its uid")
        })?;
        let exe = text(self.exe.as_os_str().as_bytes())?;
        let mut argv = vec![exe.clone()];
        for word in self.prefix.iter().map(OsString::as_os_str).chain(["shim".as_ref(), dir.as_os_str()]) {
            argv.push(text(word.as_bytes())?);
        }
        let mut env = vec![text(format!("{AGENT_VARIABLE}={}", self.agent).as_bytes())?];
        env.push(text(format!("{UNTIL_VARIABLE}={until_boot_ms}").as_bytes())?);
        let core = cores::before().map_or_else(|| UNLIMITED.to_owned(), |bytes| bytes.to_string());
        env.push(text(format!("{CORE_VARIABLE}={core}").as_bytes())?);
        if cfg!(debug_assertions) {
            for name in TEST_VARIABLES {
                if let Some(value) = std::env::var_os(name) {
                    env.push(text(&[name.as_bytes(), b"=", value.as_bytes()].concat())?);
                }
            }
        }
        let Some(place) = base.place(uid) else {
            return spawn::exec_detached(&exe, &argv, &env, None).map(ShimProcess::from);
        };
        let json = serde_json::to_string(&place).map_err(io::Error::from)?;
        env.push(text(format!("{PLACE_VARIABLE}={json}").as_bytes())?);
        if place.rung == Rung::V1 {
            // A leaf for the shim would protect it from nothing: kills and freezes name the leaf `work`.
            return spawn::exec_detached(&exe, &argv, &env, None).map(ShimProcess::from);
        }
        let leaf = cgroup::make_leaf(&place.group, "shim")?;
        env.push(text(&[CGROUP_VARIABLE.as_bytes(), b"=", place.group.as_os_str().as_bytes()].concat())?);
        let leaf = cgroup::open(&leaf)?;
        match spawn::exec_detached(&exe, &argv, &env, Some(leaf.as_fd())) {
            // The kernel (before 5.7, or a filter) does not know the way: the shim goes there on foot.
            Err(error) if is_unknown_call(&error) => {
                env.push(text(format!("{JOIN_VARIABLE}=1").as_bytes())?);
                spawn::exec_detached(&exe, &argv, &env, None).map(ShimProcess::from)
            }
            other => other.map(ShimProcess::from),
        }
    }
}

impl From<spawn::Born> for ShimProcess {
    fn from(born: spawn::Born) -> Self {
        Self { pid: born.pid, handle: born.handle }
    }
}

impl ShimProcess {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.pid
    }

    /// Waits until it has ended, and collects it. Its status says nothing: the record does.
    ///
    /// # Errors
    /// When the runtime goes down or the process cannot be waited for.
    ///
    /// # Cancel safety
    /// Dropped early, the process is not collected.
    pub async fn wait(self) -> io::Result<()> {
        #[expect(deprecated, reason = "what replaces it is unsafe for descriptors that may change; an OwnedFd cannot")]
        let handle = AsyncFd::with_interest(self.handle, Interest::READABLE)?;
        drop(handle.readable().await?);
        collect(handle.get_ref())
    }

    /// The same, blocking.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn wait_blocking(self) -> io::Result<()> {
        collect(&self.handle)
    }
}

/// The place that this shim was given. One that only names a cgroup of version 2 comes from an agent of version 0.1.
pub(super) fn place_from_env() -> Option<Place> {
    let place = |json: String| serde_json::from_str(&json).ok();
    std::env::var(PLACE_VARIABLE).ok().and_then(place).or_else(|| {
        let group = PathBuf::from(std::env::var_os(CGROUP_VARIABLE)?);
        Some(Place { group, rung: Rung::V2, controllers: Vec::new() })
    })
}

/// Tells whether this shim has to move itself into its leaf.
pub(super) fn has_to_join() -> bool {
    std::env::var_os(JOIN_VARIABLE).is_some()
}

/// The soft limit of memory dumps for the command; agents before version 0.3 do not say it, and have it themselves.
pub(super) fn core_from_env() -> Option<libc::rlim_t> {
    match std::env::var(CORE_VARIABLE).ok()?.as_str() {
        UNLIMITED => Some(libc::RLIM_INFINITY),
        bytes => bytes.parse().ok(),
    }
}

/// Until when the command may be started; agents before version 0.2 do not say so.
pub(super) fn until_from_env() -> Option<u64> {
    std::env::var(UNTIL_VARIABLE).ok()?.parse().ok()
}

fn collect(handle: &OwnedFd) -> io::Result<()> {
    loop {
        match waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}

/// Tells a kernel that cannot from a call that failed.
pub(super) fn is_unknown_call(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::E2BIG | libc::EINVAL | libc::EOPNOTSUPP | libc::EPERM | libc::EACCES)
    )
}

fn text(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(io::Error::from)
}
