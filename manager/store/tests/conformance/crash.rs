//! What stays when the process goes, and files that are not what they should be.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use common::id::CommandId;
use common::model::{Outcome, Phase, StreamName};
use store::types::{CommandFilter, EventFilter, OutputRead};
use store::{Store, StoreError};

use crate::world::{Home, NOW, admin, ended, name, only, submit};

/// Names the folder to the child that is to be killed.
const CHILD_FOLDER: &str = "STORE_CRASH_FOLDER";

pub async fn everything_survives_a_reopening(home: &Home) {
    let command = home.in_phase("a", Phase::Running).await;
    home.write(command.id, 0, b"bytes").await.unwrap();
    let reported = ended(Outcome::Succeeded, &[(StreamName::Stdout, 5)]);
    home.store.result(&command.uid, &name("a"), reported, NOW).await.unwrap();
    let before = home.command(command.id).await;
    let identity = home.store.identity();
    let store = home.reopened().await;
    assert_eq!(store.identity(), identity);
    assert_eq!(store.command(command.id).await.unwrap(), Some(before));
    let read = store.read_output(command.id, StreamName::Stdout, 0, 10).await.unwrap();
    assert!(matches!(read, OutputRead::Bytes(bytes) if bytes == "bytes"));
    store.verify_audit().await.unwrap();
    store.close().await;
    // The closed one says so instead of hanging.
    assert!(matches!(home.store.submit(submit(&["a"])).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(home.store.command(command.id).await, Err(StoreError::Unavailable(_))));
}

/// Kills a child before and after commits; what it had answered must be there, whole.
pub async fn what_was_answered_survives_a_kill(home: &Home) {
    home.store.ensure_agent(&name("a"), &admin(), NOW).await.unwrap();
    home.store.close().await;
    let mut answered = HashSet::new();
    for point in ["manager.commit.before@4", "manager.commit.after@4", "manager.commit.before@9"] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(CHILD_FOLDER, home.folder())
            .env("PAPRIKA_CRASH_POINT", point)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut new = 0;
        for id in lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("answered ")?.parse().ok()) {
            new += usize::from(answered.insert(CommandId(id)));
        }
        assert_eq!(child.wait().unwrap().signal(), Some(9), "{point}");
        assert!(new >= 3, "{point}: {new}");

        let store = Store::open(home.folder()).await.unwrap();
        let all = store.commands(CommandFilter { limit: 1000, ..CommandFilter::default() }).await.unwrap().commands;
        let stored: HashSet<CommandId> = all.iter().map(|command| command.id).collect();
        assert!(answered.is_subset(&stored), "{point}");
        // Whole: each has its event and its audit row, one more than the agent has.
        let events = store.events(0, 1000, EventFilter::default()).await.unwrap();
        assert_eq!(events.iter().filter(|event| event.kind == "command.queued").count(), stored.len());
        assert_eq!(store.verify_audit().await.unwrap(), stored.len() as u64 + 1);
        store.close().await;
    }
}

/// The child: submits until it is killed. Does nothing when nobody asked for it.
#[tokio::test]
async fn child() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let store = Store::open(folder.as_ref()).await.unwrap();
    for _ in 0..1000 {
        let id = only(&store.submit(submit(&["a"])).await.unwrap());
        let mut out = std::io::stdout();
        std::io::Write::write_all(&mut out, format!("answered {id}\n").as_bytes()).unwrap();
        std::io::Write::flush(&mut out).unwrap();
    }
}

pub async fn a_changed_schema_is_refused(home: &Home) {
    home.store.close().await;
    let file = rusqlite::Connection::open(home.folder().join("paprika.db")).unwrap();
    file.execute("INSERT INTO migrations VALUES (5, 'later', x'00')", []).unwrap();
    let newer = Store::open(home.folder()).await;
    assert!(matches!(newer, Err(StoreError::NewerSchema { found: 5, known: 4, .. })));
    file.execute_batch("DELETE FROM migrations WHERE version = 5; UPDATE migrations SET checksum = x'00'").unwrap();
    let changed = Store::open(home.folder()).await;
    assert!(matches!(changed, Err(StoreError::ChangedMigration { version: 1, .. })));
    drop(file);
    std::fs::write(home.folder().join("paprika.db"), b"this is not a database, whatever its name says").unwrap();
    assert!(matches!(Store::open(home.folder()).await, Err(StoreError::Corrupt { .. })));
}

pub async fn bytes_of_ids_that_were_never_given_out_are_forgotten(home: &Home) {
    let known = home.in_phase("a", Phase::Running).await.id;
    home.write(known, 0, b"known").await.unwrap();
    // As if the main file were older than the bytes.
    let stale = CommandId(known.0 + 1);
    home.write(stale, 0, b"of another life").await.unwrap();
    let store = home.reopened().await;
    let next = only(&store.submit(submit(&["a"])).await.unwrap());
    assert_eq!(next, stale);
    assert_eq!(store.stored_lengths(next).await.unwrap(), []);
    assert_eq!(store.stored_lengths(known).await.unwrap(), [(StreamName::Stdout, 5)]);
    store.close().await;
}
