//! Cgroups of commands: where they are made, and what is done with them. Version 2 only.
//!
//! ```text
//! <base>/<uid>/shim   the writer of the result: neither kill nor OOM of the work takes it
//!             /work   everything the command runs
//! ```
//! Nobody writes a pid into `cgroup.procs` on the usual way: that takes a lock of the whole kernel and several
//! milliseconds. Processes are born in their cgroup (`spawn`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::id::Uid;
use common::wire::CommandLimits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The delegated tree under systemd, kept open by `paprika-agent hold`.
const UNIT: &str = "system.slice/paprika-commands.service";
/// The tree elsewhere.
const PLAIN: &str = "paprika-commands";
/// A kill is repeated so often while something lives: forks may have been on their way.
pub(crate) const KILL_AGAIN: Duration = Duration::from_millis(100);
/// A cgroup whose last process is just exiting is busy for a moment.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);
/// What we make below the cgroup of a command.
const LEAVES: [&str; 2] = ["shim", "work"];
/// How often TERM is given to processes that were not there the time before.
const SIGNAL_ROUNDS: u32 = 8;

/// Where the cgroups of commands are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// In this cgroup.
    Cgroup(PathBuf),
    /// Nowhere: processes are found by group, session and parentage.
    BestEffort,
}

impl Base {
    /// Finds the place: `auto`, `none` or the absolute path of a cgroup of version 2.
    ///
    /// # Errors
    /// When a path was given and it cannot be used; `auto` falls back to [`Base::BestEffort`].
    pub fn discover(choice: &str, journal: Uid) -> io::Result<Self> {
        match choice {
            "none" => Ok(Self::BestEffort),
            "auto" => Ok(Self::auto(journal)),
            path => {
                let path = PathBuf::from(path);
                probe(&path)?;
                Ok(Self::Cgroup(path))
            }
        }
    }

    /// The word for people and for the manager.
    #[must_use]
    pub fn isolation(&self) -> &'static str {
        match self {
            Self::Cgroup(_) => "cgroup",
            Self::BestEffort => "best_effort",
        }
    }

    /// The cgroup of one command.
    #[must_use]
    pub fn of(&self, uid: Uid) -> Option<PathBuf> {
        match self {
            Self::Cgroup(base) => Some(base.join(uid.to_string())),
            Self::BestEffort => None,
        }
    }

    /// Removes the place when it was made for this agent alone and nothing lives in it: the next start makes it again.
    /// One that was given, or that systemd keeps, stays.
    pub fn leave(&self, journal: Uid) {
        if let Self::Cgroup(path) = self
            && path.ends_with(own(journal))
        {
            // Refused by the kernel while there is a cgroup of a command in it.
            drop(fs::remove_dir(path));
        }
    }

    fn auto(journal: Uid) -> Self {
        let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return Self::BestEffort };
        mounts(&table)
            .into_iter()
            .flat_map(|mount| {
                let unit = mount.join(UNIT);
                let plain = mount.join(own(journal));
                [unit.is_dir().then_some(unit), Some(plain)]
            })
            .flatten()
            .find(|place| probe(place).is_ok())
            .map_or(Self::BestEffort, Self::Cgroup)
    }
}

/// The place of one agent below a mount.
fn own(journal: Uid) -> PathBuf {
    Path::new(PLAIN).join(journal.to_string().chars().take(8).collect::<String>())
}

/// Makes the cgroup of a command with a leaf, if they are not there yet; answers the leaf.
pub(crate) fn make_leaf(command: &Path, leaf: &str) -> io::Result<PathBuf> {
    let path = command.join(leaf);
    make(command)?;
    make(&path)?;
    Ok(path)
}

/// Opens a cgroup so that a process can be born in it.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Moves this process; slow, see the module.
pub(crate) fn join(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), "0")
}

