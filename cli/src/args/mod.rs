//! The tree of client verbs with their options; the help text is the manual.
//!
//! Only shapes stand here. What a verb does is in the file of its name under `commands`.

mod needs;
pub mod secrets;
mod start;
mod trust;
pub mod values;
mod verbs;

use clap::{Args, Subcommand, ValueEnum};

pub use needs::{CONTROL, Needs, needs};
pub use secrets::{SecretFrom, SecretVar};
pub use start::{Bounds, Guards, Start};
pub use trust::{
    AuditArgs, AuditExport, AuditVerb, AuditVerify, CaArgs, CaVerb, JoinTokenArgs, JoinTokenNew, JoinTokenVerb,
    LoginArgs, OperatorArgs, OperatorCert, OperatorVerb, SiteArgs, SitePushArgs, SiteVerb,
};
pub use verbs::{
    AgentArgs, AgentRemove, AgentVerb, AgentsArgs, CancelArgs, CommandsArgs, CompletionsArgs, EventsArgs, LogsArgs,
    OpArgs, PauseArgs, ReleaseArgs, ResumeArgs, RunArgs, ShowArgs, StreamChoice, TokenArgs, TokenNew, TokenScope,
    TokenVerb,
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
    Agents(AgentsArgs),
    /// Look at and change one agent; without a verb: the agent daemon
    Agent(AgentArgs),
    /// Make, list and revoke the lines with which new hosts join
    JoinToken(JoinTokenArgs),
    /// Make, list and revoke tokens of operators and programs
    Token(TokenArgs),
    /// Issue, list and revoke certificates of operators
    Operator(OperatorArgs),
    /// Get to know a manager and write a context for it
    Login(Box<LoginArgs>),
    /// Show who the manager takes you for and what you may do
    #[command(after_help = "Needs: any good credential")]
    Whoami,
    /// Check, push and approve what the site says about agents, groups and roles
    Site(SiteArgs),
    /// Print who did what, check it, and keep it elsewhere
    Audit(AuditArgs),
    /// Look at the certificate authority and rotate it
    Ca(CaArgs),
    /// Print what happened, and follow what happens
    Events(EventsArgs),
    /// Show how the manager is
    #[command(after_help = "Needs: status.read")]
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

    const PIN: &str = "abababababababababababababababababababababababababababababababab";

    /// One line for each verb.
    const LINES: [&str; 44] = [
        "run web1 -- true",
        "op web1 agent.ping",
        "logs 1",
        "commands",
        "show 1",
        "cancel 1",
        "pause 1",
        "resume 1",
        "release 1",
        "agents",
        "agent show web1",
        "agent accept web1",
        "agent remove web1",
        "agent drain web1",
        "agent undrain web1",
        "agent cert web1 --out d",
        "join-token new",
        "join-token list",
        "join-token revoke x",
        "token new ci",
        "token list",
        "token revoke x",
        "operator cert alice --out d",
        "operator list",
        "operator revoke alice",
        "login https://m:7050",
        "whoami",
        "site check d",
        "site show",
        "site push d",
        "site revisions",
        "site approve 1",
        "site reject 1",
        "audit",
        "audit verify",
        "audit export f",
        "ca show",
        "ca prepare",
        "ca activate",
        "ca retire",
        "events",
        "status",
        "completions bash",
        "run @web --detach --shell true",
    ];

    fn leaves(command: &clap::Command, path: &str, into: &mut Vec<String>) {
        let children: Vec<&clap::Command> =
            command.get_subcommands().filter(|child| child.get_name() != "help").collect();
        let is_verb_by_itself = !command.is_subcommand_required_set() && !path.is_empty();
        if children.is_empty() || is_verb_by_itself {
            into.push(path.to_owned());
        }
        for child in children {
            leaves(child, format!("{path} {}", child.get_name()).trim_start(), into);
        }
    }

    #[test]
    fn the_help_of_every_verb_says_what_it_needs() {
        let mut tree = Tree::command();
        tree.build();
        let mut verbs = Vec::new();
        leaves(&tree, "", &mut verbs);
        for verb in &verbs {
            let line = LINES.into_iter().find(|line| *line == *verb || line.starts_with(&format!("{verb} ")));
            let line = line.unwrap_or_else(|| panic!("no line for {verb:?}"));
            let parsed = Tree::try_parse_from(["paprika"].into_iter().chain(line.split(' '))).unwrap();
            let mut page = &mut tree;
            for word in verb.split(' ') {
                page = page.find_subcommand_mut(word).unwrap();
            }
            let help = page.render_long_help().to_string();
            let expected = format!("Needs: {}", needs(&parsed.verb));
            let said = help.lines().filter(|line| line.starts_with("Needs: ")).collect::<Vec<_>>();
            assert_eq!(said, [expected], "{verb}");
        }
        assert!(verbs.len() > 40, "{verbs:?}");
    }

    #[test]
    fn verbs_of_trust_take_what_they_should() {
        let verb = |line: &str| Tree::try_parse_from(["paprika"].into_iter().chain(line.split(' '))).unwrap().verb;
        let Client::JoinToken(JoinTokenArgs { verb: JoinTokenVerb::New(new) }) =
            verb("join-token new --group web --group @db --uses 20 --ttl 4h --name web* --from 10.1.0.0/16 --from ::1")
        else {
            panic!("not a join token")
        };
        assert_eq!((new.groups, new.uses, new.name), (vec!["web".into(), "db".into()], Some(20), Some("web*".into())));
        assert_eq!(new.addresses, ["10.1.0.0/16", "::1/128"], "as networks are written");
        let Client::Token(TokenArgs { verb: TokenVerb::New(new) }) = verb("token new ci --role deployer --role admin")
        else {
            panic!("not a token")
        };
        assert_eq!(new.roles, ["deployer", "admin"]);
        let Client::Audit(AuditArgs { verb: None, actor, action, follow: true, .. }) =
            verb("audit --actor alice --action token. -f")
        else {
            panic!("not the audit")
        };
        assert_eq!((actor.as_deref(), action.as_deref()), (Some("alice"), Some("token.")));
        let Client::Agents(AgentsArgs { target: Some(target) }) = verb("agents -t @web") else { panic!("not agents") };
        assert_eq!(target.text(), "@web");
        let Client::Login(args) = verb("login https://m --cert c --key k --name prod --force") else {
            panic!("not login")
        };
        assert!(args.force && args.cert.is_some() && args.key.is_some() && args.pin.is_none());
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
            ("agents -t (a", ["--target", "a ) is missing"]),
            ("run @web,, -- true", ["<TARGET>", "(character 6)"]),
            ("join-token new --from 10.1.2.3/16", ["--from", "did you mean 10.1.0.0/16?"]),
            ("join-token new --group a/b", ["--group", "no name of a group"]),
            ("login m --pin abc", ["--pin", "64 hexadecimal digits"]),
            ("site approve x", ["<NUMBER>", "paprika site revisions"]),
            ("audit --after x", ["--after", "a row is a number"]),
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
            &["paprika", "run", "web1 web2", "--", "true"],
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
            &["paprika", "agents", "-t", "web1 web2"],
            &["paprika", "agents", "-t", "[web]"],
            &["paprika", "join-token"],
            &["paprika", "join-token", "new", "--uses", "0"],
            &["paprika", "join-token", "new", "--group", "a b"],
            &["paprika", "join-token", "new", "--name", "web[1]"],
            &["paprika", "join-token", "new", "--from", "10.1.2.3/16"],
            &["paprika", "join-token", "new", "--ttl", "5M"],
            &["paprika", "join-token", "revoke"],
            &["paprika", "token", "new", "ci", "--role", "a b"],
            &["paprika", "operator", "cert", "alice"],
            &["paprika", "operator", "cert", "a b", "--out", "d"],
            &["paprika", "operator", "revoke"],
            &["paprika", "login"],
            &["paprika", "login", "https://m", "--pin", "abc"],
            &["paprika", "login", "https://m", "--ca", "x", "--pin", PIN],
            &["paprika", "login", "https://m", "--cert", "x"],
            &["paprika", "login", "https://m", "--key", "x"],
            &["paprika", "login", "https://m", "--cert", "x", "--key", "y", "--token-file", "z"],
            &["paprika", "site"],
            &["paprika", "site", "check"],
            &["paprika", "site", "push"],
            &["paprika", "site", "push", "d", "--base", "x"],
            &["paprika", "site", "approve"],
            &["paprika", "site", "approve", "x"],
            &["paprika", "audit", "--limit", "0"],
            &["paprika", "audit", "export"],
            &["paprika", "audit", "--follow", "verify"],
            &["paprika", "ca"],
            &["paprika", "ca", "prepare", "--force"],
            &["paprika", "whoami", "alice"],
            &["paprika", "fly"],
        ] {
            let error = Tree::try_parse_from(line).map(|tree| tree.verb).unwrap_err();
            assert!(error.use_stderr(), "{line:?}");
        }
    }
}
