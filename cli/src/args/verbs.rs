//! The arguments of each client verb.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use clap_complete::Shell;
use common::config::HumanDuration;
use common::id::Name;
use common::model::Phase;

use super::start::Start;
use super::values::{self, Argument, Targets, Words};

/// `run`
#[derive(Debug, Clone, Args)]
#[command(
    group = ArgGroup::new("what").required(true).multiple(true).args(["shell", "script", "argv"]),
    override_usage = "paprika run [OPTIONS] TARGET -- ARGV...\n       \
                      paprika run [OPTIONS] TARGET --shell LINE\n       \
                      paprika run [OPTIONS] TARGET --script FILE [-- ARGS...]",
    after_help = "\
Exit code: the program's own, 0 when a guard skipped it; 128+n when signal n
ended it, 124 after --timeout, 130 when cancelled, 125 when it never ran, its
end is not known, or we failed. On several agents: 0 when all succeeded, else 1.
Ctrl-C stops following and leaves the command alone; a second one within two
seconds cancels it.

Examples:
  paprika run web1 -- uname -a
  paprika run web1,web2 --timeout 5m -- apt-get update
  paprika run '@web and not web3' -- uptime
  paprika run db1 --shell 'dmesg | tail' > dmesg.txt
  paprika run db1 --stdin dump.sql -- psql shop
  paprika run web1 --script deploy.sh -- v1.4.2
  paprika run web1 --user app --limit memory=1G --creates /srv/app/built -- make

Needs: command.run, command.read, output.read"
)]
pub struct RunArgs {
    /// The agents: names between commas, or an expression over names, patterns and groups ('@web and not web3')
    #[arg(value_name = "TARGET", value_parser = values::targets)]
    pub target: Targets,
    /// Run this line with /bin/sh -c instead of a program
    #[arg(long, value_name = "LINE", conflicts_with_all = ["argv", "script"])]
    pub shell: Option<String>,
    /// Run this file of ours there, with what its #! line names, else /bin/sh; - reads our standard input
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Run the script with this program and its options instead ('python3 -u'; words end at blanks)
    #[arg(long, value_name = "PROGRAM", requires = "script", value_parser = values::words)]
    pub interpreter: Option<Words>,
    /// The program and its arguments, exactly as they are; with --script the arguments of the script
    // Before the options with headings of their own, or the help would list it below the last of them.
    #[arg(last = true, value_name = "ARGV")]
    pub argv: Vec<String>,
    #[command(flatten)]
    pub start: Start,
}

/// `op`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  paprika op web1 agent.ping
  paprika op web1 command.run 'run:=[\"uname\", \"-a\"]'

Needs: command.run, command.read, output.read")]
pub struct OpArgs {
    /// The agents: names between commas, or an expression over names, patterns and groups ('@web and not web3')
    #[arg(value_name = "TARGET", value_parser = values::targets)]
    pub target: Targets,
    /// The operation, for example agent.ping
    #[arg(value_name = "OPERATION")]
    pub operation: String,
    /// Its arguments: key=value is JSON where it parses as JSON and text otherwise, key:=json must be JSON
    #[arg(value_name = "KEY=VALUE", value_parser = values::argument)]
    pub arguments: Vec<Argument>,
    #[command(flatten)]
    pub start: Start,
}

/// Which stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StreamChoice {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// `logs`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: command.read, output.read")]
pub struct LogsArgs {
    /// The command's id
    #[arg(value_name = "ID", value_parser = values::id)]
    pub id: u64,
    /// Go on until the command has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Only this stream; without it stdout and stderr go where they belong
    #[arg(long, value_enum)]
    pub stream: Option<StreamChoice>,
    /// Begin at this byte of the stream
    #[arg(long, value_name = "OFFSET", default_value_t = 0, requires = "stream", value_parser = values::offset)]
    pub from: u64,
}

/// `commands`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: command.read")]
pub struct CommandsArgs {
    /// Only those of this agent
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub agent: Option<Name>,
    /// Only those in this phase, for example running
    #[arg(long, value_name = "PHASE", value_parser = values::phase)]
    pub phase: Option<Phase>,
    /// Only those of this job
    #[arg(long, value_name = "ID", value_parser = values::job)]
    pub job: Option<u64>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = values::count)]
    pub limit: u32,
}

/// `show`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: command.read")]
pub struct ShowArgs {
    /// The command's id
    #[arg(value_name = "ID", value_parser = values::id)]
    pub id: u64,
}

/// `cancel`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: command.read, command.control")]
pub struct CancelArgs {
    /// The commands' ids
    #[arg(value_name = "ID", required = true, value_parser = values::id)]
    pub ids: Vec<u64>,
    /// Why; shown with the command
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How long it may take to end by itself before it is killed [default: its own --grace, else 10s]
    #[arg(long, value_name = "TIME", value_parser = values::grace)]
    pub grace: Option<HumanDuration>,
}

/// `pause`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Nothing of it runs until it is resumed; its timeout stands still meanwhile. A
paused command can be cancelled. Pausing what is paused changes nothing.

