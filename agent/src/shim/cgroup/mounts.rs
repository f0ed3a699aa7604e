//! What `/proc/self/mountinfo` says about cgroups: the trees of version 2, and who holds the controllers of version 1.

use std::path::PathBuf;

/// The cgroup file systems of this mount namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    /// Mount points of version 2.
    pub(super) v2: Vec<PathBuf>,
    /// Controllers of version 1 and where they are mounted. Several may share one mount (`cpu,cpuacct`).
    pub(super) v1: Vec<(String, PathBuf)>,
}

/// The controllers of version 1 that are of use here.
const KNOWN: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "freezer"];

impl Mounts {
    /// Reads a mountinfo table; lines that are not understood are of no use either.
    pub(super) fn parse(table: &str) -> Self {
        let mut found = Self::default();
        for line in table.lines() {
            let Some((mount, kind)) = line.split_once(" - ") else { continue };
            let Some(path) = mount.split(' ').nth(4).map(unescape) else { continue };
            let mut kind = kind.split(' ');
            match kind.next() {
                Some("cgroup2") => found.v2.push(path),
                Some("cgroup") => {
                    let options = kind.nth(1).unwrap_or_default();
                    for controller in options.split(',').filter(|option| KNOWN.contains(option)) {
                        if found.v1(controller).is_none() {
                            found.v1.push((controller.to_owned(), path.clone()));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Where a controller of version 1 is mounted.
    pub(super) fn v1(&self, controller: &str) -> Option<&PathBuf> {
        self.v1.iter().find(|(name, _)| name == controller).map(|(_, path)| path)
    }
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_among_others_and_unescaped() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:3 - cgroup2 cgroup2 rw\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
            broken\n";
        let found = Mounts::parse(table);
        assert_eq!(found.v2, [PathBuf::from("/sys/fs/cgroup/uni fied")]);
        assert!(found.v1.is_empty());
        assert_eq!(Mounts::parse(""), Mounts::default());
    }

    #[test]
    fn controllers_that_share_a_mount_are_found_each_and_the_first_mount_counts() {
        let table = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
            34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            99 31 0:31 / /mnt/again rw - cgroup cgroup rw,memory\n";
        let found = Mounts::parse(table);
        let shared = PathBuf::from("/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!((found.v1("cpu"), found.v1("cpuacct")), (Some(&shared), Some(&shared)));
        assert_eq!(found.v1("memory"), Some(&PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(found.v1("freezer"), None);
        assert!(found.v2.is_empty());
    }
}
