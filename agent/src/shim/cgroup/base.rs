//! Where the cgroups of all commands of this agent are made, by what the host offers and the operator chose.
//!
//! ```text
//! auto: delegated unit in version 2 ─► plain subtree in version 2 ─► freezer of version 1 ─► best effort
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use common::id::Uid;
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::mounts::Mounts;
use super::pen::Pen;
use super::tree::{make, populated, remove_tree};

/// The delegated tree under systemd, kept open by `paprika-agent hold`.
const UNIT: &str = "system.slice/paprika-commands.service";
/// The tree elsewhere.
const PLAIN: &str = "paprika-commands";
/// Letters of the journal's id that name an agent's own place: enough to tell agents of one host from each other.
const OWN_LETTERS: usize = 8;
/// What we make below the cgroup of a command.
const LEAVES: [&str; 2] = ["shim", "work"];
/// Controllers of version 1 that set limits.
const LIMITING: [&str; 3] = ["memory", "cpu", "pids"];

/// What holds the processes of a command together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// A tree of version 2 with `cgroup.kill`.
    V2,
    /// A tree of version 2 where processes are frozen and killed one by one.
    V2Freezer,
    /// The freezer controller of version 1.
    V1,
}

impl Rung {
    /// The word in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Freezer => "v2-freezer",
            Self::V1 => "v1",
        }
    }
}

/// A controller of version 1 and the folder in its tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Its name.
    pub name: String,
    /// The folder; may share one with another controller, may not exist yet.
    pub folder: PathBuf,
}

/// Where this agent makes cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The folder of all its commands.
    pub path: PathBuf,
    /// What holds processes there.
    pub rung: Rung,
    /// Controllers of version 1 for limits that the tree at `path` cannot set.
    pub controllers: Vec<Controller>,
}

/// The same for one command: what a shim is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The command's folder, with the leaf `work` and in version 2 the leaf `shim`.
    pub group: PathBuf,
    /// What holds processes there.
    pub rung: Rung,
    /// Folders of this command in trees of version 1; made when a limit asks for one.
    #[serde(default)]
    pub controllers: Vec<Controller>,
}

/// Where the cgroups of commands are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// In this tree.
    Cgroup(Tree),
    /// Nowhere: processes are found by group, session and parentage.
    BestEffort,
}

impl Base {
    /// Tells whether a word or path can stand for a place: what the configuration checks.
    #[must_use]
    pub fn is_choice(choice: &str) -> bool {
        matches!(choice, "auto" | "v2" | "v2-freezer" | "v1" | "none") || choice.starts_with('/')
    }

    /// Finds the place: `auto`, `v2`, `v2-freezer`, `v1`, `none` or the absolute path of a cgroup of version 2.
    ///
    /// # Errors
    /// When one was demanded and cannot be used; `auto` falls back to [`Base::BestEffort`].
    pub fn discover(choice: &str, journal: Uid) -> io::Result<Self> {
        if choice == "none" {
            return Ok(Self::BestEffort);
        }
        let mounts = Mounts::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        Self::choose(choice, &mounts, journal)
    }

    pub(super) fn choose(choice: &str, mounts: &Mounts, journal: Uid) -> io::Result<Self> {
        let own = own(journal);
        let controllers = || controllers(mounts, &own);
        let missing = |text: String| io::Error::new(io::ErrorKind::Unsupported, text);
        let tree = match choice {
            "none" => return Ok(Self::BestEffort),
            "auto" => {
                let found = version2(mounts, &own).or_else(|v2| version1(mounts, &own).map_err(|v1| (v2, v1)));
                match found {
                    Ok((path, rung)) => Tree { path, rung, controllers: controllers() },
                    Err((v2, v1)) => {
                        warn!(cgroup.v2 = %v2, cgroup.v1 = %v1, "No cgroups can be made: commands run in best effort");
                        return Ok(Self::BestEffort);
                    }
                }
            }
            "v2" => match version2(mounts, &own)? {
                (path, Rung::V2) => Tree { path, rung: Rung::V2, controllers: controllers() },
                (path, _) => {
                    let text = format!("`{}` has no cgroup.kill (Linux 5.14); choose `v2-freezer`", path.display());
                    return Err(missing(text));
                }
            },
            "v2-freezer" => Tree { path: version2(mounts, &own)?.0, rung: Rung::V2Freezer, controllers: controllers() },
            "v1" => {
                let (path, rung) = version1(mounts, &own)?;
                Tree { path, rung, controllers: controllers() }
            }
            path => {
                let path = PathBuf::from(path);
                let rung = probe(&path)?;
                Tree { path, rung, controllers: controllers() }
            }
        };
        Ok(Self::Cgroup(tree))
    }

