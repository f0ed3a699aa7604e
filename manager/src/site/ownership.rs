//! Who can write to a folder: the folder itself, everything in it, and every folder on the way to it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use site::limits::MAX_FOLDER_DEPTH;

/// Write bits of the group and of all others.
const OTHERS_WRITE: u32 = 0o022;
/// In such a folder nobody moves or removes what is not theirs.
const STICKY: u32 = 0o1000;
/// The owner of a host.
const ROOT: u32 = 0;

/// Tells whether nobody but root and the user `us` can change what is read from a folder. What cannot be looked at is not ours.
///
/// Where a link is on the way, both ways count: whoever can exchange the link chooses what is read.
pub(super) fn is_ours(folder: &Path, us: u32) -> bool {
    let Ok(real) = folder.canonicalize() else { return false };
    let mut way =
        folder.ancestors().skip(1).chain(real.ancestors().skip(1)).filter(|above| !above.as_os_str().is_empty());
    let nobody_else = |above: &Path| {
        fs::metadata(above)
            .is_ok_and(|found| owned(&found, us) && (found.mode() & OTHERS_WRITE == 0 || found.mode() & STICKY != 0))
    };
    way.all(nobody_else) && below(&real, us, 0).unwrap_or(false)
}

fn below(path: &Path, us: u32, depth: usize) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if depth > MAX_FOLDER_DEPTH || !owned(&found, us) {
        return Ok(false);
    }
    // The mode of a link means nothing, and the site refuses links.
    if !found.is_symlink() && found.mode() & OTHERS_WRITE != 0 {
        return Ok(false);
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // Hidden ones are no part of a site.
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !is_hidden && !below(&entry.path(), us, depth + 1)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn owned(found: &Metadata, us: u32) -> bool {
    found.uid() == ROOT || found.uid() == us
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

    use rustix::process::geteuid;

    use super::*;

    #[test]
    fn a_folder_is_ours_while_nobody_else_can_write_anywhere_in_it() {
        let us = geteuid().as_raw();
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("site");
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(folder.join("data/web.yml"), "a: 1\n").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for path in [outer.path().to_owned(), folder.clone(), folder.join("data")] {
            set(&path, 0o755);
        }
        set(&folder.join("data/web.yml"), 0o644);
        assert!(is_ours(&folder, us));
        for (path, mode, good) in [
            (folder.join("data/web.yml"), 0o664, 0o644),
            (folder.join("data/web.yml"), 0o646, 0o644),
            (folder.join("data"), 0o775, 0o755),
            (folder.clone(), 0o757, 0o755),
            (outer.path().to_owned(), 0o777, 0o755),
        ] {
            set(&path, mode);
            assert!(!is_ours(&folder, us), "{} {mode:o}", path.display());
            set(&path, good);
            assert!(is_ours(&folder, us));
        }
        set(outer.path(), 0o1777);
        assert!(is_ours(&folder, us), "in a sticky folder nobody moves what is not theirs");
        assert!(!is_ours(&folder.join("nothing"), us));
        fs::write(folder.join(".git"), "").unwrap();
        set(&folder.join(".git"), 0o666);
        assert!(is_ours(&folder, us), "hidden files are no part of it");
    }

    #[test]
    fn a_link_is_as_good_as_the_folder_it_lies_in() {
        let us = geteuid().as_raw();
        let outer = tempfile::tempdir().unwrap();
        let (real, open) = (outer.path().join("real"), outer.path().join("open"));
        fs::create_dir(&real).unwrap();
        fs::create_dir(&open).unwrap();
        let link = open.join("site");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for (mode, ours) in [(0o755, true), (0o777, false)] {
            fs::set_permissions(&open, Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_ours(&link, us), ours, "{mode:o}");
        }
        assert!(is_ours(&real, us));
    }

    #[test]
    fn what_another_user_owns_is_not_ours_whatever_its_mode() {
        let us = geteuid().as_raw();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roles.yml");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
        assert!(is_ours(folder.path(), us));
        // Only root can give files away.
        if us == ROOT {
            chown(&file, Some(65_534), None).unwrap();
            assert!(!is_ours(folder.path(), us));
        }
        assert_eq!(is_ours(folder.path(), us + 1), us == ROOT && fs::metadata(&file).unwrap().uid() == ROOT);
    }
}
