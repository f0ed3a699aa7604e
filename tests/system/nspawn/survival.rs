//! What happens to the daemons, and what the command they started must not notice.

use std::io;
use std::time::Duration;

use testkit::ground::not_run;

use super::ground::boot;
use super::guest::{Guest, wait_for};

/// A loaded machine is slow; a broken one is slower.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints a growing number until the file appears, then says how far it came and fails with a code of its own.
const LONG_COMMAND: &str =
    "n=0; while [ ! -e /run/finish ]; do n=$((n+1)); echo line $n; sleep 0.02; done; echo total $n; exit 7";

#[test]
fn a_command_survives_whatever_happens_to_the_daemons() -> io::Result<()> {
    let guest = match boot() {
        Ok(guest) => guest,
        Err(reason) => return not_run(env!("CARGO_TARGET_TMPDIR"), "nspawn", &reason),
    };
    guest.must("sh /opt/paprika/install.sh");
    units_are_sound(&guest);
    wait_for("the agent to connect", PATIENCE, || {
        guest.run("paprika -o json agent show host1").says("\"connected\":true")
    });

    commands_are_not_caged(&guest);

    let id = start(&guest, LONG_COMMAND);
    let command = LongCommand::find(&guest, &id);
    command.must_live_on("nothing happened yet");

    let before = guest.main_pid("paprika-agent");
    guest.must(&format!("kill -9 {before}"));
    guest.new_main_pid("paprika-agent", &before);
    command.must_live_on("kill -9 of the agent");

    guest.must("systemctl restart paprika-agent");
    command.must_live_on("restart of the agent");

    guest.must("systemctl kill --kill-who=all --signal=TERM paprika-agent");
    guest.must("systemctl restart paprika-agent");
    command.must_live_on("a signal to the whole unit of the agent");

    // One byte more at the end of the file: another program that works the same.
    guest.must("cp /usr/bin/paprika-agent /usr/bin/.new && printf x >>/usr/bin/.new && mv /usr/bin/.new /usr/bin/paprika-agent");
    command.must_live_on("replacement of the agent's program");
    guest.must("systemctl restart paprika-agent");
    let replaced = guest.main_pid("paprika-agent");
    guest.must(&format!("[ /proc/{replaced}/exe -ef /usr/bin/paprika-agent ]"));
    command.must_live_on("start of the replaced program");

    guest.must("systemctl stop paprika-agent");
    command.must_run("the agent is stopped");
    guest.must("systemctl start paprika-agent");
    command.must_live_on("stop and start of the agent");

    let before = guest.main_pid("paprika-commands");
    guest.must(&format!("kill -9 {before}"));
    guest.new_main_pid("paprika-commands", &before);
    command.must_live_on("kill -9 of the holder of the cgroup");
    guest.must("systemctl restart paprika-commands");
    command.must_live_on("restart of the unit that holds the cgroup");

    let before = guest.main_pid("paprika-manager");
    guest.must(&format!("kill -9 {before}"));
    guest.new_main_pid("paprika-manager", &before);
    command.must_live_on("kill -9 of the manager");
    guest.must("systemctl restart paprika-manager");
    command.must_live_on("restart of the manager");

    let both = format!("kill -9 {} {}", guest.main_pid("paprika-manager"), guest.main_pid("paprika-agent"));
    guest.must(&both);
    command.must_live_on("kill -9 of manager and agent at once");
    guest.must("systemctl daemon-reexec");
    command.must_live_on("systemd replacing itself");

    hanging_daemons_are_replaced(&guest, &command);

    guest.must("touch /run/finish");
    command.must_have_ended_well();

    // The house is whole afterwards: new commands start, and cancel leaves nothing behind.
    guest.must("rm /run/finish; paprika run host1 -- true");
    let id = start(&guest, &format!("(setsid sh -c 'trap \"\" TERM; {LONG_COMMAND}' &) ; {LONG_COMMAND}"));
    let doomed = LongCommand::find(&guest, &id);
    doomed.must_live_on("a command that is to be cancelled");
    guest.must(&format!("paprika cancel {id} --grace 1s"));
    wait_for("the cancelled command to be gone", PATIENCE, || {
        guest.run(&format!("paprika -o json show {id}")).says("\"phase\":\"cancelled\"")
            && guest.run("pgrep -f '[/]run/finish'").failed()
    });
    Ok(())
}

/// systemd finds no fault with the units, and the two that can be locked in are.
fn units_are_sound(guest: &Guest) {
    let verify = guest.must("systemd-analyze verify /etc/systemd/system/paprika-*.service 2>&1");
    // The one key that systemd before 254 does not know; the unit says what follows.
    let faults: Vec<&str> = verify.lines().filter(|line| !line.contains("'DelegateSubgroup'")).collect();
    assert!(faults.is_empty(), "systemd-analyze verify finds: {faults:?}");
    for unit in ["paprika-manager", "paprika-commands"] {
        // The scale goes from 0 (locked in) to 100 (open).
        guest.must(&format!("systemd-analyze security --threshold=15 {unit}.service"));
    }
}

