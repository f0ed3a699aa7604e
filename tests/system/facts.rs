//! Promise: the facts of an end are exact, from the wait status on the host to the answer of the API. A code is a code, a
//! signal is a signal, a failure to start says what failed and where; and a process gets exactly what was asked for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::commands::{Command, CommandRequest};
use common::config::HumanDuration;
use common::model::{Phase, StreamName};
use serde_json::{Value, json};
use testkit::{House, HouseOptions, ground, keeper, web};

/// Long enough for a program to begin on a busy machine, short enough to be waited for.
const TIMEOUT: HumanDuration = HumanDuration(Duration::from_secs(1));
const GRACE: HumanDuration = HumanDuration(Duration::from_millis(200));
/// The end of a variable that the agent has and no command may see.
const CANARY: &str = "canary-in-the-environment-of-the-agent";

struct Ward {
    house: House,
    zoo: PathBuf,
    _folder: tempfile::TempDir,
}

impl Ward {
    async fn open() -> anyhow::Result<Self> {
        let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"]);
        options.agent_env.push(("CANARY".to_owned(), CANARY.to_owned()));
        let (folder, zoo) = keeper::zoo_for_everybody(Path::new(env!("CARGO_BIN_EXE_paprika")))?;
        Ok(Self { house: House::start(options).await?, zoo, _folder: folder })
    }

    fn words(&self, animal: &str, argument: &str) -> CommandRequest {
        run(json!([self.zoo, animal, "facts", "-", argument]))
    }

    async fn start(&self, request: &CommandRequest) -> anyhow::Result<u64> {
        Ok(self.house.client().start(&"web1".parse()?, request).await?.id)
    }

    async fn ended(&self, request: &CommandRequest) -> anyhow::Result<Command> {
        let id = self.start(request).await?;
        self.house.finished(id).await
    }

    /// What the process says it was given.
    async fn posture(&self, change: impl FnOnce(&mut CommandRequest)) -> anyhow::Result<Value> {
        let mut request = self.words("posture", "");
        change(&mut request);
        let command = self.ended(&request).await?;
        ensure!(command.phase == Phase::Succeeded, "{command:?}");
        Ok(serde_json::from_slice(&self.house.output(command.id, StreamName::Stdout).await?)?)
    }
}

fn run(words: Value) -> CommandRequest {
    CommandRequest { operation: "command.run".to_owned(), args: json!({ "run": words }), ..CommandRequest::default() }
}

fn shell(line: &str) -> CommandRequest {
    CommandRequest { args: json!({ "shell": line }), ..run(Value::Null) }
}

fn script(content: &str) -> CommandRequest {
    CommandRequest {
        operation: "script.run".to_owned(),
        args: json!({ "content": content }),
        ..CommandRequest::default()
    }
}

/// What a wait status says, and nothing else.
fn status(command: &Command) -> (Phase, Option<i32>, Option<u32>, bool) {
    (command.phase, command.exit_code, command.signal, command.oom)
}

#[tokio::test]
async fn an_exit_code_is_a_code_even_where_it_looks_like_a_signal() -> anyhow::Result<()> {
    let ward = Ward::open().await?;
    let codes = [0, 1, 2, 126, 127, 128, 130, 137, 143, 255];
    let mut started = Vec::new();
    for code in codes {
        started.push((code, ward.start(&shell(&format!("exit {code}"))).await?));
    }
    for (code, id) in started {
        let command = ward.house.finished(id).await?;
        let phase = if code == 0 { Phase::Succeeded } else { Phase::Failed };
        ensure!(status(&command) == (phase, Some(code), None, false), "{command:?}");
    }
    ward.house.close().await
}

