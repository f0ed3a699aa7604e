//! The verb: its options, its exit codes, the order of its steps, and what it says.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use common::config::{HumanDuration, Secret};
use common::crash;
use common::error::Chain;
use common::id::{IdError, Name};
use common::tls::{self, RequestError};

use super::enrol::{EnrolError, Enrolled, Guest, enrol};
use super::files::{FilesError, Place, Wanted};
use super::service::{Host, Plan, ServiceError};
use super::source::{Source, SourceError};
use crate::args::USAGE;
use crate::config::DEFAULT_FILE;
use crate::identity::Pem;

/// The host has not joined, or its agent could not be started.
const FAILED: u8 = 1;
/// The manager refused.
const NOT_ALLOWED: u8 = 3;
/// No manager was reached.
const UNREACHABLE: u8 = 5;

/// Names that hosts have when nobody gave them one.
const NOBODYS: [&str; 3] = ["localhost", "localhost.localdomain", "(none)"];

/// Makes this host an agent of a cluster, by the line that `paprika join-token new` printed.
#[derive(Debug, Parser)]
#[command(
    name = "paprika-agent join",
    version,
    about,
    after_help = "\
The key is made on this host and stays on it. The token's secret is sent only after the manager has shown the authority
that the token names. An argument can be seen by every user of the host while this runs; `-` and --token-file cannot.

What is written: agent.yml with key.pem, cert.pem and ca.pem beside it. A join that was cut short is finished by
repeating it.

Exit codes: 0 joined, 1 failed, 2 usage, 3 the manager refused, 5 no manager was reached."
)]
struct JoinArgs {
    /// The join token, or `-` to read it from standard input.
    #[arg(value_name = "TOKEN", required_unless_present = "token_file", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the join token, or `-`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The name of this host, instead of its hostname.
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Where the configuration is written.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// The state directory, instead of the usual one.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Only joins; somebody else starts the agent.
    #[arg(long)]
    no_start: bool,
    /// Replaces an identity that is there already.
    #[arg(long)]
    force: bool,
}

