//! Operators' tokens: made, listed, revoked. The secret is shown once and never stored.

use std::time::Duration;

use site::permission::Permission;
use store::types::{Actor, NewToken, Scope, Token};

use super::callers::{Caller, FreshToken, split_bearer};
use super::commands::millis;
use super::core::Service;
use super::error::{ServiceError, scope_name};
use super::rights::covers;
use super::validate;

impl Service {
    /// Makes a token; answers its row and the whole text, which nobody can show again. Without roles it has those of who
    /// makes it.
    ///
    /// # Errors
    /// When the caller may not, or would give more than it has, or the name is no name.
    pub async fn token_new(
        &self,
        caller: &Caller,
        name: &str,
        scope: Scope,
        roles: Option<Vec<String>>,
        ttl: Option<Duration>,
    ) -> Result<(Token, String), ServiceError> {
        self.tokens_admin(caller, "token.create", name).await?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        validate::token_name(name)?;
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(ServiceError::invalid("ttl", "a token that is never valid"));
        }
        let rights = self.rights();
        let roles = roles.unwrap_or_else(|| rights.roles(caller));
        validate::roles(&roles, rights.site().roles())?;
        let more = if covers(caller.scope, scope) {
            rights.lacks(caller, name, &roles).map(|role| match name == caller.operator() {
                true => ServiceError::gives("roles", format!("the role {role}")),
                false => ServiceError::gives("roles", format!("the role {role}, which a token in another name takes")),
            })
        } else {
            Some(ServiceError::gives("scope", format!("the scope {}", scope_name(scope))))
        };
        if let Some(refusal) = more {
            self.note_refusal(caller, "token.create", &format!("token:{name}"), &refusal).await;
            return Err(refusal);
        }
        self.make_token(name, scope, roles, ttl, &caller.actor).await
    }

    /// Makes a token without asking who wants it: the first one, at the first start.
    ///
    /// # Errors
    /// When the store cannot record it.
    pub(crate) async fn make_token(
        &self,
        name: &str,
        scope: Scope,
        roles: Vec<String>,
        ttl: Option<Duration>,
        actor: &Actor,
    ) -> Result<(Token, String), ServiceError> {
        let fresh = FreshToken::draw();
        let now = self.now();
        let expires = ttl.map(|ttl| now.saturating_add(millis(ttl)));
        let wanted =
            NewToken { id: fresh.id, hash: fresh.hash, name: name.to_owned(), scope, roles, expires_at: expires };
        let token = self.store().token_create(wanted, actor, now).await?;
        self.credentials_changed().await?;
        Ok((token, fresh.text))
    }

    /// Lists tokens, revoked ones included.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn tokens(&self, caller: &Caller) -> Result<Vec<Token>, ServiceError> {
        self.tokens_admin(caller, "token.list", "").await?;
        Ok(self.store().tokens().await?)
    }

    /// Revokes a token: it stops to work within two seconds everywhere and at once here.
    ///
    /// # Errors
    /// When there is no such token, or the caller may not.
    pub async fn token_revoke(&self, caller: &Caller, id: &str) -> Result<(), ServiceError> {
        self.tokens_admin(caller, "token.revoke", id).await?;
        let (id, actor) = (id.to_owned(), caller.actor.clone());
        let revoke = async move |service: Self| {
            service.store().token_revoke(&id, &actor, service.now()).await?;
            service.tokens_kept().forget(&id);
            service.credentials_changed().await
        };
        self.to_its_end(revoke).await
    }

    /// Tells whether the store ever heard of the token with this text, revoked or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn token_is_known(&self, text: &str) -> Result<bool, ServiceError> {
        match split_bearer(text) {
            Some((id, _)) => Ok(self.store().token_by_id(id).await?.is_some()),
            None => Ok(false),
        }
    }

    async fn tokens_admin(&self, caller: &Caller, action: &str, object: &str) -> Result<(), ServiceError> {
        self.must(caller, Permission::OperatorManage, action, &format!("token:{object}")).await
    }
}
