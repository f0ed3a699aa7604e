//! Parsers of single argument values: targets, pairs, durations, columns of bytes.
//!
//! They refuse here what can never be right, with a text that says how it should look; what depends on the fleet is
//! left to the manager.

use common::config::HumanDuration;
use common::id::Name;
use common::model::Phase;
use common::suggest::nearest;
use serde_json::Value;

/// The agents a verb works on, in the order they were named and without repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets(Vec<Name>);

impl Targets {
    /// The names.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.0
    }
}

/// Reads `web1` or `web1,web2`.
///
/// # Errors
/// When a part is not a name.
pub fn targets(text: &str) -> Result<Targets, String> {
    let mut names = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        if part.is_empty() {
            return Err("an agent's name is missing before or after a comma".to_owned());
        }
        if part.contains(['*', '?', '@', '=', '[']) {
            return Err(format!("{part:?} is a pattern; name the agents one by one: web1,web2"));
        }
        let name: Name = part.parse().map_err(|error| format!("{part:?}: {error}"))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(Targets(names))
}

/// A name and its value as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What stands before the first `=`.
    pub key: String,
    /// What stands behind it, unchanged.
    pub value: String,
}

/// Reads `KEY=VALUE`; the value may be empty and may hold more `=`.
///
/// # Errors
/// When there is no `=` or nothing before it.
pub fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the name before '=' is missing".to_owned()),
        Some((key, value)) => Ok(Pair { key: key.to_owned(), value: value.to_owned() }),
        None => Err("expected KEY=VALUE".to_owned()),
    }
}

/// One argument of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    /// Its name.
    pub key: String,
    /// Its value, typed as JSON.
    pub value: Value,
}

/// Reads `key=value` (JSON where it parses as JSON, text otherwise) or `key:=json` (JSON or an error).
///
/// # Errors
/// When there is no `=`, no name, or the JSON behind `:=` is broken.
pub fn argument(text: &str) -> Result<Argument, String> {
    let Pair { key, value } = pair(text).map_err(|_| "expected key=value or key:=json".to_owned())?;
    if let Some(key) = key.strip_suffix(':') {
        if key.is_empty() {
            return Err("the name before ':=' is missing".to_owned());
        }
        let value = serde_json::from_str(&value).map_err(|error| format!("the JSON of {key:?} is broken: {error}"))?;
        return Ok(Argument { key: key.to_owned(), value });
    }
    let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
    Ok(Argument { key, value })
}

/// Reads `30s`, `5m`, `1h 30m`, `2days`.
///
/// # Errors
/// When it is no duration, or uses a unit that is easily mistaken.
pub fn span(text: &str) -> Result<HumanDuration, String> {
    text.trim().parse().map_err(|error| format!("{error}"))
}

/// Reads a phase.
///
/// # Errors
/// When no phase is called so.
pub fn phase(text: &str) -> Result<Phase, String> {
    let names = || Phase::ALL.into_iter().map(Phase::as_str);
    text.parse().map_err(|_| match nearest(text, names()) {
        Some(near) => format!("no phase is called so; did you mean {near:?}?"),
        None => format!("no phase is called so; there are {}", names().collect::<Vec<_>>().join(", ")),
    })
}

/// Reads a `--limit`: one of the known names, and a value.
///
/// # Errors
/// When the name is none of them or the value is empty.
pub fn limit(text: &str) -> Result<Pair, String> {
    const KNOWN: [&str; 5] = ["memory", "memory_high", "cpu", "tasks", "output"];
    let pair = pair(text).map_err(|_| "expected NAME=VALUE, for example memory=256M".to_owned())?;
    if !KNOWN.contains(&pair.key.as_str()) {
        return Err(format!("no limit is called {:?}: use {}", pair.key, KNOWN.join(", ")));
    }
    if pair.value.is_empty() {
        return Err(format!("the value of {} is missing", pair.key));
    }
    if pair.key == "tasks" && pair.value.parse::<u32>().is_err() {
        return Err("tasks is a number of processes and threads".to_owned());
    }
    Ok(pair)
}

/// Reads a name of an agent.
///
/// # Errors
/// When it does not follow the grammar of names.
pub fn name(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn texts(text: &str) -> Result<Vec<String>, String> {
        targets(text).map(|targets| targets.names().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn targets_are_names_between_commas_each_once() {
        assert_eq!(texts("web1"), Ok(vec!["web1".to_owned()]));
        assert_eq!(
            texts("web2, web1,web2"),
            Ok(vec!["web2".to_owned(), "web1".to_owned()]),
            "order kept, repetition dropped"
        );
    }

    #[test]
    fn what_is_not_a_name_is_refused_with_the_part() {
        for (bad, says) in [
            ("", "missing"),
            ("web1,", "missing"),
            (",web1", "missing"),
            ("web*", "pattern"),
            ("@web", "pattern"),
            ("../etc", "\"../etc\""),
            ("a\nb", "\"a\\nb\""),
            ("web1,b c", "\"b c\""),
        ] {
            let error = texts(bad).err().unwrap_or_default();
            assert!(error.contains(says), "{bad:?} gave {error:?}");
        }
    }

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        let made = |key: &str, value: &str| Ok(Pair { key: key.to_owned(), value: value.to_owned() });
        assert_eq!(pair("K=V"), made("K", "V"));
        assert_eq!(pair("K="), made("K", ""));
        assert_eq!(pair("K=a=b"), made("K", "a=b"));
        assert!(pair("K").is_err());
        assert!(pair("=V").is_err());
    }

    #[test]
    fn arguments_are_json_where_they_parse_and_text_otherwise() {
        for (text, key, value) in [
            ("n=3", "n", json!(3)),
            ("n=true", "n", json!(true)),
            ("n=null", "n", json!(null)),
            ("n=hello", "n", json!("hello")),
            ("n=\"3\"", "n", json!("3")),
            ("n=[\"a\",1]", "n", json!(["a", 1])),
            ("n=[broken", "n", json!("[broken")),
            ("n=", "n", json!("")),
            ("n:=[1]", "n", json!([1])),
            ("n=a:=b", "n", json!("a:=b")),
        ] {
            assert_eq!(argument(text), Ok(Argument { key: key.to_owned(), value }), "{text}");
        }
        for bad in ["n", "=3", ":=3", "n:=hello", "n:="] {
            assert!(argument(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_refuse_months_and_years() {
        assert_eq!(span("30s"), Ok(HumanDuration(Duration::from_secs(30))));
        assert_eq!(span("1h 30m"), Ok(HumanDuration(Duration::from_secs(5400))));
        for bad in ["5M", "1y", "2 months", "", "soon", "-3s", "5"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_have_known_names() {
        assert!(limit("memory=256M").is_ok());
        assert!(limit("cpu=50%").is_ok());
        assert!(limit("tasks=64").is_ok());
        for bad in ["memroy=1", "memory=", "memory", "=1", "tasks=many"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
