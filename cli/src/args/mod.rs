//! The tree of client verbs with their options; the help text is the manual.
//!
//! Only shapes stand here. What a verb does is in the file of its name under `commands`.

mod start;
pub mod values;
mod verbs;

use clap::{Args, Subcommand, ValueEnum};

pub use start::{Bounds, Guards, Start};
pub use verbs::{
    AgentArgs, AgentRemove, AgentVerb, CancelArgs, CommandsArgs, CompletionsArgs, EventsArgs, LogsArgs, OpArgs,
    PauseArgs, ReleaseArgs, ResumeArgs, RunArgs, ShowArgs, StreamChoice, TokenArgs, TokenNew, TokenScope, TokenVerb,
};

/// Options that every client verb takes, before or behind the verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Globals {
    /// How to print: a table for people, json or yaml for programs
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// Which entry of ~/.config/paprika/config.yml to use; stronger than the environment
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// What the API answers; one document, or one per line where a verb follows.
    Json,
    /// The same as YAML.
    Yaml,
}

/// The client verbs.
#[derive(Debug, Clone, Subcommand)]
pub enum Client {
    /// Run a program on agents and follow it live
    Run(Box<RunArgs>),
    /// Start any operation on agents
    Op(Box<OpArgs>),
    /// Print or follow the output of a command
    Logs(LogsArgs),
    /// List commands, the newest first
    Commands(CommandsArgs),
    /// Show one command
    Show(ShowArgs),
    /// Stop commands
    Cancel(CancelArgs),
    /// Let commands stand still until they are resumed
    Pause(PauseArgs),
    /// Let paused commands go on
    Resume(ResumeArgs),
    /// Let commands go that wait since the manager's store was restored
    Release(ReleaseArgs),
    /// List agents
    Agents,
    /// Look at and change one agent; without a verb: the agent daemon
    Agent(AgentArgs),
    /// Make, list and revoke tokens
    Token(TokenArgs),
    /// Print what happened, and follow what happens
    Events(EventsArgs),
    /// Show how the manager is
    Status,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "paprika", term_width = 100)]
    struct Tree {
        #[command(flatten)]
        globals: Globals,
        #[command(subcommand)]
        verb: Client,
    }

    fn pages(command: &mut clap::Command, path: &str, into: &mut String) {
        use std::fmt::Write as _;
        let name = format!("{path}{}", command.get_name());
        writeln!(into, "===== {name}\n{}", command.render_long_help()).unwrap();
        let children: Vec<String> = command.get_subcommands().map(|child| child.get_name().to_owned()).collect();
        for child in children {
            if child != "help" {
                pages(command.find_subcommand_mut(&child).unwrap(), &format!("{name} "), into);
            }
        }
    }

    #[test]
    fn the_tree_is_sound() {
        Tree::command().debug_assert();
    }

    #[test]
    fn every_help_page() {
        let mut text = String::new();
        let mut command = Tree::command();
        command.build();
        pages(&mut command, "", &mut text);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_follows_the_dashes_belongs_to_the_program() {
        let tree = Tree::try_parse_from(["paprika", "run", "web1", "--", "ls", "--timeout", "3", "-o", "x"]).unwrap();
        let Client::Run(args) = tree.verb else { panic!("not run: {:?}", tree.verb) };
        assert_eq!(args.argv, ["ls", "--timeout", "3", "-o", "x"]);
        assert_eq!(args.start.timeout, None);
    }

    #[test]
    fn global_options_stand_before_or_behind_the_verb() {
        for line in [["paprika", "-o", "json", "agents"], ["paprika", "agents", "-o", "json"]] {
            assert_eq!(Tree::try_parse_from(line).unwrap().globals.format, Format::Json);
        }
    }

    #[test]
    fn mistakes_name_their_flag_and_what_is_expected() {
        for (line, says) in [
            ("run web1 --limit memroy=1G -- true", ["--limit", "did you mean \"memory\"?"]),
            ("run web1 --stop-signal TREM -- true", ["--stop-signal", "did you mean TERM?"]),
            ("run web1 --umask 9 -- true", ["--umask", "octal"]),
            ("run web1 --nice 20 -- true", ["--nice", "from -20 to 19"]),
            ("op web1 command.run --oom-score -2000", ["--oom-score", "from -1000 to 1000"]),
            ("run web1 --creates x -- true", ["--creates", "begins with /"]),
            ("show x", ["<ID>", "an id is a number"]),
            ("cancel 1 x", ["<ID>", "an id is a number"]),
            ("pause 1x", ["<ID>", "an id is a number"]),
            ("commands --limit many", ["--limit", "expected a number"]),
            ("commands --job x", ["--job", "a job's id is a number"]),
            ("events --after x", ["--after", "by its number"]),
            ("logs 1 --stream stdout --from x", ["--from", "number of bytes"]),
            ("cancel 1 --grace 2h", ["--grace", "at most 1h"]),
        ] {
            let words = ["paprika"].into_iter().chain(line.split(' '));
            let told = Tree::try_parse_from(words).map(|tree| tree.verb).unwrap_err().to_string();
            assert!(says.iter().all(|part| told.contains(part)) && !told.contains("invalid digit"), "{line}: {told}");
        }
    }

    #[test]
    fn a_script_takes_what_follows_the_dashes_as_its_arguments() {
        let line = ["paprika", "run", "web1", "--script", "x.sh", "--nice", "-5", "--", "--nice", "7"];
        let Client::Run(args) = Tree::try_parse_from(line).unwrap().verb else { panic!("not run") };
        assert_eq!((args.argv, args.start.posture.nice), (vec!["--nice".to_owned(), "7".to_owned()], Some(-5)));
        assert!(Tree::try_parse_from(["paprika", "run", "web1", "--script", "x.sh"]).is_ok(), "it needs none");
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for line in [
            &["paprika", "run", "web1"][..],
            &["paprika", "run", "web1", "--shell", "x", "--", "y"],
            &["paprika", "run", "web*", "--", "true"],
            &["paprika", "run", "web1", "--timeout", "5M", "--", "true"],
            &["paprika", "run", "web1", "--shell", "x", "--script", "y"],
            &["paprika", "run", "web1", "--interpreter", "sh", "--", "y"],
            &["paprika", "run", "web1", "--best-effort", "--", "y"],
            &["paprika", "run", "web1", "--cwd", "tmp", "--", "y"],
            &["paprika", "pause"],
            &["paprika", "resume"],
            &["paprika", "commands", "--limit", "0"],
            &["paprika", "cancel"],
            &["paprika", "cancel", "x"],
            &["paprika", "show", "-1"],
            &["paprika", "op", "web1", "agent.ping", "novalue"],
            &["paprika", "-o", "xml", "agents"],
            &["paprika", "fly"],
        ] {
            let error = Tree::try_parse_from(line).map(|tree| tree.verb).unwrap_err();
            assert!(error.use_stderr(), "{line:?}");
        }
    }
}
