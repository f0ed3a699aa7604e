//! Forty secrets go through a whole house, on good ways and on bad ones, and nothing but the commands ever shows them:
//! not logs, not files, not the process list, not answers, events, audit or errors, not in plain, base64, hex, URL form or
//! as numbers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail, ensure};
use api::commands::{CommandRequest, JobRequest, TextOrSecret};
use common::id::Name;
use common::model::{Phase, StreamName};
use serde_json::{Value, json};
use testkit::canaries::{Canaries, Watcher, files_with, forms};
use testkit::wait::PATIENCE;
use testkit::{House, HouseOptions, web};

const PAPRIKA: &str = env!("CARGO_BIN_EXE_paprika");

struct Scene {
    house: House,
    canaries: Canaries,
    /// Beside the house: what commands compare with.
    outside: tempfile::TempDir,
    answers: PathBuf,
    kept: usize,
    ids: Vec<u64>,
}

impl Scene {
    async fn open() -> anyhow::Result<Self> {
        let house = House::start(HouseOptions::new(PAPRIKA).agents(&["web1", "web2"])).await?;
        let answers = house.folder().join("answers");
        fs::create_dir(&answers)?;
        let outside = tempfile::Builder::new().prefix("outside-").tempdir()?;
        Ok(Self { house, canaries: Canaries::default(), outside, answers, kept: 0, ids: Vec::new() })
    }

    /// Keeps what somebody was told, where the search finds it.
    fn keep(&mut self, told: &[u8]) -> anyhow::Result<()> {
        self.kept += 1;
        Ok(fs::write(self.answers.join(format!("{:04}", self.kept)), told)?)
    }

    /// A file with the next secret, and the secret.
    fn sing(&mut self) -> anyhow::Result<(String, String)> {
        let secret = self.canaries.sing();
        let path = self.outside.path().join(self.canaries.made().to_string());
        fs::write(&path, &secret)?;
        Ok((secret, path.display().to_string()))
    }

    fn shell(&self, line: &str) -> CommandRequest {
        self.house.shell_request(line)
    }

    /// Starts a command and keeps the answer.
    async fn start(&mut self, agent: &str, request: &CommandRequest) -> anyhow::Result<u64> {
        ensure!(!format!("{request:?}").contains("kanarie"), "the request shows itself");
        let started = self.house.client().start(&agent.parse()?, request).await?;
        self.keep(&serde_json::to_vec(&started)?)?;
        self.ids.push(started.id);
        Ok(started.id)
    }

    async fn ends(&mut self, id: u64, phase: Phase) -> anyhow::Result<api::commands::Command> {
        let ended = self.house.finished(id).await?;
        ensure!(ended.phase == phase, "command {id} {:?}, not {phase:?}", ended);
        Ok(ended)
    }

    /// Sends a body that the typed client would never send, and keeps all of the answer.
    async fn post(&mut self, path: &str, key: Option<&str>, body: &str) -> anyhow::Result<web::Answer> {
        let token = format!("Authorization: Bearer {}", self.house.token()?);
        let key = key.map(|key| format!("Idempotency-Key: {key}"));
        let mut headers = vec!["Content-Type: application/json", &token];
        headers.extend(key.as_deref());
        let answer = web::call_with(&self.house, "POST", path, &headers, body.as_bytes()).await?;
        self.keep(&[answer.head.as_bytes(), b"\n", &answer.body].concat())?;
        Ok(answer)
    }

    async fn get(&mut self, path: &str) -> anyhow::Result<()> {
        let answer = web::call(&self.house, "GET", path, b"").await?;
        ensure!(answer.status == 200, "{path}: {}", answer.head);
        self.keep(&[answer.head.as_bytes(), b"\n", &answer.body].concat())
    }

    /// The command line, with a variable of ours and something on its standard input.
    async fn paprika(&mut self, args: &[&str], variable: Option<(&str, &str)>, input: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(PAPRIKA);
        command.args(args).env("PAPRIKA_API", format!("unix:{}", self.house.manager_dir().join("api.sock").display()));
        command.envs(variable).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || -> anyhow::Result<Output> {
            let mut child = command.spawn()?;
            let mut pipe = child.stdin.take().context("no pipe")?;
            // One that does not read its input may be gone already.
            let _ = std::io::Write::write_all(&mut pipe, input.as_bytes());
            drop(pipe);
            Ok(child.wait_with_output()?)
        };
        let output = tokio::task::spawn_blocking(run).await??;
        self.keep(&[output.stdout.as_slice(), b"\n", &output.stderr].concat())?;
        Ok(output)
    }
}

fn secret(text: &str) -> TextOrSecret {
    TextOrSecret::secret(text.to_owned())
}

fn same(variable: &str, file: &str) -> String {
    format!("[ \"${variable}\" = \"$(cat {file})\" ]")
}

