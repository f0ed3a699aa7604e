//! From a file to a checked value: size bound, parse, and the message that says where and what instead.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::durable::read_bounded;
use crate::suggest::nearest;

/// Largest configuration file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The content is not what it should be. The text holds place, key and hint.
    #[error("{0}")]
    Content(String),
}

/// Reads a configuration file.
///
/// # Errors
/// When it cannot be read or has an unknown key, a wrong type or a value out of range.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let bytes = File::open(path).and_then(|file| read_bounded(file, MAX_BYTES)).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable(io::ErrorKind::InvalidData.into()))?;
    parse(&text, &path.display().to_string())
}

/// Reads a configuration from text; `origin` names it in errors.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned>(text: &str, origin: &str) -> Result<T, ConfigError> {
    // A file of comments alone is a configuration of defaults.
    let text =
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) { "{}" } else { text };
    serde_yaml::from_str(text).map_err(|error| ConfigError::Content(explain(&error, origin)))
}

/// Turns the library's message into `file:line:column: what is wrong; hint`.
fn explain(error: &serde_yaml::Error, origin: &str) -> String {
    let message = error.to_string();
    let place =
        error.location().map_or_else(|| origin.to_owned(), |at| format!("{origin}:{}:{}", at.line(), at.column()));
    let message = match message.rfind(" at line ") {
        Some(cut) => message[..cut].to_owned(),
        None => message,
    };
    match unknown_key(&message) {
        Some((key, known)) => {
            let hint = nearest(key, known.iter().copied())
                .map_or_else(|| format!("known keys: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
            format!("{place}: unknown key `{key}`; {hint}")
        }
        None => format!("{place}: {message}"),
    }
}

/// Takes the key and the known keys out of serde's message about an unknown field.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = &message[message.find("unknown field `")? + "unknown field `".len()..];
    let (key, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((key, known))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::{HumanDuration, Size};
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        timeout: Option<HumanDuration>,
        #[serde(default)]
        nested: Option<Nested>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Nested {
        size: Size,
    }

    fn error(text: &str) -> String {
        parse::<Sample>(text, "x.yml").err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
        let told = error("nested:\n  size: 1M\ntimout: 3s\n");
        assert!(told.starts_with("x.yml:3:1: unknown key `timout`; did you mean `timeout`?"), "{told}");
        let told = error("nested:\n  size: 1M\n  banana: 3\n");
        assert!(told.contains("x.yml:3:") && told.contains("known keys: size"), "{told}");
    }

    #[test]
    fn wrong_types_values_and_duplicates_have_a_place() {
        for (text, part) in [
            ("timeout: 3M\n", "x.yml:1:"),
            ("timeout: [1]\n", "x.yml:1:"),
            ("timeout: 3s\ntimeout: 4s\n", "duplicate"),
            ("nested: {size: 12Q}\n", "x.yml:1:"),
            ("- a\n", "x.yml:1:"),
            ("timeout: 'x\n", "x.yml:"),
        ] {
            let told = error(text);
            assert!(told.contains(part), "{text:?}: {told}");
        }
    }

    #[test]
    fn an_empty_file_is_a_configuration_of_defaults() {
        for text in ["", "# nothing\n\n", "{}"] {
            assert!(parse::<Sample>(text, "x.yml").is_ok());
        }
    }
}
