//! Tests of cgroups: in fake trees, which are plain folders that look like one, and in the real trees of this machine.
//!
//! A real tree that is missing, or that may not be written, is said and skipped: what runs here must hold everywhere.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::id::Uid;
use common::wire::CommandLimits;

use super::base::own;
use super::mounts::Mounts;
use super::*;

/// Longer than anything here takes on a busy machine.
const BOUND: Duration = Duration::from_secs(20);
/// What a kill may take.
const QUICK: Duration = Duration::from_secs(1);
/// Forks of a bomb within its limit.
const BOMB: u32 = 100;

fn write(folder: &Path, file: &str, content: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(file), content).unwrap();
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

/// A place whose leaf `work` has the files of those controllers of version 2, and folders of version 1.
fn fake(folder: &Path, v2_files: &[&str], v1: &[(&str, &[&str])]) -> Place {
    let group = folder.join("unified/uid");
    fs::create_dir_all(group.join("work")).unwrap();
    for file in v2_files {
        write(&group.join("work"), file, "max\n");
    }
    let controllers = v1.iter().map(|(name, files)| {
        let folder = folder.join(name).join("uid");
        for file in *files {
            write(&folder, file, "0\n");
        }
        Controller { name: (*name).to_owned(), folder }
    });
    Place { group, rung: Rung::V2, controllers: controllers.collect() }
}

fn all_limits() -> CommandLimits {
    CommandLimits { memory_max: 1 << 20, memory_high: 1 << 19, cpu_percent: 50, tasks: 7, ..Default::default() }
}

const V2_FILES: [&str; 6] = ["memory.max", "memory.high", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"];

#[test]
fn in_a_fake_tree_limits_are_set_by_version_2_where_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let v1: (&str, &[&str]) = ("memory", &["memory.limit_in_bytes"]);
    let place = fake(folder.path(), &V2_FILES, &[v1]);
    let done = limit(&place, &all_limits());
    assert!(done.missed.is_empty() && done.folders.is_empty(), "{done:?}");
    let work = place.group.join("work");
    let expected = ["1048576", "524288", "0", "1", "50000 100000", "7"];
    assert_eq!(V2_FILES.map(|file| read(&work, file)), expected);
    assert_eq!(read(&place.controllers[0].folder, "memory.limit_in_bytes"), "0\n", "nobody is limited twice");
}

#[test]
fn in_a_fake_tree_limits_that_version_2_lacks_are_set_by_version_1() {
    let folder = tempfile::tempdir().unwrap();
    let memory: &[&str] = &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
    let cpu: &[&str] = &["cpu.cfs_quota_us", "cpu.cfs_period_us"];
    let place = fake(folder.path(), &["pids.max"], &[("memory", memory), ("cpu", cpu)]);
    let done = limit(&place, &all_limits());
    let folders: Vec<_> = place.controllers.iter().map(|controller| controller.folder.clone()).collect();
    assert_eq!(done.folders, folders);
    assert_eq!(done.missed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["memory_high"], "{done:?}");
    assert_eq!(memory.iter().map(|file| read(&folders[0], file)).collect::<Vec<_>>(), ["1048576", "1048576"]);
    assert_eq!(cpu.iter().map(|file| read(&folders[1], file)).collect::<Vec<_>>(), ["50000", "100000"]);
    assert_eq!(read(&place.group.join("work"), "pids.max"), "7");
}

#[test]
fn in_a_fake_tree_controllers_that_share_a_folder_are_joined_once() {
    let folder = tempfile::tempdir().unwrap();
    let cpu: (&str, &[&str]) = ("shared", &["cpu.cfs_quota_us", "pids.max"]);
    let mut place = fake(folder.path(), &[], &[cpu]);
    let shared = place.controllers.remove(0).folder;
    for name in ["cpu", "pids"] {
        place.controllers.push(Controller { name: name.to_owned(), folder: shared.clone() });
    }
    let done = limit(&place, &CommandLimits { cpu_percent: 1, tasks: 2, ..Default::default() });
    assert_eq!((done.folders, done.missed), (vec![shared.clone()], Vec::new()));
    assert_eq!(read(&shared, "cpu.cfs_quota_us"), "1000");
}

