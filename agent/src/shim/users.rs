//! Who a command runs as: looked up in the files first, then by `getent`, so that a static binary finds both.

use std::fs;
use std::io;

use super::ask::ask;
use crate::limits::DIRECTORY_ANSWERS;

/// A user with everything a process needs to become it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
    pub(super) shell: String,
    pub(super) groups: Vec<u32>,
}

/// The directory service of the host did not answer. Not the same as "there is none of that name".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoAnswer;

/// The account of a user name or number; none: nobody here has it.
pub(super) fn find(user: &str) -> Result<Option<Account>, NoAnswer> {
    let local = table("/etc/passwd")?;
    match passwd(&local, user) {
        Some(account) => Ok(Some(account)),
        None => Ok(getent("passwd", user)?.and_then(|answer| passwd(&answer, user))),
    }
}

/// The same with all its groups, those of a directory service too: what a process needs to become it. A service that
/// is silent is an error: with fewer groups than it has, a user is somebody else.
pub(super) fn find_with_groups(user: &str) -> Result<Option<Account>, NoAnswer> {
    let Some(mut account) = find(user)? else { return Ok(None) };
    let groups = table("/etc/group")?;
    account.groups = memberships(&groups, &account);
    if let Some(answer) = getent("initgroups", &account.name)? {
        for group in answer.split_ascii_whitespace().skip(1).filter_map(common::user::number) {
            if !account.groups.contains(&group) {
                account.groups.push(group);
            }
        }
    }
    Ok(Some(account))
}

/// A file of accounts; a byte in it that is no text spoils its own line only. One that is not there is empty; one that
/// cannot be read must not pass for that: a user would have fewer groups than he has.
fn table(path: &str) -> Result<String, NoAnswer> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(_) => Err(NoAnswer),
    }
}

fn passwd(table: &str, user: &str) -> Option<Account> {
    let number = common::user::number(user);
    let mut by_number = None;
    for line in table.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields.as_slice() else { continue };
        // Not the largest: as user or group it would mean "stay who you are".
        let (Some(uid), Some(gid)) = (common::user::number(uid), common::user::number(gid)) else { continue };
        let account = || Account {
            name: (*name).to_owned(),
            uid,
            gid,
            home: if home.is_empty() { "/".to_owned() } else { (*home).to_owned() },
            shell: if shell.is_empty() { "/bin/sh".to_owned() } else { (*shell).to_owned() },
            groups: vec![gid],
        };
        // A name made of digits wins over the number, as everywhere.
        if *name == user {
            return Some(account());
        }
        if number == Some(uid) && by_number.is_none() {
            by_number = Some(account());
        }
    }
    by_number
}

fn memberships(table: &str, account: &Account) -> Vec<u32> {
    let mut found = account.groups.clone();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields.as_slice() else { continue };
        if let Some(gid) = common::user::number(gid)
            && members.split(',').any(|member| member == account.name)
            && !found.contains(&gid)
        {
            found.push(gid);
        }
    }
    found
}

/// None: it knows nothing of it, or there is no such program, as on hosts without directory services.
fn getent(database: &str, key: &str) -> Result<Option<String>, NoAnswer> {
    if key.starts_with('-') {
        return Ok(None);
    }
    match ask("getent", &[database, key], DIRECTORY_ANSWERS) {
        Ok((status, answer)) => Ok(status.success().then_some(answer)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(_) => Err(NoAnswer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nbroken line\n7:x:900:901::/:\nweb:x:7:8:Web:/srv/web:/bin/sh\n";

    #[test]
    fn a_name_wins_over_a_number_and_broken_lines_are_skipped() {
        assert_eq!(passwd(PASSWD, "7").map(|account| account.uid), Some(900));
        assert_eq!(passwd(PASSWD, "0").map(|account| account.name), Some("root".to_owned()));
        assert_eq!(passwd(PASSWD, "7").map(|account| account.shell), Some("/bin/sh".to_owned()));
        assert_eq!(passwd(PASSWD, "nobody"), None);
        for odd in ["+0", "00", "-0", "0x0"] {
            assert_eq!(passwd(PASSWD, odd), None, "{odd}");
        }
        let nobodys = "ghost:x:4294967295:0::/:\nshade:x:5:4294967295::/:\n";
        assert_eq!((passwd(nobodys, "ghost"), passwd(nobodys, "shade")), (None, None));
    }

    #[test]
    fn groups_are_the_own_one_and_those_that_list_the_name() {
        let web = passwd(PASSWD, "web");
        let groups = web.map(|web| memberships("a:x:20:x,web\nb:x:21:webb\nc:x:8:web\nd:x:22:web\n", &web));
        assert_eq!(groups, Some(vec![8, 20, 22]));
    }
}
