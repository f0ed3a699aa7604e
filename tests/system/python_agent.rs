//! The agent in examples/python-agent, driven through the API: proof that docs/protocol.md is enough to write one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use api::client::OutputEvent;
use api::commands::{CommandRequest, OutputCursor};
use common::model::{Phase, StreamName};
use testkit::effects::Effects;
use testkit::process::{Process, Program};
use testkit::{House, HouseOptions, ground, soon};

const NEEDS: &str = "import google.protobuf, grpc_tools";

/// A Python that has what the example's README installs, or the reason why there is none.
fn python() -> Result<PathBuf, String> {
    let fits = |python: &Path| {
        let checked = Command::new(python).args(["-c", NEEDS]).output();
        checked.is_ok_and(|output| output.status.success())
    };
    if let Some(given) = std::env::var_os("PAPRIKA_TEST_PYTHON").map(PathBuf::from)
        && fits(&given)
    {
        return Ok(given);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-agent-venv");
    let python = folder.join("bin/python");
    if fits(&python) {
        return Ok(python);
    }
    // Several tests may want it at once: each makes its own and one of them stays.
    let own = folder.with_extension(std::process::id().to_string());
    let run = |program: &Path, args: &[&str]| -> Result<(), String> {
        let output =
            Command::new(program).args(args).output().map_err(|error| format!("{}: {error}", program.display()))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{} {}: {}", program.display(), args.join(" "), String::from_utf8_lossy(&output.stderr)))
        }
    };
    let place = own.display().to_string();
    let made = run(Path::new("python3"), &["-m", "venv", &place])
        .and_then(|()| run(&own.join("bin/python"), &["-m", "pip", "install", "--quiet", "protobuf", "grpcio-tools"]));
    made?;
    let python_of_own = own.join("bin/python");
    match fs::rename(&own, &folder) {
        // A venv works where it was made as well as where it was moved to, as long as its python is called directly.
        Ok(()) if fits(&python) => Ok(python),
        _ if fits(&python) => Ok(python),
        _ if fits(&python_of_own) => Ok(python_of_own),
        _ => Err("the new venv does not work".to_owned()),
    }
}

struct Snake {
    process: Process,
    program: Program,
}

impl Snake {
    /// Compiles the messages as the README says, and starts the agent with a certificate of the house.
    async fn start(house: &House, python: &Path) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (example, folder) = (root.join("examples/python-agent"), house.folder().join("snake"));
        let generated = folder.join("generated");
        fs::create_dir_all(&generated)?;
        let protos = root.join("common/proto");
        let mut compile = Command::new(python);
        compile.args(["-m", "grpc_tools.protoc", "-I"]).arg(&protos);
        compile.arg(format!("--python_out={}", generated.display()));
        for file in ["frame", "handshake", "command", "inventory"] {
            compile.arg(protos.join(format!("link/v1/{file}.proto")));
        }
        let compiled = compile.output()?;
        ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let issued = house.client().agent_certificate(&"snake".parse()?).await?;
        for (name, text) in [("cert", &issued.chain_pem), ("key", &issued.key_pem), ("ca", &issued.ca_pem)] {
            fs::write(folder.join(format!("{name}.pem")), text)?;
        }
        let mut args =
            vec![example.join("agent.py").into_os_string(), "--manager".into(), house.link().to_string().into()];
        args.extend(["--state".into(), folder.join("state").into_os_string()]);
        for name in ["cert", "key", "ca"] {
            args.extend([format!("--{name}").into(), folder.join(format!("{name}.pem")).into_os_string()]);
        }
        let program = Program {
            name: "snake".to_owned(),
            path: python.to_owned(),
            args,
            env: vec![
                ("PYTHONPATH".to_owned(), generated.display().to_string()),
                ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
            ],
            log: house.folder().join("logs/snake.log"),
        };
        let process = Process::start(&program)?;
        let snake = Self { process, program };
        house.connected("snake").await.with_context(|| snake.process.log())?;
        Ok(snake)
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process = Process::start(&self.program)?;
        Ok(())
    }
}

/// A house with the Python agent in it; `None` after saying why there is none.
async fn house(test: &str) -> anyhow::Result<Option<(House, Snake)>> {
    let found = tokio::task::spawn_blocking(python).await?;
    let python = match found {
        Ok(python) => python,
        Err(reason) => {
            ground::not_run(env!("CARGO_TARGET_TMPDIR"), test, &format!("no Python with protobuf: {reason}"))?;
            return Ok(None);
        }
    };
    let house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    let snake = Snake::start(&house, &python).await?;
    Ok(Some((house, snake)))
}

async fn close(house: House, mut snake: Snake) -> anyhow::Result<()> {
    let log = snake.process.log();
    ensure!(!log.contains("Traceback"), "{log}");
    snake.process.kill()?;
    house.close().await
}

