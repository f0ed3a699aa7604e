//! A booted tree: owns the `systemd-nspawn` process and everything in it, runs shell lines in it, ends it when dropped.
//!
//! What the guest writes goes to memory and is gone with it, and the tree itself stays as it was made; or, where a test
//! boots it again, to a [`Disk`]: a copy of the tree that is removed with the test.

#![expect(clippy::expect_used, reason = "a test ends where its ground is missing")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a boot may take on a loaded machine.
const BOOT: Duration = Duration::from_secs(90);

/// How long one line may run in the guest; a hanging line is a failure with a name, not a hanging test.
const LINE_SECONDS: &str = "90";

/// What outlives a guest: a copy of the tree.
pub struct Disk {
    tree: PathBuf,
    share: PathBuf,
}

impl Disk {
    /// Copies the tree.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn new(tree: &Path, share: &Path) -> Result<Self, String> {
        let copy = tree.with_extension(format!("disk-{}", std::process::id()));
        let disk = Self { tree: copy, share: share.to_owned() };
        let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(tree).arg(&disk.tree).output();
        match copied {
            Ok(output) if output.status.success() => Ok(disk),
            Ok(output) => Err(format!("cannot copy the tree: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("cannot copy the tree: {error}")),
        }
    }

    /// Boots from it; what the guest writes stays.
    ///
    /// # Errors
    /// Why it does not boot here.
    pub fn boot(&self) -> Result<Guest, String> {
        Guest::start(&self.tree, &self.share, "no")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The next preparation of the ground would find a copy that stayed, and it hurts nobody.
        let _ = fs::remove_dir_all(&self.tree);
        let _ = fs::remove_file(self.tree.with_extension("boot.log"));
    }
}

/// A running guest.
pub struct Guest {
    nspawn: Child,
    /// The guest's first process, as this machine numbers it.
    leader: String,
}

/// What a line said.
pub struct Answer {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Answer {
    /// Whether it did not end with 0.
    pub fn failed(&self) -> bool {
        self.code != Some(0)
    }

    /// Whether it ended with 0 and the text is in its output; spaces do not count.
    pub fn says(&self, text: &str) -> bool {
        !self.failed() && self.stdout.replace([' ', '\n'], "").contains(text)
    }
}

impl Guest {
    /// Boots `tree` with `share` as `/opt/paprika` and waits until its units are started.
    ///
    /// # Errors
    /// Why it does not boot here.
    pub fn boot(tree: &Path, share: &Path) -> Result<Self, String> {
        Self::start(tree, share, "overlay")
    }

    fn start(tree: &Path, share: &Path, volatile: &str) -> Result<Self, String> {
        let log = tree.with_extension("boot.log");
        let output = File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let nspawn = Command::new("systemd-nspawn")
            .args(["--register=no", "--keep-unit", "--quiet", "--boot", "--console=pipe", "--private-network"])
            .arg(format!("--volatile={volatile}"))
            .arg("--machine=paprika-test")
            .arg(format!("--directory={}", tree.display()))
            .arg(format!("--bind-ro={}:/opt/paprika", share.display()))
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("systemd-nspawn does not start: {error}"))?;
        let mut guest = Self { nspawn, leader: String::new() };
        let booted = poll(BOOT, || match guest.nspawn.try_wait() {
            Ok(None) => guest.look_for_leader() && guest.is_up(),
            Ok(Some(_)) | Err(_) => true,
        });
        if guest.nspawn.try_wait().is_ok_and(|status| status.is_none()) && booted {
            return Ok(guest);
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        Err(format!("systemd-nspawn cannot boot here: {}", last.trim()))
    }

    fn look_for_leader(&mut self) -> bool {
        let pid = self.nspawn.id();
        let children =
            fs::read_to_string(PathBuf::from(format!("/proc/{pid}/task/{pid}/children"))).unwrap_or_default();
        self.leader = children.split_whitespace().next().unwrap_or_default().to_owned();
        !self.leader.is_empty()
    }

    fn is_up(&self) -> bool {
        let answer = self.run("systemctl is-system-running");
        matches!(answer.stdout.trim(), "running" | "degraded")
    }

    /// Runs a shell line as root in the guest.
    pub fn run(&self, line: &str) -> Answer {
        let output = Command::new("timeout")
            .args([LINE_SECONDS, "nsenter", "--target", &self.leader])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"])
            .args(["/bin/sh", "-c", line])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .stdin(Stdio::null())
            .output()
            .expect("nsenter starts");
        Answer {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }

    /// Runs a line that must succeed and answers its output.
    #[track_caller]
    pub fn must(&self, line: &str) -> String {
        let answer = self.run(line);
        if answer.failed() {
            panic!(
                "in the guest: {line}\ncode {:?}\n{}{}\n{}",
                answer.code,
                answer.stdout,
                answer.stderr,
                self.journal()
            );
        }
        answer.stdout
    }

    /// The main process of a unit, once it is up.
    #[track_caller]
    pub fn main_pid(&self, unit: &str) -> String {
        self.new_main_pid(unit, "")
    }

    /// The main process of a unit, once systemd has started it again.
    #[track_caller]
    pub fn new_main_pid(&self, unit: &str, old: &str) -> String {
        let question =
            format!("systemctl is-active --quiet {unit} && systemctl show --property=MainPID --value {unit}");
        let mut pid = String::new();
        wait_for(&format!("a process of {unit}, not {old:?}"), BOOT, || {
            let answer = self.run(&question);
            answer.stdout.trim().clone_into(&mut pid);
            !answer.failed() && pid != old && pid != "0"
        });
        pid
    }

    /// Asks systemd to shut the machine down, and waits until it has.
    #[track_caller]
    pub fn power_off(mut self) {
        // The answer may be lost: the shutdown ends what asked for it.
        self.run("systemctl poweroff");
        self.must_be_off("an orderly shutdown");
    }

    /// Kills the first process and with it all others at once, as a power failure does.
    #[track_caller]
    pub fn cut_power(mut self) {
        let leader = self.leader.parse().map(Pid::from_raw).expect("the first process has a number");
        kill(leader, Signal::SIGKILL).expect("the first process can be killed");
        self.must_be_off("the power was cut");
    }

    #[track_caller]
    fn must_be_off(&mut self, why: &str) {
        wait_for(&format!("the guest to be off after: {why}"), BOOT, || !matches!(self.nspawn.try_wait(), Ok(None)));
    }

    /// The last words of our units, for a failure's message.
    pub fn journal(&self) -> String {
        self.run("systemctl status --no-pager --full --lines=40 'paprika-*' 2>&1").stdout
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // nspawn hands a TERM on as an orderly shutdown. The guest has nothing to lose, so the patience is short.
        let pid = Pid::from_raw(i32::try_from(self.nspawn.id()).unwrap_or(0));
        if pid.as_raw() > 0 {
            let _ = kill(pid, Signal::SIGTERM);
        }
        poll(Duration::from_secs(20), || !matches!(self.nspawn.try_wait(), Ok(None)));
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

/// Waits for a condition, and fails with its name when it does not come.
#[track_caller]
pub fn wait_for(what: &str, bound: Duration, condition: impl FnMut() -> bool) {
    assert!(poll(bound, condition), "waited {} s for {what}", bound.as_secs());
}

/// Whether the condition came true in time.
#[expect(clippy::disallowed_methods, reason = "nothing in the guest can wake us: this is the pause between two looks")]
fn poll(bound: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + bound;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    true
}