#[test]
fn in_a_fake_tree_a_limit_that_nobody_has_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let place = fake(folder.path(), &[], &[]);
    let done = limit(&place, &all_limits());
    let names: Vec<_> = done.missed.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["memory", "memory_high", "cpu", "tasks"]);
    assert!(done.missed.iter().all(|(_, why)| why.contains("not available")), "{done:?}");
    let v1_only = Place { rung: Rung::V1, ..place };
    assert_eq!(limit(&v1_only, &all_limits()).missed.len(), 4);
    assert_eq!(limit(&v1_only, &CommandLimits::default()), limits::Limited::default());
}

#[test]
fn in_a_fake_tree_a_controller_is_handed_down_from_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let place = fake(folder.path(), &[], &[]);
    let root = folder.path().join("unified");
    write(&root, "cgroup.controllers", "cpu memory\n");
    write(&place.group, "cgroup.controllers", "\n");
    limit(&place, &CommandLimits { memory_max: 1, ..Default::default() });
    for folder in [&root, &place.group] {
        assert_eq!(read(folder, "cgroup.subtree_control"), "+memory");
    }
    assert!(!folder.path().join("cgroup.subtree_control").exists(), "what is above is not ours");
}

#[test]
fn in_a_fake_tree_kills_for_memory_are_told_apart_by_whose_limit_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let place = fake(folder.path(), &[], &[("memory", &["memory.limit_in_bytes"])]);
    let (work, v1) = (place.group.join("work"), vec![place.controllers[0].folder.clone()]);
    assert_eq!(Oom::read(&work, &v1), None, "nobody counts");
    write(&v1[0], "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
    write(&v1[0], "memory.failcnt", "5\n");
    let nested = v1[0].join("nested");
    write(&nested, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
    write(&nested, "memory.limit_in_bytes", "1048576\n");
    write(&nested, "memory.max_usage_in_bytes", "1000000\n");
    let before = Oom::read(&work, &v1).unwrap();
    assert_eq!(before, Oom { kills: 3, own: 5 }, "what a command nested is added up");
    write(&work, "memory.events", "low 0\nhigh 0\nmax 9\noom 0\noom_kill 1\noom_group_kill 0\n");
    assert_eq!(Oom::read(&work, &v1), Some(Oom { kills: 1, own: 0 }), "a victim of the host");
    write(&nested, "memory.max_usage_in_bytes", "1044480\n");
    fs::remove_file(work.join("memory.events")).unwrap();
    assert_eq!(Oom::read(&work, &v1), Some(Oom { kills: 3, own: 6 }), "one page more did not fit");
    assert_eq!(before.since(Oom { kills: 3, own: 0 }), Oom { kills: 0, own: 5 });
    write(&place.group, "memory.events", "oom 2\noom_kill 2\n");
    assert_eq!(Oom::read(&work, &v1), Some(Oom { kills: 2, own: 2 }), "counted one level up");
}

#[test]
fn in_a_fake_tree_usage_is_read_from_the_version_that_counts() {
    let folder = tempfile::tempdir().unwrap();
    let place = fake(folder.path(), &[], &[("memory", &[]), ("pids", &[])]);
    let work = place.group.join("work");
    let v1: Vec<_> = place.controllers.iter().map(|controller| controller.folder.clone()).collect();
    assert_eq!((memory_peak(&work, &v1), tasks_peak(&work, &v1), io_bytes(&work)), (None, None, None));
    write(&v1[0], "memory.max_usage_in_bytes", "4096\n");
    write(&v1[1], "pids.peak", "3\n");
    assert_eq!((memory_peak(&work, &v1), tasks_peak(&work, &v1)), (Some(4096), Some(3)));
    write(&work, "memory.peak", "8192\n");
    write(&work, "pids.peak", "4\n");
    write(&work, "io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:16 rbytes=1 wbytes=2 rios=0 wios=0\n");
    assert_eq!((memory_peak(&work, &v1), tasks_peak(&work, &v1)), (Some(8192), Some(4)));
    assert_eq!(io_bytes(&work), Some((11, 22)));
}

#[test]
fn in_a_fake_tree_version_2_is_frozen_and_thawed_by_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    write(&path, "cgroup.events", "populated 1\nfrozen 1\n");
    let pen = Pen::new(path.clone(), Rung::V2Freezer);
    assert!(pen.populated() && pen.frozen() && pen.freeze());
    assert_eq!(read(&path, "cgroup.freeze"), "1");
    pen.thaw();
    assert_eq!(read(&path, "cgroup.freeze"), "0");
    write(&path, "cgroup.events", "populated 1\nfrozen 0\n");
    let began = Instant::now();
    assert!(!pen.freeze(), "it never stands still");
    assert!(began.elapsed() < BOUND);
}

