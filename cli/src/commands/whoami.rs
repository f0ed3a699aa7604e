//! `whoami`: who the manager takes us for, and what we may do.

use api::client::Client;
use api::time::Time;
use api::whoami::Whoami;

use crate::error::Failure;
use crate::output::{Printer, ago, card, now};

pub(super) async fn run(client: &Client, printer: Printer) -> Result<(), Failure> {
    let whoami = client.whoami().await?;
    printer.document(&whoami, |whoami| text(whoami, &client.address(), now()))
}

pub(super) fn text(whoami: &Whoami, address: &str, now: Time) -> String {
    let or_none = |words: &[String]| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
    let mut lines: Vec<(&str, String)> = vec![
        ("name", whoami.actor.clone()),
        ("by", whoami.via.as_str().to_owned()),
        ("scope", whoami.scope.to_string()),
        ("roles", or_none(&whoami.roles)),
        ("may", or_none(&whoami.permissions)),
    ];
    lines.extend(whoami.token.iter().map(|id| ("token", id.clone())));
    lines.extend(whoami.expires_at.map(|at| ("ends", format!("{at} ({})", ago(at, now)))));
    lines.push(("cluster", whoami.cluster.to_string()));
    lines.push(("manager", address.to_owned()));
    card(&lines)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use api::tokens::Scope;
    use api::whoami::Via;

    use super::*;

    #[test]
    fn a_caller_for_people() {
        let mut whoami = Whoami {
            actor: "ali\u{202e}ce".into(),
            via: Via::Token,
            token: Some("3f2a".into()),
            scope: Scope::Run,
            roles: vec!["deployer".into(), "watcher".into()],
            permissions: vec!["agent.read".into(), "command.run".into()],
            expires_at: Some(Time(7_200_000)),
            cluster: "home".parse().unwrap(),
        };
        insta::assert_snapshot!(text(&whoami, "https://m:7050", Time(0)), @r"
        name     ali\u{202e}ce
        by       token
        scope    run
        roles    deployer, watcher
        may      agent.read, command.run
        token    3f2a
        ends     1970-01-01T02:00:00.000Z (in 2h)
        cluster  home
        manager  https://m:7050
        ");
        whoami = Whoami { via: Via::Local, token: None, roles: vec![], expires_at: None, ..whoami };
        assert!(text(&whoami, "unix:/x", Time(0)).contains("roles    none\n"));
    }
}
