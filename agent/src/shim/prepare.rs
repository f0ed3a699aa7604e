//! Makes one process of a command ready: its streams, its script, its place; it then waits at its door.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use common::wire::Command;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::fence::Fence;
use super::launch::is_unknown_call;
use super::program::Program;
use super::run::{At, ShimError};
use super::script;
use super::spawn::{self, Prepared, Task, Waiting};
use super::users::Account;
use super::watch::{Role, Tap};

/// Asked of the kernel for each pipe: a burst does not wait for the disk.
const PIPE: usize = 1024 * 1024;

/// The files of one process.
pub(super) struct Streams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    script: Option<OwnedFd>,
}

impl Streams {
    /// Pipes into the taps for the main process; nothing at all for a guard.
    pub(super) fn of(command: &Command, program: &Program, role: Role, taps: &mut [Tap; 2]) -> Result<Self, ShimError> {
        if role == Role::Guard {
            let null = File::options().read(true).write(true).open("/dev/null").at("open /dev/null")?;
            let copy = || null.try_clone().map(OwnedFd::from).at("copy /dev/null");
            return Ok(Self { stdin: copy()?, stdout: copy()?, stderr: copy()?, script: None });
        }
        let account = program.setting.account.as_ref();
        let secret = command.secrets.as_ref().filter(|secrets| secrets.has_stdin).map(|secrets| &secrets.stdin);
        let stdin = match secret.or(command.has_stdin.then_some(&command.stdin)) {
            Some(content) => script::input(content, account).at("make the input")?,
            None => File::open("/dev/null").at("open /dev/null")?.into(),
        };
        let script = program.script.as_ref().map(|content| script::sealed(content, account));
        let script = script.transpose().at("make the file of the script")?;
        let [(out, stdout), (err, stderr)] = [pipe(account)?, pipe(account)?];
        for (tap, read) in taps.iter_mut().zip([out, err]) {
            tap.pipe = Some(read);
        }
        Ok(Self { stdin, stdout, stderr, script })
    }
}

/// Read and write side.
fn pipe(account: Option<&Account>) -> Result<(OwnedFd, OwnedFd), ShimError> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
    // The command can open its own pipes for reading and take what was announced to us: then there is nothing to read, and
    // nothing to wait for either. The other side is a file of its own and still waits for room.
    rustix::io::ioctl_fionbio(&read, true).at("let a pipe never wait")?;
    // Smaller is slower, not wrong.
    let _ = fcntl_setpipe_size(&write, PIPE);
    if let Some(account) = account {
        // Else `/dev/stdout` could not be opened by its new owner.
        let owner = Some(rustix::fs::Uid::from_raw(account.uid));
        rustix::fs::fchown(&write, owner, None).at("hand over a pipe")?;
    }
    Ok((read, write))
}

/// Makes the process. This side's copies of its files are closed on return: the pipes end with the command.
pub(super) fn waiting(
    program: &Program,
    task: Task<'_>,
    streams: Streams,
    fence: &mut Fence,
) -> Result<Waiting, ShimError> {
    let Streams { stdin, stdout, stderr, script } = streams;
    let place = fence.birth().at("open the cgroup")?;
    let joins = fence.joins();
    let mut prepared = Prepared { task, setting: &program.setting, stdin, stdout, stderr, script, joins };
    let waiting = match spawn::start(&prepared, place.as_ref().map(AsFd::as_fd)) {
        Err(error) if place.is_some() && is_unknown_call(&error) => {
            fence.on_foot();
            prepared.joins = fence.joins();
            spawn::start(&prepared, None)
        }
        other => other,
    };
    waiting.at("make the process")
}