/// Sets the limits that were asked for; answers those that this host cannot enforce.
pub(crate) fn limit(command: &Path, limits: &CommandLimits) -> Vec<&'static str> {
    let work = command.join("work");
    let cpu = format!("{} 100000", u64::from(limits.cpu_percent) * 1000);
    let wanted = [
        ("memory", "memory.max", limits.memory_max, limits.memory_max.to_string()),
        ("memory", "memory.high", limits.memory_high, limits.memory_high.to_string()),
        ("cpu", "cpu.max", u64::from(limits.cpu_percent), cpu),
        ("pids", "pids.max", u64::from(limits.tasks), limits.tasks.to_string()),
    ];
    let mut missed = Vec::new();
    for (controller, file, wish, text) in wanted {
        if wish == 0 {
            continue;
        }
        let target = work.join(file);
        if !target.exists() {
            // Every cgroup on the way down has to hand the controller on.
            for folder in
                [command.parent().and_then(Path::parent), command.parent(), Some(command)].into_iter().flatten()
            {
                drop(fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}")));
            }
        }
        if !target.exists() || fs::write(&target, text).is_err() {
            missed.push(file);
        }
    }
    missed
}

/// Tells whether anything lives in the cgroup or below it. A cgroup that is gone is empty.
#[must_use]
pub fn populated(path: &Path) -> bool {
    number(&path.join("cgroup.events"), "populated").is_some_and(|value| value != 0)
}

/// Kills everything in the cgroup and below it, once.
pub(crate) fn kill(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // Kernels before 5.14, and threaded cgroups: frozen, what is listed cannot fork away from the signal.
    drop(fs::write(path.join("cgroup.freeze"), "1"));
    signal(path, &[Signal::KILL]);
    drop(fs::write(path.join("cgroup.freeze"), "0"));
}

/// Kills until nothing lives any more; `false` when something survived until the deadline.
#[must_use]
pub fn kill_all(path: &Path, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    // Gone is as good as empty.
    let Ok(events) = File::open(path.join("cgroup.events")) else { return true };
    while populated(path) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        kill(path);
        let wait = left.min(KILL_AGAIN);
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        // The kernel reports a change since the file was opened or read: the emptiness wakes at once.
        let mut buffer = [0; 256];
        if events.read_at(&mut buffer, 0).is_err() || !populated(path) {
            continue;
        }
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&wait));
    }
    true
}

/// Gives signals to every process in the cgroup and below it, also to those that appear meanwhile.
pub(crate) fn signal(path: &Path, signals: &[Signal]) {
    let mut reached = Vec::new();
    for _ in 0..SIGNAL_ROUNDS {
        // A pid may have a new owner by the time it is opened; one that is listed again afterwards is ours.
        let opened: Vec<_> = processes(path)
            .into_iter()
            .filter(|pid| !reached.contains(pid))
            .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
            .collect();
        if opened.is_empty() {
            return;
        }
        let still = processes(path);
        for (pid, handle) in opened {
            if still.contains(&pid) {
                for signal in signals {
                    // Gone already: fine.
                    let _ = pidfd_send_signal(&handle, *signal);
                }
            }
            reached.push(pid);
        }
    }
}

/// The processes in the cgroup and below it.
#[must_use]
pub fn processes(path: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    for folder in tree(path) {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
    }
    found
}

/// Removes the cgroup of a command that has ended, with what the command made below it. What is not there is fine, and
/// one that is still in use stays for the next time.
pub fn remove(base: &Base, uid: Uid) {
    let Some(path) = base.of(uid) else { return };
    // Nearly always there is nothing but our own leaves: three calls, and no listing under the lock of the tree.
    for leaf in LEAVES {
        drop(fs::remove_dir(path.join(leaf)));
    }
    match fs::remove_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => drop(remove_tree(&path)),
        _ => {}
    }
}

/// Removes a cgroup and all below it, deepest first; `false` when one is still in use.
pub(crate) fn remove_tree(path: &Path) -> bool {
    let mut gone = true;
    for folder in tree(path).iter().rev() {
        gone &= remove_one(folder);
    }
    gone
}