#[test]
fn in_a_fake_tree_version_1_is_frozen_and_thawed_by_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    write(&path, "freezer.state", "THAWED\n");
    let pen = Pen::found(path.clone());
    assert_eq!(pen.rung(), Rung::V1);
    assert!(!pen.frozen() && !pen.populated());
    assert!(pen.freeze() && pen.frozen());
    pen.thaw();
    assert_eq!(read(&path, "freezer.state"), "THAWED");
}

#[test]
fn a_place_that_was_demanded_and_is_not_there_is_an_error_and_auto_falls_back() {
    let (journal, none) = (Uid::random(), Mounts::default());
    assert_eq!(Base::choose("auto", &none, journal).ok(), Some(Base::BestEffort));
    assert_eq!(Base::choose("none", &none, journal).ok(), Some(Base::BestEffort));
    for choice in ["v2", "v2-freezer", "v1", "/proc/no/such"] {
        assert!(Base::is_choice(choice));
        let error = Base::choose(choice, &none, journal).unwrap_err().to_string();
        assert!(error.contains("cgroup"), "{choice}: {error}");
    }
    let plain = tempfile::tempdir().unwrap();
    let error = Base::choose(plain.path().to_str().unwrap(), &none, journal).unwrap_err();
    assert!(error.to_string().contains("not in a cgroup2 tree"), "{error}");
    assert!(!Base::is_choice("v3") && !Base::is_choice("relative"));
}

#[test]
fn in_a_fake_tree_only_the_place_of_this_agent_is_removed_and_only_when_it_is_empty() {
    let journal = Uid::random();
    let folder = tempfile::tempdir().unwrap();
    let tree = |path: PathBuf| Base::Cgroup(Tree { path, rung: Rung::V2, controllers: Vec::new() });
    let place = folder.path().join(own(journal));
    let busy = place.join("command");
    fs::create_dir_all(&busy).unwrap();
    let base = tree(place.clone());
    base.leave(journal);
    assert!(place.exists(), "a command lives in it");
    fs::remove_dir(&busy).unwrap();
    base.leave(Uid::random());
    assert!(place.exists(), "it belongs to another agent");
    base.leave(journal);
    assert!(!place.exists());
    tree(folder.path().join("paprika-commands")).leave(journal);
    assert!(folder.path().join("paprika-commands").exists(), "a place that was given stays");
    Base::BestEffort.leave(journal);
}

#[test]
fn in_a_fake_tree_a_sweep_takes_what_is_empty_and_unknown_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Uid::random();
    let path = folder.path().join("v2").join(own(journal));
    let controller = folder.path().join("memory").join(own(journal));
    let base = Base::Cgroup(Tree {
        path: path.clone(),
        rung: Rung::V2,
        controllers: vec![Controller { name: "memory".into(), folder: controller.clone() }],
    });
    let (known, gone, kept) = (Uid::random(), Uid::random(), Uid::random());
    for place in [&path, &controller] {
        for uid in [known, gone, kept] {
            fs::create_dir_all(place.join(uid.to_string())).unwrap();
        }
        fs::create_dir_all(place.join("somebody-else")).unwrap();
        // Strays that were allowed to stay.
        write(&place.join(kept.to_string()), "cgroup.procs", "1\n");
    }
    let parent = path.parent().unwrap();
    for other in ["0123abcd", "dead0000/command", "notes"] {
        fs::create_dir_all(parent.join(other)).unwrap();
    }
    sweep(&base, |uid| uid == known);
    for place in [&path, &controller] {
        assert!(!place.join(gone.to_string()).exists());
        for stays in [known.to_string(), kept.to_string(), "somebody-else".to_owned()] {
            assert!(place.join(stays).exists());
        }
    }
    assert!(!parent.join("0123abcd").exists(), "the empty place of an agent that is no more");
    assert!(parent.join("dead0000").exists() && parent.join("notes").exists());
    remove(&base, known);
    assert!(!path.join(known.to_string()).exists() && !controller.join(known.to_string()).exists());
}

