//! Calls about the manager itself, and about who asks it.

use super::calls::Client;
use super::error::ClientError;
use crate::status::Status;
use crate::whoami::Whoami;

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Asks how the manager is.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(self.get("/status".to_owned())).await
    }

    /// Asks who the manager takes us for and what we may do.
    pub async fn whoami(&self) -> Result<Whoami, ClientError> {
        self.call(self.get("/whoami".to_owned())).await
    }
}
