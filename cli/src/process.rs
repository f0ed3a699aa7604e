//! A parent and its child processes: the child that ends with its parent, the signal that asks it to end, and who
//! holds a port. Only ids of processes that we started ourselves are ever signalled.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

/// Names the parent that a child must not outlive, by its process id.
pub const PARENT_VARIABLE: &str = "PAPRIKA_PARENT";

/// Lets this process get TERM when the parent that `PAPRIKA_PARENT` names is gone, however it went.
///
/// # Errors
/// When the kernel refuses, or the parent was gone before it could be asked.
pub fn end_with_parent(parent: &str) -> io::Result<()> {
    let parent: i32 = parent.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // The signal comes only for a death after the call.
    if getppid().map(Pid::as_raw_pid) == Some(parent) { Ok(()) } else { Err(io::Error::other("the parent is gone")) }
}

/// Asks a child that has not been waited for to end.
///
/// # Errors
/// When there is no such process.
pub fn ask_to_end(child: u32) -> io::Result<()> {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    kill_process(pid, Signal::TERM)?;
    Ok(())
}

/// Finds the process that listens on a TCP port of this host, as `name (pid)`; `None` when we may not see it.
#[must_use]
pub fn holder_of(address: SocketAddr) -> Option<String> {
    let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let table = fs::read_to_string(table).ok()?;
    let inode = listening_inode(&table, address.port())?;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.map(|entry| entry.path()).find_map(|folder| {
        // Also there: `self`, and what is no process.
        let pid: u32 = folder.file_name()?.to_str()?.parse().ok()?;
        let holds = fs::read_dir(folder.join("fd"))
            .ok()?
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(&wanted)));
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        holds.then(|| format!("{} ({pid})", common::escape::text(name.trim_end())))
    })
}

/// Reads the inode of the socket that listens on a port out of the kernel's table.
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, phase, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        (local.ends_with(&suffix) && *phase == LISTEN).then_some(*inode)
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder_of(listener.local_addr().unwrap()).unwrap();
        assert!(holder.ends_with(&format!("({})", std::process::id())), "{holder}");
    }

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1B8A 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 11 1\n\
            1: 0100007F:1B8A 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 22 1\n";
        assert_eq!(listening_inode(table, 7050), Some("22"));
        assert_eq!(listening_inode(table, 7051), None);
        assert_eq!(listening_inode("", 7050), None);
    }

    #[test]
    fn a_child_whose_parent_is_another_is_told() {
        assert!(end_with_parent("not a pid").is_err());
    }
}