/// Says that a test did not run with a kind of cgroups: in the output, and in the folder beside the test programs that
/// the summary of all tests reads.
fn not_run(choice: &str, reason: &str) {
    let test = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let line = format!("NOT RUN: {test} with cgroup `{choice}`: {}\n", reason.replace('\n', " "));
    std::io::stderr().lock().write_all(line.as_bytes()).unwrap();
    let program = std::env::current_exe().unwrap();
    // target/PROFILE/deps/PROGRAM
    let folder = program.ancestors().nth(3).unwrap().join("tmp/not-run");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{test} {choice}.txt")), line).unwrap();
}

/// A cgroup in a real tree with processes in it; all killed and removed at the end.
struct Real {
    pen: Pen,
    children: Vec<Child>,
    base: Base,
    journal: Uid,
    folders: Vec<PathBuf>,
}

impl Real {
    /// None, with the reason where the summary of the tests finds it: this machine cannot.
    fn new(choice: &str) -> Option<Self> {
        let journal = Uid::random();
        match Base::discover(choice, journal) {
            Ok(base @ Base::Cgroup(_)) => {
                let place = base.place(Uid::random()).unwrap();
                let work = make_leaf(&place.group, "work").unwrap();
                let pen = Pen::new(work, place.rung);
                Some(Self { pen, children: Vec::new(), base, journal, folders: Vec::new() })
            }
            other => {
                not_run(choice, &format!("{other:?}"));
                None
            }
        }
    }

    /// Every way of this machine to hold processes.
    fn each() -> impl Iterator<Item = Self> {
        ["v2", "v2-freezer", "v1"].into_iter().filter_map(Self::new)
    }

    fn limit(&mut self, limits: &CommandLimits) {
        let tree = self.base.tree().unwrap();
        let uid: Uid = self.pen.path().parent().unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert!(tree.path.join(uid.to_string()).exists());
        let done = limit(&self.base.place(uid).unwrap(), limits);
        assert_eq!(done.missed, Vec::new());
        self.folders = done.folders;
    }

    /// Runs a shell line in the folder `below` the cgroup, and in the folders of limits.
    fn spawn_in(&mut self, below: &str, line: &str) -> &mut Child {
        let folder = self.pen.path().join(below);
        let joins: Vec<_> = self.folders.iter().chain([&folder]).map(|folder| folder.join("cgroup.procs")).collect();
        let join: String = joins.iter().map(|procs| format!("echo 0 > {}; ", procs.display())).collect();
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("{join}{line}")])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        self.children.push(child);
        self.children.last_mut().unwrap()
    }

    fn spawn(&mut self, line: &str) -> &mut Child {
        self.spawn_in("", line)
    }

    fn wait_for(&self, count: usize) {
        wait_for(&format!("{count} processes in {}", self.pen.path().display()), || {
            self.pen.processes().len() >= count
        });
    }

    fn kill_within(&self, bound: Duration) {
        let began = Instant::now();
        assert_eq!(self.pen.kill_all(BOUND), Vec::new());
        assert!(began.elapsed() < bound, "{:?} took {:?}", self.pen, began.elapsed());
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.pen.kill_all(BOUND);
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        remove_tree(self.pen.path().parent().unwrap());
        for folder in &self.folders {
            remove_tree(folder);
            let _ = fs::remove_dir(folder.parent().unwrap());
        }
        self.base.leave(self.journal);
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tree::rest(Duration::from_millis(2));
    }
}

/// Forks, and goes on trying where it may not; a shell would give up there. Never more than [`BOMB`] at once.
const FORK_BOMB: &str = "exec perl -e 'for (;;) { fork }'";

#[test]
fn a_fork_bomb_within_its_limit_is_killed_within_a_second_by_each_way() {
    for mut real in Real::each() {
        real.limit(&CommandLimits { tasks: BOMB, ..Default::default() });
        real.spawn(FORK_BOMB);
        real.wait_for(BOMB as usize);
        real.kill_within(QUICK);
        assert!(!real.pen.populated());
    }
}

