//! The audit over HTTP: filters, the whole of it as lines, and a check that finds what was changed behind our back.

use std::path::Path;

use http::Method;

use super::house::House;
use crate::audit::{CheckpointFile, Keeper, Signer};

/// A house whose audit is signed, with some rows in it.
async fn house() -> House {
    let house = House::new().await;
    let dir = house.folder.path();
    let signer = Signer::open(&dir.join("audit.key"), &house.store.identity().cluster).unwrap();
    house.service.keep_audit(Keeper::open(signer, CheckpointFile::new(dir.join("audit.checkpoints"))).unwrap());
    for name in ["one", "two", "three", "four"] {
        let body = format!(r#"{{"name":"{name}","scope":"read"}}"#);
        assert_eq!(house.post("/tokens", &body).await.status, 201);
    }
    assert!(house.service.checkpoint().await.unwrap(), "the first one is due at once");
    house
}

/// Changes the database as somebody would who has the file and not the manager.
fn tamper(folder: &Path, sql: &str) {
    let done = std::process::Command::new("python3")
        .args(["-c", "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2]); c.commit()"])
        .arg(folder.join("paprika.db"))
        .arg(sql)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn rows_are_found_by_actor_and_action_and_exported_as_lines() {
    let house = house().await;
    let all = house.get("/audit?limit=1000").await.json();
    let rows = all["items"].as_array().unwrap();
    let made = house.get("/audit?action=token.create&actor=admin").await.json();
    assert_eq!(made["items"].as_array().unwrap().len(), 4);
    assert!(made["items"].as_array().unwrap().iter().all(|row| row["action"] == "token.create"));
    let prefixed = house.get("/audit?action=token.").await.json();
    assert!(prefixed["items"].as_array().unwrap().len() >= 7, "{prefixed}");
    assert_eq!(house.get("/audit?actor=nobody").await.json()["items"].as_array().unwrap().len(), 0);
    let first = house.get("/audit?action=token.create&actor=admin&limit=1").await.json();
    let next = first["next"].as_str().unwrap();
    let second = house.get(&format!("/audit?action=token.create&actor=admin&limit=1&after={next}")).await.json();
    assert_ne!(first["items"][0]["seq"], second["items"][0]["seq"]);

    let lines = house.get("/audit/export").await;
    assert_eq!(
        (lines.status.as_u16(), &lines.headers["content-type"]),
        (200, &"application/x-ndjson".parse().unwrap())
    );
    let text = String::from_utf8(lines.body.to_vec()).unwrap();
    assert!(text.ends_with('\n'));
    let seqs: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=rows.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_who_may_read_the_audit_checks_or_exports_it() {
    let house = house().await;
    for path in ["/audit", "/audit/verify", "/audit/export"] {
        house.call(Method::GET, path, &house.run, None).await.problem(403, "forbidden");
        house.call(Method::GET, path, "", None).await.problem(401, "unauthenticated");
        house.get(&format!("{path}?no_such_word=1")).await.problem(400, "unknown_field");
    }
}

#[tokio::test]
async fn a_whole_audit_is_whole() {
    let house = house().await;
    let verdict = house.get("/audit/verify").await.json();
    assert_eq!(
        (&verdict["first_bad"], verdict["checkpoints"].as_u64()),
        (&serde_json::Value::Null, Some(1)),
        "{verdict}"
    );
    assert_eq!(verdict["rows"], verdict["head"]["seq"]);
    assert_eq!(verdict["public_key"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn what_was_changed_in_the_database_is_found_however_well_it_was_hidden() {
    for (how, sql, row) in [
        ("a changed row", "UPDATE audit SET actor = 'somebody' WHERE seq = 3;", Some(3)),
        ("a row taken out", "DELETE FROM audit WHERE seq = 4;", Some(4)),
        ("an end cut off", "DELETE FROM audit WHERE seq > 5;", Some(6)),
        (
            "an end cut off, with a head that fits",
            "DELETE FROM audit WHERE seq > 5;
             UPDATE meta SET audit_seq = 5, audit_hash = (SELECT hash FROM audit WHERE seq = 5);",
            None,
        ),
        (
            "the oldest taken away, with an anchor that fits",
            "UPDATE meta SET anchor_seq = 3, anchor_hash = (SELECT hash FROM audit WHERE seq = 3);
             DELETE FROM audit WHERE seq <= 3;",
            Some(3),
        ),
    ] {
        let house = house().await;
        tamper(house.folder.path(), sql);
        let verdict = house.get("/audit/verify").await.json();
        let bad = verdict["first_bad"]["seq"].as_u64();
        assert!(bad.is_some() && (row.is_none() || bad == row), "{how}: {verdict}");
    }
    // A checkpoint that was rewritten is found too.
    let house = house().await;
    let path = house.folder.path().join("audit.checkpoints");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen(r#""seq":"#, r#""seq":1"#, 1)).unwrap();
    let verdict = house.get("/audit/verify").await.json();
    assert!(verdict["first_bad"]["text"].as_str().is_some_and(|text| text.contains("line 1")), "{verdict}");
}