/// Twelve that reach their commands as variables and as input, two of them as bytes, four in jobs that are repeated.
async fn good_ways(scene: &mut Scene) -> anyhow::Result<()> {
    for _ in 0..4 {
        let [(a, a_file), (b, b_file), (c, c_file)] = [scene.sing()?, scene.sing()?, scene.sing()?];
        let line = format!("{} && {} && [ \"$(cat)\" = \"$(cat {c_file})\" ]", same("A", &a_file), same("B", &b_file));
        let mut request = scene.shell(&line);
        request.env.extend([("A".to_owned(), secret(&a)), ("B".to_owned(), secret(&b))]);
        request.stdin = Some(secret(&c));
        let id = scene.start("web1", &request).await?;
        let ended = scene.ends(id, Phase::Succeeded).await?;
        let shown: Vec<_> = ended.secrets.iter().map(|(name, value)| format!("{name} {value}")).collect();
        ensure!(shown == ["env.A (secret)", "env.B (secret)", "stdin (secret)"], "{shown:?}");
    }
    for _ in 0..2 {
        let (text, file) = scene.sing()?;
        let bytes = [text.as_bytes(), b"\xff\0\xfe"].concat();
        fs::write(&file, &bytes)?;
        let mut request = scene.shell(&format!("cmp - {file}"));
        request.stdin_b64 = Some(secret(&api::base64::encode(&bytes)));
        let id = scene.start("web2", &request).await?;
        scene.ends(id, Phase::Succeeded).await?;
    }
    let [(a, a_file), (b, _), (other, _), (nobody, _)] = [scene.sing()?, scene.sing()?, scene.sing()?, scene.sing()?];
    let mut request = scene.shell(&format!("{}; cat > /dev/null", same("A", &a_file)));
    request.env.insert("A".to_owned(), secret(&a));
    request.stdin = Some(secret(&b));
    let agents: Vec<Name> = vec!["web1".parse()?, "web2".parse()?];
    let job = JobRequest::new(agents, request.clone());
    let mut first = Value::Null;
    for turn in 0..2 {
        let answer = scene.post("/commands", Some("key-1"), &serde_json::to_string(&job)?).await?;
        ensure!(answer.status == 202, "{}", answer.head);
        ensure!(turn == 0 || answer.json() == first, "a repeat with the same secret is the same request");
        first = answer.json();
    }
    for changed in [("A", &other), ("stdin", &nobody)] {
        let mut job = job.clone();
        match changed {
            ("stdin", text) => job.stdin = Some(secret(text)),
            (name, text) => drop(job.env.insert(name.to_owned(), secret(text))),
        }
        let answer = scene.post("/commands", Some("key-1"), &serde_json::to_string(&job)?).await?;
        ensure!((answer.status, answer.code().as_str()) == (409, "idempotency_key_reused"), "{}", answer.head);
    }
    for command in first["commands"].as_array().context("no commands")? {
        let id = command["id"].as_u64().context("no id")?;
        scene.ids.push(id);
        scene.ends(id, Phase::Succeeded).await?;
    }
    Ok(())
}

/// Four whose commands never start, and two whose commands are stopped.
async fn bad_ends(scene: &mut Scene) -> anyhow::Result<()> {
    let run = |words: Value| CommandRequest { operation: "command.run".to_owned(), args: words, ..Default::default() };
    let cases = [
        (run(json!({"run": ["no-such-program"]})), "A"),
        (run(json!({"run": ["no-such-program"]})), "PATH"),
        (run(json!({"run": ["true"], "only_if": ["no-such-guard"]})), "A"),
        (CommandRequest { user: Some("no-such-user".to_owned()), ..run(json!({"run": ["true"]})) }, "A"),
    ];
    for (mut request, variable) in cases {
        let (text, _) = scene.sing()?;
        request.env.insert(variable.to_owned(), secret(&text));
        let id = scene.start("web1", &request).await?;
        let ended = scene.ends(id, Phase::Failed).await?;
        ensure!(ended.error.is_some(), "{ended:?}");
    }
    let (text, _) = scene.sing()?;
    let mut request = scene.shell("sleep 1000");
    request.timeout = Some("100ms".parse().map_err(|_| anyhow::anyhow!("no span"))?);
    request.env.insert("A".to_owned(), secret(&text));
    let id = scene.start("web1", &request).await?;
    scene.ends(id, Phase::TimedOut).await?;
    let (text, _) = scene.sing()?;
    let mut request = scene.shell("cat > /dev/null; sleep 1000");
    request.stdin = Some(secret(&text));
    let id = scene.start("web1", &request).await?;
    scene.house.command_when(id, "it to run", |command| command.phase == Phase::Running).await?;
    scene.house.client().cancel(id, &Default::default()).await?;
    scene.ends(id, Phase::Cancelled).await?;
    Ok(())
}

