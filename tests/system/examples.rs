//! The examples of the pages for operators, run word by word: every block marked `console` is one session of a shell.
//!
//! A line that begins with `$ ` is typed, `> ` continues it, and what follows is what the screen shows: standard output
//! and error together. `…` stands for anything within a line, alone on a line for any lines. `console root` and
//! `console limits` are for machines that can do that. The pages speak of `web1`, `web2` and `/srv/app`; here those are
//! agents and a folder of the house.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Instant;

use testkit::ground::{is_root, not_run};

use crate::house::{House, PAPRIKA, PATIENCE, wait_for};

/// Ends what a step shows; a program would have to mean it to print this.
const MARKER: &str = "\u{1}step over\u{1}";

#[test]
fn the_page_about_commands_shows_what_happens() {
    shows_what_happens("docs/commands.md", 20);
}

#[test]
fn the_page_about_operating_shows_what_happens() {
    shows_what_happens("docs/operate.md", 12);
}

#[test]
fn the_tour_shows_what_happens() {
    shows_what_happens("README.md", 8);
}

/// Plays every session of a page that has at least so many steps.
fn shows_what_happens(name: &str, least: usize) {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let blocks = blocks(&page);
    assert!(blocks.iter().map(|block| block.steps.len()).sum::<usize>() >= least, "{name} has lost its examples");
    let house = House::with_agents(2);
    let has_limits = house.paprika(&["run", "dev-1", "--limit", "memory=64M", "--", "true"]).status.success();
    let mut wrong = Vec::new();
    for block in &blocks {
        let missing = match block.needs.as_str() {
            "root" if !is_root() => Some("needs root"),
            "limits" if !has_limits => Some("no controller for memory that an agent may use here"),
            "" | "root" | "limits" => None,
            other => panic!("line {}: nobody knows what `console {other}` needs", block.line),
        };
        match missing {
            Some(why) => {
                let test = format!("examples::{}_line_{}", name.replace('/', "_"), block.line);
                not_run(env!("CARGO_TARGET_TMPDIR"), &test, why).unwrap();
            }
            None => wrong.extend(play(&house, block)),
        }
    }
    assert!(wrong.is_empty(), "{name} is not what happens:\n{}", wrong.join("\n"));
}

/// One session as the page has it.
#[derive(Debug, PartialEq)]
struct Block {
    line: usize,
    needs: String,
    steps: Vec<Step>,
}

#[derive(Debug, Default, PartialEq)]
struct Step {
    line: usize,
    typed: String,
    shown: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, text) in (1..).zip(page.lines()) {
        match (&mut open, text) {
            (None, text) => {
                open = text.strip_prefix("```console").map(|needs| Block {
                    line,
                    needs: needs.trim().to_owned(),
                    steps: Vec::new(),
                });
            }
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), text) => match (text.strip_prefix("$ "), text.strip_prefix("> "), block.steps.last_mut()) {
                (Some(typed), ..) => {
                    block.steps.push(Step { line, typed: typed.to_owned(), ..Step::default() });
                }
                (None, Some(more), Some(step)) => {
                    step.typed.push('\n');
                    step.typed.push_str(more);
                }
                (None, _, Some(step)) => step.shown.push(text.to_owned()),
                (None, _, None) => panic!("line {line}: something is shown before anything was typed"),
            },
        }
    }
    assert!(open.is_none(), "a block of the page is never closed");
    blocks
}

/// Plays a session and returns what was shown otherwise.
fn play(house: &House, block: &Block) -> Vec<String> {
    let app = house.folder.join("app");
    fs::create_dir_all(&app).unwrap();
    let app = app.to_string_lossy().into_owned();
    let here = |text: &str| text.replace("/srv/app", &app).replace("web1", "dev-1").replace("web2", "dev-2");
    let mut shell = Shell::open(house);
    let mut wrong = Vec::new();
    for step in &block.steps {
        let screen = shell.type_in(&here(&step.typed));
        settle(house);
        let expected: Vec<String> = step.shown.iter().map(|line| here(line)).collect();
        let lines: Vec<&str> = screen.lines().collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        if !is_shown(&expected, &lines) {
            wrong
                .push(format!("line {}: $ {}\n  the page: {expected:?}\n  happened: {lines:?}", step.line, step.typed));
        }
    }
    wrong
}

