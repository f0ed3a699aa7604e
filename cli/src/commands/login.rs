//! `login`: gets to know a manager, tries a credential on it, and only then writes a context.
//!
//! ```text
//! --ca FILE ─────────────────────────────────────────────┐
//! --pin SHA256 ─► meet: the manager shows that authority ─┼─► whoami with the credential ─► context, 0600
//! neither ─► look ─► a person compares the pin ─► meet ───┘
//! ```
//! No byte of a credential leaves before the manager has shown a certificate of the authority that was named.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use api::client::{self, Address, Client, Endpoint, ShownAuthority};
use api::whoami::Whoami;
use common::config::Secret;
use common::id::Name;
use common::pin::Pin;

use super::{typed, whoami};
use crate::args::LoginArgs;
use crate::context::Environment;
use crate::context_file::{NewContext, Place};
use crate::error::{Failure, Kind};
use crate::output::{Printer, note, now};

/// Most bytes of a token that are read: ours have below a hundred.
const MAX_TOKEN: u64 = 64 * 1024;

/// What is shown to the manager.
enum Credential {
    /// A token that is in a file of the operator.
    TokenFile(PathBuf, Secret),
    /// A token that was typed or piped in, and is still to be kept.
    Token(Secret),
    /// A certificate and its key.
    Certificate(PathBuf, PathBuf),
    /// The kernel says who we are.
    Kernel,
}

pub(super) async fn run(printer: Printer, args: &LoginArgs) -> Result<(), Failure> {
    let file = Environment::read().config.ok_or_else(|| {
        Failure::new(Kind::Usage, "there is no place for contexts").hint("set HOME or XDG_CONFIG_HOME")
    })?;
    let endpoint = Endpoint::parse(args.url.trim()).map_err(|error| Failure::new(Kind::Usage, error.to_string()))?;
    let place = Place::find(&file, context_name(args, endpoint.address())?, args.force)?;
    let (trusted, authority) = trust(endpoint, args).await?;
    let credential = credential(args, trusted.address())?;
    let client = Client::new(match &credential {
        Credential::TokenFile(_, token) | Credential::Token(token) => trusted.token(token.expose()),
        Credential::Certificate(cert, key) => trusted.certificate(cert, key),
        Credential::Kernel => trusted,
    })?;
    let known = client.whoami().await?;
    let context = NewContext { api: client.address(), ..NewContext::default() };
    keep(printer, args, &place, (context, authority, credential), &known)
}

/// What the context is called: as asked for, or like the host.
fn context_name(args: &LoginArgs, address: &Address) -> Result<Name, Failure> {
    if let Some(name) = &args.name {
        return Ok(name.clone());
    }
    let host = match address {
        Address::Tls { host, .. } => host.as_str(),
        Address::Unix(_) => "local",
    };
    host.parse().map_err(|_| {
        Failure::new(Kind::Usage, format!("the context cannot be called {host}")).hint("--name gives it a name")
    })
}

/// Finds the authority to trust, and the endpoint that trusts it.
async fn trust(endpoint: Endpoint, args: &LoginArgs) -> Result<(Endpoint, Option<ShownAuthority>), Failure> {
    if matches!(endpoint.address(), Address::Unix(_)) {
        return Ok((endpoint, None));
    }
    if let Some(ca) = &args.ca {
        return Ok((endpoint.ca_file(ca), None));
    }
    let pin = match args.pin {
        Some(pin) => pin,
        None => confirmed(&endpoint).await?,
    };
    let authority = client::meet(endpoint.clone(), pin).await?;
    Ok((endpoint.ca_pem(authority.pem.as_bytes()), Some(authority)))
}

/// Shows the pin of the manager's authority to a person, who says whether it is the right one.
async fn confirmed(endpoint: &Endpoint) -> Result<Pin, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Kind::Usage, "nobody can be asked whether the manager's CA is the right one")
            .hint("give --pin, which stands in every join token and in paprika ca show, or --ca"));
    }
    let seen = client::look(endpoint.clone()).await?;
    let mut answer = String::new();
    write!(
        io::stderr().lock(),
        "The manager at {} shows a CA with this SHA-256:\n  {}\n\
         Compare it with what paprika ca show says on the manager. Is it the same? Type yes: ",
        endpoint.address(),
        seen.pin
    )
    .and_then(|()| io::stdin().lock().read_line(&mut answer))
    .map_err(|error| Failure::new(Kind::Work, "the question could not be asked").because(error))?;
    if answer.trim() == "yes" {
        Ok(seen.pin)
    } else {
        Err(Failure::new(Kind::Work, "the manager is not trusted; nothing was sent and nothing written"))
    }
}

