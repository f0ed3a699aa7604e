//! Makes processes: the shim out of the agent, and the command out of the shim. All unsafe code of this crate but one
//! line of `signals`.
//!
//! Where the host has cgroups of version 2 and the kernel knows how, both are born inside theirs (`CLONE_INTO_CGROUP`);
//! else they write themselves into it before they exec (`joins`). The command's process then waits at the door: it execs only
//! after a byte of its shim, which is sent when START is durable. When the shim dies before, the door stays closed and
//! the process ends without having run anything.

#![expect(unsafe_code, reason = "there is no safe way to make a process in a cgroup and to prepare it before exec")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use common::limits::MAX_SIGNAL;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::posture::{OPEN_FILES, Posture};
use super::program::{Setting, Words};
use super::users::Account;

/// The step that failed before exec, as one byte on the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Setup = 1,
    User = 2,
    Cwd = 3,
    Exec = 4,
    Nice = 5,
    OomScore = 6,
    Fence = 7,
    Look = 8,
    /// Exec too: the file is there, and what it needs to run is not.
    Loader = 9,
}

impl Step {
    /// The stable code in `error.code`.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::User => "user",
            Self::Cwd => "cwd",
            Self::Exec | Self::Loader => "exec",
            Self::Nice => "nice",
            Self::OomScore => "oom_score",
            Self::Fence => "cgroup",
            Self::Look => "guard",
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            2 => Self::User,
            3 => Self::Cwd,
            4 => Self::Exec,
            5 => Self::Nice,
            6 => Self::OomScore,
            7 => Self::Fence,
            8 => Self::Look,
            9 => Self::Loader,
            _ => Self::Setup,
        }
    }
}

/// Why a process did not come to exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotStarted {
    pub(super) step: Step,
    pub(super) errno: i32,
}

/// What a process is for.
#[derive(Clone, Copy)]
pub(super) enum Task<'a> {
    /// To become a program.
    Exec(&'a Words),
    /// To look whether something is there, and to say so by its exit status: [`THERE`] or [`NOT_THERE`].
    Look(&'a CStr),
}

/// Everything a process needs, all in the form the kernel takes.
pub(super) struct Prepared<'a> {
    pub(super) task: Task<'a>,
    pub(super) setting: &'a Setting,
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// A file that the program gets as number 3.
    pub(super) script: Option<OwnedFd>,
    /// Files of cgroups into which the process has to write itself: those it cannot be born in.
    pub(super) joins: Vec<CString>,
}

/// A process at the door.
pub(super) struct Waiting {
    pub(super) pid: i32,
    /// One byte lets it go; closing it ends it.
    pub(super) door: OwnedFd,
    /// Ends without a byte when exec succeeded, else brings a [`NotStarted`].
    pub(super) failure: File,
}

/// A new process seen from its parent.
pub(super) struct Born {
    pub(super) pid: i32,
    pub(super) handle: OwnedFd,
}

/// Exit status of a look that found something.
pub(super) const THERE: i32 = 0;
/// Exit status of a look that found nothing.
pub(super) const NOT_THERE: i32 = 1;
/// Exit status of a process that did not come to exec; its cause travels on the pipe.
const NEVER_RAN: i32 = 127;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// The number of the script's file.
const SCRIPT: RawFd = 3;
/// A shim has a handful of files; this many are closed one by one where the kernel cannot close them together.
const OLD_KERNEL_FILES: RawFd = 256;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Execs `path` in a new process with `/dev/null` as its three streams and no other file; waits until it has begun.
pub(super) fn exec_detached(
    path: &CStr,
    argv: &[CString],
    env: &[CString],
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Born> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let (failure, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: the caller may have threads, so between here and exec the child calls nothing but the kernel: the
    // arrays were made before, and no memory is allocated or freed in the child.
    match unsafe { clone_process(cgroup) }? {
        Some(born) => {
            drop(tell);
            match read_failure(&mut File::from(failure))? {
                None => Ok(born),
                Some(not) => {
                    // It has ended already; only its entry is left to collect.
                    let _ = waitid(WaitId::PidFd(born.handle.as_fd()), WaitIdOptions::EXITED);
                    Err(io::Error::from_raw_os_error(not.errno))
                }
            }
        }
        None => {
            // SAFETY: as above; the pointers are to arrays that end with null and outlive the call.
            unsafe {
                for stream in 0..=2 {
                    if libc::dup2(null.as_raw_fd(), stream) < 0 {
                        give_up(tell.as_raw_fd(), Step::Setup);
                    }
                }
                close_others_on_exec();
                libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr());
                give_up(tell.as_raw_fd(), Step::Exec)
            }
        }
    }
}