#[tokio::test]
async fn each_signal_that_ends_a_process_is_told_by_its_number() -> anyhow::Result<()> {
    let ward = Ward::open().await?;
    // The kernel does nothing by itself at CHLD, CONT, URG, WINCH, and does not stop a session nobody could wake: TSTP,
    // TTIN, TTOU.
    let harmless = [17, 18, 23, 28, 20, 21, 22];
    let stop = 19;
    let mut started = Vec::new();
    for number in (1..=31).chain([34, 64]).filter(|number| *number != stop) {
        started.push((number, ward.start(&ward.words("die", &number.to_string())).await?));
    }
    for (number, id) in started {
        let command = ward.house.finished(id).await?;
        let expected = if harmless.contains(&number) {
            (Phase::Succeeded, Some(0), None, false)
        } else {
            (Phase::Failed, None, Some(number), false)
        };
        ensure!(status(&command) == expected, "signal {number}: {command:?}");
    }
    // Stopped is not ended; the stop ladder wakes it and it ends by what it then hears.
    let mut stopped = ward.words("die", &stop.to_string());
    (stopped.timeout, stopped.grace) = (Some(TIMEOUT), Some(GRACE));
    let command = ward.ended(&stopped).await?;
    ensure!(status(&command) == (Phase::TimedOut, None, Some(15), false), "{command:?}");
    ward.house.close().await
}

#[tokio::test]
async fn a_core_is_told_where_one_was_written_and_only_there() -> anyhow::Result<()> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim().is_empty() {
        return Ok(ground::not_run(env!("CARGO_TARGET_TMPDIR"), "facts::core", "this machine writes no cores")?);
    }
    let ward = Ward::open().await?;
    let folder = ward.house.folder().join("core");
    fs::create_dir(&folder)?;
    for (limit, written) in [("unlimited", true), ("0", false)] {
        let line = format!("ulimit -c {limit} && kill -SEGV $$");
        let mut request = shell(&line);
        request.cwd = Some(folder.display().to_string());
        let command = ward.ended(&request).await?;
        ensure!(status(&command) == (Phase::Failed, None, Some(11), false), "{command:?}");
        let answer = web::call(&ward.house, "GET", &format!("/commands/{}", command.id), b"").await?.json();
        ensure!(answer.get("core_dumped") == Some(&written.into()), "with a limit of {limit}: {answer}");
    }
    ward.house.close().await
}

#[tokio::test]
async fn a_timeout_keeps_how_the_process_ended() -> anyhow::Result<()> {
    let ward = Ward::open().await?;
    let cases = [
        (ward.words("polite", ""), (Phase::TimedOut, Some(3), None, false)),
        (shell("trap 'exit 0' TERM; while :; do sleep 0.05; done"), (Phase::TimedOut, Some(0), None, false)),
        (run(json!(["sleep", "600"])), (Phase::TimedOut, None, Some(15), false)),
        (ward.words("deaf", ""), (Phase::TimedOut, None, Some(9), false)),
    ];
    let mut started = Vec::new();
    for (mut request, expected) in cases {
        (request.timeout, request.grace) = (Some(TIMEOUT), Some(GRACE));
        started.push((ward.start(&request).await?, expected));
    }
    for (id, expected) in started {
        let command = ward.house.finished(id).await?;
        ensure!(status(&command) == expected, "{expected:?}: {command:?}");
        ensure!(command.cancel.is_none(), "{command:?}");
    }
    ward.house.close().await
}

#[tokio::test]
async fn a_kill_by_hand_is_no_want_of_memory() -> anyhow::Result<()> {
    let ward = Ward::open().await?;
    let command = ward.ended(&shell("kill -9 $$")).await?;
    ensure!(status(&command) == (Phase::Failed, None, Some(9), false), "{command:?}");
    ward.house.close().await
}

