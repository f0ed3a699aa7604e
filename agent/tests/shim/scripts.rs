//! Scripts come with their command and are run without a file on the disk.

use common::model::{Outcome, StreamName};
use serde_json::json;

use super::kit::{House, is_root, script, text};

fn names(house: &House) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(house.state.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn the_first_line_or_the_request_says_who_reads_it() {
    let house = House::new();
    for (args, expected) in [
        (json!({"content": "echo \"$0 $1 $#\"", "args": ["a b", "c"]}), "/proc/self/fd/3 a b 2\n"),
        (json!({"content": "#!/bin/sh -eu\ncase $- in *e*u*|*u*e*) echo both;; esac\n"}), ""),
        (json!({"content": "#!/bin/cat\nx"}), "#!/bin/cat\nx"),
        (json!({"content": "x\ny\n", "interpreter": ["grep", "-c", ""]}), "2\n"),
        (json!({"content": "x", "interpreter": "cat"}), "x"),
    ] {
        let before = names(&house);
        let uid = house.accept(script(args.clone()));
        let end = house.launch(uid).end();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Succeeded, Some(0)), "{args} {:?}", end.error);
        let out = text(&house, uid, StreamName::Stdout);
        // Which of its two options a shell shows is its own affair.
        assert!(out == expected || (expected.is_empty() && out == "both\n"), "{args}: {out}");
        assert_eq!(names(&house), before, "nothing is written beside the command's own directory");
    }
}

#[test]
fn a_script_can_be_large_and_read_its_input() {
    let house = House::new();
    let content = format!("# {}\ncat\n", "x".repeat(300_000));
    let mut command = script(json!({"content": content}));
    (command.stdin, command.has_stdin) = (b"given".to_vec().into(), true);
    let uid = house.accept(command);
    assert_eq!(house.launch(uid).end().exit_code, Some(0));
    assert_eq!(text(&house, uid, StreamName::Stdout), "given");
}

#[test]
fn another_user_can_read_the_script_and_nobody_can_change_it() {
    if !is_root("scripts::another_user") {
        return;
    }
    let house = House::new();
    for user in ["nobody", ""] {
        let content = "id -un; ls -lL /proc/self/fd/3 | cut -c1-10; echo x 2>/dev/null >> /proc/$$/fd/3 || echo kept";
        let mut command = script(json!({"content": content}));
        command.user = user.into();
        let uid = house.accept(command);
        let end = house.launch(uid).end();
        let out = text(&house, uid, StreamName::Stdout);
        let name = if user.is_empty() { "root" } else { user };
        assert_eq!(out, format!("{name}\n-r-x------\nkept\n"), "{end:?} {}", text(&house, uid, StreamName::Stderr));
    }
}

#[test]
fn an_interpreter_that_is_not_there_is_named_with_where_it_was_looked_for() {
    let house = House::new();
    for (args, word) in [
        (json!({"content": "x", "interpreter": "no-such-interpreter"}), "looked for in /usr"),
        (json!({"content": "#!/no/such/interpreter\nx"}), "/no/such/interpreter"),
        (json!({"content": "#!/bin/sh\r\nx"}), "/bin/sh\\r"),
    ] {
        let end = house.run(script(args));
        let error = end.error.unwrap();
        assert_eq!((end.outcome, error.code.as_str()), (Outcome::Failed, "exec"));
        assert!(error.text.contains(word) && error.text.contains("ENOENT"), "{}", error.text);
    }
}
