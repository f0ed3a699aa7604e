//! Reads a folder into a tree. The only file of this crate that touches the disk.
//!
//! Links are not followed and nothing but files and folders is read: what a site serves is what lies in it. Every folder is
//! opened from the handle of its parent, so that a link that is swapped in while it is read leads nowhere.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, statat};

use crate::limits::{MAX_FILE, MAX_FOLDER_DEPTH};
use crate::problem::{Problem, Problems};
use crate::tree::{SitePath, Tree};

/// Reads everything below a folder. Hidden names are left out in silence; links and devices are mistakes.
///
/// # Errors
/// Everything that could not be read or may not be part of a site.
pub fn read(folder: &Path) -> Result<Tree, Problems> {
    let mut problems = Problems::default();
    let mut tree = Tree::default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open(folder, flags, Mode::empty()) {
        Ok(handle) => walk(handle, "", 0, &mut tree, &mut problems),
        Err(error) => problems.push(Problem::of_file("unreadable", &folder.display().to_string(), sentence(error))),
    }
    problems.unless(tree)
}

fn walk(handle: OwnedFd, prefix: &str, depth: usize, tree: &mut Tree, problems: &mut Problems) {
    if depth > MAX_FOLDER_DEPTH {
        let what = format!("folders are nested more than {MAX_FOLDER_DEPTH} levels deep");
        problems.push(Problem::of_file("too_deep", prefix, what));
        return;
    }
    let listed = Dir::read_from(&handle).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut entries = match listed {
        Ok(entries) => entries,
        Err(error) => return problems.push(Problem::of_file("unreadable", prefix, sentence(error))),
    };
    entries.sort_by(|one, other| one.file_name().cmp(other.file_name()));
    for entry in entries {
        let name = entry.file_name();
        if name.to_bytes().starts_with(b".") {
            continue;
        }
        let shown = common::escape::text(name.to_bytes());
        let path = if prefix.is_empty() { shown.clone() } else { format!("{prefix}/{shown}") };
        let kind = match statat(&handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => FileType::from_raw_mode(found.st_mode),
            // Removed since it was listed: it is no part of the site any more.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => {
                problems.push(Problem::of_file("unreadable", &path, sentence(error)));
                continue;
            }
        };
        let Ok(plain) = name.to_str() else {
            problems.push(Problem::of_file("invalid", &path, "the name is not UTF-8"));
            continue;
        };
        let below = if prefix.is_empty() { plain.to_owned() } else { format!("{prefix}/{plain}") };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match kind {
            FileType::Directory => match openat(&handle, name, flags | OFlags::DIRECTORY, Mode::empty()) {
                Ok(inner) => walk(inner, &below, depth + 1, tree, problems),
                Err(error) => problems.push(Problem::of_file("unreadable", &path, sentence(error))),
            },
            FileType::RegularFile => match openat(&handle, name, flags, Mode::empty()) {
                Ok(file) => take(file.into(), &below, tree, problems),
                Err(error) => problems.push(Problem::of_file("unreadable", &path, sentence(error))),
            },
            FileType::Symlink => {
                let problem =
                    Problem::of_file("link", &path, "links are no part of a site").hint("put the file itself there");
                problems.push(problem);
            }
            _ => problems.push(Problem::of_file("no_file", &path, "this is neither a file nor a folder")),
        }
    }
}

fn take(mut file: File, path: &str, tree: &mut Tree, problems: &mut Problems) {
    let mut content = Vec::new();
    // One more than allowed: whoever grows while it is read is refused, not cut.
    let limit = MAX_FILE as u64 + 1;
    let read = match file.metadata() {
        Ok(found) if found.is_file() => file.by_ref().take(limit).read_to_end(&mut content),
        Ok(_) => return problems.push(Problem::of_file("no_file", path, "this is neither a file nor a folder")),
        Err(error) => Err(error),
    };
    if let Err(error) = read {
        return problems.push(Problem::of_file("unreadable", path, format!("it cannot be read: {error}")));
    }
    let placed = SitePath::parse(path).and_then(|path| tree.insert(path, content));
    if let Err(error) = placed {
        problems.push(Problem::of_file("invalid", path, error.to_string()));
    }
}

fn sentence(error: rustix::io::Errno) -> String {
    format!("it cannot be read: {}", std::io::Error::from(error))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_read_hidden_ones_left_out_and_links_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("data/deep")).unwrap();
        fs::create_dir(at(".git")).unwrap();
        fs::write(at(".git/config"), "x").unwrap();
        fs::write(at("groups.yml"), "web1: [web]\n").unwrap();
        fs::write(at("data/deep/web.yml"), "a: 1\n").unwrap();
        let tree = read(folder.path()).unwrap();
        let paths: Vec<_> = tree.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths, ["data/deep/web.yml", "groups.yml"]);

        symlink("/etc/passwd", at("data/passwd")).unwrap();
        symlink("/etc", at("etc")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let problems = read(folder.path()).unwrap_err().to_string();
        insta::assert_snapshot!(problems, @r"
        data/passwd:1:1: links are no part of a site; put the file itself there
        etc:1:1: links are no part of a site; put the file itself there
        fifo:1:1: this is neither a file nor a folder
        ");
        assert!(read(&at("nothing")).is_err());
    }
}
