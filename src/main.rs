//! The one binary: manager, agent, `dev`, and the operator's verbs.
//!
//! It parses the command line, chooses who does the work, and turns what they return into the exit code; nothing else
//! in the workspace ends the process. The agent's daemon and its shim are found before the parser is built, because a
//! shim starts once per command.

mod dev;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use cli::process::{PARENT_VARIABLE, end_with_parent};

/// Run commands on Linux hosts, follow them live, and know how each of them ended
#[derive(Debug, Parser)]
#[command(
    name = "paprika",
    version,
    after_help = "\
The manager is found by --context, else PAPRIKA_API (with PAPRIKA_CA, and with
PAPRIKA_TOKEN or PAPRIKA_CERT and PAPRIKA_KEY), else the current context of
~/.config/paprika/config.yml, which `paprika login` writes, else the local
socket (PAPRIKA_SOCKET or /run/paprika/api.sock).

Exit codes: 0 ok, 1 the work failed, 2 usage, 3 not allowed, 4 not found,
5 manager unreachable; `run` exits as the program did."
)]
struct Paprika {
    #[command(flatten)]
    globals: cli::Globals,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Try everything on this host: a manager and agents in one folder
    Dev(dev::DevArgs),
    /// The manager daemon
    Manager(manager::ManagerArgs),
    #[command(flatten)]
    Client(cli::Client),
}

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some(line) = agent_line(&args) {
        return run_agent(line);
    }
    let Paprika { globals, verb } = match Paprika::try_parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help goes to stdout with code 0, mistakes to stderr with code 2.
            cli::usage::tell(&error, &args);
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match verb {
        Verb::Dev(args) => dev::main(&args),
        Verb::Manager(args) => run_manager(args),
        Verb::Client(verb) => ExitCode::from(cli::execute(&globals, verb, Paprika::command)),
    }
}

fn run_manager(args: manager::ManagerArgs) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(manager::daemon(args));
            // What is late was named in the log; it must not hold the exit.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "paprika: the runtime cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The words behind `agent` when they are for the agent itself and not for one of the operator's verbs.
fn agent_line(args: &[OsString]) -> Option<&[OsString]> {
    const OPERATOR: [&str; 9] = ["show", "accept", "remove", "drain", "undrain", "cert", "help", "--help", "-h"];
    let (first, rest) = args.split_first()?;
    let is_operators = rest.iter().any(|word| OPERATOR.iter().any(|verb| word == verb));
    let is_daemons_own = rest.first().is_some_and(is_no_daemon);
    (first == "agent" && (is_daemons_own || !is_operators)).then_some(rest)
}

/// The agent's own words that do not start its daemon.
fn is_no_daemon(word: &OsString) -> bool {
    ["shim", "hold", "status", "join"].iter().any(|own| word == own)
}

fn run_agent(line: &[OsString]) -> ExitCode {
    let is_daemon = !line.first().is_some_and(is_no_daemon);
    if is_daemon
        && let Ok(parent) = env::var(PARENT_VARIABLE)
        && let Err(error) = end_with_parent(&parent)
    {
        let _ = writeln!(io::stderr(), "paprika: {PARENT_VARIABLE}={}: {error}", common::escape::text(&parent));
        return ExitCode::FAILURE;
    }
    agent::cli::main(line.to_vec(), vec!["agent".into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_tree_is_sound() {
        Paprika::command().debug_assert();
    }

    #[test]
    fn the_agents_own_words_are_told_from_the_operators() {
        let line = |text: &str| -> Option<Vec<String>> {
            let args: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
            agent_line(&args).map(|line| line.iter().map(|word| word.to_string_lossy().into_owned()).collect())
        };
        for (text, rest) in [
            ("agent", ""),
            ("agent --config /etc/agent.yml", "--config /etc/agent.yml"),
            ("agent shim /x/show", "shim /x/show"),
            ("agent shim show", "shim show"),
            ("agent hold", "hold"),
            ("agent status --help", "status --help"),
            ("agent join - --name show", "join - --name show"),
            ("agent status -o json --state-dir show", "status -o json --state-dir show"),
        ] {
            assert_eq!(line(text).map(|words| words.join(" ")).as_deref(), Some(rest), "{text}");
        }
        for text in [
            "",
            "agents",
            "agent show web1",
            "agent -o json show web1",
            "agent --help",
            "-o json agent show web1",
            "run agent",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }
}
