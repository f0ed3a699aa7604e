//! What a SPEC asks to run: arguments, environment, directory, user and limits, checked and in the kernel's form.

use std::ffi::{CStr, CString};

use common::id::Uid;
use common::wire::Command;
use serde::Deserialize;

use super::process::UID_VARIABLE;
use super::users::{self, Account};

/// Where programs are looked for when the command says nothing else.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHELL: &str = "/bin/sh";

/// Arguments of `command.run`; unknown ones are an error, because each of them would change what is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunArgs {
    run: Option<Vec<String>>,
    shell: Option<String>,
}

/// A program to start.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) candidates: Vec<CString>,
    pub(super) cwd: CString,
    /// Whom to become; none: stay who we are.
    pub(super) account: Option<Account>,
}

/// Why a SPEC cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("the operation {0} is not run by a process")]
    Operation(String),
    #[error("the arguments of command.run are not understood: {0}")]
    Args(String),
    #[error("there is no user {0} on this host")]
    NoUser(String),
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
            Self::Args(_) => "args",
            Self::NoUser(_) | Self::NotRoot(_) => "user",
            Self::Zero(_) => "zero_byte",
            Self::Variable(_) => "env",
        }
    }
}

/// Reads a command.
pub(super) fn program(command: &Command, agent: &str) -> Result<Program, ProgramError> {
    if command.operation != "command.run" {
        return Err(ProgramError::Operation(common::escape::text(&command.operation)));
    }
    let words = words(&command.args)?;
    let ours = rustix::process::geteuid().as_raw();
    let (account, switch) = account(&command.user, ours)?;
    let env = environment(command, agent, &account)?;
    let argv = words
        .iter()
        .map(|word| CString::new(word.as_bytes()).map_err(|_| ProgramError::Zero("an argument")))
        .collect::<Result<Vec<_>, _>>()?;
    let candidates = candidates(argv.first().map_or(c"", |name| name), &env);
    let cwd = if command.cwd.is_empty() { "/" } else { &command.cwd };
    Ok(Program {
        argv,
        candidates,
        env: env.into_iter().map(|(_, whole)| whole).collect(),
        cwd: CString::new(cwd).map_err(|_| ProgramError::Zero("the directory"))?,
        account: switch.then_some(account),
    })
}

/// The name of the program, for people.
pub(super) fn name(command: &Command) -> Option<String> {
    words(&command.args).ok()?.into_iter().next()
}

fn words(args: &[u8]) -> Result<Vec<String>, ProgramError> {
    let args: RunArgs = serde_json::from_slice(args).map_err(|error| ProgramError::Args(error.to_string()))?;
    match (args.run, args.shell) {
        (Some(words), None) if words.first().is_some_and(|word| !word.is_empty()) => Ok(words),
        (Some(_), None) => Err(ProgramError::Args("`run` needs a program".to_owned())),
        (None, Some(line)) => Ok(vec![SHELL.to_owned(), "-c".to_owned(), line]),
        _ => Err(ProgramError::Args("one of `run` and `shell` is needed".to_owned())),
    }
}

fn account(user: &str, ours: u32) -> Result<(Account, bool), ProgramError> {
    let stay = || {
        let number = ours.to_string();
        users::find(&number).unwrap_or_else(|| Account {
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
    let account = users::find(user).ok_or_else(|| ProgramError::NoUser(shown()))?;
    if account.uid == ours {
        return Ok((account, false));
    }
    if ours != 0 {
        return Err(ProgramError::NotRoot(shown()));
    }
    users::find_with_groups(user).map(|account| (account, true)).ok_or_else(|| ProgramError::NoUser(shown()))
}

/// Exactly what the command sees: nothing of the agent's own. Pairs of name and `name=value`.
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
    let all = ours
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .chain(command.env.iter().map(|variable| (variable.name.as_str(), variable.value.as_ref())));
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

/// The paths to try, as `execvp` would with the command's own `PATH`.
fn candidates(name: &CStr, env: &[(String, CString)]) -> Vec<CString> {
    let name = name.to_bytes();
    if name.contains(&b'/') {
        return CString::new(name).into_iter().collect();
    }
    let path = env
        .iter()
        .find(|(known, _)| known == "PATH")
        .and_then(|(_, whole)| whole.to_bytes().strip_prefix(b"PATH="))
        .unwrap_or(PATH.as_bytes());
    path.split(|byte| *byte == b':')
        .filter_map(|folder| {
            let folder = if folder.is_empty() { b".".as_slice() } else { folder };
            CString::new([folder, b"/", name].concat()).ok()
        })
        .collect()
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
        assert_eq!(list.argv, [c"a b".to_owned(), c"c\nd".to_owned(), c"".to_owned()]);
        let line = program(&command(r#"{"shell":"echo $HOME"}"#), "web1").unwrap();
        assert_eq!(line.argv, [c"/bin/sh".to_owned(), c"-c".to_owned(), c"echo $HOME".to_owned()]);
        assert_eq!(line.candidates, [c"/bin/sh".to_owned()]);
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_with_a_code() {
        for (args, code) in [
            ("{}", "args"),
            ("[", "args"),
            (r#"{"run":[]}"#, "args"),
            (r#"{"run":[""]}"#, "args"),
            (r#"{"run":["a"],"shell":"b"}"#, "args"),
            (r#"{"run":["a"],"creates":"/x"}"#, "args"),
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
    fn the_commands_own_variables_win_except_the_mark() {
        let variable = |name: &str, value: &str| EnvVar { name: name.into(), value: value.as_bytes().to_vec().into() };
        let mut with = command(r#"{"run":["x"]}"#);
        with.env = vec![variable("PATH", "/p::/q"), variable(UID_VARIABLE, "forged"), variable("K", "v=w")];
        let program = program(&with, "web1").unwrap();
        assert_eq!(program.candidates, [c"/p/x".to_owned(), c"./x".to_owned(), c"/q/x".to_owned()]);
        assert!(program.env.contains(&c"K=v=w".to_owned()));
        assert!(program.env.contains(&c"PAPRIKA_COMMAND_UID=01010101010101010101010101010101".to_owned()));
        assert_eq!(program.env.len(), 10);
        with.env = vec![variable("A=B", "")];
        assert_eq!(super::program(&with, "").unwrap_err().code(), "env");
    }
}