/// Why this host has not joined.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error("no token")]
    Source(#[source] SourceError),
    #[error("this host is called `{name}`, which is no name for an agent; give one with --name")]
    NoName { name: String },
    #[error("this host is called `{name}`, which is no name for an agent; give one with --name")]
    BadName {
        name: String,
        #[source]
        source: IdError,
    },
    #[error("the state directory must be an absolute path")]
    StateDir,
    #[error("this host cannot join")]
    Files(#[source] FilesError),
    #[error("no key")]
    Key(#[source] RequestError),
    #[error("the runtime cannot be made")]
    Runtime(#[source] io::Error),
    #[error("this host has not joined")]
    Enrol(#[source] EnrolError),
    #[error("this host has joined, but its files could not be written; repeat the same line within the hour")]
    Write(#[source] FilesError),
    #[error("this host has joined, but its agent could not be started")]
    Service(#[source] ServiceError),
}

impl JoinError {
    fn code(&self) -> u8 {
        match self {
            Self::Source(_) | Self::NoName { .. } | Self::BadName { .. } | Self::StateDir => USAGE,
            Self::Enrol(EnrolError::Refused { .. }) => NOT_ALLOWED,
            Self::Enrol(EnrolError::Unreachable(_)) => UNREACHABLE,
            Self::Files(_) | Self::Key(_) | Self::Runtime(_) | Self::Enrol(_) | Self::Write(_) | Self::Service(_) => {
                FAILED
            }
        }
    }
}

/// Runs `paprika-agent join ARGS…`; `prefix` are the words that lead to it in the running program, such as `agent`.
#[must_use]
pub fn main(args: &[OsString], prefix: &[OsString]) -> ExitCode {
    let words = std::iter::once("paprika-agent join".into()).chain(args.iter().cloned());
    let args = match JoinArgs::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => {
            // A closed terminal is no reason for another error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // The token's secret and the key are in this memory.
    common::cores::forbid();
    let program = if prefix.is_empty() { "paprika-agent" } else { "paprika agent" };
    match run(args, &Host::look(program.to_owned())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("paprika-agent join: {}", Chain(&error)));
            ExitCode::from(error.code())
        }
    }
}

/// Tells a person something. A closed terminal is no reason to stop half way.
fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn run(args: JoinArgs, host: &Host) -> Result<(), JoinError> {
    if args.state_dir.as_ref().is_some_and(|path| !path.is_absolute()) {
        return Err(JoinError::StateDir);
    }
    let token = Source::new(args.token, args.token_file).token().map_err(JoinError::Source)?;
    let place = Place::look(&args.config).map_err(JoinError::Files)?;
    let name = match args.name.or_else(|| place.name().cloned()) {
        Some(name) => name,
        None => hostname()?,
    };
    let wanted = Wanted { managers: &token.addresses, name: &name, state_dir: args.state_dir.as_deref() };
    place.check(wanted, args.force).map_err(JoinError::Files)?;
    let key = place.key(|| tls::new_key().map(|made| made.key_pem.expose().to_owned())).map_err(JoinError::Files)?;
    let request = tls::make_csr(&Secret::new(key.map_err(JoinError::Key)?)).map_err(JoinError::Key)?;

    let guest = Guest { token: &token, name: &name, request: &request };
    let Enrolled { issued, identity, valid } = ask(guest).inspect_err(|error| {
        if matches!(error, JoinError::Enrol(EnrolError::Refused { .. })) {
            place.forget_key();
        }
    })?;
    crash::point("join.issued");
    let pem = Pem { key: request.key_pem.expose(), chain: &issued.chain_pem, bundle: &issued.bundle_pem };
    place.write(pem, wanted).map_err(JoinError::Write)?;
    let valid = HumanDuration(Duration::from_secs(valid.as_secs()));
    say(&format!(
        "joined cluster {} as {}; the certificate is valid for {valid} and renews itself",
        identity.cluster, identity.name
    ));
    start(&args.config, host, args.no_start, args.force)
}

/// Asks the managers, in a small runtime of its own.
fn ask(guest: Guest<'_>) -> Result<Enrolled, JoinError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(JoinError::Runtime)?;
    let asked = runtime.block_on(enrol(guest, say));
    // A resolver that hangs must not hold the end.
    runtime.shutdown_background();
    asked.map_err(JoinError::Enrol)
}

fn start(config: &Path, host: &Host, only_joins: bool, again: bool) -> Result<(), JoinError> {
    match host.plan(config, again) {
        Plan::Units(calls) if !only_joins => {
            for words in calls {
                host.call(&words).map_err(JoinError::Service)?;
            }
            say("the agent runs; `paprika-agent status` shows what it does");
        }
        Plan::Units(calls) => {
            let words = calls.iter().map(|words| format!("systemctl {}", words.join(" ")));
            say(&format!("start it with: {}", words.collect::<Vec<_>>().join(" && ")));
        }
        Plan::ByHand(words) => say(&format!("start it with: {words}")),
    }
    Ok(())
}

fn hostname() -> Result<Name, JoinError> {
    let found = nix::unistd::gethostname().unwrap_or_default();
    named(&found.to_string_lossy())
}

fn named(found: &str) -> Result<Name, JoinError> {
    let shown = || common::escape::text(found);
    if NOBODYS.contains(&found) {
        return Err(JoinError::NoName { name: shown() });
    }
    found.parse().map_err(|source| JoinError::BadName { name: shown(), source })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        JoinArgs::command().debug_assert();
    }

    #[test]
    fn a_token_is_given_in_exactly_one_way() {
        let parses = |words: &[&str]| JoinArgs::try_parse_from(["join"].iter().chain(words)).is_ok();
        assert!(parses(&["paprikajoin_x"]) && parses(&["-"]) && parses(&["--token-file", "x"]));
        assert!(parses(&["-", "--name", "web1", "--config", "x", "--state-dir", "/x", "--no-start", "--force"]));
        assert!(!parses(&[]) && !parses(&["x", "--token-file", "y"]) && !parses(&["x", "--name", "web 1"]));
    }

    #[test]
    fn a_host_that_nobody_named_is_asked_for_a_name() {
        assert_eq!(named("web1.example.org").unwrap().as_str(), "web1.example.org");
        for nobody in NOBODYS {
            let error = named(nobody).unwrap_err();
            assert!(error.to_string().contains("--name") && error.code() == USAGE, "{error}");
        }
        assert!(matches!(named("web 1\u{1b}[2J"), Err(JoinError::BadName { name, .. }) if !name.contains('\u{1b}')));
        assert!(matches!(named(""), Err(JoinError::BadName { .. })));
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_touched() {
        let host = Host::look("paprika-agent".to_owned());
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("etc/agent.yml");
        let code = |words: &[&str]| {
            let words = ["join", "--config", config.to_str().unwrap()].into_iter().chain(words.iter().copied());
            run(JoinArgs::try_parse_from(words).unwrap(), &host).unwrap_err().code()
        };
        assert_eq!(code(&["hunter2"]), USAGE);
        assert_eq!(code(&["--token-file", "/nowhere/token"]), USAGE);
        assert_eq!(code(&["hunter2", "--state-dir", "state"]), USAGE);
        assert!(!config.parent().unwrap().exists());
    }
}
