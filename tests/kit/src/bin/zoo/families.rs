//! Animals whose children are the trouble: those that leave, stay behind, multiply or die unmourned.

use std::time::Duration;

use crate::{Call, floor};

/// Most processes of a bomb that live at once, itself counted: the machine is not ours.
const BOMB: usize = 200;
/// Children that each process of a bomb keeps alive.
const WIDTH: usize = 5;
/// Generations of a bomb.
const DEPTH: u32 = 3;
/// All of them together, without the first process: 1 + 5 + 25 + 125.
const FAMILY: usize = 156;
/// Between two lines of who writes for ever.
const RHYTHM: Duration = Duration::from_millis(20);

/// A grandchild in a session of its own, its parent gone, its environment empty, deaf to TERM.
pub(crate) fn double_fork(call: &Call) -> ! {
    let Some((stands, done)) = floor::pipe() else { floor::end(1) };
    floor::child(|| {
        floor::new_session();
        floor::child(|| {
            floor::ignore(libc::SIGTERM);
            floor::close(stands);
            floor::write(done, b"+");
            floor::become_bare(&["zoo", "rest", &call.tag, "-"]);
        });
    });
    floor::wait(0);
    floor::take(stands);
    call.stand()
}

/// A child in a session of its own that keeps the output open, deaf to TERM and HUP.
pub(crate) fn pipe_holder(call: &Call) -> ! {
    let Some((stands, done)) = floor::pipe() else { floor::end(1) };
    floor::child(|| {
        floor::new_session();
        floor::ignore(libc::SIGTERM);
        floor::ignore(libc::SIGHUP);
        floor::write(done, b"+");
        floor::rest();
    });
    floor::take(stands);
    call.stand()
}

/// A grandchild that goes on writing to both streams, also when nobody reads.
pub(crate) fn late_writer(call: &Call) -> ! {
    let Some((stands, done)) = floor::pipe() else { floor::end(1) };
    floor::child(|| {
        floor::new_session();
        floor::child(|| {
            floor::ignore_all();
            floor::write(done, b"+");
            loop {
                floor::write(1, b"still here\n");
                floor::write(2, b"still here too\n");
                floor::moment(RHYTHM);
            }
        });
    });
    floor::wait(0);
    floor::take(stands);
    call.stand()
}

/// Makes children that make children, each replaced as soon as it dies, all deaf to TERM.
///
/// Under a limit of tasks (argument `limited`) it takes what it gets. Else the bound is a pipe with one byte for each life:
/// who makes a child takes one, and has it back when it collects the child. Bytes of those who die first are lost, so
/// that there are never more than [`BOMB`].
pub(crate) fn bomb(call: &Call) -> ! {
    floor::ignore(libc::SIGTERM);
    if call.argument == "limited" {
        call.ready();
        loop {
            if floor::child(|| while floor::child(|| floor::rest()).is_some() {}).is_none() {
                // As many as may be: collect, and try again.
                while floor::wait(libc::WNOHANG).is_some() {}
                floor::moment(Duration::from_millis(1));
            }
        }
    }
    let Some((lives, refill)) = floor::pipe() else { floor::end(1) };
    floor::never_wait(lives);
    floor::write(refill, &[b'+'; BOMB - 1]);
    let Some((stands, done)) = floor::pipe() else { floor::end(1) };
    floor::child(|| breed(lives, done, DEPTH));
    for _ in 0..FAMILY {
        floor::take(stands);
    }
    if call.argument == "leave" {
        call.stand();
    }
    call.ready();
    loop {
        floor::wait(0);
        floor::child(|| breed(lives, done, DEPTH));
    }
}

/// Says that it lives, and keeps `WIDTH` children alive as long as there are lives.
fn breed(lives: i32, done: i32, depth: u32) {
    floor::write(done, b"+");
    let mut alive = 0;
    let mut returned = false;
    loop {
        while depth > 0 && alive < WIDTH && (std::mem::take(&mut returned) || floor::take(lives)) {
            if floor::child(|| breed(lives, done, depth - 1)).is_some() {
                alive += 1;
            }
        }
        if alive == 0 {
            floor::rest();
        }
        if floor::wait(0).is_some() {
            alive -= 1;
            // The life of who was collected is used again at once.
            returned = true;
        }
    }
}

/// A thousand children (or as many as the argument says) that end and are never collected.
pub(crate) fn zombies(call: &Call) -> ! {
    let Some((all_ended, held)) = floor::pipe() else { floor::end(1) };
    for _ in 0..call.number(1000) {
        if floor::child(|| {}).is_none() {
            break;
        }
    }
    floor::close(held);
    // The last of them lets go of the pipe when it ends.
    floor::take(all_ended);
    call.stand()
}

/// Children that die of every signal there is, some of which only stop them; none is collected.
pub(crate) fn mourner(call: &Call) -> ! {
    let Some((all_died, held)) = floor::pipe() else { floor::end(1) };
    for number in 1..=libc::SIGRTMAX() {
        // What stops is left for last: it never lets go of the pipe.
        if number != libc::SIGSTOP {
            floor::child(|| floor::die(number));
        }
    }
    floor::close(held);
    floor::take(all_died);
    floor::child(|| floor::die(libc::SIGSTOP));
    floor::wait(libc::WUNTRACED | libc::WNOHANG);
    call.stand()
}
