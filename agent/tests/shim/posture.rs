//! What a process has before its program begins is what was said, and nothing that somebody else had.

use common::model::{Outcome, StreamName};
use common::wire;

use super::kit::{House, argv, is_root, shell, text};

fn out(house: &House, command: wire::Command) -> String {
    let uid = house.accept(command);
    let end = house.launch(uid).end();
    assert_eq!(end.outcome, Outcome::Succeeded, "{:?} {}", end.error, text(house, uid, StreamName::Stderr));
    text(house, uid, StreamName::Stdout)
}

/// Umask, priority, OOM score and open files, one a line; the last twice: soft and hard.
const SHOW: &str = "umask; cut -d' ' -f19 /proc/self/stat; cat /proc/self/oom_score_adj; ulimit -Sn; ulimit -Hn";

fn own_nice() -> i32 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
}

#[test]
fn without_a_wish_everything_is_neutral() {
    let house = House::new();
    let shown = out(&house, shell(SHOW));
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[..3], ["0022", &own_nice().to_string(), "0"]);
    let hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
    assert_eq!(lines[3], hard.min(1024).to_string());
}

#[test]
fn wishes_are_obeyed_also_for_another_user() {
    let house = House::new();
    let users: &[&str] = if is_root("posture::another_user") { &["", "nobody"] } else { &[""] };
    for user in users {
        let mut command = shell(SHOW);
        (command.umask, command.has_umask, command.nice, command.oom_score) = (0o027, true, 3, 500);
        command.user = (*user).into();
        let shown = out(&house, command);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[..3], ["0027", &(own_nice() + 3).min(19).to_string(), "500"], "{user}");
    }
    let open = wire::Command { has_umask: true, ..shell("umask") };
    assert_eq!(out(&house, open), "0000\n");
}

#[test]
fn a_directory_that_cannot_be_entered_says_why() {
    if !is_root("posture::another_user") {
        return;
    }
    let house = House::new();
    let file = house.state.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut command = argv(&["true"]);
    command.cwd = file.display().to_string();
    let end = house.run(command);
    let error = end.error.unwrap();
    assert_eq!((end.outcome, error.code.as_str()), (Outcome::Failed, "cwd"));
    assert!(error.text.contains("ENOTDIR") && error.text.contains("file"), "{}", error.text);
    let mut closed = argv(&["true"]);
    (closed.cwd, closed.user) = (house.state.path().display().to_string(), "nobody".into());
    let error = house.run(closed).error.unwrap();
    assert!(error.code == "cwd" && error.text.contains("EACCES"), "{error:?}");
}

/// An agent without rights: its shim belongs to a user, and so does everything in its directory.
#[test]
fn a_wish_that_the_kernel_refuses_is_a_start_that_failed() {
    const NOBODY: u32 = 65_534;
    if !is_root("posture::without_rights") {
        return;
    }
    let house = House::with("none");
    // Where the program was built may be closed to others.
    let exe = house.state.path().join("agent");
    std::fs::copy(super::kit::exe(), &exe).unwrap();
    let own = |path: &std::path::Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    for path in [house.state.path().to_owned(), house.state.commands(), exe.clone()] {
        own(&path);
    }
    for (command, code, word) in [
        (wire::Command { nice: -5, ..argv(&["true"]) }, "nice", "EACCES EPERM"),
        (wire::Command { oom_score: -500, ..argv(&["true"]) }, "oom_score", "EACCES EPERM"),
        (wire::Command { user: "root".into(), ..argv(&["true"]) }, "user", "root"),
        (wire::Command { nice: 5, oom_score: 500, ..argv(&["true"]) }, "", ""),
    ] {
        let uid = house.accept(command);
        let dir = house.state.command(uid);
        own(&dir);
        for entry in std::fs::read_dir(&dir).unwrap() {
            own(&entry.unwrap().path());
        }
        let mut shim = std::process::Command::new(&exe);
        std::os::unix::process::CommandExt::gid(&mut shim, NOBODY);
        std::os::unix::process::CommandExt::uid(&mut shim, NOBODY);
        let status = shim.arg("shim").arg(&dir).env_clear().stdin(std::process::Stdio::null()).status().unwrap();
        assert!(status.success());
        let end = agent::commands::record::read(&dir).unwrap().end.unwrap();
        match end.error {
            None => assert_eq!((end.outcome, code), (Outcome::Succeeded, "")),
            Some(error) => {
                assert_eq!((end.outcome, error.code.as_str(), end.changed), (Outcome::Failed, code, false));
                assert!(word.split(' ').any(|word| error.text.contains(word)), "{}", error.text);
            }
        }
    }
}

#[test]
fn a_process_is_alone_in_its_session_and_has_no_terminal() {
    for house in House::both() {
        let shown =
            out(&house, shell("cut -d' ' -f1,5,6,7 /proc/$$/stat; echo $$; (: < /dev/tty) 2>/dev/null || echo none"));
        let lines: Vec<_> = shown.lines().collect();
        let pid = lines[1];
        assert_eq!(lines[0], format!("{pid} {pid} {pid} 0"));
        assert_eq!(lines[2], "none");
    }
}

#[test]
fn five_hundred_open_files_of_the_agent_do_not_reach_the_command() {
    let house = House::new();
    let files: Vec<_> = (0..500).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    // `ls` holds one more for the folder it lists.
    assert_eq!(out(&house, argv(&["ls", "/proc/self/fd"])).lines().count(), 4);
    drop(files);
}

#[test]
fn a_program_whose_set_user_bit_would_raise_it_gains_nothing() {
    if !is_root("posture::another_user") {
        return;
    }
    let house = House::new();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("id");
    std::fs::copy("/usr/bin/id", &program).unwrap();
    let mode = |path, bits| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(bits)).unwrap();
    mode(program.as_path(), 0o4755);
    mode(folder.path(), 0o755);
    let mut command = argv(&[program.to_str().unwrap(), "-u"]);
    command.user = "nobody".into();
    assert_ne!(out(&house, command).trim(), "0");
}

#[test]
fn arguments_arrive_as_they_were_said() {
    let house = House::new();
    let words = ["printf", "[%s]", "a b", "c\"d'", "e\nf", "$HOME", "*", "", "\u{e9}"];
    assert_eq!(out(&house, argv(&words)), "[a b][c\"d'][e\nf][$HOME][*][][\u{e9}]");
}