    /// The word for people and for the manager.
    #[must_use]
    pub fn isolation(&self) -> &'static str {
        match self {
            Self::Cgroup(_) => "cgroup",
            Self::BestEffort => "best_effort",
        }
    }

    /// The word in the configuration that would demand what was found.
    #[must_use]
    pub fn rung(&self) -> &'static str {
        self.tree().map_or("none", |tree| tree.rung.word())
    }

    /// The tree; none: best effort.
    #[must_use]
    pub fn tree(&self) -> Option<&Tree> {
        match self {
            Self::Cgroup(tree) => Some(tree),
            Self::BestEffort => None,
        }
    }

    /// The cgroup of one command.
    #[must_use]
    pub fn of(&self, uid: Uid) -> Option<PathBuf> {
        self.tree().map(|tree| tree.path.join(uid.to_string()))
    }

    /// All that the shim of one command has to know.
    #[must_use]
    pub fn place(&self, uid: Uid) -> Option<Place> {
        let tree = self.tree()?;
        let folder = |controller: &Controller| Controller {
            name: controller.name.clone(),
            folder: controller.folder.join(uid.to_string()),
        };
        Some(Place {
            group: tree.path.join(uid.to_string()),
            rung: tree.rung,
            controllers: tree.controllers.iter().map(folder).collect(),
        })
    }

    /// A cgroup that a command left, to be killed by the means that were chosen here.
    #[must_use]
    pub fn pen(&self, path: PathBuf) -> Pen {
        let found = Pen::found(path);
        match self.tree().map(|tree| tree.rung) {
            Some(Rung::V2Freezer) if found.rung() == Rung::V2 => Pen::new(found.path().to_owned(), Rung::V2Freezer),
            _ => found,
        }
    }

    /// Removes the places that were made for this agent alone and in which nothing lives: the next start makes them
    /// again. One that was given, or that systemd keeps, stays.
    pub fn leave(&self, journal: Uid) {
        let own = own(journal);
        for place in self.places().filter(|place| place.ends_with(&own)) {
            // Refused by the kernel while there is a cgroup of a command in it.
            drop(fs::remove_dir(place));
        }
    }

    /// Every folder in which cgroups of commands may stand.
    fn places(&self) -> impl Iterator<Item = &Path> {
        let mut found: Vec<&Path> = Vec::new();
        if let Some(tree) = self.tree() {
            found.push(&tree.path);
            for controller in &tree.controllers {
                if !found.contains(&controller.folder.as_path()) {
                    found.push(&controller.folder);
                }
            }
        }
        found.into_iter()
    }
}

/// Removes the cgroups of a command that has ended, with what the command made below them. What is not there is fine,
/// and one that is still in use stays for the next time.
pub fn remove(base: &Base, uid: Uid) {
    let name = uid.to_string();
    for (number, place) in base.places().enumerate() {
        let path = place.join(&name);
        // Nearly always there is nothing but our own leaves: three calls, and no listing under the lock of the tree.
        if number == 0 {
            for leaf in LEAVES {
                drop(fs::remove_dir(path.join(leaf)));
            }
        }
        match fs::remove_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => drop(remove_tree(&path)),
            _ => {}
        }
    }
}

