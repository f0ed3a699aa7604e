//! `audit`, `audit verify`, `audit export`: who did what, whether the record of it is whole, and a copy of it.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::audit::{AuditQuery, AuditRow, AuditVerification};
use api::client::Client;
use api::page::MAX_LIMIT;
use common::{durable, escape};
use serde::Serialize;
use serde_json::Value;

use super::checkpoints::{self, Compared};
use crate::args::{AuditArgs, AuditExport, AuditVerb, AuditVerify, Format};
use crate::error::{Failure, Kind};
use crate::output::{Align, Printer, Sink, Table, Target, card, columns, note, print};

/// How often new rows are asked for. Not every row comes with an event that could wake us: refusals do not.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(client: &Client, printer: Printer, args: &AuditArgs) -> Result<u8, Failure> {
    match &args.verb {
        None => list(client, printer, args).await.map(|()| 0),
        Some(AuditVerb::Verify(args)) => verify(client, printer, args).await,
        Some(AuditVerb::Export(args)) => export(client, args).await.map(|()| 0),
    }
}

async fn list(client: &Client, printer: Printer, args: &AuditArgs) -> Result<(), Failure> {
    let mut query = AuditQuery {
        actor: args.actor.clone(),
        action: args.action.clone(),
        after: args.after,
        limit: Some(MAX_LIMIT),
    };
    let wanted = args.limit as usize;
    let rows = match args.after {
        Some(_) if !args.follow => first(client, &mut query, wanted).await?,
        // Who follows from a number wants everything behind it.
        Some(_) => VecDeque::new(),
        None => last(client, &mut query, wanted).await?,
    };
    if !args.follow {
        if printer.format == Format::Table {
            return print(table(&rows).lay_out(columns()).as_bytes());
        }
        return rows.iter().try_for_each(|row| printer.element(row, |_| String::new()));
    }
    if printer.format == Format::Table {
        print(line(&HEAD.map(|(title, _)| title.to_owned())).as_bytes())?;
    }
    for row in &rows {
        printer.element(row, |row| line(&cells(row)))?;
    }
    loop {
        let page = client.audit(&query).await?;
        advance(&mut query, &page.items, page.next.as_deref());
        for row in &page.items {
            printer.element(row, |row| line(&cells(row)))?;
        }
        if page.next.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Rows right behind a number.
async fn first(client: &Client, query: &mut AuditQuery, wanted: usize) -> Result<VecDeque<AuditRow>, Failure> {
    let mut rows = VecDeque::new();
    while rows.len() < wanted {
        let page = client.audit(query).await?;
        advance(query, &page.items, page.next.as_deref());
        rows.extend(page.items);
        if page.next.is_none() {
            break;
        }
    }
    rows.truncate(wanted);
    Ok(rows)
}

/// The newest rows. The list runs forward only, so the older ones pass by; what is kept is bounded by `wanted`.
async fn last(client: &Client, query: &mut AuditQuery, wanted: usize) -> Result<VecDeque<AuditRow>, Failure> {
    let mut rows = VecDeque::new();
    loop {
        let page = client.audit(query).await?;
        advance(query, &page.items, page.next.as_deref());
        rows.extend(page.items);
        let surplus = rows.len().saturating_sub(wanted);
        rows.drain(..surplus);
        if page.next.is_none() {
            return Ok(rows);
        }
    }
}

/// Goes on behind what was read. A filtered page may be empty and still have led somewhere: its cursor says so.
fn advance(query: &mut AuditQuery, rows: &[AuditRow], next: Option<&str>) {
    let cursor = next.and_then(|next| next.parse().ok()).or_else(|| rows.last().map(|row| row.seq));
    query.after = cursor.or(query.after);
}

const HEAD: [(&str, Align); 7] = [
    ("ROW", Align::Right),
    ("AT", Align::Left),
    ("ACTOR", Align::Left),
    ("ACTION", Align::Left),
    ("OBJECT", Align::Left),
    ("OUTCOME", Align::Left),
    ("DETAILS", Align::Left),
];
/// Columns of the live form, which cannot know what is still to come: as wide as what is usual.
const WIDTHS: [usize; 7] = [7, 24, 12, 20, 20, 7, 0];

fn table(rows: &VecDeque<AuditRow>) -> Table<7> {
    let mut table = Table::new(HEAD);
    for row in rows {
        table.row(cells(row));
    }
    table
}

fn cells(row: &AuditRow) -> [String; 7] {
    let is_empty = match &row.details {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        _ => false,
    };
    [
        row.seq.to_string(),
        row.at.to_string(),
        row.actor.clone(),
        row.action.clone(),
        row.object.clone(),
        row.outcome.clone(),
        if is_empty { String::new() } else { row.details.to_string() },
    ]
}

/// One line of the live form.
fn line(cells: &[String; 7]) -> String {
    let mut line = String::new();
    for ((cell, width), (_, align)) in cells.iter().zip(WIDTHS).zip(HEAD) {
        let cell = escape::text(cell);
        match align {
            Align::Right => line.push_str(&format!("{cell:>width$}  ")),
            Align::Left => line.push_str(&format!("{cell:<width$}  ")),
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// What was found, by the manager and by us.
#[derive(Debug, Serialize)]
struct Verdict {
    /// What the manager found.
    manager: AuditVerification,
    /// What the copy of the checkpoints says.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<Compared>,
}

async fn verify(client: &Client, printer: Printer, args: &AuditVerify) -> Result<u8, Failure> {
    // The file is read first: a wrong name need not cost a check of millions of rows.
    let kept = args.checkpoints.as_deref().map(checkpoints::read).transpose()?;
    let manager = client.verify_audit().await?;
    let copy = match &kept {
        Some(kept) => Some(checkpoints::compare(client, kept).await?),
        None => None,
    };
    let verdict = Verdict { manager, copy };
    printer.document(&verdict, text)?;
    Ok(u8::from(!is_whole(&verdict)))
}

fn is_whole(verdict: &Verdict) -> bool {
    verdict.manager.first_bad.is_none() && verdict.copy.as_ref().is_none_or(|copy| copy.first_bad.is_none())
}

fn text(verdict: &Verdict) -> String {
    let manager = &verdict.manager;
    let fault = |bad: Option<&api::audit::AuditFault>| {
        bad.map_or_else(|| "none".to_owned(), |bad| format!("row {}: {}", bad.seq, bad.text))
    };
    let mut lines: Vec<(&str, String)> = vec![
        ("rows", manager.rows.to_string()),
        (
            "newest",
            manager.head.as_ref().map_or_else(|| "none".to_owned(), |head| format!("{} {}", head.seq, head.hash)),
        ),
        ("checkpoints", manager.checkpoints.to_string()),
    ];
    if manager.lost_to_restore > 0 {
        lines.push(("lost to restore", manager.lost_to_restore.to_string()));
    }
    lines.push(("first bad", fault(manager.first_bad.as_ref())));
    if let Some(copy) = &verdict.copy {
        lines.push(("in the copy", copy.checkpoints.to_string()));
        if copy.lost_to_restore > 0 {
            lines.push(("lost by the copy", copy.lost_to_restore.to_string()));
        }
        if copy.older > 0 {
            lines.push(("older than rows", copy.older.to_string()));
        }
        lines.push(("first bad by it", fault(copy.first_bad.as_ref())));
    }
    lines.push(("verdict", if is_whole(verdict) { "whole" } else { "NOT WHOLE" }.to_owned()));
    card(&lines)
}

async fn export(client: &Client, args: &AuditExport) -> Result<(), Failure> {
    if args.file == Path::new("-") {
        let mut rows = client.export_audit(&AuditQuery::default()).await?;
        while let Some(bytes) = rows.next().await? {
            Sink.write(Target::Stdout, bytes.to_vec()).await.map_err(Failure::stdout)?;
        }
        return Ok(());
    }
    if !args.force && args.file.symlink_metadata().is_ok() {
        return Err(
            Failure::new(Kind::Usage, format!("{} is there already", args.file.display())).hint("--force replaces it")
        );
    }
    let count = keep(client, &args.file).await?;
    note(&format!("{count} rows are in {}", args.file.display()));
    Ok(())
}

/// Writes all rows beside the place of the file and moves them there when they are complete: half an audit is never
/// taken for the whole.
async fn keep(client: &Client, file: &Path) -> Result<u64, Failure> {
    let mut staged: PathBuf = file.to_owned();
    staged.as_mut_os_string().push(".part");
    let cannot = |error: std::io::Error| {
        Failure::new(Kind::Work, format!("{} cannot be written", file.display())).because(error)
    };
    let mut rows = client.export_audit(&AuditQuery::default()).await?;
    match std::fs::remove_file(&staged) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(cannot(error)),
        _ => {}
    }
    let mut out = durable::create_new(&staged).map_err(cannot)?;
    let mut count = 0;
    let copied = async {
        while let Some(bytes) = rows.next().await? {
            count += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            out.write_all(&bytes).map_err(cannot)?;
        }
        out.sync_data().and_then(|()| std::fs::rename(&staged, file)).map_err(cannot)
    };
    let copied: Result<(), Failure> = copied.await;
    if copied.is_err() {
        // What is incomplete is worth nothing; that it cannot be removed either is not the failure to tell.
        let _ = std::fs::remove_file(&staged);
    }
    copied.map(|()| count)
}

#[cfg(test)]
mod tests {
    use api::audit::{AuditFault, AuditHead};
    use api::time::Time;
    use serde_json::json;

    use super::*;

    fn row(seq: u64) -> AuditRow {
        AuditRow {
            seq,
            at: Time(0),
            actor: "al\u{202e}ice".into(),
            action: "token.create".into(),
            object: "token:ci".into(),
            outcome: "done".into(),
            details: json!({"scope": "run\n"}),
            hash: "ab".into(),
        }
    }

    #[test]
    fn rows_stay_on_their_line() {
        let rows: VecDeque<AuditRow> = [row(7), AuditRow { details: json!({}), ..row(1042) }].into();
        insta::assert_snapshot!(table(&rows).lay_out(None), @r#"
         ROW  AT                        ACTOR          ACTION        OBJECT    OUTCOME  DETAILS
           7  1970-01-01T00:00:00.000Z  al\u{202e}ice  token.create  token:ci  done     {"scope":"run\n"}
        1042  1970-01-01T00:00:00.000Z  al\u{202e}ice  token.create  token:ci  done
        "#);
        assert_eq!(line(&cells(&row(7))).lines().count(), 1);
    }

    #[test]
    fn a_page_without_rows_still_leads_on() {
        let mut query = AuditQuery { after: Some(5), ..AuditQuery::default() };
        advance(&mut query, &[], Some("900"));
        assert_eq!(query.after, Some(900));
        advance(&mut query, &[], None);
        assert_eq!(query.after, Some(900), "nothing new leads nowhere");
        advance(&mut query, &[row(901), row(950)], None);
        assert_eq!(query.after, Some(950));
    }

    #[test]
    fn a_verdict_for_people() {
        let manager = AuditVerification {
            rows: 1042,
            head: Some(AuditHead { seq: 1042, hash: "ab".into() }),
            checkpoints: 3,
            lost_to_restore: 0,
            public_key: None,
            first_bad: None,
        };
        let mut verdict = Verdict { manager, copy: None };
        insta::assert_snapshot!(text(&verdict), @r"
        rows         1042
        newest       1042 ab
        checkpoints  3
        first bad    none
        verdict      whole
        ");
        verdict.copy = Some(Compared {
            checkpoints: 2,
            older: 1,
            lost_to_restore: 0,
            first_bad: Some(AuditFault { seq: 900, text: "it is another row".into() }),
        });
        insta::assert_snapshot!(text(&verdict), @r"
        rows             1042
        newest           1042 ab
        checkpoints      3
        first bad        none
        in the copy      2
        older than rows  1
        first bad by it  row 900: it is another row
        verdict          NOT WHOLE
        ");
    }
}
