//! Parsers of single argument values: targets, pairs, durations, columns of bytes.
//!
//! They refuse here what can never be right, with a text that says how it should look; what depends on the fleet is
//! left to the manager.

use std::ops::RangeInclusive;
use std::str::FromStr;

use api::signals;
use common::config::{HumanDuration, Size};
use common::id::Name;
use common::limits::{MAX_GRACE, MAX_UMASK, MIN_OUTPUT_QUOTA, NICE, OOM_SCORE};
use common::model::Phase;
use common::pin::Pin;
use common::suggest::nearest;
use serde_json::Value;
use site::agents::Network;
use site::glob::Pattern;
use site::groups::GroupName;
use site::target::Target;

/// The agents a verb works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    text: String,
    target: Target,
    names: Option<Vec<Name>>,
}

impl Targets {
    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it means.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The agents, in the order they were named and without repetition, where it is no more than names between commas.
    #[must_use]
    pub fn names(&self) -> Option<&[Name]> {
        self.names.as_deref()
    }
}

/// Reads `web1`, `web1,web2` or an expression such as `@web and not web3`.
///
/// # Errors
/// When it does not follow the grammar of targets, or a part that looks like a name is none.
pub fn targets(text: &str) -> Result<Targets, String> {
    let target = Target::parse(text).map_err(|error| error.to_string())?;
    let parts = match &target {
        Target::Any(parts) => parts.as_slice(),
        single => std::slice::from_ref(single),
    };
    let names = match parts.iter().map(Target::single).collect::<Option<Vec<&str>>>() {
        None => None,
        Some(words) => {
            let mut names: Vec<Name> = Vec::new();
            for word in words {
                let name: Name = word.parse().map_err(|error| format!("{word:?}: {error}"))?;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Some(names)
        }
    };
    Ok(Targets { text: text.to_owned(), target, names })
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

/// What a command may take of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of memory it may not exceed.
    Memory(String),
    /// Bytes of memory from which on it is slowed down.
    MemoryHigh(String),
    /// A share of one core.
    Cpu(String),
    /// Processes and threads.
    Tasks(u32),
    /// Bytes kept of each stream.
    Output(String),
}

/// Reads a `--limit`: one of the known names, and a value that can be right.
///
/// # Errors
/// When the name is none of them or the value cannot be one of that name.
pub fn limit(text: &str) -> Result<Limit, String> {
    const KNOWN: [&str; 5] = ["memory", "memory_high", "cpu", "tasks", "output"];
    let Pair { key, value } = pair(text).map_err(|_| "expected NAME=VALUE, for example memory=256M".to_owned())?;
    if !KNOWN.contains(&key.as_str()) {
        // People write options with dashes.
        let near = nearest(&key.replace('-', "_"), KNOWN);
        return Err(match near {
            Some(near) => format!("no limit is called {key:?}; did you mean {near:?}?"),
            None => format!("no limit is called {key:?}; there are {}", KNOWN.join(", ")),
        });
    }
    if value.is_empty() {
        return Err(format!("the value of {key} is missing"));
    }
    match key.as_str() {
        "memory" => size(&key, value, 1).map(Limit::Memory),
        "memory_high" => size(&key, value, 1).map(Limit::MemoryHigh),
        "output" => size(&key, value, MIN_OUTPUT_QUOTA).map(Limit::Output),
        "cpu" => match value.strip_suffix('%').map(whole::<u32>) {
            Some(Some(1..)) => Ok(Limit::Cpu(value)),
            _ => Err("cpu is a share of one core: 50%, or 200% for two cores".to_owned()),
        },
        _ => match whole(&value) {
            Some(tasks @ 1..) => Ok(Limit::Tasks(tasks)),
            _ => Err("tasks is a number of processes and threads, 1 or more".to_owned()),
        },
    }
}

/// Checks a number of bytes and gives it back as it was written.
fn size(key: &str, value: String, least: u64) -> Result<String, String> {
    match value.parse::<Size>() {
        Err(error) => Err(format!("{key}: {error}")),
        Ok(size) if size.0 < least => Err(format!("{key} is at least {}", Size(least))),
        Ok(_) => Ok(value),
    }
}

/// Reads digits and nothing else: no sign, no blanks.
fn whole<T: FromStr>(text: &str) -> Option<T> {
    let is_digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

/// Reads the id of a command.
///
/// # Errors
/// When it is no number.
pub fn id(text: &str) -> Result<u64, String> {
    whole(text).ok_or_else(|| "an id is a number, as `paprika commands` shows it".to_owned())
}

/// Reads the id of a job.
///
/// # Errors
/// When it is no number.
pub fn job(text: &str) -> Result<u64, String> {
    whole(text).ok_or_else(|| "a job's id is a number, as `paprika show` of one of its commands has it".to_owned())
}

/// Reads the number of an event.
///
/// # Errors
/// When it is no number.
pub fn event(text: &str) -> Result<u64, String> {
    whole(text).ok_or_else(|| "an event is named by its number, the first column of `paprika events`".to_owned())
}

/// Reads the number of a revision of the site.
///
/// # Errors
/// When it is no number.
pub fn revision(text: &str) -> Result<u64, String> {
    whole(text).ok_or_else(|| "a revision is a number, as `paprika site revisions` shows it".to_owned())
}

/// Reads the number of a row of the audit.
///
/// # Errors
/// When it is no number.
pub fn audit_row(text: &str) -> Result<u64, String> {
    whole(text).ok_or_else(|| "a row is a number, the first column of `paprika audit`".to_owned())
}

/// Reads the name of a group.
///
/// # Errors
/// When no group can be called so.
pub fn group(text: &str) -> Result<String, String> {
    // In targets a group is written with it, so people write it here too.
    let plain = text.strip_prefix('@').unwrap_or(text);
    GroupName::parse(plain).map(|group| group.to_string())
}

/// Reads a name or a pattern of names.
///
/// # Errors
/// When no name can look so.
pub fn pattern(text: &str) -> Result<String, String> {
    Pattern::parse(text).map(|pattern| pattern.to_string())
}

/// Reads a network.
///
/// # Errors
/// When it is none, or has bits behind its network part.
pub fn network(text: &str) -> Result<String, String> {
    Network::parse(text).map(|network| network.to_string())
}

/// Reads the name of a role.
///
/// # Errors
/// When no role can be called so.
pub fn role(text: &str) -> Result<String, String> {
    text.parse::<Name>().map(|role| role.to_string()).map_err(|error| format!("{error}"))
}

/// Reads the pin of an authority.
///
/// # Errors
/// When it has not the digits of one.
pub fn pin(text: &str) -> Result<Pin, String> {
    text.trim().parse().map_err(|error| format!("{error}"))
}

/// Reads how many of something.
///
/// # Errors
/// When it is no number or none at all.
pub fn count(text: &str) -> Result<u32, String> {
    whole(text).filter(|count| *count > 0).ok_or_else(|| "expected a number, 1 or more, for example 50".to_owned())
}

/// Reads a place in a stream.
///
/// # Errors
/// When it is no number.
pub fn offset(text: &str) -> Result<u64, String> {
    whole(text)
        .ok_or_else(|| "expected a number of bytes from the beginning of the stream, for example 1000".to_owned())
}

/// Reads a user of the host.
///
/// # Errors
/// When no user can be called so.
pub fn user(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains([':', '/', '\0', '\n']) {
        return Err("expected the name or the number of one user of the host, for example nobody".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a path of the host.
///
/// # Errors
/// When it does not begin at `/`.
pub fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("expected a path of the host that begins with /".to_owned())
    }
}

/// Reads a line of shell.
///
/// # Errors
/// When there is nothing in it.
pub fn line(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("the line is empty; for example 'test -e /srv/app'".to_owned());
    }
    Ok(text.to_owned())
}

/// A program and its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

/// Reads words between blanks.
///
/// # Errors
/// When there is none.
pub fn words(text: &str) -> Result<Words, String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        return Err("expected a program, for example python3 or 'python3 -u'".to_owned());
    }
    Ok(Words(words))
}

