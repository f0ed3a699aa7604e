//! Calls about the certificate authority.

use super::calls::Client;
use super::error::ClientError;
use crate::authority::{Authority, AuthorityChange};

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Reads which certificates are trusted and which one signs.
    pub async fn authority(&self) -> Result<Authority, ClientError> {
        self.call(self.get("/ca".to_owned())).await
    }

    /// Makes the next certificate and lets everybody trust it; the old one goes on signing.
    pub async fn prepare_authority(&self) -> Result<Authority, ClientError> {
        self.change("prepare", AuthorityChange::default()).await
    }

    /// Signs with the prepared certificate from now on.
    pub async fn activate_authority(&self, change: AuthorityChange) -> Result<Authority, ClientError> {
        self.change("activate", change).await
    }

    /// Trusts the old certificate no more.
    pub async fn retire_authority(&self, change: AuthorityChange) -> Result<Authority, ClientError> {
        self.change("retire", change).await
    }

    async fn change(&self, step: &str, change: AuthorityChange) -> Result<Authority, ClientError> {
        self.call(self.post(format!("/ca/{step}"), &change)?).await
    }
}
