//! `events`: prints what happened, and follows what happens.

use std::collections::VecDeque;

use api::client::Client;
use api::events::Event;
use api::page::MAX_LIMIT;
use common::escape;
use serde_json::Value;

use crate::args::{EventsArgs, Format};
use crate::error::Failure;
use crate::output::{Align, Printer, Table, columns, print};

pub(super) async fn run(client: &Client, printer: Printer, args: &EventsArgs) -> Result<(), Failure> {
    if args.follow {
        let mut events = client.follow_events(args.after);
        if printer.format == Format::Table {
            print(head().as_bytes())?;
        }
        loop {
            printer.element(&events.next().await?, |event| row(&cells(event)))?;
        }
    }
    let wanted = args.limit as usize;
    let events = match args.after {
        Some(after) => first(client, after, wanted).await?,
        None => last(client, wanted).await?,
    };
    if printer.format == Format::Table {
        return print(table(&events).lay_out(columns()).as_bytes());
    }
    for event in &events {
        printer.element(event, |_| String::new())?;
    }
    Ok(())
}

/// The events right behind a number.
async fn first(client: &Client, mut after: u64, wanted: usize) -> Result<VecDeque<Event>, Failure> {
    let mut events = VecDeque::new();
    while events.len() < wanted {
        let missing = u32::try_from(wanted - events.len()).unwrap_or(MAX_LIMIT);
        let page = client.events(after, Some(missing.min(MAX_LIMIT))).await?;
        let Some(newest) = page.items.last() else { break };
        after = newest.seq;
        events.extend(page.items);
        if page.next.is_none() {
            break;
        }
    }
    Ok(events)
}

/// The newest events. The list runs forward only, so the older ones pass by; what is kept is bounded by `wanted`.
async fn last(client: &Client, wanted: usize) -> Result<VecDeque<Event>, Failure> {
    let mut events = VecDeque::new();
    let mut after = 0;
    loop {
        let page = client.events(after, Some(MAX_LIMIT)).await?;
        let Some(newest) = page.items.last() else { break };
        after = newest.seq;
        events.extend(page.items);
        let surplus = events.len().saturating_sub(wanted);
        events.drain(..surplus);
        if page.next.is_none() {
            break;
        }
    }
    Ok(events)
}

const HEAD: [(&str, Align); 6] = [
    ("ID", Align::Right),
    ("AT", Align::Left),
    ("EVENT", Align::Left),
    ("AGENT", Align::Left),
    ("COMMAND", Align::Right),
    ("DETAILS", Align::Left),
];
/// Columns of the live form, which cannot know what is still to come: as wide as what is usual.
const WIDTHS: [usize; 6] = [7, 24, 20, 16, 7, 0];

fn table(events: &VecDeque<Event>) -> Table<6> {
    let mut table = Table::new(HEAD);
    for event in events {
        table.row(cells(event));
    }
    table
}

fn cells(event: &Event) -> [String; 6] {
    let dash = || "-".to_owned();
    let is_empty = match &event.body {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        _ => false,
    };
    [
        event.seq.to_string(),
        event.at.to_string(),
        event.kind.clone(),
        event.agent.as_ref().map_or_else(dash, ToString::to_string),
        event.command.map_or_else(dash, |id| id.to_string()),
        if is_empty { String::new() } else { event.body.to_string() },
    ]
}

/// The head of the live form.
fn head() -> String {
    row(&HEAD.map(|(title, _)| title.to_owned()))
}

/// One line of the live form.
fn row(cells: &[String; 6]) -> String {
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

#[cfg(test)]
mod tests {
    use api::time::Time;
    use serde_json::json;

    use super::*;

    fn events() -> VecDeque<Event> {
        let failed = Event {
            seq: 7,
            at: Time(0),
            kind: "command.failed".into(),
            agent: "web1".parse().ok(),
            command: Some(42),
            body: json!({"text": "a\nb\u{202e}"}),
        };
        let quiet = Event {
            seq: 1042,
            kind: "agent.\u{1b}[2J".into(),
            agent: None,
            command: None,
            body: json!({}),
            ..failed.clone()
        };
        [failed, quiet].into()
    }

    #[test]
    fn events_have_a_head_and_stay_on_their_line() {
        insta::assert_snapshot!(table(&events()).lay_out(None), @r#"
          ID  AT                        EVENT            AGENT  COMMAND  DETAILS
           7  1970-01-01T00:00:00.000Z  command.failed   web1        42  {"text":"a\nb\u{202e}"}
        1042  1970-01-01T00:00:00.000Z  agent.\u{1b}[2J  -            -
        "#);
    }

    #[test]
    fn live_events_line_up_with_their_head() {
        let rows: String = events().iter().map(|event| row(&cells(event))).collect();
        let lines = head() + &rows;
        insta::assert_snapshot!(lines, @r#"
             ID  AT                        EVENT                 AGENT             COMMAND  DETAILS
              7  1970-01-01T00:00:00.000Z  command.failed        web1                   42  {"text":"a\nb\u{202e}"}
           1042  1970-01-01T00:00:00.000Z  agent.\u{1b}[2J       -                       -
        "#);
    }
}
