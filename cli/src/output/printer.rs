//! Prints results in the form that was asked for, says what is no data, and knows what the terminal can do.

use std::io::{self, IsTerminal as _, Write as _};

use api::time::Time;
use common::escape;
use serde::Serialize;

use crate::args::Format;
use crate::error::Failure;

/// Prints results of one verb in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// The form.
    pub format: Format,
}

impl Printer {
    /// Prints one result: as a document, or as the text that `for_people` makes.
    ///
    /// # Errors
    /// When stdout takes nothing more.
    pub fn document<T: Serialize>(self, value: &T, for_people: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => print(for_people(value).as_bytes()),
            Format::Json => {
                let mut text = serde_json::to_string_pretty(value).map_err(Failure::unprintable)?;
                text.push('\n');
                print(text.as_bytes())
            }
            Format::Yaml => print(serde_yaml::to_string(value).map_err(Failure::unprintable)?.as_bytes()),
        }
    }

    /// Prints one of many results that arrive over time: a line of JSON, a YAML document, or a line for people.
    ///
    /// # Errors
    /// When stdout takes nothing more.
    pub fn element<T: Serialize>(self, value: &T, for_people: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => print(for_people(value).as_bytes()),
            Format::Json => {
                let mut text = serde_json::to_string(value).map_err(Failure::unprintable)?;
                text.push('\n');
                print(text.as_bytes())
            }
            Format::Yaml => {
                let text = serde_yaml::to_string(value).map_err(Failure::unprintable)?;
                print(format!("---\n{text}").as_bytes())
            }
        }
    }
}

/// Writes to stdout at once.
///
/// # Errors
/// When stdout takes nothing more.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::stdout)
}

/// Says something that is no data. A stderr that is gone must not stop the work, so nothing is reported.
pub fn note(text: &str) {
    let text = escape::text(text);
    let _ = writeln!(io::stderr().lock(), "paprika: {text}");
}

/// How many columns stdout has, when it is a terminal.
#[must_use]
pub fn columns() -> Option<usize> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    // Some terminals over serial lines say 0; nothing readable fits below 20.
    (size.ws_col >= 20).then(|| usize::from(size.ws_col))
}

/// Tells whether colour may be used on stdout: a terminal, and no `NO_COLOR` that says anything.
#[must_use]
pub fn has_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What the wall clock says.
#[must_use]
pub fn now() -> Time {
    Time(common::clock::unix_ms())
}
