//! What a SPEC asks to run: arguments, environment, directory, user and limits, checked and in the kernel's form.

use std::ffi::{CStr, CString};

use common::id::Uid;
use common::wire::Command;
use serde::Deserialize;

use super::guards::{Guard, GuardKind, Question};
use super::posture::Posture;
use super::process::UID_VARIABLE;
use super::script;
use super::users::{self, Account};

/// Where programs are looked for when the command says nothing else.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHELL: &str = "/bin/sh";
const RUN: &str = "command.run";
const SCRIPT: &str = "script.run";

/// Pairs of name and `name=value`.
type Environment = [(String, CString)];

/// Arguments of `command.run`; unknown ones are an error, because each of them would change what is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunArgs {
    run: Option<Vec<String>>,
    shell: Option<String>,
    creates: Option<String>,
    removes: Option<String>,
    unless: Option<Line>,
    only_if: Option<Line>,
}

/// Arguments of `script.run`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptArgs {
    content: String,
    interpreter: Option<Line>,
    #[serde(default)]
    args: Vec<String>,
    creates: Option<String>,
    removes: Option<String>,
    unless: Option<Line>,
    only_if: Option<Line>,
}

/// One text, or a list of words.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    One(String),
    Words(Vec<String>),
}

/// Words to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) argv: Vec<CString>,
    /// Paths to try, in order.
    pub(super) candidates: Vec<CString>,
    /// Where the name was looked for; none: it is a path.
    pub(super) path: Option<String>,
}

/// What all processes of a command have in common.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) env: Vec<CString>,
    pub(super) cwd: CString,
    /// Whom to become; none: stay who we are.
    pub(super) account: Option<Account>,
    pub(super) posture: Posture,
}

/// What a command asks to run.
#[derive(Debug)]
pub(super) struct Program {
    /// Asked in order, before the main process.
    pub(super) guards: Vec<Guard>,
    pub(super) main: Words,
    /// The content of a script, which the main process reads from a file without a name.
    pub(super) script: Option<String>,
    pub(super) setting: Setting,
}

/// Why a SPEC cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("the operation {0} is not run by a process")]
    Operation(String),
    #[error("the arguments of {operation} are not understood: {what}")]
    Args { operation: &'static str, what: String },
    #[error("there is no user {0} on this host")]
    NoUser(String),
    #[error("the directory service of this host did not say in time who {0} is")]
    NoAnswer(String),
    #[error("only an agent that runs as root can run commands as {0}")]
    NotRoot(String),
    #[error("{0} must not hold a zero byte")]
    Zero(&'static str),
    #[error("a variable's name must not be empty or hold '=': {0}")]
    Variable(String),
}

impl ProgramError {
    /// The stable code in `error.code`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Operation(_) => "operation",
            Self::Args { .. } => "args",
            Self::NoUser(_) | Self::NoAnswer(_) | Self::NotRoot(_) => "user",
            Self::Zero(_) => "zero_byte",
            Self::Variable(_) => "env",
        }
    }
}

/// Reads a command.
pub(super) fn program(command: &Command, agent: &str) -> Result<Program, ProgramError> {
    let Asked { words, script, guards } = match command.operation.as_str() {
        RUN => run_args(&command.args)?,
        SCRIPT => script_args(&command.args)?,
        other => return Err(ProgramError::Operation(common::escape::text(other))),
    };
    let ours = rustix::process::geteuid().as_raw();
    let (account, switch) = account(&command.user, ours)?;
    let env = environment(command, agent, &account)?;
    let cwd = if command.cwd.is_empty() { "/" } else { &command.cwd };
    let mut guards = guards.into_iter().map(|guard| guard.prepare(&env)).collect::<Result<Vec<_>, _>>()?;
    let mut main = Words::new(&words, &env)?;
    if command.secrets.as_ref().is_some_and(|secrets| secrets.env.contains_key("PATH")) {
        // Errors say where a program was looked for.
        let words = guards.iter_mut().filter_map(|guard| match &mut guard.question {
            Question::Words(words) => Some(words),
            Question::Path(_) => None,
        });
        for words in words.chain([&mut main]) {
            words.path = words.path.as_ref().map(|_| "a PATH that is secret".to_owned());
        }
    }
    Ok(Program {
        guards,
        main,
        script,
        setting: Setting {
            env: env.into_iter().map(|(_, whole)| whole).collect(),
            cwd: CString::new(cwd).map_err(|_| ProgramError::Zero("the directory"))?,
            account: switch.then_some(account),
            posture: Posture::of(command),
        },
    })
}

/// What the arguments say, still as text.
struct Asked {
    words: Vec<String>,
    script: Option<String>,
    guards: Vec<AskedGuard>,
}

