//! How commands end by themselves, and what their processes see.

use common::model::{Outcome, StreamName};
use common::wire::{self, EnvVar};

use super::kit::{House, argv, read_all, shell, text};

fn code(end: &agent::commands::End) -> &str {
    end.error.as_ref().map_or("", |error| error.code.as_str())
}

#[test]
fn exit_codes_are_kept_as_they_are() {
    for house in House::both() {
        for (line, outcome, exit) in [
            ("true", Outcome::Succeeded, 0),
            ("false", Outcome::Failed, 1),
            ("exit 3", Outcome::Failed, 3),
            ("exit 137", Outcome::Failed, 137),
            ("exit 255", Outcome::Failed, 255),
        ] {
            let end = house.shell(line);
            assert_eq!((end.outcome, end.exit_code, end.signal), (outcome, Some(exit), None), "{line}");
            assert!(end.changed && end.started_ms > 0 && end.duration_us > 0 && end.finished_ms >= end.started_ms);
            assert_eq!(end.isolation, house.base.isolation());
            assert!(end.flags.is_empty() && end.error.is_none() && !end.oom, "{:?}", end.flags);
        }
    }
}

#[test]
fn an_end_by_signal_is_not_an_exit_code() {
    let house = House::new();
    for signal in [1_u32, 2, 6, 9, 11, 13, 15, 34, 64] {
        let end = house.shell(&format!("ulimit -c 0; kill -{signal} $$"));
        assert_eq!((end.outcome, end.exit_code, end.signal), (Outcome::Failed, None, Some(signal)));
    }
}

#[test]
fn what_cannot_be_executed_says_why() {
    let house = House::new();
    let mut away = argv(&["true"]);
    away.cwd = "/no/such/dir".into();
    let mut stranger = argv(&["true"]);
    stranger.user = "no-such-user".into();
    for (command, expected, word) in [
        (argv(&["no-such-program"]), "exec", "ENOENT"),
        (argv(&["/etc/passwd"]), "exec", "EACCES"),
        (argv(&["/etc"]), "exec", "EACCES"),
        (away, "cwd", "ENOENT"),
        (stranger, "user", "no-such-user"),
        (argv(&[]), "args", "program"),
    ] {
        let end = house.run(command);
        assert_eq!((end.outcome, code(&end)), (Outcome::Failed, expected));
        assert!(end.error.as_ref().unwrap().text.contains(word), "{:?}", end.error);
        assert!(!end.changed && end.started_ms == 0 && end.exit_code.is_none());
    }
}

#[test]
fn too_long_arguments_are_an_error_of_exec() {
    let house = House::new();
    let end = house.run(argv(&["true", &"x".repeat(200_000)]));
    assert_eq!((end.outcome, code(&end)), (Outcome::Failed, "exec"));
    assert!(end.error.unwrap().text.contains("E2BIG"));
}

#[test]
fn a_script_without_an_interpreter_line_runs_in_the_shell() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new();
    let script = house.state.path().join("script");
    std::fs::write(&script, "echo \"got $1\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let uid = house.accept(argv(&[script.to_str().unwrap(), "a b"]));
    assert_eq!(house.launch(uid).end().outcome, Outcome::Succeeded);
    assert_eq!(text(&house, uid, StreamName::Stdout), "got a b\n");
}

