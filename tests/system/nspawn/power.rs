//! The machine goes down: in good order, and by a power failure. Nothing that ran is taken for running afterwards, nothing
//! runs again, and each is told of.

use std::io;

use serde_json::Value;
use testkit::ground::not_run;

use super::crowd::{Crowd, connected};
use super::ground::disk;
use super::guest::Guest;

/// Commands in each crowd.
const COUNT: usize = 20;

#[test]
fn commands_end_at_a_shutdown_and_are_interrupted_by_a_power_failure() -> io::Result<()> {
    let disk = match disk() {
        Ok(disk) => disk,
        Err(reason) => return not_run(env!("CARGO_TARGET_TMPDIR"), "nspawn::power", &reason),
    };
    let boot = || disk.boot().map_err(io::Error::other);
    let guest = match boot() {
        Ok(guest) => guest,
        Err(reason) => return not_run(env!("CARGO_TARGET_TMPDIR"), "nspawn::power", &reason.to_string()),
    };
    guest.must("sh /opt/paprika/install.sh");
    guest.must("systemctl enable paprika-manager paprika-commands paprika-agent 2>&1");
    connected(&guest);
    let first_boot = boot_id(&guest);

    // Some end by themselves when they are asked, the others do not listen.
    let polite = Crowd::start(&guest, "polite", COUNT, "trap 'exit 3' TERM;");
    let deaf = Crowd::start(&guest, "deaf", COUNT / 4, "trap '' TERM;");
    guest.power_off();
    let guest = boot()?;
    assert_ne!(boot_id(&guest), first_boot, "another boot");
    connected(&guest);
    for crowd in [&polite, &deaf] {
        for (number, id) in crowd.each() {
            let command = crowd.ended(&guest, id);
            ended_by_the_host(&command);
            crowd.must_be_whole(&guest, number, id);
        }
        crowd.must_have_run_once(&guest);
    }
    for (_, id) in polite.each() {
        assert_eq!(polite.ended(&guest, id)["exit_code"], 3, "what it answered is kept");
    }

    let unlucky = Crowd::start(&guest, "unlucky", COUNT, "");
    guest.cut_power();
    let guest = boot()?;
    connected(&guest);
    for (_, id) in unlucky.each() {
        let command = unlucky.ended(&guest, id);
        assert_eq!(command["phase"], "interrupted", "command {id}: {command}");
        assert_eq!(command["error"]["code"], "reboot", "command {id}: {command}");
    }
    unlucky.must_have_run_once(&guest);
    assert_eq!(unlucky.shells(&guest), 0, "nothing of it runs, and nothing was started again");

    // The house is whole: what begins now runs.
    let after = Crowd::start(&guest, "after", 2, "");
    after.must_end_well(&guest);
    Ok(())
}

fn ended_by_the_host(command: &Value) {
    assert_eq!(command["phase"], "cancelled", "{command}");
    assert_eq!(command["cancel"]["by"], "host", "{command}");
    assert!(command["cancel"]["reason"].as_str().is_some_and(|reason| reason.contains("shuts down")), "{command}");
}

fn boot_id(guest: &Guest) -> String {
    guest.must("cat /proc/sys/kernel/random/boot_id")
}