#[tokio::test]
async fn it_runs_commands_and_reports_their_ends() -> anyhow::Result<()> {
    let Some((house, snake)) = house("python_agent::runs").await? else { return Ok(()) };
    let id = house.shell("snake", "echo out; echo err >&2; exit 3").await?.id;
    let command = house.finished(id).await.with_context(|| snake.process.log())?;
    ensure!(command.phase == Phase::Failed && command.exit_code == Some(3), "{command:?}");
    ensure!(house.output(id, StreamName::Stdout).await? == b"out\n");
    ensure!(house.output(id, StreamName::Stderr).await? == b"err\n");
    let ping =
        CommandRequest { operation: "agent.ping".to_owned(), args: serde_json::json!({}), ..CommandRequest::default() };
    let id = house.client().start(&"snake".parse()?, &ping).await?.id;
    let command = house.finished(id).await?;
    ensure!(
        command.phase == Phase::Succeeded && command.value == Some(serde_json::json!({"pong": true})),
        "{command:?}"
    );
    let mut stdin = house.shell_request("tr a-z A-Z; kill -9 $$");
    stdin.stdin = Some("loud".into());
    let id = house.client().start(&"snake".parse()?, &stdin).await?.id;
    let command = house.finished(id).await?;
    ensure!(command.signal == Some(9) && house.output(id, StreamName::Stdout).await? == b"LOUD", "{command:?}");
    let mut quick = house.shell_request("exit 4");
    quick.timeout = Some(common::config::HumanDuration(std::time::Duration::from_secs(60)));
    let id = house.client().start(&"snake".parse()?, &quick).await?.id;
    ensure!(house.finished(id).await?.exit_code == Some(4), "a timeout that is not reached");
    let mut slow = house.shell_request("sleep 1000");
    slow.timeout = Some(common::config::HumanDuration(std::time::Duration::from_millis(200)));
    let id = house.client().start(&"snake".parse()?, &slow).await?.id;
    ensure!(house.finished(id).await?.phase == Phase::TimedOut);
    house.no_survivors().await?;
    close(house, snake).await
}

#[tokio::test]
async fn its_output_is_live_and_exact_within_its_credit() -> anyhow::Result<()> {
    let Some((house, snake)) = house("python_agent::output").await? else { return Ok(()) };
    let go = house.folder().join("go");
    // More than the credit of a stream: without new grants it would never end.
    let line = format!("echo first; while [ ! -e '{}' ]; do sleep 0.02; done; head -c 5000000 /dev/zero", go.display());
    let id = house.shell("snake", &line).await?.id;
    let mut follower = house.client().follow(id, OutputCursor::default());
    let mut length = 0;
    while let Some(event) =
        tokio::time::timeout(testkit::wait::PATIENCE, follower.next()).await.context("nothing came")??
    {
        if let OutputEvent::Bytes { bytes, .. } = event {
            if length == 0 {
                ensure!(bytes == "first\n", "{bytes:?}");
                fs::write(&go, "")?;
            }
            length += bytes.len();
        }
    }
    ensure!(length == 5_000_006, "{length}");
    ensure!(house.finished(id).await?.phase == Phase::Succeeded);
    close(house, snake).await
}

#[tokio::test]
async fn it_stops_what_is_cancelled() -> anyhow::Result<()> {
    let Some((house, snake)) = house("python_agent::cancel").await? else { return Ok(()) };
    let id = house.shell("snake", "trap '' TERM; echo up; while :; do sleep 1; done").await?.id;
    house.command_when(id, "its output", |command| command.streams.values().any(|one| one.length > 0)).await?;
    let wish = api::commands::CancelRequest {
        reason: Some("enough".to_owned()),
        grace: Some(common::config::HumanDuration(std::time::Duration::from_millis(100))),
    };
    house.client().cancel(id, &wish).await?;
    let command = house.finished(id).await.with_context(|| snake.process.log())?;
    ensure!(command.phase == Phase::Cancelled, "{command:?}");
    ensure!(command.cancel.is_some_and(|cancel| cancel.reason.as_deref() == Some("enough")));
    house.no_survivors().await?;
    close(house, snake).await
}

#[tokio::test]
async fn it_keeps_its_promises_over_restarts_of_both_sides() -> anyhow::Result<()> {
    let Some((mut house, mut snake)) = house("python_agent::restarts").await? else { return Ok(()) };
    let effects = Effects::create(house.folder().join("effects"))?;
    let done = house.shell("snake", &effects.line("done")).await?.id;
    house.finished(done).await?;
    // The manager goes while a command runs; its result waits for the next session.
    let id = house.shell("snake", &format!("{}; echo kept; sleep 0.3", effects.line("while-away"))).await?.id;
    house.command_when(id, "it to run", |command| command.phase == Phase::Running).await?;
    house.kill_manager()?;
    soon("its end", async || Ok(testkit::survivors::marked(house.mark()).is_empty().then_some(()))).await?;
    house.start_manager(&[]).await?;
    ensure!(house.finished(id).await?.phase == Phase::Succeeded);
    ensure!(house.output(id, StreamName::Stdout).await? == b"kept\n");
    // The agent goes while a command runs: it says that it could not see the end.
    let id = house.shell("snake", "echo begun; sleep 1000").await?.id;
    house.command_when(id, "its output", |command| command.streams.values().any(|one| one.length > 0)).await?;
    snake.restart()?;
    let command = house.finished(id).await?;
    ensure!(command.phase == Phase::Interrupted, "{command:?}");
    ensure!(command.error.as_ref().is_some_and(|error| error.code == "agent_restarted"), "{command:?}");
    for tag in ["done", "while-away"] {
        if effects.count(tag)? != 1 {
            bail!("{tag}: {:?}", effects.counts()?);
        }
    }
    close(house, snake).await
}