#[test]
fn three_nested_levels_are_killed_and_removed_by_each_way() {
    for mut real in Real::each() {
        for below in ["a", "a/b", "a/b/c"] {
            fs::create_dir(real.pen.path().join(below)).unwrap();
            real.spawn_in(below, "exec sleep 600");
        }
        real.wait_for(3);
        assert!(!remove_tree(real.pen.path()), "what lives keeps its cgroup");
        real.kill_within(QUICK);
        assert!(remove_tree(real.pen.path()));
        assert!(!real.pen.path().exists());
    }
}

#[test]
fn what_is_frozen_stands_still_goes_on_and_can_be_killed_by_each_way() {
    for mut real in Real::each() {
        let counter = tempfile::NamedTempFile::new().unwrap();
        let path = counter.path().to_owned();
        real.spawn(&format!("while :; do echo x >> {}; done", path.display()));
        let length = || fs::metadata(&path).unwrap().len();
        wait_for("the counter", || length() > 0);
        assert!(real.pen.freeze() && real.pen.frozen(), "{:?}", real.pen);
        let at = length();
        // A thousand rounds of the loop would fit into this look.
        tree::rest(Duration::from_millis(50));
        assert_eq!(length(), at, "{:?}", real.pen);
        real.pen.thaw();
        wait_for("it to go on", || length() > at);
        assert!(!real.pen.frozen());
        assert!(real.pen.freeze());
        real.kill_within(QUICK);
    }
}

#[test]
fn a_threaded_cgroup_that_refuses_the_kill_is_emptied_by_freezing() {
    let Some(mut real) = Real::new("v2") else { return };
    let threaded = real.pen.path().join("threaded");
    fs::create_dir(&threaded).unwrap();
    fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
    for _ in 0..2 {
        real.spawn_in("threaded", "exec sleep 600");
    }
    real.wait_for(2);
    let pen = Pen::new(threaded.clone(), Rung::V2);
    let refused = fs::write(threaded.join("cgroup.kill"), "1").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    assert_eq!(pen.processes().len(), 2);
    assert_eq!(pen.kill_all(QUICK), Vec::new());
    assert!(!real.pen.populated());
}

#[test]
fn a_hog_of_memory_is_killed_at_its_limit_and_it_is_told_from_other_kills() {
    for mut real in Real::each() {
        real.limit(&CommandLimits { memory_max: 16 << 20, ..Default::default() });
        let (work, folders) = (real.pen.path().to_owned(), real.folders.clone());
        let before = Oom::read(&work, &folders).unwrap();
        assert_eq!(before.kills, 0);
        // It keeps the line in memory, whose end never comes.
        let status = real.spawn("exec tail /dev/zero").wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status:?}");
        let after = Oom::read(&work, &folders).unwrap().since(before);
        assert!(after.kills == 1 && after.own > 0, "{after:?}");
        let peak = memory_peak(&work, &folders).unwrap();
        assert!((8 << 20..=16 << 20).contains(&peak), "{peak}");
        let again = Oom::read(&work, &folders).unwrap();
        let child = real.spawn("exec sleep 600");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Oom::read(&work, &folders).unwrap().since(again).kills, 0);
    }
}

#[test]
fn a_spinner_stays_within_its_share_of_a_core() {
    let Some(mut real) = Real::new("v2") else { return };
    real.limit(&CommandLimits { cpu_percent: 20, ..Default::default() });
    let pid = real.spawn("while :; do :; done").id();
    let used = |pid: u32| -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        // Hundredths of a second in user and in system mode.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    wait_for("the spinner", || used(pid) > 5);
    let (began, at) = (Instant::now(), used(pid));
    wait_for("a second of CPU time", || used(pid) >= at + 40);
    // A busy machine gives it less than its share, never more.
    let share = 0.4 / began.elapsed().as_secs_f64();
    assert!(share < 0.25, "{share}");
}

#[test]
fn tasks_beyond_the_limit_are_refused_and_the_most_at_once_is_known() {
    for mut real in Real::each() {
        real.limit(&CommandLimits { tasks: 5, ..Default::default() });
        real.spawn("for i in 1 2 3 4 5 6 7 8 9; do sleep 600 & done 2>/dev/null; wait");
        let (work, folders) = (real.pen.path().to_owned(), real.folders.clone());
        wait_for("five tasks", || tasks_peak(&work, &folders).is_none_or(|peak| peak >= 5));
        if let Some(peak) = tasks_peak(&work, &folders) {
            assert_eq!(peak, 5);
        }
        assert!(real.pen.processes().len() <= 5);
    }
}
