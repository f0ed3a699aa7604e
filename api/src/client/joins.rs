//! Calls about join tokens.

use http::Method;

use super::calls::{Client, escaped, list};
use super::error::ClientError;
use crate::joins::{JoinToken, JoinTokenRequest, NewJoinToken};
use crate::page::Page;

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Lists join tokens.
    pub async fn join_tokens(&self, after: Option<&str>, limit: Option<u32>) -> Result<Page<JoinToken>, ClientError> {
        self.call(self.get(list("/join-tokens", after, limit))).await
    }

    /// Makes a join token; the line with its secret is in this answer and nowhere else.
    pub async fn create_join_token(&self, request: &JoinTokenRequest) -> Result<NewJoinToken, ClientError> {
        self.call(self.post("/join-tokens".to_owned(), request)?).await
    }

    /// Revokes a join token; who joined with it stays.
    pub async fn revoke_join_token(&self, id: &str) -> Result<(), ClientError> {
        let path = format!("/join-tokens/{}", escaped(id));
        self.send(&self.bare(Method::DELETE, path).repeatable()).await.map(drop)
    }
}
