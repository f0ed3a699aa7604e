//! What the animals stand on: the calls of the kernel that no safe interface offers, each in one small function.
//!
//! The only file of the zoo with unsafe code. Processes have one thread when they fork, so that a child may do anything.

#![expect(unsafe_code, reason = "fork, signal dispositions and exec are what the animals are made of")]

use std::ffi::{CString, c_int};
use std::io;
use std::time::Duration;

/// No process of the zoo lives longer, whoever forgets it: SIGALRM ends it.
pub(crate) const LIFETIME: Duration = Duration::from_secs(300);

/// Starts the bound of this process's life. Exec keeps it, fork does not.
pub(crate) fn bound() {
    let seconds = u32::try_from(LIFETIME.as_secs()).unwrap_or(300);
    // SAFETY: takes a number and touches no memory.
    unsafe { libc::alarm(seconds) };
}

/// Makes a child that runs `life` and then ends; answers its id, or nothing when the system makes no more.
pub(crate) fn child(life: impl FnOnce()) -> Option<i32> {
    // SAFETY: this process has one thread (the spinner's and the threaded ones are made after all forks).
    match unsafe { libc::fork() } {
        -1 => None,
        0 => {
            bound();
            life();
            end(0)
        }
        pid => Some(pid),
    }
}

/// Ends this process without any clearing up, which belongs to the parent.
pub(crate) fn end(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Waits for the end, whatever signals come.
pub(crate) fn rest() -> ! {
    loop {
        // SAFETY: touches no memory.
        unsafe { libc::pause() };
    }
}

/// Waits a moment: animals have a rhythm, nobody waits for them by it.
pub(crate) fn moment(length: Duration) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: length.subsec_nanos().into() };
    // SAFETY: reads one structure of ours.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

/// Ignores every signal that can be ignored, but for the one that bounds its life.
pub(crate) fn ignore_all() {
    for number in 1..=libc::SIGRTMAX() {
        if number != libc::SIGALRM {
            // SAFETY: a plain disposition; refused for those that cannot be ignored.
            unsafe { libc::signal(number, libc::SIG_IGN) };
        }
    }
}

/// Ignores one signal.
pub(crate) fn ignore(number: c_int) {
    // SAFETY: as above.
    unsafe { libc::signal(number, libc::SIG_IGN) };
}

/// Calls `what` at a signal; it must do nothing but what is allowed there.
pub(crate) fn at_signal(number: c_int, what: extern "C" fn(c_int)) {
    // SAFETY: the callers' functions call only `_exit` and `raise`.
    unsafe { libc::signal(number, what as *const () as libc::sighandler_t) };
}

/// Sends a signal to this process.
pub(crate) fn raise(number: c_int) {
    // SAFETY: touches no memory.
    unsafe { libc::kill(libc::getpid(), number) };
}

/// Ends by a signal; what the signal does not end ends with code 0.
pub(crate) fn die(number: c_int) -> ! {
    // SAFETY: a plain disposition and an empty set in memory of ours.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    raise(number);
    end(0)
}

/// Leaves the session, the group and the terminal.
pub(crate) fn new_session() {
    // SAFETY: touches no memory.
    unsafe { libc::setsid() };
}

/// The session of this process.
pub(crate) fn session() -> i32 {
    // SAFETY: touches no memory.
    unsafe { libc::getsid(0) }
}

/// The process group of this process.
pub(crate) fn group() -> i32 {
    // SAFETY: touches no memory.
    unsafe { libc::getpgrp() }
}

/// The id of this thread.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: touches no memory.
    unsafe { libc::gettid() }
}

/// Waits for a child; answers whether there was one, and whether it has stopped rather than ended.
pub(crate) fn wait(options: c_int) -> Option<(i32, bool)> {
    let mut status = 0;
    // SAFETY: writes one number of ours.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, options) };
    (pid > 0).then_some((pid, libc::WIFSTOPPED(status)))
}

/// A pipe whose ends live through exec.
pub(crate) fn pipe() -> Option<(c_int, c_int)> {
    let mut ends = [0; 2];
    // SAFETY: writes two numbers of ours.
    (unsafe { libc::pipe(ends.as_mut_ptr()) } == 0).then_some((ends[0], ends[1]))
}

/// Reads one byte; `false` at the end.
pub(crate) fn take(from: c_int) -> bool {
    let mut byte = 0_u8;
    loop {
        // SAFETY: writes one byte of ours.
        match unsafe { libc::read(from, (&raw mut byte).cast(), 1) } {
            1 => return true,
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return false,
        }
    }
}

/// From now on [`take`] does not wait: an empty pipe is like one that has ended.
pub(crate) fn never_wait(from: c_int) {
    // SAFETY: touches no memory.
    unsafe { libc::fcntl(from, libc::F_SETFL, libc::O_NONBLOCK) };
}

/// Writes bytes as they are; answers how many went, or nothing when nobody reads.
pub(crate) fn write(to: c_int, bytes: &[u8]) -> Option<usize> {
    // SAFETY: reads as many bytes as there are.
    let written = unsafe { libc::write(to, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(written).ok()
}

/// Closes a descriptor.
pub(crate) fn close(number: c_int) {
    // SAFETY: nothing in this program owns descriptors.
    unsafe { libc::close(number) };
}

/// Becomes another animal, with an empty environment.
pub(crate) fn become_bare(words: &[&str]) -> ! {
    let words: Vec<CString> = words.iter().filter_map(|word| CString::new(*word).ok()).collect();
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(std::ptr::null());
    let env = [std::ptr::null()];
    // SAFETY: both lists end with a null pointer, and their strings live until the call.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), argv.as_ptr(), env.as_ptr()) };
    end(127)
}
