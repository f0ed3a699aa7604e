//! `completions`: the script that lets a shell complete our command line.

use clap_complete::generate;

use crate::args::CompletionsArgs;
use crate::error::Failure;
use crate::output::print;

pub(super) fn run(args: &CompletionsArgs, mut tree: clap::Command) -> Result<(), Failure> {
    let name = tree.get_name().to_owned();
    let mut script = Vec::new();
    generate(args.shell, &mut tree, name, &mut script);
    print(&script)
}
