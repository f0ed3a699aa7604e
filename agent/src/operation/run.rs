//! The arguments of `command.run`: `{"run": ["argv", …]}` or `{"shell": "line"}`, and guards. The shim reads them again;
//! here they are only judged, so that nonsense is refused before anything is written.

use super::words::{Words, invalid};
use super::{Refused, guards};

const KEYS: [&str; 2] = ["run", "shell"];

pub(super) fn check(args: &[u8]) -> Result<(), Refused> {
    let args = Words::read(args, &[KEYS.as_slice(), guards::KEYS.as_slice()].concat())?;
    match (args.argv("run")?, args.text("shell")?) {
        (Some(_), None) | (None, Some(_)) => {}
        _ => return Err(invalid("args: exactly one of `run` and `shell` is needed".to_owned())),
    }
    guards::check(&args)
}