/// The CPU time in microseconds.
pub(crate) fn cpu_us(path: &Path) -> Option<u64> {
    number(&path.join("cpu.stat"), "usage_usec")
}

/// The peak of memory in bytes, where the controller is on.
pub(crate) fn memory_peak(path: &Path) -> Option<u64> {
    fs::read_to_string(path.join("memory.peak")).ok()?.trim().parse().ok()
}

/// Whether the kernel killed something in it for memory.
pub(crate) fn oom(path: &Path) -> bool {
    number(&path.join("memory.events"), "oom_kill").is_some_and(|count| count > 0)
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // Somebody tidied up an empty base under us.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(path),
        other => other,
    }
}

#[expect(clippy::disallowed_methods, reason = "in the blocking pool; the kernel has no event for 'not busy any more'")]
fn remove_one(folder: &Path) -> bool {
    for attempt in 1..=REMOVE_TRIES {
        match fs::remove_dir(folder) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < REMOVE_TRIES && !populated(folder) => {
                thread::sleep(REMOVE_PAUSE);
            }
            Err(_) => return false,
        }
    }
    false
}

/// The cgroup and all below it, parents before children.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        next += 1;
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        found.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found
}

/// Checks that commands can get their cgroups there.
fn probe(base: &Path) -> io::Result<()> {
    fs::create_dir_all(base)?;
    let probe = base.join(format!("probe-{}", std::process::id()));
    make(&probe)?;
    let usable = fs::read_to_string(probe.join("cgroup.type"));
    fs::remove_dir(&probe)?;
    match usable?.trim() {
        "domain" => Ok(()),
        other => Err(io::Error::other(format!("a cgroup made there is of type {other:?}, not a domain"))),
    }
}

/// A number in a file of `key value` lines.
fn number(path: &Path, key: &str) -> Option<u64> {
    // One page is enough for every such file; reading to the end would cost two more calls.
    let mut buffer = [0; 4096];
    let got = File::open(path).ok()?.read(&mut buffer).ok()?;
    let text = std::str::from_utf8(buffer.get(..got)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The mount points of cgroup2 in a mountinfo table.
fn mounts(table: &str) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let is_cgroup2 = kind.split(' ').next() == Some("cgroup2");
            is_cgroup2.then(|| mount.split(' ').nth(4).map(unescape)).flatten()
        })
        .collect()
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_among_others_and_unescaped() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:3 - cgroup2 cgroup2 rw\n\
            33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n";
        assert_eq!(mounts(table), vec![PathBuf::from("/sys/fs/cgroup/uni fied")]);
        assert!(mounts("").is_empty());
    }

    #[test]
    fn only_the_place_of_this_agent_is_removed_and_only_when_it_is_empty() {
        let journal = Uid::random();
        let Ok(folder) = tempfile::tempdir() else { return };
        let place = folder.path().join(own(journal));
        let busy = place.join("command");
        assert!(fs::create_dir_all(&busy).is_ok());
        let base = Base::Cgroup(place.clone());
        base.leave(journal);
        assert!(place.exists(), "a command lives in it");
        drop(fs::remove_dir(&busy));
        base.leave(Uid::random());
        assert!(place.exists(), "it belongs to another agent");
        base.leave(journal);
        assert!(!place.exists());
        Base::Cgroup(folder.path().join(PLAIN)).leave(journal);
        assert!(folder.path().join(PLAIN).exists(), "a place that was given stays");
        Base::BestEffort.leave(journal);
    }

    #[test]
    fn none_is_none_and_a_path_that_is_no_cgroup_is_an_error() {
        assert_eq!(Base::discover("none", Uid::random()).ok(), Some(Base::BestEffort));
        assert!(Base::discover("/proc/no/such", Uid::random()).is_err());
    }
}
