//! `events`: prints what happened, and follows what happens.

use std::collections::VecDeque;

use api::client::Client;
use api::events::Event;
use api::page::MAX_LIMIT;
use common::escape;
use serde_json::Value;

use crate::args::EventsArgs;
use crate::error::Failure;
use crate::output::Printer;

pub(super) async fn run(client: &Client, printer: Printer, args: &EventsArgs) -> Result<(), Failure> {
    if args.follow {
        let mut events = client.follow_events(args.after);
        loop {
            printer.element(&events.next().await?, line)?;
        }
    }
    let wanted = args.limit as usize;
    let events = match args.after {
        Some(after) => first(client, after, wanted).await?,
        None => last(client, wanted).await?,
    };
    for event in &events {
        printer.element(event, line)?;
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

fn line(event: &Event) -> String {
    let mut words = format!("{}  {}  {}", event.seq, event.at, escape::text(&event.kind));
    if let Some(agent) = &event.agent {
        words.push_str(&format!("  agent={agent}"));
    }
    if let Some(command) = event.command {
        words.push_str(&format!("  command={command}"));
    }
    let is_empty = match &event.body {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        _ => false,
    };
    if !is_empty {
        words.push_str(&format!("  {}", escape::text(event.body.to_string())));
    }
    words.push('\n');
    words
}

#[cfg(test)]
mod tests {
    use api::time::Time;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            seq: 7,
            at: Time(0),
            kind: "command.failed".into(),
            agent: "web1".parse().ok(),
            command: Some(42),
            body: json!({"text": "a\nb\u{202e}"}),
        };
        assert_eq!(
            line(&event),
            "7  1970-01-01T00:00:00.000Z  command.failed  agent=web1  command=42  {\"text\":\"a\\nb\\u{202e}\"}\n"
        );
        let quiet = Event { agent: None, command: None, body: json!({}), ..event };
        assert_eq!(line(&quiet), "7  1970-01-01T00:00:00.000Z  command.failed\n");
    }
}
