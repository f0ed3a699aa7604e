//! The arguments that decide whether a command runs at all: `creates`, `removes`, `unless`, `only_if`.

use super::Refused;
use super::words::Words;

/// The keys, for whoever lists what an operation knows.
pub(super) const KEYS: [&str; 4] = ["creates", "removes", "unless", "only_if"];

/// Judges what was given of them; the shim obeys them.
pub(super) fn check(args: &Words) -> Result<(), Refused> {
    args.path("creates")?;
    args.path("removes")?;
    args.line_or_argv("unless")?;
    args.line_or_argv("only_if")?;
    Ok(())
}
