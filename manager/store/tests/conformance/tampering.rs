//! Changes of the audit behind the store's back: each is found, with the first row that does not hold.

use rusqlite::{Connection, params};
use store::StoreError;
use store::types::{AuditEntry, AuditOutcome, AuditPoint};

use crate::world::{Home, NOW, admin};

/// Rows of the audit that is tampered with.
const ROWS: u64 = 200;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// An audit of [`ROWS`] rows that all differ; and its head.
async fn written(home: &Home) -> AuditPoint {
    for row in 0..ROWS {
        let entry = AuditEntry {
            actor: admin(),
            action: format!("test.{}", row % 7),
            object: format!("object {row}"),
            outcome: if row % 3 == 0 { AuditOutcome::Refused } else { AuditOutcome::Done },
            details: format!(r#"{{"row":{row}}}"#),
        };
        home.store.audit(entry, NOW + row).await.unwrap();
    }
    home.store.audit_head().await.unwrap()
}

fn file(home: &Home) -> Connection {
    let file = Connection::open(home.folder().join("paprika.db")).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    file
}

async fn broken_at(home: &Home, points: Vec<AuditPoint>) -> u64 {
    match home.store.verify_audit_through(points).await {
        Err(StoreError::AuditBroken { seq }) => seq,
        other => panic!("{other:?}"),
    }
}

/// A row as it stands in the file.
type Row = (u64, u64, String, String, String, String, String, [u8; 32]);

fn row_of(file: &Connection, seq: u64) -> Row {
    file.query_row(
        "SELECT seq, at, actor, action, object, outcome, details, hash FROM audit WHERE seq = ?1",
        [seq as i64],
        |row| {
            let (seq, at): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok((seq as u64, at as u64, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?))
        },
    )
    .unwrap()
}

fn put(file: &Connection, row: &Row) {
    file.execute(
        "INSERT OR REPLACE INTO audit (seq, at, actor, action, object, outcome, details, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![row.0 as i64, row.1 as i64, row.2, row.3, row.4, row.5, row.6, row.7],
    )
    .unwrap();
}

/// Makes one change; answers the first row that it touched.
fn tamper(file: &Connection, dice: &mut Dice) -> u64 {
    let seq = dice.below(ROWS) + 1;
    let mut row = row_of(file, seq);
    match dice.below(12) {
        0 => row.1 += 1,
        1 => row.2.push('x'),
        2 => row.3.push('x'),
        3 => row.4.push('x'),
        4 => row.5 = if row.5 == "done" { "refused" } else { "done" }.to_owned(),
        5 => row.6.push(' '),
        6 => row.7[dice.below(32) as usize] ^= 1 << dice.below(8),
        // Letters move from one field into the next.
        7 => {
            let last = row.2.pop().unwrap();
            row.3.insert(0, last);
        }
        8 => {
            file.execute("DELETE FROM audit WHERE seq = ?1", [seq as i64]).unwrap();
            return seq;
        }
        9 => {
            // Two rows change places, each under the number of the other.
            let other = (seq + dice.below(ROWS - 1)) % ROWS + 1;
            let theirs = row_of(file, other);
            put(file, &(seq, theirs.1, theirs.2, theirs.3, theirs.4, theirs.5, theirs.6, theirs.7));
            put(file, &(other, row.1, row.2, row.3, row.4, row.5, row.6, row.7));
            return seq.min(other);
        }
        10 => {
            file.execute("DELETE FROM audit WHERE seq >= ?1", [seq as i64]).unwrap();
            return seq;
        }
        // The end is cut off and the store's own note of it is put right.
        _ => {
            file.execute("DELETE FROM audit WHERE seq >= ?1", [seq as i64]).unwrap();
            let (last, hash) = if seq == 1 { (0, [0; 32]) } else { (seq - 1, row_of(file, seq - 1).7) };
            file.execute("UPDATE meta SET audit_seq = ?1, audit_hash = ?2", params![last as i64, hash]).unwrap();
            return seq;
        }
    }
    put(file, &row);
    seq
}

pub async fn a_thousand_changes_are_found_with_the_first_bad_row(home: &Home) {
    let head = written(home).await;
    assert_eq!(head.seq, ROWS);
    let file = file(home);
    let whole: Vec<Row> = (1..=ROWS).map(|seq| row_of(&file, seq)).collect();
    let mut dice = Dice(7);
    for round in 0..1_000 {
        file.execute_batch("BEGIN IMMEDIATE").unwrap();
        let first = tamper(&file, &mut dice);
        file.execute_batch("COMMIT").unwrap();
        assert_eq!(broken_at(home, vec![head]).await, first, "round {round}");
        file.execute_batch("BEGIN IMMEDIATE; DELETE FROM audit").unwrap();
        whole.iter().for_each(|row| put(&file, row));
        file.execute("UPDATE meta SET audit_seq = ?1, audit_hash = ?2", params![head.seq as i64, head.hash]).unwrap();
        file.execute_batch("COMMIT").unwrap();
    }
    let verified = home.store.verify_audit_through(vec![head]).await.unwrap();
    assert_eq!((verified.rows, verified.head, verified.points, verified.anchor), (ROWS, head, 1, 0));
}

/// Somebody with the file in hand can make a whole chain of their own; not one that goes through what was written down
/// elsewhere.
pub async fn a_chain_that_was_made_anew_misses_the_points(home: &Home) {
    let head = written(home).await;
    let file = file(home);
    let point = |seq: u64| AuditPoint { seq, hash: row_of(&file, seq).7 };
    let points = [point(50), point(100), point(150)];
    assert_eq!(home.store.verify_audit_through(points.to_vec()).await.unwrap().points, 3);
    // Order and repeats do not matter.
    let mixed = vec![points[2], points[0], points[1], points[0], head];
    assert_eq!(home.store.verify_audit_through(mixed).await.unwrap().points, 5);
    // From row 120 on everything is written again, by the store itself.
    file.execute_batch("DELETE FROM audit WHERE seq >= 120").unwrap();
    file.execute("UPDATE meta SET audit_seq = 119, audit_hash = ?1", params![row_of(&file, 119).7]).unwrap();
    let entry = AuditEntry {
        actor: admin(),
        action: "nothing.happened".to_owned(),
        object: String::new(),
        outcome: AuditOutcome::Done,
        details: "{}".to_owned(),
    };
    for _ in 120..=ROWS {
        home.store.audit(entry.clone(), NOW).await.unwrap();
    }
    assert_eq!(home.store.verify_audit().await.unwrap(), ROWS, "in itself it holds");
    assert_eq!(home.store.verify_audit_through(points[..2].to_vec()).await.unwrap().points, 2);
    // Everything behind the last point that it goes through is in doubt.
    assert_eq!(broken_at(home, points.to_vec()).await, 101);
    assert_eq!(broken_at(home, vec![head]).await, 1);
    let beyond = AuditPoint { seq: ROWS + 1, hash: [1; 32] };
    assert_eq!(broken_at(home, vec![beyond]).await, ROWS + 1);
}

pub async fn points_that_retention_passed_are_left_out(home: &Home) {
    let head = written(home).await;
    let file = file(home);
    let points = vec![
        AuditPoint { seq: 10, hash: row_of(&file, 10).7 },
        AuditPoint { seq: 20, hash: row_of(&file, 20).7 },
        AuditPoint { seq: 30, hash: row_of(&file, 30).7 },
        head,
    ];
    let kept = std::time::Duration::from_millis(1_000);
    let retention = store::types::Retention { commands: kept, events: kept, audit: Some(kept) };
    // Row `n` was written at NOW + n - 1: up to 20 they are older.
    home.store.prune(retention, NOW + 20 + 1_000).await.unwrap();
    let verified = home.store.verify_audit_through(points).await.unwrap();
    assert_eq!((verified.anchor, verified.rows, verified.points), (20, ROWS - 20, 3));
    let wrong = AuditPoint { seq: 20, hash: [0; 32] };
    assert_eq!(broken_at(home, vec![wrong]).await, 21);
}