/// Reads an umask and gives it as four octal digits.
///
/// # Errors
/// When it is not octal or has other bits than those of permissions.
pub fn umask(text: &str) -> Result<String, String> {
    let is_octal = !text.is_empty() && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mask = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mask| *mask <= MAX_UMASK);
    mask.map(|mask| format!("{mask:04o}"))
        .ok_or_else(|| "expected up to three octal digits, for example 027".to_owned())
}

/// Reads a nice value.
///
/// # Errors
/// When it is out of the kernel's range.
pub fn nice(text: &str) -> Result<i32, String> {
    within(text, NICE)
}

/// Reads an adjustment of the OOM score.
///
/// # Errors
/// When it is out of the kernel's range.
pub fn oom_score(text: &str) -> Result<i32, String> {
    within(text, OOM_SCORE)
}

fn within(text: &str, range: RangeInclusive<i32>) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
}

/// Reads a signal.
///
/// # Errors
/// When no signal is called so.
pub fn signal(text: &str) -> Result<String, String> {
    signals::number(text).map(signals::text).map_err(|error| match error.nearest {
        Some(near) => format!("no signal is called so; did you mean {near}?"),
        None => format!("{error}"),
    })
}

/// Reads how long something may take to end by itself.
///
/// # Errors
/// When it is no duration or longer than anybody waits for.
pub fn grace(text: &str) -> Result<HumanDuration, String> {
    let grace = span(text)?;
    if grace.0 > MAX_GRACE {
        return Err(format!("a grace is at most {}", HumanDuration(MAX_GRACE)));
    }
    Ok(grace)
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
        targets(text).map(|targets| targets.names().unwrap_or_default().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn targets_are_names_between_commas_each_once() {
        assert_eq!(texts("web1"), Ok(vec!["web1".to_owned()]));
        assert_eq!(
            texts("web2, web1,web2"),
            Ok(vec!["web2".to_owned(), "web1".to_owned()]),
            "order kept, repetition dropped"
        );
        assert_eq!(texts("web1 or web2"), texts("web1,web2"), "the same in words");
    }

    #[test]
    fn expressions_are_told_from_names() {
        for text in ["web*", "@web", "web1,@db", "not web1", "@web and not web3", "(web1, web2) and @web"] {
            assert!(targets(text).is_ok_and(|targets| targets.names().is_none() && targets.text() == text), "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_place() {
        for (bad, says) in [
            ("", "not the end (character 1)"),
            ("web1,", "not the end (character 6)"),
            (",web1", "not a comma (character 1)"),
            ("@", "''"),
            ("../etc", "not / (character 3)"),
            ("a\nb", "not b (character 3)"),
            ("web1,b c", "not c (character 8)"),
            ("web1 and", "not the end (character 9)"),
            ("web-", "\"web-\""),
        ] {
            let error = texts(bad).err().unwrap_or_default();
            assert!(error.contains(says), "{bad:?} gave {error:?}");
        }
    }

    #[test]
    fn words_of_trust_are_looked_at() {
        assert_eq!((group("web").as_deref(), group("@web").as_deref()), (Ok("web"), Ok("web")));
        assert!(group("w b").is_err() && group("").is_err() && group("@@web").is_err());
        assert_eq!(pattern("web*").as_deref(), Ok("web*"));
        assert!(pattern("web[12]").is_err() && pattern("").is_err());
        assert_eq!(network("10.1.0.0/16").as_deref(), Ok("10.1.0.0/16"));
        assert!(network("10.1.2.3/16").is_err_and(|error| error.contains("did you mean 10.1.0.0/16?")));
        assert!(network("localhost").is_err() && network("").is_err());
        assert_eq!(role("admin").as_deref(), Ok("admin"));
        assert!(role("a b").is_err() && role("").is_err());
        let digits = "ab".repeat(32);
        assert_eq!(pin(&digits).map(|pin| pin.to_string()), Ok(digits.clone()));
        assert!(pin(&digits[1..]).is_err_and(|error| error.contains("64 hexadecimal digits")));
        assert_eq!((revision("7"), audit_row("0")), (Ok(7), Ok(0)));
        for bad in ["", "x", "-1", "1.5"] {
            assert!(revision(bad).is_err_and(|error| error.contains("paprika site revisions")), "{bad}");
            assert!(audit_row(bad).is_err_and(|error| error.contains("paprika audit")), "{bad}");
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
    fn limits_have_known_names_and_values_that_can_be() {
        assert_eq!(limit("memory=256M"), Ok(Limit::Memory("256M".into())));
        assert_eq!(limit("memory_high=1GiB"), Ok(Limit::MemoryHigh("1GiB".into())));
        assert_eq!(limit("cpu=50%"), Ok(Limit::Cpu("50%".into())));
        assert_eq!(limit("tasks=64"), Ok(Limit::Tasks(64)));
        assert_eq!(limit("output=512K"), Ok(Limit::Output("512K".into())), "the smallest there is");
        for (bad, says) in [
            ("memroy=1", "did you mean \"memory\"?"),
            ("memory-high=1G", "did you mean \"memory_high\"?"),
            ("banana=1", "there are memory, memory_high, cpu, tasks, output"),
            ("memory=", "the value of memory is missing"),
            ("memory", "expected NAME=VALUE"),
            ("=1", "expected NAME=VALUE"),
            ("memory=much", "memory: `much` is not a size"),
            ("memory=-1", "memory: `-1` is not a size"),
            ("memory=0", "memory is at least 1"),
            ("output=511K", "output is at least 512K"),
            ("tasks=many", "tasks is a number"),
            ("tasks=0", "tasks is a number"),
            ("tasks=-3", "tasks is a number"),
            ("cpu=50", "cpu is a share"),
            ("cpu=0%", "cpu is a share"),
            ("cpu=+5%", "cpu is a share"),
            ("cpu=half%", "cpu is a share"),
        ] {
            let error = limit(bad).err().unwrap_or_default();
            assert!(error.contains(says), "{bad:?} gave {error:?}");
        }
    }

    #[test]
    fn numbers_say_what_they_are_when_they_are_none() {
        assert_eq!((id("42"), job("7"), event("0"), count("1"), offset("0")), (Ok(42), Ok(7), Ok(0), Ok(1), Ok(0)));
        for bad in ["", "x", "-1", "+1", "1.5", " 1", "99999999999999999999999"] {
            for (error, says) in [
                (id(bad).err(), "paprika commands"),
                (job(bad).err(), "job"),
                (event(bad).err(), "event"),
                (count(bad).err(), "1 or more"),
                (offset(bad).err(), "bytes"),
            ] {
                let error = error.unwrap_or_default();
                assert!(error.contains(says) && !error.contains("invalid digit"), "{bad:?} gave {error:?}");
            }
        }
        assert!(count("0").is_err());
    }

    #[test]
    fn postures_keep_to_the_ranges_of_the_kernel() {
        assert_eq!((umask("27").as_deref(), umask("0777").as_deref()), (Ok("0027"), Ok("0777")));
        assert_eq!((umask("0").as_deref(), umask("00000022").as_deref()), (Ok("0000"), Ok("0022")));
        for bad in ["", "1000", "8", "-1", "rwx", "0o22", "77777777777777"] {
            assert!(umask(bad).is_err_and(|error| error.contains("octal")), "{bad}");
        }
        assert_eq!(
            (nice("-20"), nice("19"), oom_score("-1000"), oom_score("1000")),
            (Ok(-20), Ok(19), Ok(-1000), Ok(1000))
        );
        for (bad, error) in [
            ("-21", nice("-21")),
            ("20", nice("20")),
            ("x", nice("x")),
            ("1001", oom_score("1001")),
            ("-1001", oom_score("-1001")),
        ] {
            assert!(error.is_err_and(|error| error.contains("expected a number from")), "{bad}");
        }
        assert_eq!(grace("1h"), Ok(HumanDuration(Duration::from_secs(3600))));
        assert_eq!(grace("0s"), Ok(HumanDuration(Duration::ZERO)));
        assert!(grace("61m").is_err_and(|error| error.contains("at most 1h")));
    }

    #[test]
    fn signals_are_sent_by_their_names() {
        for (text, sent) in [("INT", "INT"), ("sigusr1", "USR1"), ("2", "INT"), ("64", "64")] {
            assert_eq!(signal(text).as_deref(), Ok(sent), "{text}");
        }
        assert!(signal("TREM").is_err_and(|error| error.contains("did you mean TERM?")));
        for bad in ["", "0", "65", "-9", "banana"] {
            assert!(signal(bad).is_err_and(|error| error.contains("1 to 64")), "{bad}");
        }
    }

    #[test]
    fn users_paths_and_lines_are_looked_at() {
        assert_eq!((user("nobody").as_deref(), user("1000").as_deref()), (Ok("nobody"), Ok("1000")));
        for bad in ["", "a:b", "../root", "a\nb", "a\0"] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
        assert_eq!(absolute("/srv/app").as_deref(), Ok("/srv/app"));
        assert!(absolute("srv").is_err() && absolute("").is_err() && absolute("~/x").is_err());
        assert_eq!(line("test -e /x").as_deref(), Ok("test -e /x"));
        assert!(line(" \t").is_err());
        assert_eq!(words(" python3  -u "), Ok(Words(vec!["python3".into(), "-u".into()])));
        assert!(words(" ").is_err());
    }
}