/// Eight that are refused at the door.
async fn refusals(scene: &mut Scene) -> anyhow::Result<()> {
    let good = json!({"operation": "command.run", "args": {"run": ["true"]}});
    let with = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body
    };
    let mut sing = || scene.canaries.sing();
    let [a, b, c, d, e, f, g, h] = [sing(), sing(), sing(), sing(), sing(), sing(), sing(), sing()];
    let large = format!("{b}{}", "x".repeat(common::limits::MAX_ENV_BYTES));
    let bodies = [
        with("env", json!({"A": {"secret": format!("{a}\0")}})),
        with("env", json!({"A": {"secret": large}})),
        with("env", json!({"A": {c: "secret"}})),
        with("env", json!({"A": {"secret": [d]}})),
        with("stdin", json!({"secret": {"secret": e}})),
        with("stdin_b64", json!({"secret": f})),
        json!({"operation": "comand.run", "args": {}, "env": {"A": {"secret": g}}}),
        json!({"operation": "agent.ping", "args": {}, "stdin": {"secret": h}}),
    ];
    for body in bodies {
        let answer = scene.post("/agents/web1/commands", None, &body.to_string()).await?;
        ensure!(answer.status == 400, "{}\n{}", answer.head, String::from_utf8_lossy(&answer.body));
    }
    let missing = with("env", json!({"A": {"secret": scene.canaries.sing()}}));
    let answer = scene.post("/agents/nobody/commands", None, &missing.to_string()).await?;
    ensure!(answer.status == 404, "{}", answer.head);
    Ok(())
}

/// Four that come by the command line: from a file, a variable and the input, to a command that gets them.
async fn command_line(scene: &mut Scene) -> anyhow::Result<()> {
    let (_, file) = scene.sing()?;
    let line = same("A", &file);
    let said =
        scene.paprika(&["run", "web1", "--secret-env", &format!("A={file}"), "--shell", &line], None, "").await?;
    ensure!(said.status.success(), "from a file: {said:?}");
    let (text, file) = scene.sing()?;
    let line = same("A", &file);
    let said = scene.paprika(&["run", "web1", "--secret-env", "A", "--shell", &line], Some(("A", &text)), "").await?;
    ensure!(said.status.success(), "from a variable");
    let (text, file) = scene.sing()?;
    let line = same("A", &file);
    let said = scene.paprika(&["run", "web1", "--secret-env", "A=-", "--shell", &line], None, &text).await?;
    ensure!(said.status.success(), "from the input");
    let (_, file) = scene.sing()?;
    let line = format!("cmp - {file}");
    let said = scene.paprika(&["run", "web1,web2", "--secret-stdin", &file, "--shell", &line], None, "").await?;
    ensure!(said.status.success(), "as the input: {said:?}");
    Ok(())
}

/// One that waits for an agent that is away, one whose agent dies before it starts it, one that is cancelled while it
/// waits, and one whose key is lost.
async fn detours(scene: &mut Scene) -> anyhow::Result<()> {
    scene.house.stop_agent("web2").await?;
    scene.house.away("web2").await?;
    let (text, file) = scene.sing()?;
    let mut request = scene.shell(&same("A", &file));
    request.env.insert("A".to_owned(), secret(&text));
    let waits = scene.start("web2", &request).await?;
    let (text, _) = scene.sing()?;
    request.env.insert("A".to_owned(), secret(&text));
    let never = scene.start("web2", &request).await?;
    scene.house.client().cancel(never, &Default::default()).await?;
    scene.ends(never, Phase::Cancelled).await?;
    scene.house.start_agent("web2", &[])?;
    scene.ends(waits, Phase::Succeeded).await?;

    scene.house.stop_agent("web1").await?;
    scene.house.start_agent("web1", &[("PAPRIKA_CRASH_POINT", "agent.spawn.before")])?;
    scene.house.connected("web1").await?;
    let (text, file) = scene.sing()?;
    let mut request = scene.shell(&same("A", &file));
    request.env.insert("A".to_owned(), secret(&text));
    let survives = scene.start("web1", &request).await?;
    scene.house.agent("web1")?.crashed(PATIENCE).await?;
    scene.house.start_agent("web1", &[])?;
    scene.ends(survives, Phase::Succeeded).await?;

    scene.house.stop_agent("web2").await?;
    scene.house.away("web2").await?;
    let (text, _) = scene.sing()?;
    request.env.insert("A".to_owned(), secret(&text));
    let lost = scene.start("web2", &request).await?;
    scene.house.stop_manager().await?;
    fs::remove_file(scene.house.manager_dir().join("seal.key"))?;
    scene.house.start_manager(&[]).await?;
    scene.house.start_agent("web2", &[])?;
    let ended = scene.ends(lost, Phase::Refused).await?;
    ensure!(ended.error.as_ref().is_some_and(|error| error.code == "secrets_lost"), "{ended:?}");
    Ok(())
}

