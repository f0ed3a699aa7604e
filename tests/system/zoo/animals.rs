//! Who is let out of the zoo (`tests/kit/src/bin/zoo`), and how its main process has to end.

/// What becomes of the main process when it is asked to end and killed after the grace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// It hears TERM and ends by it.
    Asked,
    /// It hears TERM and exits with this code.
    Exits(i32),
    /// It ignores TERM.
    Killed,
    /// It may be where TERM does not reach it.
    Either,
}

/// One animal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Animal {
    pub(super) name: &'static str,
    /// How many processes it has at least when it stands: what the search for survivors has to see then.
    pub(super) processes: usize,
    pub(super) last: Last,
}

const fn animal(name: &'static str, processes: usize, last: Last) -> Animal {
    Animal { name, processes, last }
}

/// Those that have to be ended.
pub(super) const STAYING: [Animal; 17] = [
    animal("deaf", 2, Last::Killed),
    animal("polite", 1, Last::Exits(3)),
    animal("stopped", 2, Last::Asked),
    animal("spinner", 1, Last::Killed),
    animal("double-fork", 2, Last::Asked),
    animal("pipe-holder", 2, Last::Asked),
    animal("late-writer", 2, Last::Asked),
    animal("bomb", 100, Last::Killed),
    animal("zombies", 1, Last::Asked),
    animal("mourner", 1, Last::Asked),
    animal("garbage", 1, Last::Killed),
    animal("mute", 1, Last::Killed),
    animal("truncater", 1, Last::Killed),
    animal("hog", 1, Last::Asked),
    animal("nested", 1, Last::Asked),
    animal("threads", 1, Last::Killed),
    animal("escape", 2, Last::Either),
];

/// Those among them that are also paused, and asked as guards.
pub(super) const TRICKY: [&str; 5] = ["deaf", "polite", "stopped", "double-fork", "bomb"];

/// One that ends by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaver {
    pub(super) name: &'static str,
    pub(super) argument: &'static str,
    pub(super) code: i32,
    /// Whether living processes stay behind, which have to be killed; [`None`] where that depends on the rung.
    pub(super) strays: Option<bool>,
}

const fn leaver(name: &'static str, strays: Option<bool>) -> Leaver {
    Leaver { name, argument: "leave", code: 0, strays }
}

/// Those that end by themselves, most of them leaving somebody behind.
pub(super) const LEAVING: [Leaver; 10] = [
    leaver("double-fork", Some(true)),
    leaver("pipe-holder", Some(true)),
    leaver("late-writer", Some(true)),
    leaver("bomb", Some(true)),
    leaver("mourner", Some(true)),
    leaver("zombies", Some(false)),
    // Without a cgroup of its own it makes none and has no children.
    leaver("nested", None),
    leaver("threads", None),
    Leaver { name: "exit", argument: "137", code: 137, strays: Some(false) },
    Leaver { name: "long-line", argument: "1000000", code: 0, strays: Some(false) },
];
