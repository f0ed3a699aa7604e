//! `operator cert|list|revoke`: certificates of operators. The key of a certificate is made here and never sent.

use std::io;
use std::path::{Path, PathBuf};

use api::base64;
use api::client::Client;
use api::operators::{Operator, OperatorCertificate, OperatorCertificateRequest};
use api::page::MAX_LIMIT;
use api::time::Time;
use common::config::Secret;
use common::durable;
use common::tls;
use serde::Serialize;

use crate::args::{OperatorCert, OperatorVerb};
use crate::error::{Failure, Kind};
use crate::output::{Align, Printer, Table, ago, columns, note, now};

/// Characters in a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

/// The files that were written.
#[derive(Debug, Serialize)]
struct Written {
    /// All of them.
    files: Vec<PathBuf>,
    /// Whose they are.
    name: String,
    /// When the certificate ends.
    expires_at: Time,
}

pub(super) async fn run(client: &Client, printer: Printer, verb: &OperatorVerb) -> Result<(), Failure> {
    match verb {
        OperatorVerb::Cert(args) => cert(client, printer, args).await,
        OperatorVerb::List => list(client, printer).await,
        OperatorVerb::Revoke(args) => {
            client.revoke_operator(&args.name).await?;
            note(&format!("the certificates of {} are worth nothing any more", args.name));
            Ok(())
        }
    }
}

async fn cert(client: &Client, printer: Printer, args: &OperatorCert) -> Result<(), Failure> {
    // Looked at before a certificate is issued that nobody would have.
    let folder = prepared(&args.out, args.force)?;
    let request = tls::new_key().map_err(|error| Failure::new(Kind::Work, "the key cannot be made").because(error))?;
    let wish = OperatorCertificateRequest { expires_in: args.ttl, csr: Some(csr_pem(&request.csr)) };
    let answer = client.operator_certificate(&args.name, &wish).await?;
    let written = write(&answer, &request.key_pem, &folder)?;
    printer.document(&written, |written| written.files.iter().map(|file| format!("{}\n", file.display())).collect())?;
    note(&format!("good until {} ({})", answer.expires_at, ago(answer.expires_at, now())));
    note(&format!(
        "{} logs in with: paprika login URL --ca {}/ca.pem --cert {}/cert.pem --key {}/key.pem",
        args.name,
        folder.display(),
        folder.display(),
        folder.display()
    ));
    Ok(())
}

fn files(folder: &Path) -> [PathBuf; 3] {
    ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name))
}

/// Makes the folder, and makes sure that nothing in it would be lost.
fn prepared(folder: &Path, is_replacing: bool) -> Result<PathBuf, Failure> {
    let cannot = |what: &str| {
        let text = format!("the folder {} cannot be {what}", folder.display());
        move |error: io::Error| Failure::new(Kind::Work, text).because(error)
    };
    durable::create_folder(folder).map_err(cannot("made"))?;
    let folder = folder.canonicalize().map_err(cannot("used"))?;
    match files(&folder).into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) if !is_replacing => {
            Err(Failure::new(Kind::Usage, format!("{} is there already", path.display())).hint("--force replaces it"))
        }
        _ => Ok(folder),
    }
}

/// The certificate is written last: where it is, all is.
fn write(answer: &OperatorCertificate, key: &Secret, folder: &Path) -> Result<Written, Failure> {
    let [ca, cert, key_file] = files(folder);
    let put = |path: &Path, text: &str| {
        durable::replace(path, text.as_bytes())
            .map_err(|error| Failure::new(Kind::Work, format!("{} cannot be written", path.display())).because(error))
    };
    put(&ca, &answer.ca_pem)?;
    put(&key_file, key.expose())?;
    put(&cert, &answer.chain_pem)?;
    Ok(Written { files: vec![ca, cert, key_file], name: answer.name.to_string(), expires_at: answer.expires_at })
}

fn csr_pem(der: &[u8]) -> String {
    let mut pem = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for line in base64::encode(der).as_bytes().chunks(PEM_LINE) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE REQUEST-----\n");
    pem
}

async fn list(client: &Client, printer: Printer) -> Result<(), Failure> {
    let mut operators: Vec<Operator> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = client.operators(after.as_deref(), Some(MAX_LIMIT)).await?;
        operators.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    printer.document(&operators, |operators| table(operators, now()).lay_out(columns()))
}

fn table(operators: &[Operator], now: Time) -> Table<5> {
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("GENERATION", Align::Right),
        ("STATUS", Align::Left),
        ("ROLES", Align::Left),
        ("MADE", Align::Left),
    ]);
    for operator in operators {
        let status = match operator.revoked_at {
            Some(at) => format!("revoked {}", ago(at, now)),
            None if operator.expires_at <= now => format!("expired {}", ago(operator.expires_at, now)),
            None => format!("ends {}", ago(operator.expires_at, now)),
        };
        table.row([
            operator.name.to_string(),
            operator.generation.to_string(),
            status,
            if operator.roles.is_empty() { "-".to_owned() } else { operator.roles.join(" ") },
            format!("{} by {}", ago(operator.created_at, now), operator.created_by),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn operator(name: &str) -> Operator {
        Operator {
            name: name.parse().unwrap(),
            generation: 7,
            roles: vec!["deployer".into()],
            created_at: Time(0),
            created_by: "local:0".into(),
            expires_at: Time(864_000_000),
            revoked_at: None,
        }
    }

    #[test]
    fn operators_for_people() {
        let gone = Operator { revoked_at: Some(Time(3_000_000)), roles: vec![], ..operator("bob") };
        let late = Operator { expires_at: Time(3_000_000), ..operator("carol") };
        insta::assert_snapshot!(table(&[operator("alice"), gone, late], Time(3_600_000)).lay_out(None), @r"
        NAME   GENERATION  STATUS           ROLES     MADE
        alice           7  ends in 9d       deployer  60m ago by local:0
        bob             7  revoked 10m ago  -         60m ago by local:0
        carol           7  expired 10m ago  deployer  60m ago by local:0
        ");
    }

    #[test]
    fn the_key_is_for_its_owner_only_and_nothing_is_replaced_by_accident() {
        let parent = tempfile::tempdir().unwrap();
        let folder = prepared(&parent.path().join("a/b"), false).unwrap();
        let answer = OperatorCertificate {
            name: "alice".parse().unwrap(),
            cluster: "home".parse().unwrap(),
            generation: 1,
            expires_at: Time(0),
            chain_pem: "CHAIN".into(),
            key_pem: None,
            ca_pem: "CA".into(),
        };
        let written = write(&answer, &Secret::new("KEY".into()), &folder).unwrap();
        assert_eq!(written.files.len(), 3);
        for file in &written.files {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        assert_eq!(prepared(&folder, false).unwrap_err().kind(), Kind::Usage);
        assert!(prepared(&folder, true).is_ok());
    }

    #[test]
    fn a_request_for_a_certificate_is_pem() {
        let pem = csr_pem(&[7; 100]);
        let lines: Vec<&str> = pem.lines().collect();
        assert_eq!((lines.len(), lines[1].len(), lines[3].starts_with("-----END")), (5, 64, false));
        assert!(pem.ends_with("-----END CERTIFICATE REQUEST-----\n"));
    }
}
