//! The arguments of `command.run`: `{"run": ["argv", …]}` or `{"shell": "line"}`. The shim reads them again; here they
//! are only judged, so that nonsense is refused before anything is written.

use serde::Deserialize;

use super::Refused;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    #[serde(default)]
    run: Option<Vec<String>>,
    #[serde(default)]
    shell: Option<String>,
}

pub(super) fn check(args: &[u8]) -> Result<(), Refused> {
    let invalid = |text: String| Refused::new("invalid_args", text);
    let args: Args = serde_json::from_slice(args).map_err(|error| invalid(format!("args: {error}")))?;
    let has_nul = |text: &String| text.contains('\0');
    match (args.run, args.shell) {
        (Some(run), None) if run.first().is_none_or(String::is_empty) => {
            Err(invalid("args.run: the first word names the program and may not be empty".to_owned()))
        }
        (Some(run), None) if run.iter().any(has_nul) => Err(invalid("args.run: a word holds a NUL".to_owned())),
        (None, Some(line)) if line.is_empty() => Err(invalid("args.shell: the line is empty".to_owned())),
        (None, Some(line)) if has_nul(&line) => Err(invalid("args.shell: the line holds a NUL".to_owned())),
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => Err(invalid("args: exactly one of `run` and `shell` is needed".to_owned())),
    }
}
