//! The options of the verbs that start a command: what it gets, what it may take, how it is ended, whether it runs.

use std::path::PathBuf;

use clap::Args;
use common::config::HumanDuration;

use super::secrets::{self, SecretVar};
use super::values::{self, Limit, Pair};

/// How a command is started, the same for every verb that starts one.
#[derive(Debug, Clone, Default, Args)]
pub struct Start {
    /// Stop it when it runs longer than this (30s, 5m, 1h 30m)
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub timeout: Option<HumanDuration>,
    /// Do not start it later than this from now; agents that are away get it until then [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub expires: Option<HumanDuration>,
    /// Run it as this user, with its groups, instead of the agent's own
    #[arg(long, value_name = "USER", value_parser = values::user)]
    pub user: Option<String>,
    /// Set a variable of its environment
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = values::pair)]
    pub env: Vec<Pair>,
    /// Set a variable that nobody else may see: from ours of that name, from a file, or with - from our standard input
    #[arg(long = "secret-env", value_name = "KEY[=FILE]", value_parser = secrets::secret_var)]
    pub secret_env: Vec<SecretVar>,
    /// Start it in this folder [default: /]
    #[arg(long, value_name = "DIR", value_parser = values::absolute)]
    pub cwd: Option<String>,
    /// Give it this file as standard input; - reads ours
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// Give it this file as standard input, which nobody else may see; - reads ours
    #[arg(long, value_name = "FILE", conflicts_with = "stdin")]
    pub secret_stdin: Option<PathBuf>,
    /// Say that running it twice does no harm
    #[arg(long)]
    pub idempotent: bool,
    /// Print the ids and do not wait
    #[arg(short, long)]
    pub detach: bool,
    #[command(flatten)]
    pub bounds: Bounds,
    #[command(flatten)]
    pub posture: Posture,
    #[command(flatten)]
    pub guards: Guards,
}

/// What a command may take.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What it may take")]
pub struct Bounds {
    /// Bound it: memory=256M, memory_high=200M, cpu=50% (of one core), tasks=64, output=256M (of each stream)
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = values::limit)]
    pub limits: Vec<Limit>,
    /// Run it even where the host cannot enforce a limit, instead of refusing it
    #[arg(long, requires = "limits")]
    pub best_effort: bool,
}

/// How a command's process is set up, and how it is ended.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How it runs and how it is ended")]
pub struct Posture {
    /// The bits that files it makes do not get, in octal [default: 022]
    #[arg(long, value_name = "MASK", value_parser = values::umask)]
    pub umask: Option<String>,
    /// How far it steps back behind others, from -20 to 19
    #[arg(long, value_name = "N", value_parser = values::nice, allow_hyphen_values = true)]
    pub nice: Option<i32>,
    /// How willingly the kernel kills it when memory runs out, from -1000 to 1000
    #[arg(long, value_name = "N", value_parser = values::oom_score, allow_hyphen_values = true)]
    pub oom_score: Option<i32>,
    /// Leave alone what still runs when the program itself has ended
    #[arg(long)]
    pub keep_strays: bool,
    /// The signal that asks it to end, by name or number [default: TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal)]
    pub stop_signal: Option<String>,
    /// Send that signal to the program alone, not to all its processes
    #[arg(long)]
    pub stop_only_main: bool,
    /// The time from that signal to the kill, at the timeout and at a cancel that names none [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = values::grace)]
    pub grace: Option<HumanDuration>,
}

/// What decides on the host whether a command runs at all.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Whether it runs (command.run and script.run)")]
pub struct Guards {
    /// Skip it when this path exists
    #[arg(long, value_name = "PATH", value_parser = values::absolute)]
    pub creates: Option<String>,
    /// Skip it when this path does not exist
    #[arg(long, value_name = "PATH", value_parser = values::absolute)]
    pub removes: Option<String>,
    /// Skip it when this line of shell ends with 0
    #[arg(long, value_name = "LINE", value_parser = values::line)]
    pub unless: Option<String>,
    /// Skip it unless this line of shell ends with 0
    #[arg(long, value_name = "LINE", value_parser = values::line)]
    pub only_if: Option<String>,
}
