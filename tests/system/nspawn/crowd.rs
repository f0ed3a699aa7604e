//! Many commands at once in a guest: each leaves a trace, keeps a copy of its own output and ends with a code of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::guest::{Guest, wait_for};

/// A loaded machine is slow; a broken one is slower.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Where a crowd keeps its files in the guest.
pub const FOLDER: &str = "/var/lib/crowd";

/// Commands that were started together.
pub struct Crowd {
    /// What keeps the traces of this crowd apart from others.
    name: &'static str,
    /// By the number that each was given.
    ids: Vec<u64>,
}

impl Crowd {
    /// Starts `count` commands that write numbered lines of random text until they are told to end. `first` is a line of
    /// shell that each runs before.
    pub fn start(guest: &Guest, name: &'static str, count: usize, first: &str) -> Self {
        // What is built into the shell writes: a hundred of them must not be the load of the test.
        let line = format!(
            "{first} echo {name}-$N >>{FOLDER}/{name}.effects; n=0; \
             while [ ! -e {FOLDER}/{name}.go ]; do n=$((n+1)); read r </proc/sys/kernel/random/uuid; \
             echo \"$n $r\" >>{FOLDER}/{name}-$N; echo \"$n $r\"; sleep 0.5; done; exit $N"
        );
        let quoted = line.replace('\'', r"'\''");
        let answer = guest.must(&format!(
            "mkdir -p {FOLDER}; n=0; while [ $n -lt {count} ]; do \
             paprika -o json run host1 --detach --env N=$n --shell '{quoted}' || exit 1; n=$((n+1)); done"
        ));
        let starts = serde_json::Deserializer::from_str(&answer).into_iter::<Value>();
        let ids: Vec<u64> = starts
            .map(|start| {
                let start = start.unwrap_or_else(|error| panic!("{error}: {answer}"));
                find_id(&start).unwrap_or_else(|| panic!("no id in {start}"))
            })
            .collect();
        assert_eq!(ids.len(), count, "{answer}");
        let crowd = Self { name, ids };
        crowd.must_flow(guest, "their start");
        crowd
    }

    /// Each has sent more than it had, nothing has ended, and each lives in the one process it was started in.
    #[track_caller]
    pub fn must_flow(&self, guest: &Guest, after: &str) {
        let before = self.lengths(guest, after);
        wait_for(&format!("new output of each of {} after: {after}", self.name), PATIENCE, || {
            // The manager may just be starting.
            let Some(now) = self.try_list(guest) else { return false };
            let old = |id| before.get(id).copied().unwrap_or(0);
            self.ids.iter().all(|id| now.get(id).is_some_and(|one| one["phase"] == "running" && length(one) > old(id)))
        });
        assert_eq!(self.shells(guest), self.ids.len(), "shells after: {after}\n{}", guest.journal());
        self.must_have_run_once(guest);
    }

    /// How many of them there are: leaders of sessions, because what they have just forked looks the same.
    pub fn shells(&self, guest: &Guest) -> usize {
        let search = format!("ps -eo pid=,sid=,args= | awk '$1 == $2 && index($0, \"{}-$N\")'", self.name);
        guest.must(&search).lines().count()
    }

    /// Lets each end, and compares what the manager has with what each wrote.
    #[track_caller]
    pub fn must_end_well(&self, guest: &Guest) {
        guest.must(&format!("touch {FOLDER}/{}.go", self.name));
        for (number, id) in self.ids.iter().enumerate() {
            let command = self.ended(guest, *id);
            let phase = if number == 0 { "succeeded" } else { "failed" };
            assert!(command["phase"] == phase && command["exit_code"] == number, "command {id}: {command}");
            self.must_be_whole(guest, number, *id);
        }
        self.must_have_run_once(guest);
    }

    /// What is stored of one is what it wrote, each line once and in order.
    #[track_caller]
    pub fn must_be_whole(&self, guest: &Guest, number: usize, id: u64) {
        let wrote = guest.must(&format!("cat {FOLDER}/{}-{number}", self.name));
        let stored = guest.must(&format!("paprika logs --stream stdout {id}"));
        assert_eq!(stored, wrote, "the output of command {id}");
        for (at, line) in stored.lines().enumerate() {
            assert_eq!(line.split(' ').next(), Some(&*(at + 1).to_string()), "every line once and in order");
        }
    }

    /// Each by its number and id.
    pub fn each(&self) -> impl Iterator<Item = (usize, u64)> {
        self.ids.iter().copied().enumerate()
    }

    /// Waits for the end of one; answers it.
    #[track_caller]
    pub fn ended(&self, guest: &Guest, id: u64) -> Value {
        let mut last = Value::Null;
        wait_for(&format!("the end of command {id} of {}", self.name), PATIENCE, || {
            let answer = guest.run(&format!("paprika -o json show {id}"));
            last = serde_json::from_str(&answer.stdout).unwrap_or_default();
            let is_whole = last["streams"].as_object().is_some_and(|all| all.values().all(|one| one["end"] == true));
            is_whole && !last["finished_at"].is_null()
        });
        last
    }

    /// The record of effects: none ran twice, none is missing.
    #[track_caller]
    pub fn must_have_run_once(&self, guest: &Guest) {
        let effects = guest.must(&format!("cat {FOLDER}/{}.effects", self.name));
        let mut counts = BTreeMap::<&str, usize>::new();
        for line in effects.lines() {
            *counts.entry(line).or_default() += 1;
        }
        assert_eq!(counts.len(), self.ids.len(), "{counts:?}");
        assert!(counts.values().all(|count| *count == 1), "something ran twice: {counts:?}");
    }

    #[track_caller]
    fn lengths(&self, guest: &Guest, after: &str) -> BTreeMap<u64, u64> {
        let mut found = BTreeMap::new();
        wait_for(&format!("the manager's list of commands after: {after}"), PATIENCE, || {
            let Some(list) = self.try_list(guest) else { return false };
            found = list.iter().map(|(id, command)| (*id, length(command))).collect();
            true
        });
        found
    }

    fn try_list(&self, guest: &Guest) -> Option<BTreeMap<u64, Value>> {
        let answer = guest.run("paprika -o json commands --limit 1000");
        if answer.failed() {
            return None;
        }
        let list: Vec<Value> = serde_json::from_str(&answer.stdout).ok()?;
        let all = list.into_iter().filter_map(|command| Some((command["id"].as_u64()?, command)));
        Some(all.filter(|(id, _)| self.ids.contains(id)).collect())
    }
}

fn length(command: &Value) -> u64 {
    command["streams"]["stdout"]["length"].as_u64().unwrap_or(0)
}

/// The id in the answer to a start, whatever stands around it.
fn find_id(start: &Value) -> Option<u64> {
    start["id"].as_u64().or_else(|| start["commands"][0]["id"].as_u64())
}

/// Waits until the agent of the guest is connected.
#[track_caller]
pub fn connected(guest: &Guest) {
    wait_for("the agent to connect", PATIENCE, || {
        guest.run("paprika -o json agent show host1").says("\"connected\":true")
    });
}