#[test]
fn the_environment_is_exactly_what_was_said() {
    let house = House::new();
    let mut command = argv(&["env"]);
    command.env = vec![EnvVar { name: "K".into(), value: "v w".into() }];
    let uid = house.accept(command);
    house.launch(uid).end();
    let found = text(&house, uid, StreamName::Stdout);
    let mut names: Vec<_> = found.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    let expected = [
        "HOME",
        "K",
        "LANG",
        "LOGNAME",
        "PAPRIKA_AGENT",
        "PAPRIKA_COMMAND_ID",
        "PAPRIKA_COMMAND_UID",
        "PATH",
        "SHELL",
        "USER",
    ];
    assert_eq!(names, expected);
    for line in
        ["K=v w", "PAPRIKA_AGENT=web1", "PAPRIKA_COMMAND_ID=1", "LANG=C.UTF-8", &format!("PAPRIKA_COMMAND_UID={uid}")]
    {
        assert!(found.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn a_process_inherits_nothing_by_accident() {
    let house = House::new();
    let uid = house.accept(shell(
        "ls /proc/self/fd | sort -n | tr '\\n' ' '; sed -nE '/^Sig(Blk|Ign|Cgt)/p' /proc/self/status | tr -d '\\n\\t'; echo; umask; pwd; \
         readlink /proc/$$/fd/0; ps -o pid=,pgid=,sid= -p $$ 2>/dev/null || cut -d' ' -f1,5,6 /proc/$$/stat; echo $$",
    ));
    house.launch(uid).end();
    let out = text(&house, uid, StreamName::Stdout);
    let lines: Vec<_> = out.lines().collect();
    // `ls` holds one more for the folder it lists.
    assert_eq!(lines[0], format!("0 1 2 3 SigBlk:{0}SigIgn:{0}SigCgt:{0}", "0".repeat(16)));
    assert_eq!(lines[1..4], ["0022", "/", "/dev/null"]);
    let ids: Vec<_> = lines[4].split_whitespace().collect();
    assert_eq!(ids, [lines[5]; 3]);
}

#[test]
fn input_that_was_given_is_read_to_its_end() {
    let house = House::new();
    let mut command = argv(&["cat"]);
    command.stdin = vec![b'x'; 200_000].into();
    command.has_stdin = true;
    let uid = house.accept(command);
    assert_eq!(house.launch(uid).end().outcome, Outcome::Succeeded);
    assert_eq!(read_all(&house.state.command(uid), StreamName::Stdout), vec![b'x'; 200_000]);
    assert_eq!(house.run(argv(&["cat"])).exit_code, Some(0));
}

#[test]
fn another_user_gets_its_groups_and_no_way_back() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let house = House::new();
    let mut command =
        shell("id -un; id -G; grep NoNewPrivs /proc/self/status; echo via >/dev/stdout; echo $HOME $USER");
    command.user = "nobody".into();
    let uid = house.accept(command);
    let end = house.launch(uid).end();
    assert_eq!(end.outcome, Outcome::Succeeded, "{:?} {}", end.error, text(&house, uid, StreamName::Stderr));
    let out = text(&house, uid, StreamName::Stdout);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!((lines[0], lines[2], lines[3]), ("nobody", "NoNewPrivs:\t1", "via"));
    assert!(!lines[1].split(' ').any(|group| group == "0"), "{}", lines[1]);
    assert!(lines[4].ends_with(" nobody"));
}

#[test]
fn usage_is_what_the_processes_used() {
    for house in House::both() {
        let end = house.shell("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done");
        assert!(end.cpu_us > 1_000, "{}", end.cpu_us);
        assert!(end.cpu_us < 2 * end.duration_us + 1_000_000);
        assert!(end.memory_peak > 100_000, "{}", end.memory_peak);
    }
}

#[test]
fn a_limit_that_cannot_be_enforced_refuses_unless_best_effort_was_said() {
    let house = House::with("none");
    let limits = wire::CommandLimits { tasks: 10, ..Default::default() };
    let end = house.run(wire::Command { limits: Some(limits), ..argv(&["true"]) });
    assert_eq!((end.outcome, code(&end), end.changed), (Outcome::Refused, "limits", false));
    let limits = wire::CommandLimits { best_effort: true, ..limits };
    let end = house.run(wire::Command { limits: Some(limits), ..argv(&["true"]) });
    assert_eq!(end.outcome, Outcome::Succeeded);
    assert_eq!(end.flags, ["limits_not_enforced"]);
}

#[test]
fn a_second_shim_finds_nothing_to_do() {
    let house = House::new();
    let uid = house.accept(shell("echo once"));
    let end = house.launch(uid).end();
    assert_eq!(house.launch(uid).end(), end);
    assert_eq!(text(&house, uid, StreamName::Stdout), "once\n");
    let slow = house.start(shell("echo up; read x < /dev/zero & wait"));
    slow.wait_for_output("up");
    house.launch(slow.uid).shim_exits_alone();
    slow.cancel("done", Some(std::time::Duration::ZERO));
    slow.end();
}

#[test]
fn the_agent_is_told_when_there_is_something_to_read() {
    let house = House::new();
    let running = house.start(argv(&["true"]));
    let uid = running.uid;
    running.end();
    assert_eq!(house.state.notes().unwrap(), vec![uid]);
}

/// Every signal of the old kind that ends a process, with what the shim says about it.
#[test]
fn each_signal_from_1_to_31_is_reported_as_itself() {
    let house = House::new();
    // 19 to 22 stop a process for ever: those are for the tests of stopping.
    for signal in (1_u32..=31).filter(|signal| !(19..=22).contains(signal)) {
        let ends = !matches!(signal, 17 | 18 | 23 | 28);
        let end = house.shell(&format!("ulimit -c 0; kill -{signal} $$; exit 42"));
        if ends {
            assert_eq!((end.exit_code, end.signal), (None, Some(signal)), "{signal}");
            assert!(!end.oom, "{signal}");
        } else {
            assert_eq!((end.exit_code, end.signal), (Some(42), None), "{signal}");
        }
    }
}