#[tokio::test]
async fn what_cannot_be_started_says_what_failed_and_where() -> anyhow::Result<()> {
    let ward = Ward::open().await?;
    let folder = ward.house.folder();
    let plain = folder.join("plain-file");
    fs::write(&plain, "not a program")?;
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644))?;
    let (plain, absent) = (plain.display().to_string(), folder.join("absent").display().to_string());
    let in_place = |cwd: &str| CommandRequest { cwd: Some(cwd.to_owned()), ..run(json!(["true"])) };
    // Longer than the kernel takes in one argument (128 KiB), shorter than what a request may hold.
    let long = "x".repeat(200 * 1024);
    let mut cases = vec![
        (run(json!([absent])), "exec", vec!["ENOENT", absent.as_str()]),
        // By name: the places where it was looked for.
        (run(json!(["no-such-program"])), "exec", vec!["ENOENT", "no-such-program", "/usr/bin"]),
        (run(json!([plain])), "exec", vec!["EACCES", plain.as_str()]),
        (run(json!([folder])), "exec", vec!["EACCES"]),
        (run(json!(["true", long])), "exec", vec!["E2BIG"]),
        (script("#!/no/such/interpreter -x\necho no\n"), "exec", vec!["ENOENT", "/no/such/interpreter"]),
        (in_place(&absent), "cwd", vec!["ENOENT", absent.as_str()]),
        (in_place(&plain), "cwd", vec!["ENOTDIR", plain.as_str()]),
        (
            CommandRequest { user: Some("no-such-user".to_owned()), ..run(json!(["true"])) },
            "user",
            vec!["no-such-user"],
        ),
    ];
    if ground::is_root() {
        let closed = folder.join("closed");
        fs::create_dir(&closed)?;
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
        let closed = closed.display().to_string();
        let somebody = CommandRequest { user: Some("nobody".to_owned()), ..in_place(&closed) };
        cases.push((somebody, "cwd", vec!["EACCES", "closed"]));
    }
    for (request, code, words) in cases {
        let command = ward.ended(&request).await?;
        let error = command.error.clone().with_context(|| format!("no error: {command:?}"))?;
        let shown: String = error.text.chars().take(1000).collect();
        ensure!(command.phase == Phase::Failed && error.code == code, "{:?} {}: {shown}", command.phase, error.code);
        ensure!(command.exit_code.is_none() && command.signal.is_none() && !command.oom, "{code}: {shown}");
        ensure!(command.changed == Some(false), "nothing ran, so nothing changed: {shown}");
        for word in words {
            ensure!(error.text.contains(word), "{word} is missing: {shown}");
        }
    }
    ward.house.close().await
}

#[tokio::test]
async fn a_process_is_given_nothing_that_nobody_asked_for() -> anyhow::Result<()> {
    let ward = Ward::open().await?;
    let told = ward.posture(|_| {}).await?;
    ensure!(told["pid"] == told["session"] && told["pid"] == told["group"], "{told}");
    ensure!(told["terminal"] == false && told["threads"] == "1", "{told}");
    for set in ["blocked", "ignored", "caught", "pending"] {
        ensure!(told["signals"][set] == "0000000000000000", "{set}: {told}");
    }
    ensure!(told["umask"] == "0022" && told["oom_score"] == 0 && told["cwd"] == "/" && told["input"] == "", "{told}");
    ensure!(told["nice"] == own_nice(), "{told}");
    let open = told["open"].as_object().context("the list of what is open")?;
    let numbers: Vec<_> = open.keys().map(String::as_str).collect();
    ensure!(numbers == ["0", "1", "2"], "{open:?}");
    let is_pipe = |number: &str| open[number].as_str().is_some_and(|target| target.starts_with("pipe:"));
    ensure!(is_pipe("1") && is_pipe("2") && open["1"] != open["2"], "{open:?}");
    let env = told["env"].as_object().context("the environment")?;
    let known = [
        "HOME",
        "LANG",
        "LOGNAME",
        "PAPRIKA_AGENT",
        "PAPRIKA_COMMAND_ID",
        "PAPRIKA_COMMAND_UID",
        "PATH",
        "SHELL",
        "USER",
    ];
    ensure!(env.keys().map(String::as_str).eq(known), "{env:?}");
    ensure!(!told.to_string().contains(CANARY), "the agent's own environment shows");
    // The soft limit is the same wherever the agent was started.
    ensure!(told["limits"]["Max open files"][0] == "1024", "{}", told["limits"]);
    ward.house.close().await
}