/// Everything that anybody can ask.
async fn questions(scene: &mut Scene) -> anyhow::Result<()> {
    for id in scene.ids.clone() {
        scene.get(&format!("/commands/{id}")).await?;
        for stream in [StreamName::Stdout, StreamName::Stderr] {
            let output = scene.house.output(id, stream).await?;
            scene.keep(&output)?;
        }
    }
    for path in ["/commands?limit=1000", "/agents", "/agents/web1", "/agents/web1/commands", "/events?limit=1000"] {
        scene.get(path).await?;
    }
    for path in ["/audit?limit=1000", "/status", "/metrics", "/openapi.json", "/tokens"] {
        scene.get(path).await?;
    }
    let last = scene.ids.last().context("no command")?.to_string();
    for args in
        [&["commands", "-o", "json"][..], &["show", &last], &["show", &last, "-o", "yaml"], &["events", "-o", "json"]]
    {
        ensure!(scene.paprika(args, None, "").await?.status.success(), "{args:?}");
    }
    Ok(())
}

/// What else must stay where it is: keys and tokens, each with the one file that may hold it.
fn treasures(scene: &Scene) -> anyhow::Result<Vec<(PathBuf, Vec<String>)>> {
    let mut found = Vec::new();
    let mut folders = vec![scene.house.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)?.flatten() {
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && (name.contains("key") || name.ends_with(".token")) && !name.ends_with(".yml") {
                let bytes = fs::read(&path)?;
                // Of PEM the first line of its body; of another key or token the line, or all of its bytes.
                let text = std::str::from_utf8(&bytes).unwrap_or_default();
                let line = text.lines().find(|line| !line.starts_with("-----")).map_or(bytes.as_slice(), str::as_bytes);
                found.push((path, forms(line)));
            }
        }
    }
    Ok(found)
}

fn only_in(folder: &Path, texts: &[String], allowed: &Path) -> anyhow::Result<()> {
    let others: Vec<_> = files_with(folder, texts)?.into_iter().filter(|path| path != allowed).collect();
    if others.is_empty() { Ok(()) } else { bail!("what is in {} is also in {others:?}", allowed.display()) }
}

/// Manager, agents and shims: nothing secret may be in their environment. Clients get it from where their user has it.
fn is_daemon(line: &[u8]) -> bool {
    let words: Vec<_> = line.split(|byte| *byte == 0).collect();
    let first = words.first().copied().unwrap_or_default();
    let ours = first == PAPRIKA.as_bytes() || first == b"/proc/self/exe";
    ours && words.iter().skip(1).take(2).any(|word| [&b"manager"[..], b"agent", b"shim"].contains(word))
}

#[tokio::test]
async fn forty_secrets_go_through_a_house_and_nothing_shows_them() -> anyhow::Result<()> {
    let mut scene = Scene::open().await?;
    let watcher = Watcher::start(is_daemon);
    good_ways(&mut scene).await?;
    bad_ends(&mut scene).await?;
    refusals(&mut scene).await?;
    command_line(&mut scene).await?;
    detours(&mut scene).await?;
    questions(&mut scene).await?;
    // What is shown once is shown to who asked: these answers are not kept.
    let token = web::call(&scene.house, "POST", "/tokens", br#"{"name":"brief","scope":"read"}"#).await?;
    let token = token.json()["secret"].as_str().context("no token")?.to_owned();
    let join = web::call(&scene.house, "POST", "/join-tokens", b"{}").await?.json();
    let join = join["text"].as_str().and_then(|text| text.split('_').nth(2)).context("no join token")?.to_owned();
    watcher.write(&scene.answers.join("processes"))?;
    ensure!(scene.canaries.made() >= 40, "only {} sang", scene.canaries.made());

    let folder = scene.house.folder().to_owned();
    let control = folder.join("control");
    fs::write(&control, api::base64::encode(scene.canaries.sing().as_bytes()))?;
    ensure!(files_with(&folder, &scene.canaries.forms())? == [control.clone()], "a secret is in {:?}", {
        files_with(&folder, &scene.canaries.forms())?
    });
    fs::remove_file(&control)?;
    let treasures = treasures(&scene)?;
    ensure!(treasures.len() >= 6, "keys and tokens were not found: {treasures:?}");
    for (path, texts) in &treasures {
        only_in(&folder, texts, path)?;
    }
    for shown_once in [token, join] {
        only_in(&folder, &forms(shown_once.as_bytes()), Path::new(""))?;
    }
    scene.house.close().await
}