fn credential(args: &LoginArgs, address: &Address) -> Result<Credential, Failure> {
    match (&args.token_file, &args.cert, &args.key) {
        (Some(path), ..) if path == Path::new("-") => {
            let mut text = String::new();
            io::stdin()
                .lock()
                .take(MAX_TOKEN)
                .read_to_string(&mut text)
                .map_err(|error| Failure::new(Kind::Usage, "the token cannot be read").because(error))?;
            token(&text, "our standard input").map(Credential::Token)
        }
        (Some(path), ..) => {
            let shown = path.display().to_string();
            let cannot =
                |error| Failure::new(Kind::Usage, format!("the token file {shown} cannot be read")).because(error);
            let text = fs::read_to_string(path).map_err(cannot)?;
            Ok(Credential::TokenFile(fs::canonicalize(path).map_err(cannot)?, token(&text, &shown)?))
        }
        (None, Some(cert), Some(key)) => {
            let whole = |path: &Path| {
                fs::canonicalize(path).map_err(|error| {
                    Failure::new(Kind::Usage, format!("{} cannot be read", path.display())).because(error)
                })
            };
            Ok(Credential::Certificate(whole(cert)?, whole(key)?))
        }
        _ if matches!(address, Address::Unix(_)) => Ok(Credential::Kernel),
        _ if io::stdin().is_terminal() => {
            let text = typed::unseen("Token: ")
                .map_err(|error| Failure::new(Kind::Work, "the token could not be asked for").because(error))?;
            token(&text, "what was typed").map(Credential::Token)
        }
        _ => Err(Failure::new(Kind::Usage, "there is nothing to log in with")
            .hint("give --token-file FILE (or - for standard input), or --cert and --key")),
    }
}

fn token(text: &str, origin: &str) -> Result<Secret, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::new(Kind::Usage, format!("there is no token in {origin}")));
    }
    // It becomes a header: what cannot stand there is no token, and is not shown.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::new(Kind::Usage, format!("what stands in {origin} is no token")));
    }
    Ok(Secret::new(text.to_owned()))
}

/// Writes what was found, the context last.
fn keep(
    printer: Printer,
    args: &LoginArgs,
    place: &Place,
    (mut context, authority, credential): (NewContext, Option<ShownAuthority>, Credential),
    known: &Whoami,
) -> Result<(), Failure> {
    context.ca = match (&args.ca, &authority) {
        (Some(path), _) => Some(fs::canonicalize(path).map_err(|error| {
            Failure::new(Kind::Usage, format!("{} cannot be found", path.display())).because(error)
        })?),
        (None, Some(authority)) => Some(place.put("ca.pem", &authority.pem)?),
        (None, None) => None,
    };
    match credential {
        Credential::TokenFile(path, _) => context.token_file = Some(path),
        Credential::Token(token) => context.token_file = Some(place.put("token", token.expose())?),
        Credential::Certificate(cert, key) => (context.cert, context.key) = (Some(cert), Some(key)),
        Credential::Kernel => {}
    }
    let added = place.add(&context)?;
    printer.document(known, |known| whoami::text(known, &context.api, now()))?;
    if let Some(kept) = &added.kept {
        note(&format!("comments do not survive; the file as it was is {}", kept.display()));
    }
    let before = added.before.map_or_else(String::new, |before| format!(", instead of {before}"));
    note(&format!("the context is in {} and is the current one{before}", added.file.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_context_is_called_like_its_host() {
        let args = |name: Option<&str>| LoginArgs {
            url: String::new(),
            name: name.map(|name| name.parse().unwrap()),
            ca: None,
            pin: None,
            token_file: None,
            cert: None,
            key: None,
            force: false,
        };
        let address = |text: &str| Endpoint::parse(text).unwrap().address().clone();
        let called = |name, url: &str| context_name(&args(name), &address(url)).map(|name| name.to_string());
        assert_eq!(called(None, "https://manager.example:7050").unwrap(), "manager.example");
        assert_eq!(called(None, "unix:/run/x").unwrap(), "local");
        assert_eq!(called(Some("prod"), "https://manager.example").unwrap(), "prod");
        assert!(called(None, "https://[::1]:7050").unwrap_err().lines().contains("--name"));
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        assert_eq!(token(" paprika_x_y\n", "x").unwrap().expose(), "paprika_x_y");
        assert!(token(" \n", "the file").unwrap_err().lines().contains("no token in the file"));
        let told = token("hun\nter2", "the file").unwrap_err().lines();
        assert!(!told.contains("ter2"), "{told}");
    }
}
