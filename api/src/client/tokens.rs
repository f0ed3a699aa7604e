//! Calls about operators' tokens.

use http::Method;

use super::calls::{Client, escaped, list};
use super::error::ClientError;
use crate::page::Page;
use crate::tokens::{NewToken, Token, TokenRequest};

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Lists tokens.
    pub async fn tokens(&self, after: Option<&str>, limit: Option<u32>) -> Result<Page<Token>, ClientError> {
        self.call(self.get(list("/tokens", after, limit))).await
    }

    /// Makes a token; its secret is in this answer and nowhere else.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<NewToken, ClientError> {
        self.call(self.post("/tokens".to_owned(), request)?).await
    }

    /// Revokes a token.
    pub async fn revoke_token(&self, id: &str) -> Result<(), ClientError> {
        let path = format!("/tokens/{}", escaped(id));
        self.send(&self.bare(Method::DELETE, path).repeatable()).await.map(drop)
    }
}
