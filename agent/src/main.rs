//! The binary `paprika-agent`: nothing but the way into the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::cli::main(std::env::args_os().skip(1).collect(), Vec::new())
}