/// Makes the command's process, ready to exec and waiting at the door.
///
/// The caller must be single-threaded: the child allocates.
pub(super) fn start(program: &Prepared<'_>, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Waiting> {
    let (door, open) = pipe_with(PipeFlags::CLOEXEC)?;
    let (failure, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: the shim has one thread, so the child has a whole copy of everything, locks included.
    match unsafe { clone_process(cgroup) }? {
        Some(born) => Ok(Waiting { pid: born.pid, door: open, failure: failure.into() }),
        None => {
            // This copy of the door's other end would keep it from ever closing.
            drop(open);
            drop(failure);
            // SAFETY: this is the child of a process with one thread; it never returns.
            unsafe { become_program(program, &door, tell.as_raw_fd()) }
        }
    }
}

/// Reads what a failed process left on its pipe; waits until it has failed or begun.
pub(super) fn read_failure(pipe: &mut File) -> io::Result<Option<NotStarted>> {
    let mut bytes = Vec::with_capacity(8);
    pipe.take(8).read_to_end(&mut bytes)?;
    Ok(match bytes.as_slice() {
        [step, errno @ ..] => Some(NotStarted {
            step: Step::from_byte(*step),
            errno: errno.first_chunk().map_or(libc::EIO, |bytes| i32::from_ne_bytes(*bytes)),
        }),
        [] => None,
    })
}

/// The new process, in the cgroup if one is given. `None` in the child.
///
/// # Safety
/// With more than one thread the child may only call what is safe in a signal handler.
unsafe fn clone_process(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Born>> {
    // SAFETY: the caller's promise.
    match unsafe { clone_new(cgroup) } {
        // The filters of older container engines refuse what they do not know, and not always by saying so. Without a
        // cgroup the call has nothing that the old one lacks.
        Err(error) if cgroup.is_none() && matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            // SAFETY: as above.
            unsafe { clone_old() }
        }
        other => other,
    }
}

/// The call that kernels before 5.3 and filters do not know.
///
/// # Safety
/// As [`clone_process`].
unsafe fn clone_new(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Born>> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: libc::CLONE_PIDFD.cast_unsigned().into(),
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD.cast_unsigned().into(),
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM the child runs on its own copy of this stack; `args` and `pidfd` outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(None),
        pid if pid > 0 => {
            // SAFETY: the kernel put a new descriptor there that nobody else owns.
            let handle = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some(Born { pid: i32::try_from(pid).unwrap_or(i32::MAX), handle }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// The call that everybody knows.
///
/// # Safety
/// As [`clone_process`].
unsafe fn clone_old() -> io::Result<Option<Born>> {
    let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD);
    let mut pidfd: RawFd = -1;
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM and with no stack of its own the child runs on its copy of this one, as after fork; the
    // order of the last two arguments differs between machines, and both are null.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, ptr::from_mut(&mut pidfd), none, none) };
    match (pid, pidfd) {
        (0, _) => Ok(None),
        (pid, 0..) if pid > 0 => {
            // SAFETY: the kernel put a new descriptor there that nobody else owns.
            let handle = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some(Born { pid: i32::try_from(pid).unwrap_or(i32::MAX), handle }))
        }
        (pid, _) if pid > 0 => {
            // A kernel before 5.2 has no handles for processes, and without one nobody here is watched.
            let pid = i32::try_from(pid).unwrap_or(i32::MAX);
            // SAFETY: plain calls on a child that nobody else knows.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, ptr::null_mut(), 0);
            }
            Err(io::Error::from_raw_os_error(libc::ENOSYS))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has `then` done by a new process of which this one knows nothing more. It has two files: the given ones as numbers
/// 0 and 1, `/dev/null` in the place of one that is not there.
///
/// The caller must be single-threaded.
pub(super) fn leave_behind(files: &[Option<OwnedFd>; 2], then: fn()) -> io::Result<()> {
    let null: OwnedFd = File::open("/dev/null")?.into();
    // SAFETY: the shim has one thread, so the child has a whole copy of everything, locks included.
    if unsafe { clone_process(None) }?.is_some() {
        return Ok(());
    }
    // SAFETY: plain calls in a child that never returns, so that nothing closes a number a second time.
    unsafe {
        for (number, file) in (0..).zip(files) {
            if libc::dup2(file.as_ref().unwrap_or(&null).as_raw_fd(), number) < 0 {
                libc::_exit(NEVER_RAN);
            }
        }
        // Kernels before 5.9 do not know the call.
        if libc::syscall(libc::SYS_close_range, 2_u32, u32::MAX, 0) < 0 {
            for number in 2..OLD_KERNEL_FILES {
                libc::close(number);
            }
        }
        then();
        libc::_exit(0)
    }
}

/// Everything between fork and exec.
///
/// # Safety
/// Only in a child of a process with one thread.
unsafe fn become_program(program: &Prepared<'_>, door: &OwnedFd, tell: RawFd) -> ! {
    let setting = program.setting;
    // SAFETY: plain system calls on valid pointers and descriptors; every result that matters is looked at.
    unsafe {
        for (target, stream) in [&program.stdin, &program.stdout, &program.stderr].into_iter().enumerate() {
            if libc::dup2(stream.as_raw_fd(), target as RawFd) < 0 {
                give_up(tell, Step::Setup);
            }
        }
        let (door, tell) = keep_only(door.as_raw_fd(), tell, program.script.as_ref().map(AsRawFd::as_raw_fd));
        if libc::setsid() < 0 {
            give_up(tell, Step::Setup);
        }
        for procs in &program.joins {
            if !write_file(procs, b"0") {
                give_up(tell, Step::Fence);
            }
        }
        reset_signals();
        take_posture(&setting.posture, tell);
        if let Some(account) = &setting.account {
            become_user(account, tell);
        }
        if libc::chdir(setting.cwd.as_ptr()) < 0 {
            give_up(tell, Step::Cwd);
        }
        let mut byte = 0_u8;
        loop {
            match libc::read(door, ptr::from_mut(&mut byte).cast(), 1) {
                1 => break,
                got if got < 0 && *libc::__errno_location() == libc::EINTR => {}
                _ => libc::_exit(NEVER_RAN),
            }
        }
        match program.task {
            Task::Exec(words) => {
                exec(words, &setting.env);
                give_up(tell, if lacks_loader(words) { Step::Loader } else { Step::Exec })
            }
            Task::Look(path) => look(path, tell),
        }
    }
}

/// Looks for the target of a path, as the user that the command runs as: a guard must not tell somebody what is in a
/// folder that is closed to them. In a process of its own, because a file system whose server is gone holds whoever
/// looks at it: the shim has to stay able to count time and to take a cancel.
///
/// # Safety
/// Only in a child.
unsafe fn look(path: &CStr, tell: RawFd) -> ! {
    // SAFETY: plain calls on a valid path and a zeroed structure, which is valid.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        if libc::stat(path.as_ptr(), &raw mut found) == 0 {
            libc::_exit(THERE);
        }
        match *libc::__errno_location() {
            libc::ENOENT | libc::ENOTDIR => libc::_exit(NOT_THERE),
            _ => give_up(tell, Step::Look),
        }
    }
}

/// Closes everything but the three streams, the script and the two pipes, which get the numbers behind them.
///
/// The copies of the record and of `wake` go before anything can make this process wait: when the shim dies, its lock
/// is free and its FIFO without a reader at once.
///
/// # Safety
/// Only in a child before exec, and nothing of the parent's files may be used after it.
unsafe fn keep_only(door: RawFd, tell: RawFd, script: Option<RawFd>) -> (RawFd, RawFd) {
    let first = SCRIPT + RawFd::from(script.is_some());
    let (new_door, new_tell) = (first, first + 1);
    // SAFETY: plain calls on descriptors of this process.
    unsafe {
        // Out of the way first: each may have another's new number.
        let far = |number| libc::fcntl(number, libc::F_DUPFD_CLOEXEC, new_tell + 1);
        let (far_door, far_tell, far_script) = (far(door), far(tell), script.map(far));
        if far_door < 0 || far_tell < 0 || far_script.is_some_and(|script| script < 0) {
            give_up(tell, Step::Setup);
        }
        // The one file that the program keeps.
        if far_script.is_some_and(|script| libc::dup3(script, SCRIPT, 0) < 0)
            || libc::dup3(far_tell, new_tell, libc::O_CLOEXEC) < 0
            || libc::dup3(far_door, new_door, libc::O_CLOEXEC) < 0
        {
            give_up(far_tell, Step::Setup);
        }
        // Kernels before 5.9 refuse it; there, exec closes them, because all of ours carry the flag.
        libc::syscall(libc::SYS_close_range, (new_tell + 1).cast_unsigned(), u32::MAX, 0);
        (new_door, new_tell)
    }
}

/// Umask, priority, what the OOM killer prefers, and how many files may be open.
///
/// # Safety
/// Only in a child before exec.
unsafe fn take_posture(posture: &Posture, tell: RawFd) {
    // SAFETY: plain calls that change this process only; the structure is zeroed, which is valid.
    unsafe {
        libc::umask(posture.umask);
        // What protects the agent from the OOM killer is not for what it runs.
        let scored = write_file(c"/proc/self/oom_score_adj", posture.oom_score.as_bytes());
        if !scored && posture.oom_score_wanted {
            give_up(tell, Step::OomScore);
        }
        if posture.nice != 0 {
            *libc::__errno_location() = 0;
            // -1 is an answer too.
            if libc::nice(posture.nice) == -1 && *libc::__errno_location() != 0 {
                give_up(tell, Step::Nice);
            }
        }
        let mut files: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut files) == 0 {
            files.rlim_cur = OPEN_FILES.min(files.rlim_max);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files);
        }
        if let Some(core) = posture.core {
            let mut dump: libc::rlimit = std::mem::zeroed();
            if libc::getrlimit(libc::RLIMIT_CORE, &raw mut dump) == 0 {
                dump.rlim_cur = core.min(dump.rlim_max);
                libc::setrlimit(libc::RLIMIT_CORE, &raw const dump);
            }
        }
    }
}

