//! A hundred commands live on, whatever systemd does to the agent's unit.

#![expect(clippy::expect_used, reason = "a test ends where its ground is missing")]

use std::io;

use testkit::ground::not_run;

use super::crowd::{Crowd, connected};
use super::ground::boot;
use super::guest::Guest;

#[test]
fn a_hundred_commands_live_on_whatever_systemd_does_to_the_agent() -> io::Result<()> {
    let guest = match boot() {
        Ok(guest) => guest,
        Err(reason) => return not_run(env!("CARGO_TARGET_TMPDIR"), "nspawn::adoption", &reason),
    };
    guest.must("sh /opt/paprika/install.sh");
    connected(&guest);
    everybody_has_their_share(&guest);
    let crowd = Crowd::start(&guest, "many", 100, "");

    let before = guest.main_pid("paprika-agent");
    guest.must(&format!("kill -9 {before}"));
    guest.new_main_pid("paprika-agent", &before);
    crowd.must_flow(&guest, "kill -9 of the agent");

    guest.must("systemctl restart paprika-agent");
    crowd.must_flow(&guest, "systemctl restart");
    // The agent has nothing to reload, and systemd says so; what a package script does instead is a restart.
    let reload = guest.run("systemctl reload paprika-agent");
    assert!(reload.failed() && reload.stderr.contains("not applicable"), "{}{}", reload.stdout, reload.stderr);
    crowd.must_flow(&guest, "systemctl reload");
    guest.must("systemctl reload-or-restart paprika-agent");
    crowd.must_flow(&guest, "systemctl reload-or-restart");

    for signal in ["TERM", "HUP", "INT", "KILL"] {
        guest.must(&format!("systemctl kill --kill-who=all --signal={signal} paprika-agent"));
        crowd.must_flow(&guest, &format!("{signal} to the whole unit"));
    }

    // One byte more at the end of the file: another program that works the same.
    guest.must("cp /usr/bin/paprika-agent /usr/bin/.new && printf x >>/usr/bin/.new && mv /usr/bin/.new /usr/bin/paprika-agent");
    crowd.must_flow(&guest, "replacement of the program");
    guest.must("systemctl restart paprika-agent");
    let replaced = guest.main_pid("paprika-agent");
    guest.must(&format!("[ /proc/{replaced}/exe -ef /usr/bin/paprika-agent ]"));
    crowd.must_flow(&guest, "start of the replaced program");

    // A restart of the unit that holds their cgroup is no shutdown either.
    guest.must("systemctl restart paprika-commands");
    crowd.must_flow(&guest, "restart of the holder");
    crowd.must_end_well(&guest);
    Ok(())
}

/// The agent and the writers of results are the last to be killed for memory, and the agent is not starved; what they
/// start gets neither from them.
fn everybody_has_their_share(guest: &Guest) {
    let agent = guest.main_pid("paprika-agent");
    let shown = |property: &str| guest.must(&format!("systemctl show --property={property} --value paprika-agent"));
    assert_eq!(shown("CPUWeight").trim(), "1000", "beside the commands' unit with 100");
    assert_eq!(shown("OOMScoreAdjust").trim(), "-900");
    assert_eq!(guest.must("paprika run host1 -- cat /proc/self/oom_score_adj").trim(), "0", "a command");
    assert_eq!(guest.must("paprika run host1 -- nice").trim(), "0", "a command");
    if guest.run("echo -900 >/proc/self/oom_score_adj").failed() {
        let reason = "this machine lets nobody lower an OOM score (no CAP_SYS_RESOURCE)";
        not_run(env!("CARGO_TARGET_TMPDIR"), "nspawn::adoption::oom", reason).expect("the line is written");
        return;
    }
    let score = |pid: &str| guest.must(&format!("cat /proc/{pid}/oom_score_adj")).trim().to_owned();
    assert_eq!(score(&agent), "-900", "the agent");
    let shims = guest
        .must("paprika run host1 --shell 'for p in $(pgrep -f [s]him./var/lib); do cat /proc/$p/oom_score_adj; done'");
    assert!(!shims.trim().is_empty() && shims.lines().all(|score| score == "-900"), "shims: {shims:?}");
}
