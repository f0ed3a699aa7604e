//! The zoo: badly behaved programs, one for each way in which a command can try to outlive its end.
//!
//! `zoo ANIMAL TAG READY [ARGUMENT]`. TAG stands in the arguments of every process of the animal, whatever it does to its
//! environment: by it the keeper finds what is left. READY names a file that is made when the animal stands complete, or
//! is `-`. Every animal has a bound on what it takes, and every process of it ends by itself after [`floor::LIFETIME`].
//!
//! There is no `main` of the standard library: that would ignore SIGPIPE before an animal could look at what it was
//! given (`posture`), and pass this on to all its children.

#![no_main]

mod floor;

mod appetite;
mod deaf;
mod families;
mod noise;
mod places;
mod posture;

use std::ffi::c_int;
use std::fs;
use std::io::Write as _;

/// What an animal is told.
struct Call {
    /// Stands in the arguments of all its processes.
    tag: String,
    /// The file to make.
    ready: String,
    /// What else it needs: a size, a number, `leave`.
    argument: String,
}

impl Call {
    /// Tells the keeper that everything stands.
    fn ready(&self) {
        if self.ready != "-" {
            // Who waits for it sees that it is not there.
            let _ = fs::write(&self.ready, "");
        }
    }

    /// The argument as a number.
    fn number(&self, otherwise: u64) -> u64 {
        self.argument.parse().unwrap_or(otherwise)
    }

    /// Ready; then the main process ends at once when it was told to `leave`, else it waits for its end.
    fn stand(&self) -> ! {
        self.ready();
        if self.argument == "leave" { floor::end(0) } else { floor::rest() }
    }
}

/// What an animal does until its end.
type Animal = fn(&Call) -> !;

const ANIMALS: &[(&str, Animal)] = &[
    // Deaf or asleep.
    ("deaf", deaf::deaf),
    ("polite", deaf::polite),
    ("stopped", deaf::stopped),
    ("spinner", deaf::spinner),
    // Families.
    ("double-fork", families::double_fork),
    ("pipe-holder", families::pipe_holder),
    ("late-writer", families::late_writer),
    ("bomb", families::bomb),
    ("zombies", families::zombies),
    ("mourner", families::mourner),
    // Output.
    ("long-line", noise::long_line),
    ("garbage", noise::garbage),
    ("mute", noise::mute),
    ("truncater", noise::truncater),
    // Memory.
    ("hog", appetite::hog),
    ("hog-child", appetite::hog_child),
    // Places.
    ("nested", places::nested),
    ("threads", places::threads),
    ("escape", places::escape),
    // Ends and what was given.
    ("exit", |call| floor::end(i32::try_from(call.number(0)).unwrap_or(1))),
    ("die", |call| floor::die(c_int::try_from(call.number(15)).unwrap_or(15))),
    ("rest", |call| call.stand()),
    ("posture", posture::posture),
];

#[expect(unsafe_code, reason = "the C library calls it by its name")]
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const std::ffi::c_char) -> c_int {
    floor::bound();
    let mut words = std::env::args().skip(1);
    let (name, tag, ready) = (words.next(), words.next(), words.next());
    let call = Call {
        tag: tag.unwrap_or_default(),
        ready: ready.unwrap_or_else(|| "-".to_owned()),
        argument: words.next().unwrap_or_default(),
    };
    if let Some((_, animal)) = ANIMALS.iter().find(|(known, _)| Some(*known) == name.as_deref()) {
        animal(&call);
    }
    let names: Vec<_> = ANIMALS.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(std::io::stderr(), "zoo ANIMAL TAG READY [ARGUMENT]; animals: {}", names.join(" "));
    2
}