/// Supplementary groups, then group, then user; each failure is final.
///
/// # Safety
/// Only in a child before exec.
unsafe fn become_user(account: &Account, tell: RawFd) {
    // SAFETY: the list is valid for its length; the calls change this process only.
    let done = unsafe {
        libc::setgroups(account.groups.len(), account.groups.as_ptr()) == 0
            && libc::setresgid(account.gid, account.gid, account.gid) == 0
            && libc::setresuid(account.uid, account.uid, account.uid) == 0
            // There is a number that the calls take for "leave it as it is".
            && libc::geteuid() == account.uid
            && libc::getegid() == account.gid
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    };
    if !done {
        // SAFETY: ends this process.
        unsafe { give_up(tell, Step::User) }
    }
}

/// Tries the candidates as `execvp` does; returns with `errno` set when none could be executed.
///
/// # Safety
/// Only in a child before exec.
unsafe fn exec(words: &Words, env: &[CString]) {
    let (argv, env) = (pointers(&words.argv), pointers(env));
    let mut refused = false;
    for path in &words.candidates {
        // SAFETY: the arrays end with null and outlive the call.
        let errno = unsafe {
            libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr());
            *libc::__errno_location()
        };
        match errno {
            libc::ENOEXEC => {
                // A script without a first line that names its interpreter.
                let mut script = vec![c"/bin/sh".as_ptr(), path.as_ptr()];
                script.extend(argv.iter().skip(1));
                // SAFETY: as above; `argv` ends with null, so does what was taken from it.
                unsafe { libc::execve(c"/bin/sh".as_ptr(), script.as_ptr(), env.as_ptr()) };
                return;
            }
            libc::EACCES => refused = true,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => return,
        }
    }
    // SAFETY: the location is valid for this thread.
    unsafe { *libc::__errno_location() = if refused { libc::EACCES } else { libc::ENOENT } };
}

