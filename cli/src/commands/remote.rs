//! From the options to a client of the chosen manager.

use api::client::{Client, Endpoint};

use crate::args::Globals;
use crate::context::{self, Choice, ClientCertificate, Environment};
use crate::error::{Failure, Kind};

/// Prepares a client; nothing is sent yet.
pub(super) fn connect(globals: &Globals) -> Result<Client, Failure> {
    let choice = context::choose(globals.context.as_deref(), &Environment::read())?;
    connect_to(&choice)
}

/// Prepares a client of a manager that was chosen already.
pub(super) fn connect_to(choice: &Choice) -> Result<Client, Failure> {
    let mut endpoint = Endpoint::parse(choice.api.trim()).map_err(|error| {
        Failure::new(Kind::Usage, error.to_string()).hint(format!("it comes from {}", choice.origin))
    })?;
    if let Some(ca) = &choice.ca {
        endpoint = endpoint.ca_file(ca);
    }
    if let Some(ClientCertificate { cert, key }) = &choice.certificate {
        endpoint = endpoint.certificate(cert, key);
    }
    if let Some(token) = choice.read_token()? {
        endpoint = endpoint.token(token.expose().trim());
    }
    Ok(Client::new(endpoint)?)
}
