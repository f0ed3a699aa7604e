//! The command line of the agent, and the process around [`crate::run`]: configuration, log, runtime, signals.
//!
//! `shim` is looked for before anything else: it is started once per command and must stay cheap.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use common::config::ConfigError;
use common::error::Chain;
use common::shutdown::Shutdown;
use common::telemetry::{self, LogLevel};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::config::{AgentConfig, DEFAULT_FILE, InvalidConfig};
use crate::limits::{FILE_THREAD_KEPT, FILE_THREADS, LAST_READS};

/// Usage errors of every command line of the agent.
pub(crate) const USAGE: u8 = 2;

/// Keeps this host connected to its managers and runs what they ask for.
#[derive(Debug, Parser)]
#[command(
    name = "paprika-agent",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "\
`paprika-agent join` makes this host an agent of a cluster, `paprika-agent status`
shows what runs here; each has its own --help."
)]
struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// A manager's address instead of those in the file; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    manager: Vec<String>,
    /// The state directory instead of the one in the file.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How much is logged: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL")]
    log: Option<LogLevel>,
    /// Only checks the configuration and ends.
    #[arg(long)]
    check: bool,
}

/// Why the agent did not even start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigError),
    #[error("the configuration cannot be used")]
    Invalid(#[source] InvalidConfig),
    #[error("the runtime cannot be made")]
    Runtime(#[source] std::io::Error),
    #[error("the host cannot make a thread for file work")]
    Thread(#[source] std::io::Error),
}

/// Runs `paprika-agent ARGS…`; `prefix` are the words that lead to it in the running program, such as `agent`.
#[must_use]
pub fn main(args: Vec<OsString>, prefix: Vec<OsString>) -> ExitCode {
    match args.as_slice() {
        [word, dir] if word == "shim" => return crate::shim::main(Path::new(dir)),
        [word, rest @ ..] if word == "hold" => return crate::hold::main(rest),
        [word, rest @ ..] if word == "status" => return crate::status::main(rest),
        [word, rest @ ..] if word == "join" => return crate::join::main(rest, &prefix),
        _ => {}
    }
    let args = match Args::try_parse_from(std::iter::once("paprika-agent".into()).chain(args)) {
        Ok(args) => args,
        Err(error) => {
            // A closed terminal is no reason for another error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match start(args, prefix) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "paprika-agent: {}", Chain(&error));
            ExitCode::from(USAGE)
        }
    }
}

fn start(args: Args, prefix: Vec<OsString>) -> Result<ExitCode, StartError> {
    let mut config: AgentConfig = common::config::load(&args.config).map_err(StartError::Config)?;
    config.find_beside(&args.config);
    if !args.manager.is_empty() {
        config.managers = args.manager;
    }
    config.state_dir = args.state_dir.unwrap_or(config.state_dir);
    config.log = args.log.unwrap_or(config.log);
    config.shim_prefix = prefix;
    config.validate().map_err(StartError::Invalid)?;
    if args.check {
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::init(config.log);
    let runtime = runtime()?;
    let code = runtime.block_on(serve(config));
    // A read that hangs on a dead disk must not keep the process.
    runtime.shutdown_timeout(LAST_READS);
    Ok(code)
}

/// The runtime, with a thread for file work that never goes away.
///
/// While the host can make no thread, work for the pool waits for a thread of it; where there is none, the runtime
/// panics. So there is one from the beginning, and none is ever given back.
fn runtime() -> Result<Runtime, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .thread_keep_alive(FILE_THREAD_KEPT)
        .build()
        .map_err(StartError::Runtime)?;
    // The first one is made by hand: on a host without room for it this is an error with a name, and no panic.
    let probe = std::thread::Builder::new().spawn(|| ()).map_err(StartError::Thread)?;
    // It does nothing that could panic.
    let _ = probe.join();
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}

async fn serve(config: AgentConfig) -> ExitCode {
    let shutdown = Shutdown::new();
    let asked = shutdown.clone();
    let ended = tokio::select! {
        ended = crate::run(config, shutdown) => ended,
        () = hear_signals(asked) => Ok(()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = %Chain(&error), "The agent cannot go on");
            ExitCode::FAILURE
        }
    }
}

/// Asks for the end at TERM or INT; HUP changes nothing. Never comes back: the end is that of `run`.
async fn hear_signals(shutdown: Shutdown) {
    let kinds = (SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup());
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = (signal(kinds.0), signal(kinds.1), signal(kinds.2))
    else {
        error!("Signals cannot be heard; only a kill ends this agent");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => info!("HUP changes nothing: restart the agent to load its configuration"),
        }
    }
    info!("Asked to stop; commands go on");
    shutdown.request();
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        let parse = |words: &[&str]| Args::try_parse_from(words.iter().copied()).is_ok();
        assert!(parse(&["paprika-agent", "--config", "x", "--manager", "a:1", "--manager", "b", "--log", "debug"]));
        assert!(!parse(&["paprika-agent", "--confg", "x"]));
        assert!(!parse(&["paprika-agent", "shim"]));
        assert!(!parse(&["paprika-agent", "--log", "loud"]));
    }
}