/// A guard, still as text.
enum AskedGuard {
    Path(GuardKind, String),
    Words(GuardKind, Vec<String>),
}

impl AskedGuard {
    fn prepare(self, env: &Environment) -> Result<Guard, ProgramError> {
        match self {
            Self::Path(kind, path) => {
                let path = CString::new(path).map_err(|_| ProgramError::Zero("the path of a guard"))?;
                Ok(Guard { kind, question: Question::Path(path) })
            }
            Self::Words(kind, words) => Ok(Guard { kind, question: Question::Words(Words::new(&words, env)?) }),
        }
    }
}

impl Words {
    fn new(words: &[String], env: &Environment) -> Result<Self, ProgramError> {
        let argv = words
            .iter()
            .map(|word| CString::new(word.as_bytes()).map_err(|_| ProgramError::Zero("an argument")))
            .collect::<Result<Vec<_>, _>>()?;
        let (candidates, path) = candidates(argv.first().map_or(c"", |name| name), env);
        Ok(Self { argv, candidates, path })
    }

    /// The name of the program, for people.
    pub(super) fn name(&self) -> String {
        self.argv.first().map(|name| common::escape::text(name.to_bytes())).unwrap_or_default()
    }
}

impl Line {
    /// As words to execute; a text is a line for the shell.
    fn shell(self) -> Vec<String> {
        match self {
            Self::One(line) => shell_words(line),
            Self::Words(words) => words,
        }
    }
}

fn shell_words(line: String) -> Vec<String> {
    vec![SHELL.to_owned(), "-c".to_owned(), line]
}

fn run_args(args: &[u8]) -> Result<Asked, ProgramError> {
    let bad = |what: &str| ProgramError::Args { operation: RUN, what: what.to_owned() };
    let args: RunArgs = serde_json::from_slice(args).map_err(|error| bad(&error.to_string()))?;
    let words = match (args.run, args.shell) {
        (Some(words), None) if words.first().is_some_and(|word| !word.is_empty()) => words,
        (Some(_), None) => return Err(bad("`run` needs a program")),
        (None, Some(line)) => shell_words(line),
        _ => return Err(bad("one of `run` and `shell` is needed")),
    };
    let guards = guards(args.creates, args.removes, args.unless, args.only_if).map_err(|what| bad(&what))?;
    Ok(Asked { words, script: None, guards })
}

fn script_args(args: &[u8]) -> Result<Asked, ProgramError> {
    let bad = |what: &str| ProgramError::Args { operation: SCRIPT, what: what.to_owned() };
    let args: ScriptArgs = serde_json::from_slice(args).map_err(|error| bad(&error.to_string()))?;
    let mut words = match args.interpreter {
        Some(Line::One(name)) => vec![name],
        Some(Line::Words(words)) => words,
        None => script::interpreter(&args.content),
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(bad("`interpreter` needs a program"));
    }
    words.push(script::PATH.to_owned());
    words.extend(args.args);
    let guards = guards(args.creates, args.removes, args.unless, args.only_if).map_err(|what| bad(&what))?;
    Ok(Asked { words, script: Some(args.content), guards })
}

/// The cheap ones first: a path costs no program.
fn guards(
    creates: Option<String>,
    removes: Option<String>,
    unless: Option<Line>,
    only_if: Option<Line>,
) -> Result<Vec<AskedGuard>, String> {
    let mut guards = Vec::new();
    for (kind, path) in [(GuardKind::Creates, creates), (GuardKind::Removes, removes)] {
        let Some(path) = path else { continue };
        if !path.starts_with('/') {
            return Err(format!("`{}` needs a path from the root", kind.word()));
        }
        guards.push(AskedGuard::Path(kind, path));
    }
    for (kind, line) in [(GuardKind::Unless, unless), (GuardKind::OnlyIf, only_if)] {
        let Some(words) = line.map(Line::shell) else { continue };
        if words.first().is_none_or(String::is_empty) {
            return Err(format!("`{}` needs a program", kind.word()));
        }
        guards.push(AskedGuard::Words(kind, words));
    }
    Ok(guards)
}

fn account(user: &str, ours: u32) -> Result<(Account, bool), ProgramError> {
    let stay = || {
        let number = ours.to_string();
        users::find(&number).ok().flatten().unwrap_or_else(|| Account {
            name: number,
            uid: ours,
            gid: rustix::process::getegid().as_raw(),
            home: "/".to_owned(),
            shell: SHELL.to_owned(),
            groups: Vec::new(),
        })
    };
    if user.is_empty() {
        return Ok((stay(), false));
    }
    let shown = || common::escape::text(user);
    let silent = |_| ProgramError::NoAnswer(shown());
    let account = users::find(user).map_err(silent)?.ok_or_else(|| ProgramError::NoUser(shown()))?;
    if account.uid == ours {
        return Ok((account, false));
    }
    if ours != 0 {
        return Err(ProgramError::NotRoot(shown()));
    }
    let account = users::find_with_groups(user).map_err(silent)?.ok_or_else(|| ProgramError::NoUser(shown()))?;
    Ok((account, true))
}

