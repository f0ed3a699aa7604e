//! Animals that do things to cgroups: make their own, go somewhere else.
//!
//! All of them look up where they are and do nothing of the kind outside of what was made for their command.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Call, floor};

/// A deaf child on each of three levels below its own cgroups.
pub(crate) fn nested(call: &Call) -> ! {
    let Some((stands, done)) = floor::pipe() else { floor::end(1) };
    let mut children = 0;
    for own in own_groups() {
        let mut place = own;
        for level in 1..=3 {
            place = place.join(format!("level-{level}"));
            if fs::create_dir(&place).is_ok() {
                children += u32::from(settle(&place, done).is_some());
            }
        }
    }
    for _ in 0..children {
        floor::take(stands);
    }
    call.stand()
}

fn settle(place: &Path, done: i32) -> Option<i32> {
    floor::child(|| {
        floor::ignore_all();
        floor::new_session();
        join(place);
        floor::write(done, b"+");
        floor::rest();
    })
}

/// A threaded cgroup below its own, with a whole process and one thread of another in it.
pub(crate) fn threads(call: &Call) -> ! {
    floor::ignore(libc::SIGTERM);
    let Some((stands, done)) = floor::pipe() else { floor::end(1) };
    let threaded = own_groups().into_iter().filter(|own| own.join("cgroup.type").exists()).find_map(|own| {
        let place = own.join("threaded");
        fs::create_dir(&place).ok()?;
        fs::write(place.join("cgroup.type"), "threaded").ok()?;
        Some(place)
    });
    if let Some(place) = threaded {
        if settle(&place, done).is_some() {
            floor::take(stands);
        }
        std::thread::spawn(move || {
            // Refused where the kernel does not see it that way: then it is one more thread.
            let _ = fs::write(place.join("cgroup.threads"), floor::thread_id().to_string());
            floor::write(done, b"+");
            floor::rest();
        });
        floor::take(stands);
    }
    call.stand()
}

/// Moves itself, and a grandchild, into cgroups beside everybody else's: those that the argument names, one a line.
pub(crate) fn escape(call: &Call) -> ! {
    let places: Vec<PathBuf> = call.argument.split(':').filter(|place| !place.is_empty()).map(PathBuf::from).collect();
    let Some((stands, done)) = floor::pipe() else { floor::end(1) };
    floor::child(|| {
        floor::new_session();
        floor::child(|| {
            floor::ignore_all();
            places.iter().for_each(|place| join(place));
            floor::write(done, b"+");
            floor::rest();
        });
    });
    floor::wait(0);
    floor::take(stands);
    places.iter().for_each(|place| join(place));
    call.stand()
}

fn join(place: &Path) {
    // Where it may not go it stays.
    let _ = fs::write(place.join("cgroup.procs"), "0");
}

/// The cgroups that were made for this command, in every hierarchy: its uid is in their names.
fn own_groups() -> Vec<PathBuf> {
    let Ok(uid) = std::env::var("PAPRIKA_COMMAND_UID") else { return Vec::new() };
    let ours = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    ours.lines()
        .filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let inside = path.strip_prefix('/').filter(|inside| inside.contains(&uid))?;
            let first = controllers.split(',').next().unwrap_or_default();
            let fits = |kind: &str| match first {
                "" => kind.starts_with("cgroup2 "),
                name => kind.starts_with("cgroup ") && kind.split([' ', ',']).any(|option| option == name),
            };
            let mount = mounts.lines().find_map(|mount| {
                let (place, kind) = mount.split_once(" - ")?;
                fits(kind).then(|| place.split(' ').nth(4)).flatten()
            })?;
            Some(Path::new(mount).join(inside))
        })
        .collect()
}