/// Waits until nothing is on its way between manager and agents: a reader types more slowly than a test.
fn settle(house: &House) {
    wait_for("nothing is on its way any more", || {
        let commands = house.json(&["commands", "-o", "json"]);
        let is_calm = |command: &serde_json::Value| {
            let phase = command["phase"].as_str().unwrap_or_default();
            let is_pausing = command["pause"]["paused"] == true && phase == "running";
            !["queued", "dispatched", "accepted", "stopping"].contains(&phase)
                && command["pause"]["pending"] != true
                && command["cancel"]["pending"] != true
                && !is_pausing
        };
        commands.as_array().unwrap().iter().all(is_calm).then_some(())
    });
}

/// Compares what the page shows with what was shown.
fn is_shown(expected: &[&str], lines: &[&str]) -> bool {
    match (expected.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), _) => (0..=lines.len()).any(|skipped| is_shown(rest, &lines[skipped..])),
        (Some((pattern, rest)), Some((line, others))) => fits(pattern, line) && is_shown(rest, others),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Compares one line; `…` is anything.
fn fits(pattern: &str, line: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('…') else { return pattern == line };
    let Some(mut left) = line.strip_prefix(head) else { return false };
    loop {
        if fits(rest, left) {
            return true;
        }
        let Some(next) = left.chars().next() else { return false };
        left = &left[next.len_utf8()..];
    }
}

/// A shell whose screen is read as it fills.
struct Shell {
    child: Child,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    _folder: tempfile::TempDir,
}

impl Shell {
    fn open(house: &House) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = Path::new(PAPRIKA).parent().unwrap().to_string_lossy().into_owned();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
        let mut child = Command::new("/bin/sh")
            .current_dir(folder.path())
            .env("PATH", path)
            .env("PAPRIKA_API", house.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut keyboard = child.stdin.take().unwrap();
        keyboard.write_all(b"exec 2>&1\n").unwrap();
        let mut pipe = child.stdout.take().unwrap();
        // Pieces of what a step shows; a full screen makes the program wait, as any pipe does.
        let (sender, screen) = sync_channel(64);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, screen, _folder: folder }
    }

    /// Types a line and returns what is shown until the shell is ready again. The next line finds `$?` untouched.
    fn type_in(&mut self, typed: &str) -> String {
        // A program that reads its input must not eat the next lines of the session.
        let line = format!("{{ {typed}\n}} < /dev/null; last=$?; printf '{MARKER}'; (exit $last)\n");
        self.keyboard.write_all(line.as_bytes()).unwrap();
        let until = Instant::now() + PATIENCE;
        let mut shown = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&shown).into_owned();
            if let Some((screen, _)) = text.split_once(MARKER) {
                return screen.to_owned();
            }
            match self.screen.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => shown.extend(bytes),
                Err(error) => panic!("$ {typed}\nis not over: {error}; shown was: {text}"),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It is our child and was not waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn patterns_stand_for_anything_and_for_nothing_else() {
    for (pattern, line) in [("a…c", "abc"), ("a…c", "ac"), ("…", ""), ("a…b…c", "a1bb2c"), ("x", "x"), ("ü…", "ü→x")]
    {
        assert!(fits(pattern, line), "{pattern:?} {line:?}");
    }
    for (pattern, line) in [("a…c", "abd"), ("a", "ab"), ("…b", "ba"), ("", "x")] {
        assert!(!fits(pattern, line), "{pattern:?} {line:?}");
    }
    assert!(is_shown(&["a", "…", "z"], &["a", "b", "c", "z"]) && is_shown(&["…"], &[]));
    assert!(!is_shown(&["a"], &["a", "b"]) && !is_shown(&["a", "b"], &["a"]));
}

#[test]
fn sessions_are_read_with_their_continued_lines() {
    let page = "text\n```sh\n$ not this\n```\n```console root\n$ cat <<E\n> x\n> E\nx\n$ true\n```\n";
    let step = |line, typed: &str, shown: &[&str]| Step {
        line,
        typed: typed.to_owned(),
        shown: shown.iter().map(|line| (*line).to_owned()).collect(),
    };
    let steps = vec![step(6, "cat <<E\nx\nE", &["x"]), step(10, "true", &[])];
    assert_eq!(blocks(page), [Block { line: 5, needs: "root".to_owned(), steps }]);
}
