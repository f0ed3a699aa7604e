//! `join-token new|list|revoke`: the lines with which new hosts join.

use api::client::Client;
use api::joins::{JoinToken, JoinTokenRequest};
use api::page::MAX_LIMIT;
use api::time::Time;

use crate::args::{Format, JoinTokenNew, JoinTokenVerb};
use crate::error::Failure;
use crate::output::{Align, Printer, Table, ago, columns, note, now};

pub(super) async fn run(client: &Client, printer: Printer, verb: &JoinTokenVerb) -> Result<(), Failure> {
    match verb {
        JoinTokenVerb::New(args) => new(client, printer, args).await,
        JoinTokenVerb::List => list(client, printer).await,
        JoinTokenVerb::Revoke(args) => {
            client.revoke_join_token(&args.id).await?;
            note(&format!("nobody joins with {} any more; who did stays", args.id));
            Ok(())
        }
    }
}

/// The line alone is data, so that it can be given on as it is.
async fn new(client: &Client, printer: Printer, args: &JoinTokenNew) -> Result<(), Failure> {
    let request = JoinTokenRequest {
        groups: args.groups.clone(),
        uses: args.uses,
        expires_in: args.ttl,
        name: args.name.clone(),
        addresses: args.addresses.clone(),
    };
    let made = client.create_join_token(&request).await?;
    printer.document(&made, |made| format!("{}\n", made.text))?;
    if printer.format == Format::Table {
        let hosts = if made.token.uses == 1 { "one host".to_owned() } else { format!("{} hosts", made.token.uses) };
        let limits = limits(&made.token);
        let limits = if limits.is_empty() { String::new() } else { format!(" ({limits})") };
        note(&format!("good for {hosts}{limits}, ends {}; it is shown this once", ago(made.token.expires_at, now())));
        note("on the host: paprika-agent join TOKEN");
    }
    Ok(())
}

async fn list(client: &Client, printer: Printer) -> Result<(), Failure> {
    let mut tokens: Vec<JoinToken> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = client.join_tokens(after.as_deref(), Some(MAX_LIMIT)).await?;
        tokens.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    printer.document(&tokens, |tokens| table(tokens, now()).lay_out(columns()))
}

fn table(tokens: &[JoinToken], now: Time) -> Table<6> {
    let mut table = Table::new([
        ("ID", Align::Left),
        ("USED", Align::Right),
        ("STATUS", Align::Left),
        ("GROUPS", Align::Left),
        ("FOR", Align::Left),
        ("MADE", Align::Left),
    ]);
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    for token in tokens {
        let status = match token.revoked_at {
            Some(at) => format!("revoked {}", ago(at, now)),
            None if token.expires_at <= now => format!("expired {}", ago(token.expires_at, now)),
            None if token.used >= token.uses => "used up".to_owned(),
            None => format!("ends {}", ago(token.expires_at, now)),
        };
        table.row([
            token.id.clone(),
            format!("{} of {}", token.used, token.uses),
            status,
            or_dash(token.groups.join(" ")),
            or_dash(bounds(token)),
            format!("{} by {}", ago(token.created_at, now), token.created_by),
        ]);
    }
    table
}

/// Whom a token is for, and what it gives.
fn limits(token: &JoinToken) -> String {
    let groups = (!token.groups.is_empty()).then(|| format!("groups {}", token.groups.join(", ")));
    let bounds = Some(bounds(token)).filter(|bounds| !bounds.is_empty());
    groups.into_iter().chain(bounds).collect::<Vec<_>>().join("; ")
}

/// Which hosts may use a token.
fn bounds(token: &JoinToken) -> String {
    let addresses = (!token.addresses.is_empty()).then(|| format!("from {}", token.addresses.join(" ")));
    token.name.iter().cloned().chain(addresses).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: &str) -> JoinToken {
        JoinToken {
            id: id.into(),
            groups: vec!["web".into(), "canary".into()],
            uses: 20,
            used: 3,
            name: Some("web*".into()),
            addresses: vec!["10.1.0.0/16".into()],
            created_at: Time(1_000_000),
            created_by: "al\u{1b}ice".into(),
            expires_at: Time(1_000_000 + 3_600_000),
            revoked_at: None,
        }
    }

    #[test]
    fn join_tokens_for_people() {
        let now = Time(1_000_000 + 600_000);
        let used = JoinToken { used: 20, groups: vec![], name: None, addresses: vec![], ..token("bb") };
        let late = JoinToken { expires_at: Time(1_000_000 + 300_000), ..used.clone() };
        let revoked = JoinToken { revoked_at: Some(Time(1_000_000 + 480_000)), ..late.clone() };
        insta::assert_snapshot!(table(&[token("aa"), used, late, revoked], now).lay_out(None), @r"
        ID      USED  STATUS          GROUPS      FOR                    MADE
        aa   3 of 20  ends in 50m     web canary  web* from 10.1.0.0/16  10m ago by al\u{1b}ice
        bb  20 of 20  used up         -           -                      10m ago by al\u{1b}ice
        bb  20 of 20  expired 5m ago  -           -                      10m ago by al\u{1b}ice
        bb  20 of 20  revoked 2m ago  -           -                      10m ago by al\u{1b}ice
        ");
        assert_eq!(limits(&token("aa")), "groups web, canary; web* from 10.1.0.0/16");
    }
}
