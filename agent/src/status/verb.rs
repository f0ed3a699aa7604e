//! The verb: its options, its exit codes, and where its words go.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use common::config::ConfigError;
use common::error::Chain;

use super::look::{LookError, look};
use super::show;
use crate::args::USAGE;
use crate::config::{AgentConfig, DEFAULT_FILE};

/// Something could not be read.
const FAILED: u8 = 1;
/// The directory is somebody else's.
const NOT_ALLOWED: u8 = 3;
/// There is no such directory.
const NOT_FOUND: u8 = 4;

/// Shows what runs on this host, read from the agent's state directory; works also when the agent does not run.
#[derive(Debug, Parser)]
#[command(
    name = "paprika-agent status",
    version,
    about,
    after_help = "Exit codes: 0 shown, 1 something cannot be read, 2 usage, 3 not allowed, 4 no such directory."
)]
struct StatusArgs {
    /// The state directory, instead of the one in the configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    state_dir: Option<PathBuf>,
    /// The configuration file that names the state directory.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// A table for people, or JSON for programs.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Why nothing was shown.
#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error("the configuration does not say where the state directory is (--state-dir DIR does)")]
    Config(#[source] ConfigError),
    #[error("the agent cannot be looked at")]
    Look(#[source] LookError),
    #[error("the report cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

impl StatusError {
    fn code(&self) -> u8 {
        match self {
            Self::Config(ConfigError::Unreadable { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                NOT_ALLOWED
            }
            Self::Config(_) => USAGE,
            Self::Look(LookError::NotAllowed { .. }) => NOT_ALLOWED,
            Self::Look(LookError::Unreadable { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                NOT_ALLOWED
            }
            Self::Look(LookError::Missing(_) | LookError::NotOne(_)) => NOT_FOUND,
            Self::Look(LookError::Unreadable { .. }) | Self::Json(_) => FAILED,
        }
    }
}

/// Runs `paprika-agent status ARGS…`.
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    let words = std::iter::once("paprika-agent status".into()).chain(args.iter().cloned());
    let args = match StatusArgs::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => {
            // A closed terminal is no reason for another error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(&args) {
        Ok(text) => {
            // Whoever closed the pipe has seen enough.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "paprika-agent status: {}", Chain(&error));
            ExitCode::from(error.code())
        }
    }
}

fn run(args: &StatusArgs) -> Result<String, StatusError> {
    let state_dir = match &args.state_dir {
        Some(given) => given.clone(),
        None => configured(&args.config)?,
    };
    let report = look(&state_dir).map_err(StatusError::Look)?;
    match args.output {
        Format::Table => Ok(show::table(&report, common::clock::unix_ms())),
        Format::Json => serde_json::to_string_pretty(&report).map(|text| text + "\n").map_err(StatusError::Json),
    }
}

fn configured(file: &Path) -> Result<PathBuf, StatusError> {
    common::config::load::<AgentConfig>(file).map(|config| config.state_dir).map_err(StatusError::Config)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        StatusArgs::command().debug_assert();
    }

    fn code(words: &[&str]) -> Option<u8> {
        let args = StatusArgs::try_parse_from(std::iter::once("status").chain(words.iter().copied())).ok()?;
        Some(run(&args).map_or_else(|error| error.code(), |_| 0))
    }

    #[test]
    fn every_way_to_fail_has_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_string_lossy().into_owned();
        assert_eq!(code(&["--state-dir", &format!("{path}/none")]), Some(NOT_FOUND));
        assert_eq!(code(&["--state-dir", &path]), Some(NOT_FOUND), "a folder that is none of an agent");
        assert_eq!(code(&["--config", &format!("{path}/none.yml")]), Some(USAGE));
        assert_eq!(code(&["--state-dir", &path, "--config", "x"]), None, "one of them");
        assert_eq!(code(&["-o", "xml"]), None);
        assert!(crate::commands::StateDir::open(folder.path()).is_ok());
        assert_eq!(code(&["--state-dir", &path]), Some(0));
        assert_eq!(code(&["--state-dir", &path, "-o", "json"]), Some(0));
        let not_allowed = LookError::NotAllowed { path: path.into(), owner: 7 };
        assert_eq!(StatusError::Look(not_allowed).code(), NOT_ALLOWED);
    }
}