/// Exactly what the command sees: nothing of the agent's own.
fn environment(command: &Command, agent: &str, account: &Account) -> Result<Vec<(String, CString)>, ProgramError> {
    let uid = Uid::from_wire(&command.uid).map(|uid| uid.to_string()).unwrap_or_default();
    let ours = [
        ("PATH", PATH.to_owned()),
        ("HOME", account.home.clone()),
        ("USER", account.name.clone()),
        ("LOGNAME", account.name.clone()),
        ("SHELL", account.shell.clone()),
        ("LANG", "C.UTF-8".to_owned()),
        ("PAPRIKA_COMMAND_ID", command.id.to_string()),
        (UID_VARIABLE, uid),
        ("PAPRIKA_AGENT", agent.to_owned()),
    ];
    let mut env: Vec<(String, CString)> = Vec::with_capacity(ours.len() + command.env.len());
    let secrets = command.secrets.iter().flat_map(|secrets| &secrets.env);
    let all = ours
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .chain(command.env.iter().map(|variable| (variable.name.as_str(), variable.value.as_ref())))
        .chain(secrets.map(|(name, value)| (name.as_str(), value.as_ref())));
    for (name, value) in all {
        if name.is_empty() || name.contains('=') {
            return Err(ProgramError::Variable(common::escape::text(name)));
        }
        let whole =
            CString::new([name.as_bytes(), b"=", value].concat()).map_err(|_| ProgramError::Zero("a variable"))?;
        match env.iter_mut().find(|(known, _)| known == name) {
            // By this one leftovers are found: it is not the command's to change.
            Some(_) if name == UID_VARIABLE => {}
            Some(known) => known.1 = whole,
            None => env.push((name.to_owned(), whole)),
        }
    }
    Ok(env)
}