Needs: command.read, command.control")]
pub struct PauseArgs {
    /// The commands' ids
    #[arg(value_name = "ID", required = true, value_parser = values::id)]
    pub ids: Vec<u64>,
}

/// `resume`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: command.read, command.control")]
pub struct ResumeArgs {
    /// The commands' ids
    #[arg(value_name = "ID", required = true, value_parser = values::id)]
    pub ids: Vec<u64>,
}

/// `release`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: command.read, command.control")]
pub struct ReleaseArgs {
    /// The commands' ids
    #[arg(value_name = "ID", required = true, value_parser = values::id)]
    pub ids: Vec<u64>,
}

/// `agents`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  paprika agents -t '@web and not web3'
  paprika agents -t 'db*' -o json

Needs: agent.read")]
pub struct AgentsArgs {
    /// Only those that this means: names, patterns (web*) and groups (@web) with and, or, not, commas and brackets
    #[arg(short, long, value_name = "EXPR", value_parser = values::targets)]
    pub target: Option<Targets>,
}

/// What the agent's own program takes; it is found before these verbs are looked at, so they cannot list it themselves.
const DAEMON_OF_AGENTS: &str = "\
The daemon (the same as paprika-agent):
  paprika agent [--config FILE] [--manager HOST:PORT]... [--state-dir DIR] [--log LEVEL] [--check]

  --config FILE        its configuration [default: /etc/paprika/agent/agent.yml]
  --manager HOST:PORT  a manager's address instead of those in the file; may be repeated
  --state-dir DIR      its state directory instead of the one in the file
  --log LEVEL          error, warn, info, debug or trace
  --check              only check the configuration and end

What runs on this host, without a manager:
  paprika agent status [--state-dir DIR | --config FILE] [-o json]";

/// `agent`
#[derive(Debug, Clone, Args)]
#[command(after_help = DAEMON_OF_AGENTS)]
pub struct AgentArgs {
    #[command(subcommand)]
    pub verb: AgentVerb,
}

/// The verbs of `agent`
#[derive(Debug, Clone, Subcommand)]
pub enum AgentVerb {
    /// Show one agent
    #[command(after_help = "Needs: agent.read")]
    Show(AgentNamed),
    /// End a quarantine: this agent may connect again
    #[command(after_help = "Needs: agent.manage")]
    Accept(AgentNamed),
    /// Forget an agent; its certificate is worth nothing afterwards
    Remove(AgentRemove),
    /// Start nothing new on it
    #[command(after_help = "Needs: agent.manage")]
    Drain(AgentNamed),
    /// Start commands on it again
    #[command(after_help = "Needs: agent.manage")]
    Undrain(AgentNamed),
    /// Issue a certificate and write it with the key and a ready agent.yml
    Cert(AgentCert),
}

/// An agent by name
#[derive(Debug, Clone, Args)]
pub struct AgentNamed {
    /// The agent
    #[arg(value_name = "NAME", value_parser = values::name)]
    pub name: Name,
}

/// `agent remove`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: agent.read, agent.manage")]
pub struct AgentRemove {
    /// The agent
    #[arg(value_name = "NAME", value_parser = values::name)]
    pub name: Name,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `agent cert`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: agent.manage")]
pub struct AgentCert {
    /// The agent; it is created when there is none of this name
    #[arg(value_name = "NAME", value_parser = values::name)]
    pub name: Name,
    /// Write cert.pem, key.pem, ca.pem and agent.yml into this folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace files that are there already
    #[arg(long)]
    pub force: bool,
}

/// `token`
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub verb: TokenVerb,
}

/// The verbs of `token`
#[derive(Debug, Clone, Subcommand)]
pub enum TokenVerb {
    /// Make a token; its secret is shown once
    New(TokenNew),
    /// List tokens
    #[command(after_help = "Needs: operator.manage")]
    List,
    /// Make a token worthless
    Revoke(TokenRevoke),
}

/// What the bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenScope {
    /// Look at everything.
    Read,
    /// Also start and stop commands.
    Run,
    /// Everything.
    Admin,
}

/// `token new`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A token can do what its scope and its roles allow, both together, and never
more than whoever makes it. An operator of its name in roles.yml gives it the
roles that stand there too.

Needs: operator.manage")]
pub struct TokenNew {
    /// Who or what it is for
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What its bearer may do at the most
    #[arg(long, value_enum, default_value = "run")]
    pub scope: TokenScope,
    /// Give its bearer this role of roles.yml, or admin [default: your own roles]
    #[arg(long = "role", value_name = "ROLE", value_parser = values::role)]
    pub roles: Vec<String>,
    /// How long it is good [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub ttl: Option<HumanDuration>,
}

/// `token revoke`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: operator.manage")]
pub struct TokenRevoke {
    /// The token's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `events`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: command.read")]
pub struct EventsArgs {
    /// Go on with what happens
    #[arg(short, long)]
    pub follow: bool,
    /// Begin behind this event
    #[arg(long, value_name = "ID", value_parser = values::event)]
    pub after: Option<u64>,
    /// How many at most, when not following
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = values::count)]
    pub limit: u32,
}

/// `completions`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: no manager")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}
