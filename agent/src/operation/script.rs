//! The arguments of `script.run`: the text of a script, what interprets it, its arguments, and guards. Judged here,
//! obeyed by the shim, which never writes the text to a disk.

use super::words::{Words, invalid};
use super::{Refused, guards};

const KEYS: [&str; 3] = ["content", "interpreter", "args"];

pub(super) fn check(args: &[u8]) -> Result<(), Refused> {
    let args = Words::read(args, &[KEYS.as_slice(), guards::KEYS.as_slice()].concat())?;
    if args.text("content")?.is_none() {
        return Err(invalid("args.content: the text of the script is needed".to_owned()));
    }
    args.line_or_argv("interpreter")?;
    args.list("args")?;
    guards::check(&args)
}