/// The paths to try, as `execvp` would with the command's own `PATH`, and that one where it was asked.
fn candidates(name: &CStr, env: &Environment) -> (Vec<CString>, Option<String>) {
    let name = name.to_bytes();
    if name.contains(&b'/') {
        return (CString::new(name).into_iter().collect(), None);
    }
    let path = env
        .iter()
        .find(|(known, _)| known == "PATH")
        .and_then(|(_, whole)| whole.to_bytes().strip_prefix(b"PATH="))
        .unwrap_or(PATH.as_bytes());
    let candidates = path
        .split(|byte| *byte == b':')
        .filter_map(|folder| {
            let folder = if folder.is_empty() { b".".as_slice() } else { folder };
            CString::new([folder, b"/", name].concat()).ok()
        })
        .collect();
    (candidates, Some(String::from_utf8_lossy(path).into_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use common::wire::EnvVar;

    use super::*;

    fn command(args: &str) -> Command {
        Command {
            operation: "command.run".into(),
            args: args.as_bytes().to_vec().into(),
            id: 7,
            uid: vec![1; 16].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_list_is_taken_as_it_is_and_a_line_goes_to_the_shell() {
        let list = program(&command(r#"{"run":["a b","c\nd",""]}"#), "web1").unwrap();
        assert_eq!(list.main.argv, [c"a b".to_owned(), c"c\nd".to_owned(), c"".to_owned()]);
        let line = program(&command(r#"{"shell":"echo $HOME"}"#), "web1").unwrap();
        assert_eq!(line.main.argv, [c"/bin/sh".to_owned(), c"-c".to_owned(), c"echo $HOME".to_owned()]);
        assert_eq!(line.main.candidates, [c"/bin/sh".to_owned()]);
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_with_a_code() {
        for (args, code) in [
            ("{}", "args"),
            ("[", "args"),
            (r#"{"run":[]}"#, "args"),
            (r#"{"run":[""]}"#, "args"),
            (r#"{"run":["a"],"shell":"b"}"#, "args"),
            (r#"{"run":["a"],"create":"/x"}"#, "args"),
            (r#"{"run":["a"],"creates":"x"}"#, "args"),
            (r#"{"run":["a"],"unless":[]}"#, "args"),
            (r#"{"run":["a"],"only_if":7}"#, "args"),
            (r#"{"run":["a"],"removes":"/a\u0000"}"#, "zero_byte"),
            (r#"{"run":["a\u0000b"]}"#, "zero_byte"),
        ] {
            assert_eq!(program(&command(args), "").unwrap_err().code(), code, "{args}");
        }
        let other = Command { operation: "file".into(), ..command("{}") };
        assert_eq!(program(&other, "").unwrap_err().code(), "operation");
        let nobody = Command { user: "no-such-user".into(), ..command(r#"{"run":["a"]}"#) };
        assert_eq!(program(&nobody, "").unwrap_err().code(), "user");
    }

    #[test]
    fn a_script_is_read_by_the_interpreter_that_it_or_the_request_names() {
        let words = |args: &str| {
            let command = Command { operation: "script.run".into(), ..command(args) };
            let program = program(&command, "").map_err(|error| error.code())?;
            assert!(program.script.is_some());
            Ok(program.main.argv.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>())
        };
        let file = "/proc/self/fd/3";
        let own = words(r##"{"content":"#!/usr/bin/env python3\nprint()","args":["a b"]}"##);
        assert_eq!(own, Ok(["/usr/bin/env", "python3", file, "a b"].map(str::to_owned).to_vec()));
        let named = words(r##"{"content":"#!/bin/sh\n","interpreter":["python3","-u"]}"##);
        assert_eq!(named, Ok(["python3", "-u", file].map(str::to_owned).to_vec()));
        let one = words(r#"{"content":"","interpreter":"my python"}"#);
        assert_eq!(one, Ok(["my python", file].map(str::to_owned).to_vec()));
        assert_eq!(words(r#"{"content":"echo"}"#), Ok(["/bin/sh", file].map(str::to_owned).to_vec()));
        for bad in ["{}", r#"{"content":"x","interpreter":[]}"#, r#"{"content":"x","interpreter":""}"#] {
            assert_eq!(words(bad), Err("args"), "{bad}");
        }
        assert_eq!(words(r#"{"content":"x","args":["\u0000"]}"#), Err("zero_byte"));
    }

    #[test]
    fn guards_are_asked_in_one_order_whatever_the_order_in_which_they_were_said() {
        let args = r#"{"only_if":"a && b","unless":["x","y"],"removes":"/r","creates":"/c","run":["m"]}"#;
        let found = program(&command(args), "").unwrap();
        let kinds: Vec<_> = found.guards.iter().map(|guard| guard.kind.word()).collect();
        assert_eq!(kinds, ["creates", "removes", "unless", "only_if"]);
        let Question::Words(line) = &found.guards[3].question else { panic!("a path") };
        assert_eq!(line.argv, [c"/bin/sh".to_owned(), c"-c".to_owned(), c"a && b".to_owned()]);
    }

    #[test]
    fn secret_variables_reach_the_environment_and_no_error() {
        let mut with = command(r#"{"run":["x"],"unless":["y"]}"#);
        let env = [("PATH".to_owned(), "/hunter2".into()), ("K".to_owned(), "v".into())].into();
        with.secrets = Some(common::wire::Secrets { env, ..Default::default() });
        let program = program(&with, "web1").unwrap();
        assert!(
            program.setting.env.contains(&c"K=v".to_owned())
                && program.setting.env.contains(&c"PATH=/hunter2".to_owned())
        );
        assert_eq!(program.main.candidates, [c"/hunter2/x".to_owned()]);
        let Question::Words(guard) = &program.guards[0].question else { panic!("a path") };
        for shown in [&program.main.path, &guard.path] {
            assert_eq!(shown.as_deref(), Some("a PATH that is secret"));
        }
        let env = [("A=B".to_owned(), "hunter2".into())].into();
        with.secrets = Some(common::wire::Secrets { env, ..Default::default() });
        assert!(!super::program(&with, "").unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn the_commands_own_variables_win_except_the_mark() {
        let variable = |name: &str, value: &str| EnvVar { name: name.into(), value: value.as_bytes().to_vec().into() };
        let mut with = command(r#"{"run":["x"]}"#);
        with.env = vec![variable("PATH", "/p::/q"), variable(UID_VARIABLE, "forged"), variable("K", "v=w")];
        let program = program(&with, "web1").unwrap();
        assert_eq!(program.main.candidates, [c"/p/x".to_owned(), c"./x".to_owned(), c"/q/x".to_owned()]);
        assert!(program.setting.env.contains(&c"K=v=w".to_owned()));
        assert!(program.setting.env.contains(&c"PAPRIKA_COMMAND_UID=01010101010101010101010101010101".to_owned()));
        assert_eq!(program.setting.env.len(), 10);
        with.env = vec![variable("A=B", "")];
        assert_eq!(super::program(&with, "").unwrap_err().code(), "env");
    }
}
