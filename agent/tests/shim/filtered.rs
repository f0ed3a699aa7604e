//! Hosts whose container engine refuses `clone3`: everything works with the call that is older.

#![expect(unsafe_code, reason = "a filter of system calls is installed by a system call")]

use std::thread;

use common::model::Outcome;

use super::kit::{House, alive, shell, wait_for};

/// Lets this thread, and whatever it starts, see `errno` when it calls `clone3`.
fn refuse_clone3(errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap();
    let mut program = [
        // The number of the call is the first field of what the filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, clone3) },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: plain calls; the program is valid for their time.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter), 0);
        assert_eq!(libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0), -1);
    }
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(errno), "the filter is not in force");
}

#[test]
fn without_clone3_commands_start_and_stop_as_ever() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        // The filter is this thread's alone.
        let filtered = thread::spawn(move || {
            let houses = House::both();
            refuse_clone3(errno);
            for house in houses {
                let end = house.shell("exit 7");
                assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(7)), "{end:?}");
                let running = house.start(shell("sleep 60 & echo $!; echo $$; wait"));
                wait_for("both numbers", || running.pids().len() == 2);
                let pids = running.pids();
                running.cancel("", Some(std::time::Duration::ZERO));
                assert_eq!(running.end().outcome, Outcome::Cancelled);
                assert!(!pids.into_iter().any(alive));
            }
        });
        filtered.join().unwrap();
    }
}
