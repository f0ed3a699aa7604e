//! Logging set-up of the daemons and of `paprika dev`. Nothing else configures a subscriber; client verbs do not log.

use std::io;
use std::str::FromStr;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// Odd, but we recovered.
    Warn,
    /// Life cycle.
    Info,
    /// Diagnosis.
    Debug,
    /// Frames and bytes.
    Trace,
}

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(UnknownLevel),
        }
    }
}

/// A text names no log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log level is one of error, warn, info, debug, trace")]
pub struct UnknownLevel;

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Sends log lines to standard error, without colour; our own crates at `level`, libraries from warnings on.
/// A second call changes nothing.
pub fn init(level: LogLevel) {
    const OURS: [&str; 7] = ["agent", "api", "cli", "common", "manager", "paprika", "store"];
    let filter =
        Targets::new().with_default(LevelFilter::WARN).with_targets(OURS.map(|name| (name, Level::from(level))));
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_writer(io::stderr);
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}