/// Removes the cgroups of commands that nobody knows any more, and empty places of agents that are no more. What lives
/// is left alone: processes that were to be kept are found empty another time.
pub fn sweep(base: &Base, is_known: impl Fn(Uid) -> bool) {
    for place in base.places() {
        for path in folders(place) {
            let uid = path.file_name().and_then(|name| name.to_str()?.parse::<Uid>().ok());
            if uid.is_some_and(|uid| !is_known(uid)) && !populated(&path) {
                remove_tree(&path);
            }
        }
        let Some(parent) = place.parent().filter(|parent| parent.ends_with(PLAIN)) else { continue };
        for other in folders(parent).filter(|other| other != place && is_own(other)) {
            // Only when nothing is in it. A living agent makes its place again when it needs it.
            drop(fs::remove_dir(other));
        }
    }
}

fn folders(place: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Tells whether a folder is named like the place of an agent.
fn is_own(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == OWN_LETTERS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The place of one agent below a mount.
pub(super) fn own(journal: Uid) -> PathBuf {
    Path::new(PLAIN).join(journal.to_string().chars().take(OWN_LETTERS).collect::<String>())
}

fn version2(mounts: &Mounts, own: &Path) -> io::Result<(PathBuf, Rung)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no cgroup2 file system is mounted; choose `v1` or `none`");
    for mount in &mounts.v2 {
        let unit = mount.join(UNIT);
        for place in [unit.is_dir().then_some(unit), Some(mount.join(own))].into_iter().flatten() {
            match probe(&place) {
                Ok(rung) => return Ok((place, rung)),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

fn version1(mounts: &Mounts, own: &Path) -> io::Result<(PathBuf, Rung)> {
    let text = "the freezer controller of cgroup version 1 is not mounted; choose `v2` or `none`";
    let mount = mounts.v1("freezer").ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, text))?;
    let place = mount.join(own);
    let probe = place.join(format!("probe-{}", std::process::id()));
    make(&probe).map_err(|error| at(&probe, &error))?;
    let usable = probe.join("freezer.state").exists();
    fs::remove_dir(&probe).map_err(|error| at(&probe, &error))?;
    if usable { Ok((place, Rung::V1)) } else { Err(io::Error::other(format!("`{}` has no freezer", place.display()))) }
}

/// Where limits can be set by version 1. Nothing is made before somebody asks for a limit.
fn controllers(mounts: &Mounts, own: &Path) -> Vec<Controller> {
    let with_folder = |name: &&str| {
        let mount = mounts.v1(name)?;
        access(mount.as_path(), Access::WRITE_OK).ok()?;
        Some(Controller { name: (*name).to_owned(), folder: mount.join(own) })
    };
    LIMITING.iter().filter_map(with_folder).collect()
}

/// Checks that commands can get their cgroups there; answers what holds processes there.
fn probe(base: &Path) -> io::Result<Rung> {
    fs::create_dir_all(base).map_err(|error| at(base, &error))?;
    let probe = base.join(format!("probe-{}", std::process::id()));
    make(&probe).map_err(|error| at(&probe, &error))?;
    let usable = fs::read_to_string(probe.join("cgroup.type"));
    let rung = if probe.join("cgroup.kill").exists() { Rung::V2 } else { Rung::V2Freezer };
    fs::remove_dir(&probe).map_err(|error| at(&probe, &error))?;
    match usable.as_deref().map(str::trim) {
        Ok("domain") => Ok(rung),
        Ok(other) => Err(io::Error::other(format!(
            "a cgroup made in `{}` is of type {other:?}, not a domain: its parent must hold no threaded cgroups",
            base.display()
        ))),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("`{}` is not in a cgroup2 tree: what is made there has no cgroup.type", base.display()),
        )),
    }
}

/// An error of the file system that says where.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot make cgroups at `{}`: {error}", path.display()))
}