fn own_nice() -> i32 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_ascii_whitespace().nth(16).and_then(|word| word.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_process_is_given_what_was_asked_for() -> anyhow::Result<()> {
    let ward = Ward::open().await?;
    let words = ["a b", "\"quoted\" 'twice'", "$HOME `id` ;|&", "new\nline", "ümläut \u{1f336}", ""];
    let told = ward
        .posture(|request| {
            let mut argv = vec![ward.zoo.display().to_string(), "posture".into(), "facts".into(), "-".into()];
            argv.extend(words.iter().map(|word| (*word).to_owned()));
            request.args = json!({ "run": argv });
            request.umask = Some("0027".to_owned());
            request.nice = Some(5);
            request.oom_score = Some(500);
            request.cwd = Some("/usr".to_owned());
            request.stdin = Some("in\nput".into());
            request.env = BTreeMap::from([("K".to_owned(), "a=b c".into()), ("EMPTY".to_owned(), "".into())]);
        })
        .await?;
    ensure!(told["umask"] == "0027" && told["oom_score"] == 500 && told["cwd"] == "/usr", "{told}");
    ensure!(told["nice"] == own_nice() + 5, "{told}");
    ensure!(told["input"] == "in\nput" && told["env"]["K"] == "a=b c" && told["env"]["EMPTY"] == "", "{told}");
    let argv: Vec<_> = told["argv"].as_array().context("argv")?.iter().skip(4).filter_map(Value::as_str).collect();
    ensure!(argv == words, "{argv:?}");
    ward.house.close().await
}

#[tokio::test]
async fn another_user_gets_its_groups_and_nothing_of_roots() -> anyhow::Result<()> {
    if !ground::is_root() {
        return Ok(ground::not_run(env!("CARGO_TARGET_TMPDIR"), "facts::users", "needs root to become another user")?);
    }
    let ward = Ward::open().await?;
    for user in ["nobody", "daemon"].map(str::to_owned).into_iter().chain(with_groups()) {
        let told = ward
            .posture(|request| {
                request.user = Some(user.clone());
                request.stdin = Some("readable".into());
            })
            .await?;
        let id = |flag: &str| -> anyhow::Result<Vec<u64>> {
            let out = Process::new("id").args([flag, &user]).output()?;
            let mut ids = String::from_utf8(out.stdout)?
                .split_ascii_whitespace()
                .map(str::parse)
                .collect::<Result<Vec<_>, _>>()?;
            ids.sort_unstable();
            Ok(ids)
        };
        let (uid, gid, groups) = (id("-u")?, id("-g")?, id("-G")?);
        let all_are = |key: &str, wanted: &[u64]| {
            told[key]
                .as_array()
                .is_some_and(|ids| ids.len() == 4 && ids.iter().all(|id| wanted == [id.as_u64().unwrap_or(0)]))
        };
        ensure!(all_are("uid", &uid) && all_are("gid", &gid), "{user}: {told}");
        let mut given: Vec<u64> =
            told["groups"].as_array().context("groups")?.iter().filter_map(Value::as_u64).collect();
        // The kernel lists the first group among the others or not, as it was told; it counts either way.
        given.extend(&gid);
        given.sort_unstable();
        given.dedup();
        ensure!(given == groups, "{user} has {groups:?} and was given {given:?}");
        ensure!(told["capabilities"] == "0000000000000000" && told["no_new_privs"] == true, "{user}: {told}");
        ensure!(told["env"]["USER"] == user.as_str() && told["env"]["LOGNAME"] == user.as_str(), "{user}: {told}");
        ensure!(told["input"] == "readable", "{user}: {told}");
    }
    ward.house.close().await
}

/// A user of this machine that is a member of further groups, if there is one.
fn with_groups() -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let members = groups.lines().filter_map(|line| line.rsplit(':').next()).flat_map(|names| names.split(','));
    let is_user = |name: &&str| *name != "root" && users.lines().any(|line| line.split(':').next() == Some(name));
    members.filter(|name| !name.is_empty()).find(is_user).map(str::to_owned)
}

#[tokio::test]
async fn a_hundred_megabytes_without_a_newline_arrive_as_they_were_written() -> anyhow::Result<()> {
    const LENGTH: usize = 100_000_000;
    let ward = Ward::open().await?;
    let id = ward.start(&ward.words("long-line", &LENGTH.to_string())).await?;
    let command = ward.house.finished_within(id, Duration::from_secs(120)).await?;
    ensure!(status(&command) == (Phase::Succeeded, Some(0), None, false), "{command:?}");
    let bytes = ward.house.output(id, StreamName::Stdout).await?;
    ensure!(bytes.len() == LENGTH, "{} bytes", bytes.len());
    ensure!(bytes.iter().zip((b'a'..=b'z').cycle()).all(|(byte, letter)| *byte == letter), "other bytes");
    ward.house.close().await
}