/// Tells whether a program that could not be found is there after all: then it is its interpreter or loader that is
/// not. Leaves `errno` as it was.
///
/// # Safety
/// Only in a child before exec, and right after it failed.
unsafe fn lacks_loader(words: &Words) -> bool {
    // SAFETY: plain calls on valid paths; the location is valid for this thread.
    unsafe {
        let failed = *libc::__errno_location();
        let found =
            failed == libc::ENOENT && words.candidates.iter().any(|path| libc::access(path.as_ptr(), libc::F_OK) == 0);
        *libc::__errno_location() = failed;
        found
    }
}

/// No handler, nothing ignored, nothing blocked: what the agent or its starter had is not for the command.
///
/// # Safety
/// Only in a child before exec.
unsafe fn reset_signals() {
    // SAFETY: zeroed structures are valid (default disposition, empty mask); failures are for KILL and STOP only.
    unsafe {
        // The kernel's own structure and call: the library's refuses the two signals that it keeps for itself, and
        // leaves them ignored where somebody ignored them.
        let default = [0_u64; 4];
        for signal in 1..=MAX_SIGNAL.cast_signed() {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), size_of::<u64>());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Files that somebody opened without close-on-exec do not reach the new program.
///
/// # Safety
/// Only in a child before exec.
unsafe fn close_others_on_exec() {
    // SAFETY: sets a flag on descriptors; kernels before 5.11 refuse it, and all of ours carry the flag already.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// # Safety
/// Only in a child before exec.
unsafe fn write_file(path: &CStr, content: &[u8]) -> bool {
    // SAFETY: plain calls on a valid path and buffer.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file < 0 {
            return false;
        }
        let wrote = libc::write(file, content.as_ptr().cast(), content.len());
        libc::close(file);
        usize::try_from(wrote) == Ok(content.len())
    }
}

/// Says where and why it ended, and ends.
///
/// # Safety
/// Only in a child.
unsafe fn give_up(tell: RawFd, step: Step) -> ! {
    // SAFETY: plain calls; `_exit` runs nothing of the parent's.
    unsafe {
        let [a, b, c, d] = (*libc::__errno_location()).to_ne_bytes();
        let message = [step as u8, a, b, c, d];
        libc::write(tell, message.as_ptr().cast(), message.len());
        libc::_exit(NEVER_RAN)
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}
