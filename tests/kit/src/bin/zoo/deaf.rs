//! Animals that do not hear, do not wake, or do not rest.

use std::ffi::c_int;

use crate::{Call, floor};

/// Ignores everything that can be ignored, in two sessions.
pub(crate) fn deaf(call: &Call) -> ! {
    floor::ignore_all();
    floor::child(|| {
        floor::new_session();
        floor::rest();
    });
    call.stand()
}

/// Ends in good order at TERM, with the code 3.
pub(crate) fn polite(call: &Call) -> ! {
    extern "C" fn bye(_: c_int) {
        floor::end(3)
    }
    floor::at_signal(libc::SIGTERM, bye);
    call.stand()
}

/// Stops itself; its child stops again whenever it is woken, and ignores TERM.
pub(crate) fn stopped(call: &Call) -> ! {
    extern "C" fn again(_: c_int) {
        floor::raise(libc::SIGSTOP);
    }
    floor::child(|| {
        floor::ignore(libc::SIGTERM);
        floor::at_signal(libc::SIGCONT, again);
        floor::raise(libc::SIGSTOP);
        floor::rest();
    });
    while floor::wait(libc::WUNTRACED).is_some_and(|(_, stopped)| !stopped) {}
    call.ready();
    floor::raise(libc::SIGSTOP);
    floor::rest()
}

/// Works as hard as it can on one core (or as many as the argument says), deaf to TERM.
pub(crate) fn spinner(call: &Call) -> ! {
    floor::ignore(libc::SIGTERM);
    for _ in 1..call.number(1) {
        floor::child(|| spin());
    }
    call.ready();
    spin()
}

fn spin() -> ! {
    let mut number = 1_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}