/// What confines the agent must not confine the commands: they change the host, as root.
fn commands_are_not_caged(guest: &Guest) {
    let privileges = guest.must("paprika run host1 -- grep NoNewPrivs /proc/self/status");
    assert_eq!(privileges.split_whitespace().last(), Some("0"), "set-user-id programs work: {privileges}");
    let mounts = guest.must("paprika run host1 -- readlink /proc/self/ns/mnt");
    assert_eq!(mounts, guest.must("readlink /proc/1/ns/mnt"), "what a command mounts is mounted");
}

/// A daemon that stands still is killed and started again by systemd, and one that works is left alone.
fn hanging_daemons_are_replaced(guest: &Guest, command: &LongCommand<'_>) {
    for unit in ["paprika-agent", "paprika-manager"] {
        guest.must(&format!(
            "mkdir -p /run/systemd/system/{unit}.service.d
             printf '[Service]\\nWatchdogSec=3s\\n' >/run/systemd/system/{unit}.service.d/watchdog.conf
             systemctl daemon-reload && systemctl restart {unit}"
        ));
        let before = guest.main_pid(unit);
        // Longer than the watchdog's patience: a daemon that did not report would be gone.
        command.must_write_for(Duration::from_secs(5));
        assert_eq!(guest.main_pid(unit), before, "{unit} reports to the watchdog");
        guest.must(&format!("kill -STOP {before}"));
        guest.new_main_pid(unit, &before);
        command.must_live_on(&format!("{unit} stood still"));
    }
}

/// Starts a shell line on the agent and answers its id, without waiting for its end.
fn start(guest: &Guest, line: &str) -> String {
    let quoted = line.replace('\'', r"'\''");
    let answer = guest.must(&format!("paprika -o json run host1 --detach --shell '{quoted}'"));
    let id = answer.split("\"id\":").nth(1).unwrap_or_else(|| panic!("no id in {answer}"));
    id.trim_start().chars().take_while(char::is_ascii_digit).collect()
}

/// The command that must not notice anything.
struct LongCommand<'a> {
    guest: &'a Guest,
    id: String,
    /// Its shell, as the guest numbers processes.
    pid: String,
}

impl<'a> LongCommand<'a> {
    fn find(guest: &'a Guest, id: &str) -> Self {
        // The one shell whose environment names this command and that leads its session.
        let search = format!(
            "for p in $(pgrep -x sh); do tr '\\0' '\\n' <\"/proc/$p/environ\" | grep -qx PAPRIKA_COMMAND_ID={id} && echo \"$p\" && exit; done; exit 1"
        );
        wait_for("the command's process", PATIENCE, || !guest.run(&search).failed());
        let pid = guest.must(&search).trim().to_owned();
        let cgroup = guest.must(&format!("cat /proc/{pid}/cgroup"));
        assert!(
            cgroup.contains("/system.slice/paprika-commands.service/") && cgroup.trim().ends_with("/work"),
            "the command lives in its own leaf under the holder's unit: {cgroup}"
        );
        Self { guest, id: id.to_owned(), pid }
    }

    /// The process is there and is the one that was started.
    fn must_run(&self, after: &str) {
        let search = format!("tr '\\0' '\\n' </proc/{}/environ | grep -x PAPRIKA_COMMAND_ID={}", self.pid, self.id);
        assert!(
            !self.guest.run(&search).failed(),
            "the command's process is gone after: {after}\n{}",
            self.guest.journal()
        );
    }

    /// The process runs and what it writes now reaches the manager.
    fn must_live_on(&self, after: &str) {
        self.must_run(after);
        let written = self.lines_on_manager();
        let deadline = format!("new output on the manager after: {after}");
        wait_for(&deadline, PATIENCE, || self.lines_on_manager() > written + 5);
        self.must_run(after);
    }

    /// The command goes on for a while; its lines are the clock.
    fn must_write_for(&self, span: Duration) {
        // A line each 20 ms at most.
        let lines = usize::try_from(span.as_millis() / 20).unwrap_or(usize::MAX);
        let enough = self.lines_on_manager().saturating_add(lines);
        wait_for("the command to write on", PATIENCE, || self.lines_on_manager() >= enough);
    }

    /// Zero when the manager does not answer just now.
    fn lines_on_manager(&self) -> usize {
        let output = self.guest.run(&format!("paprika logs --stream stdout {}", self.id));
        if output.failed() { 0 } else { output.stdout.lines().count() }
    }

    /// Ended by itself, with its own exit code, and every line is there once and in order.
    fn must_have_ended_well(&self) {
        let show = format!("paprika -o json show {}", self.id);
        wait_for("the final phase", PATIENCE, || self.guest.run(&show).says("\"phase\":\"failed\""));
        let shown = self.guest.must(&show);
        assert!(shown.replace(' ', "").contains("\"exit_code\":7"), "{shown}");
        wait_for("the whole output", PATIENCE, || {
            self.guest.run(&format!("paprika logs --stream stdout {}", self.id)).says("total")
        });
        let output = self.guest.must(&format!("paprika logs --stream stdout {}", self.id));
        let lines: Vec<&str> = output.lines().collect();
        let (last, counted) = lines.split_last().unwrap_or_else(|| panic!("no output"));
        for (at, line) in counted.iter().enumerate() {
            assert_eq!(*line, format!("line {}", at + 1), "every line once and in order");
        }
        assert_eq!(*last, format!("total {}", counted.len()));
    }
}
