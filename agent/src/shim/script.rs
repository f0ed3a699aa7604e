//! Scripts that came with their command: which interpreter reads one, and the file without a name that it is read from.
//!
//! Nothing is written to disk, so nothing is left behind, whoever dies when; and no two commands can meet in a name.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;

use super::users::Account;

/// Where the interpreter finds it: the shim hands it over as number 3.
pub(super) const PATH: &str = "/proc/self/fd/3";
const SHELL: &str = "/bin/sh";

/// The words of the first line, as the kernel reads it: a path, and everything behind it as one argument. A carriage
/// return belongs to them.
pub(super) fn interpreter(content: &str) -> Vec<String> {
    let blank = [' ', '\t'];
    let line = content.strip_prefix("#!").and_then(|rest| rest.split('\n').next());
    let words = line.unwrap_or_default().trim_matches(blank);
    match words.split_once(blank) {
        _ if words.is_empty() => vec![SHELL.to_owned()],
        Some((path, argument)) => vec![path.to_owned(), argument.trim_start_matches(blank).to_owned()],
        None => vec![words.to_owned()],
    }
}

/// A file without a name that holds a script: it can be read by who runs it and changed by nobody.
pub(super) fn sealed(content: &str, owner: Option<&Account>) -> io::Result<OwnedFd> {
    let file = filled("script", content.as_bytes(), owner, MemfdFlags::ALLOW_SEALING)?;
    // Hosts that forbid programs in memory refuse the bit for execution, which an interpreter does not need.
    rustix::fs::fchmod(&file, Mode::RUSR | Mode::XUSR).or_else(|_| rustix::fs::fchmod(&file, Mode::RUSR))?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

/// A file without a name that holds the input of a command, to be read from its beginning.
pub(super) fn input(content: &[u8], owner: Option<&Account>) -> io::Result<OwnedFd> {
    let file = filled("stdin", content, owner, MemfdFlags::empty())?;
    rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    Ok(file)
}

fn filled(name: &str, content: &[u8], owner: Option<&Account>, flags: MemfdFlags) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | flags;
    let made = match rustix::fs::memfd_create(name, flags) {
        // Some hosts allow only files that can never be executed; kernels that do not know the word do not refuse either.
        Err(Errno::ACCESS | Errno::PERM) => rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL),
        other => other,
    };
    let mut file = File::from(made?);
    file.write_all(content)?;
    file.rewind()?;
    if let Some(account) = owner {
        // Else its new owner could not open it again by its number.
        rustix::fs::fchown(&file, Some(rustix::fs::Uid::from_raw(account.uid)), None)?;
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::io::Read;

    use super::*;

    #[test]
    fn the_first_line_is_read_as_the_kernel_does() {
        for (content, expected) in [
            ("#!/bin/bash\nx", &["/bin/bash"][..]),
            ("#! \t/usr/bin/env  -S python3 -u \t\nx", &["/usr/bin/env", "-S python3 -u"]),
            ("#!/bin/bash", &["/bin/bash"]),
            ("#!/bin/sh\r\nx", &["/bin/sh\r"]),
            ("#!\nx", &["/bin/sh"]),
            ("#!  \nx", &["/bin/sh"]),
            (" #!/bin/bash\n", &["/bin/sh"]),
            ("echo", &["/bin/sh"]),
            ("", &["/bin/sh"]),
        ] {
            assert_eq!(interpreter(content), expected, "{content:?}");
        }
    }

    #[test]
    fn a_sealed_script_can_be_read_and_not_be_changed() {
        let mut file = File::from(sealed("echo\n", None).unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "echo\n");
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
        let mode = file.metadata().unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o500);
    }
}
