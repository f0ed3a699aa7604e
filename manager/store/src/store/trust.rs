//! Who may connect and who may do what: tokens, join tokens, certificates of operators.

use common::id::{Generation, Name};

use super::{Result, Store};
use crate::types::{
    Actor, JoinClaim, JoinOutcome, JoinRefused, JoinTokenRow, Millis, NewJoinToken, NewToken, NotAdmitted,
    OperatorCert, Token,
};

/// Tokens of operators.
impl Store {
    /// Makes a token.
    ///
    /// # Errors
    /// `Conflict` when the id is taken.
    pub async fn token_create(&self, token: NewToken, actor: &Actor, now: Millis) -> Result<Token> {
        self.0.token_create(token, actor, now).await
    }

    /// Finds a token and the hash of its secret.
    pub async fn token_by_id(&self, id: &str) -> Result<Option<(Token, [u8; 32])>> {
        self.0.token_by_id(id).await
    }

    /// Lists all tokens, newest first.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        self.0.tokens().await
    }

    /// Takes a token back for ever, also from restored copies of this store in this folder.
    pub async fn token_revoke(&self, id: &str, actor: &Actor, now: Millis) -> Result<()> {
        self.0.token_revoke(id, actor, now).await
    }

    /// Notes that a token was used. Best effort: written now and then, without waiting.
    pub fn token_used(&self, id: &str, now: Millis) {
        self.0.token_used(id, now);
    }
}

/// Certificates of operators.
impl Store {
    /// Draws the generation of a certificate that is to be issued to an operator.
    pub async fn operator_cert_create(
        &self,
        name: &Name,
        not_after: Millis,
        actor: &Actor,
        now: Millis,
    ) -> Result<Generation> {
        self.0.operator_cert_create(name, not_after, actor, now).await
    }

    /// Finds a certificate; one that is not found is not to be believed.
    pub async fn operator_cert(&self, generation: Generation) -> Result<Option<OperatorCert>> {
        self.0.operator_cert(generation).await
    }

    /// Lists certificates, newest first.
    pub async fn operator_certs(&self) -> Result<Vec<OperatorCert>> {
        self.0.operator_certs().await
    }

    /// Takes all certificates of an operator back for ever, also from restored copies of this store in this folder.
    /// Answers which were revoked now.
    ///
    /// # Errors
    /// `NotFound` when there never was one.
    pub async fn operator_revoke(&self, name: &Name, actor: &Actor, now: Millis) -> Result<Vec<Generation>> {
        self.0.operator_revoke(name, actor, now).await
    }
}

/// Join tokens, and who joins with them.
impl Store {
    /// Makes a join token.
    ///
    /// # Errors
    /// `Conflict` when the id is taken, `OutOfRange` for one that is never of use.
    pub async fn join_token_create(&self, new: NewJoinToken, actor: &Actor, now: Millis) -> Result<JoinTokenRow> {
        self.0.join_token_create(new, actor, now).await
    }

    /// Lists join tokens, newest first; those that are of no use any more go after a while.
    pub async fn join_tokens(&self) -> Result<Vec<JoinTokenRow>> {
        self.0.join_tokens().await
    }

    /// Takes a join token back for ever, also from restored copies of this store in this folder.
    pub async fn join_token_revoke(&self, id: &str, actor: &Actor, now: Millis) -> Result<()> {
        self.0.join_token_revoke(id, actor, now).await
    }

    /// Lets an agent in, in one transaction: a use of the token is consumed, the agent is made with a generation that
    /// nobody had, its groups and its key are written down. The same key with the same token and name gets the same
    /// answer again for an hour, also when the token is used up or has expired meanwhile.
    ///
    /// `admit` is the caller's own check of name, address and groups: it answers the groups of the agent. It is asked
    /// on the writer's thread and must not wait for anything. A refusal is in the audit when the secret was right; who
    /// does not know it leaves nothing behind here.
    pub async fn join(
        &self,
        claim: JoinClaim,
        admit: impl FnOnce(&JoinTokenRow) -> std::result::Result<Vec<String>, NotAdmitted> + Send + 'static,
    ) -> Result<std::result::Result<JoinOutcome, JoinRefused>> {
        self.0.join(claim, admit).await
    }
}
