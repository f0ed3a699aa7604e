//! `ca show|prepare|activate|retire`: the certificate authority and its rotation.

use api::authority::{Authority, AuthorityChange};
use api::client::Client;
use api::time::Time;

use crate::args::{CaVerb, Format};
use crate::error::Failure;
use crate::output::{Align, Printer, Table, ago, columns, note, now};

pub(super) async fn run(client: &Client, printer: Printer, verb: &CaVerb) -> Result<(), Failure> {
    let authority = match verb {
        CaVerb::Show => client.authority().await?,
        CaVerb::Prepare => client.prepare_authority().await?,
        CaVerb::Activate(args) => client.activate_authority(AuthorityChange { force: args.force }).await?,
        CaVerb::Retire(args) => client.retire_authority(AuthorityChange { force: args.force }).await?,
    };
    printer.document(&authority, |authority| table(authority, now()).lay_out(columns()))?;
    if printer.format == Format::Table
        && let Some(next) = next_step(&authority)
    {
        note(&next);
    }
    Ok(())
}

fn table(authority: &Authority, now: Time) -> Table<5> {
    let mut table = Table::new([
        ("NUMBER", Align::Right),
        ("STATUS", Align::Left),
        ("ENDS", Align::Left),
        ("SHA-256", Align::Left),
        ("SUBJECT", Align::Left),
    ]);
    for certificate in &authority.trusted {
        table.row([
            certificate.number.to_string(),
            if certificate.number == authority.active { "signs" } else { "trusted" }.to_owned(),
            ago(certificate.not_after, now),
            certificate.sha256.clone(),
            certificate.subject.clone(),
        ]);
    }
    table
}

/// What a rotation that has begun waits for; nothing when there is only one certificate.
fn next_step(authority: &Authority) -> Option<String> {
    let has_newer = authority.trusted.iter().any(|certificate| certificate.number > authority.active);
    let has_older = authority.trusted.iter().any(|certificate| certificate.number < authority.active);
    let waits = match authority.agents_without {
        0 => "every agent is ready for it".to_owned(),
        1 => "1 agent is not ready for it".to_owned(),
        count => format!("{count} agents are not ready for it"),
    };
    match (has_newer, has_older) {
        (true, _) => Some(format!("next: paprika ca activate; {waits}")),
        (false, true) => Some(format!("next: paprika ca retire; {waits}")),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use api::authority::TrustedCertificate;

    use super::*;

    fn authority(active: u32, numbers: &[u32], agents_without: u64) -> Authority {
        let certificate = |number: &u32| TrustedCertificate {
            number: *number,
            sha256: format!("{number}f").repeat(3),
            not_after: Time(864_000_000),
            subject: format!("CN=home {number}\u{1b}"),
        };
        let trusted = numbers.iter().map(certificate).collect();
        Authority { active, trusted, bundle_pem: String::new(), agents_without }
    }

    #[test]
    fn an_authority_for_people_with_the_next_step() {
        insta::assert_snapshot!(table(&authority(1, &[1, 2], 3), Time(0)).lay_out(None), @r"
        NUMBER  STATUS   ENDS    SHA-256  SUBJECT
             1  signs    in 10d  1f1f1f   CN=home 1\u{1b}
             2  trusted  in 10d  2f2f2f   CN=home 2\u{1b}
        ");
        let next = |active, numbers: &[u32], without| next_step(&authority(active, numbers, without));
        assert_eq!(next(1, &[1], 0), None);
        assert_eq!(next(1, &[1, 2], 3).as_deref(), Some("next: paprika ca activate; 3 agents are not ready for it"));
        assert_eq!(next(2, &[1, 2], 1).as_deref(), Some("next: paprika ca retire; 1 agent is not ready for it"));
        assert_eq!(next(2, &[1, 2], 0).as_deref(), Some("next: paprika ca retire; every agent is ready for it"));
    }
}
