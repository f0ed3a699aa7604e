//! The animals of the zoo do what their names promise, within their bounds: else the tests that cage them prove nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::id::Uid;
use testkit::survivors::{self, Survivor};

/// No animal takes longer to stand, on a machine that is merely busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// One animal, with everything that carries its tag; all of it is killed at the end.
struct Cage {
    tag: String,
    folder: tempfile::TempDir,
    child: Child,
}

impl Cage {
    fn of(animal: &str, argument: &str) -> Self {
        let tag = Uid::random().to_string();
        let folder = tempfile::tempdir().unwrap();
        let mut command = zoo();
        command.arg(animal).arg(&tag).arg(folder.path().join("ready")).arg(argument);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { tag, folder, child }
    }

    fn stands(self) -> Self {
        let ready = self.folder.path().join("ready");
        until("the animal to stand", || ready.exists());
        self
    }

    fn all(&self) -> Vec<Survivor> {
        survivors::with_argument(&self.tag)
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        for _ in 0..1000 {
            let left = self.all();
            if left.is_empty() {
                break;
            }
            survivors::end(&left);
        }
        let _ = self.child.wait();
    }
}

fn zoo() -> Command {
    Command::new(PathBuf::from(env!("CARGO_BIN_EXE_zoo")))
}

fn until(what: &str, mut fits: impl FnMut() -> bool) {
    let started = Instant::now();
    while !fits() {
        assert!(started.elapsed() < PATIENCE, "waited for {what}");
        std::thread::yield_now();
    }
}

fn ended(animal: &str, argument: &str) -> Output {
    zoo().args([animal, "tag", "-", argument]).output().unwrap()
}

#[test]
fn an_unknown_animal_is_refused_with_the_names_of_all_others() {
    let out = ended("unicorn", "");
    assert_eq!(out.status.code(), Some(2));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    for name in ["deaf", "bomb", "posture"] {
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn ends_are_what_was_asked_for() {
    assert_eq!(ended("exit", "137").status.code(), Some(137));
    for signal in [libc::SIGKILL, libc::SIGPIPE, libc::SIGSEGV, libc::SIGRTMIN()] {
        assert_eq!(ended("die", &signal.to_string()).status.signal(), Some(signal));
    }
    assert_eq!(ended("die", &libc::SIGCHLD.to_string()).status.code(), Some(0), "it kills nobody");
}

#[test]
fn posture_shows_signals_as_they_were_given() {
    let line = format!("trap '' USR1; exec {} posture tag -", env!("CARGO_BIN_EXE_zoo"));
    let out = Command::new("sh").args(["-c", &line]).env_clear().env("A", "b c").stdin(Stdio::null()).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let ignored = u64::from_str_radix(told["signals"]["ignored"].as_str().unwrap(), 16).unwrap();
    assert_ne!(ignored & (1 << (libc::SIGUSR1 - 1)), 0, "{told}");
    assert_eq!(told["env"]["A"], "b c");
    assert_eq!(told["input"], "");
    assert_eq!(told["open"]["0"], "/dev/null");
    assert!(told["umask"].is_string() && told["nice"].is_i64() && told["oom_score"].is_i64(), "{told}");
}

#[test]
fn a_line_without_a_newline_is_as_long_as_it_says() {
    let out = ended("long-line", "300000");
    assert_eq!(out.stdout.len(), 300_000);
    assert!(out.stdout.iter().zip((b'a'..=b'z').cycle()).all(|(byte, letter)| *byte == letter));
}

#[test]
fn a_bomb_makes_up_for_its_dead_and_never_exceeds_its_bound() {
    let cage = Cage::of("bomb", "").stands();
    let before = cage.all();
    assert!(before.len() > 100, "{} live", before.len());
    for _ in 0..20 {
        let all = cage.all();
        assert!(all.len() <= 200, "{} live", all.len());
        // Those in the middle: their children are orphans from now on.
        survivors::end(all.get(1..20.min(all.len())).unwrap());
    }
    let old: Vec<i32> = before.iter().map(|one| one.pid).collect();
    until("new ones", || cage.all().iter().any(|one| !old.contains(&one.pid)));
}

#[test]
fn those_who_leave_leave_somebody_behind() {
    for animal in ["double-fork", "pipe-holder", "late-writer"] {
        let mut cage = Cage::of(animal, "leave").stands();
        assert_eq!(cage.child.wait().unwrap().code(), Some(0), "{animal}");
        let left = cage.all();
        assert_eq!(left.len(), 1, "{animal}: {left:?}");
        let environment = fs::read(format!("/proc/{}/environ", left[0].pid)).unwrap();
        assert_eq!(environment.is_empty(), animal == "double-fork", "{animal}");
    }
}

#[test]
fn the_deaf_hear_nothing_but_the_last_call() {
    let mut cage = Cage::of("deaf", "").stands();
    let pid = cage.child.id().cast_signed();
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
    assert_eq!(cage.all().len(), 2);
    assert!(cage.child.try_wait().unwrap().is_none());
}

#[test]
fn the_dead_stay_uncollected() {
    let cage = Cage::of("zombies", "50").stands();
    assert_eq!(survivors::uncollected(&cage.tag).len(), 50);
    assert!(survivors::uncollected("a text that nobody has").is_empty());
}
