//! `token new|list|revoke`: tokens of operators and programs.

use api::client::Client;
use api::page::MAX_LIMIT;
use api::time::Time;
use api::tokens::{Scope, Token, TokenRequest};

use crate::args::{Format, TokenNew, TokenScope, TokenVerb};
use crate::error::Failure;
use crate::output::{Align, Printer, Table, ago, columns, note, now};

pub(super) async fn run(client: &Client, printer: Printer, verb: &TokenVerb) -> Result<(), Failure> {
    match verb {
        TokenVerb::New(args) => new(client, printer, args).await,
        TokenVerb::List => list(client, printer).await,
        TokenVerb::Revoke(args) => {
            client.revoke_token(&args.id).await?;
            note(&format!("token {} is worth nothing any more", args.id));
            Ok(())
        }
    }
}

/// The secret alone is data, so that `$(paprika token new ci)` is the token.
async fn new(client: &Client, printer: Printer, args: &TokenNew) -> Result<(), Failure> {
    let roles = (!args.roles.is_empty()).then(|| args.roles.clone());
    let request = TokenRequest { name: args.name.clone(), scope: scope(args.scope), expires_in: args.ttl, roles };
    let made = client.create_token(&request).await?;
    printer.document(&made, |made| format!("{}\n", made.secret))?;
    if printer.format == Format::Table {
        note(&format!("token {} ({}) for {}; it is shown this once", made.token.id, made.token.scope, made.token.name));
    }
    Ok(())
}

async fn list(client: &Client, printer: Printer) -> Result<(), Failure> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = client.tokens(after.as_deref(), Some(MAX_LIMIT)).await?;
        tokens.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    printer.document(&tokens, |tokens| table(tokens, now()).lay_out(columns()))
}

fn table(tokens: &[Token], now: Time) -> Table<7> {
    let mut table = Table::new([
        ("ID", Align::Left),
        ("NAME", Align::Left),
        ("SCOPE", Align::Left),
        ("ROLES", Align::Left),
        ("STATUS", Align::Left),
        ("LAST USED", Align::Left),
        ("MADE", Align::Left),
    ]);
    for token in tokens {
        let status = match (token.revoked_at, token.expires_at) {
            (Some(at), _) => format!("revoked {}", ago(at, now)),
            (None, Some(at)) if at <= now => format!("expired {}", ago(at, now)),
            (None, Some(at)) => format!("ends {}", ago(at, now)),
            (None, None) => "good".to_owned(),
        };
        table.row([
            token.id.clone(),
            token.name.clone(),
            token.scope.to_string(),
            if token.roles.is_empty() { "-".to_owned() } else { token.roles.join(" ") },
            status,
            token.last_used_at.map_or_else(|| "never".to_owned(), |at| ago(at, now)),
            format!("{} by {}", ago(token.created_at, now), token.created_by),
        ]);
    }
    table
}

fn scope(scope: TokenScope) -> Scope {
    match scope {
        TokenScope::Read => Scope::Read,
        TokenScope::Run => Scope::Run,
        TokenScope::Admin => Scope::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_for_people() {
        let token = |name: &str, roles: &[&str], revoked_at| Token {
            id: "3f2a".into(),
            name: name.into(),
            scope: Scope::Run,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            created_at: Time(0),
            created_by: "local:0".into(),
            expires_at: None,
            revoked_at,
            last_used_at: Some(Time(60_000)),
        };
        let all = [token("ci\u{1b}", &["deployer", "watcher"], None), token("old", &[], Some(Time(30_000)))];
        insta::assert_snapshot!(table(&all, Time(90_000)).lay_out(None), @r"
        ID    NAME      SCOPE  ROLES             STATUS           LAST USED  MADE
        3f2a  ci\u{1b}  run    deployer watcher  good             30s ago    90s ago by local:0
        3f2a  old       run    -                 revoked 60s ago  30s ago    90s ago by local:0
        ");
    }
}
