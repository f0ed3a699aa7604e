//! Who calls: bearers of tokens and of operators' certificates, and the local socket's users.
//!
//! What they may do is weighed by [`super::rights`] and nowhere else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use common::id::{Generation, Name, Uid};
use site::permission::Permission;
use site::roles::ADMIN;
use store::types::{Actor, Authority, Millis, Scope, Token, Via};
use tokio::time::Instant;

use super::core::Service;
use super::error::ServiceError;
use crate::limits::{TOKEN_BELIEVED, TOKENS_KEPT};

/// What every token starts with, so that scanners for leaked secrets can find them.
const TOKEN_PREFIX: &str = "paprika_";

/// Who calls, by which credential, and what that credential is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name in audit rows and in `created_by`.
    pub actor: Actor,
    /// Who it is and by which credential: what is recorded with what they ask for.
    pub authority: Authority,
    /// What they may do at the most.
    pub scope: Scope,
    /// Roles of the credential itself; those of `roles.yml` come on top when something is weighed.
    pub roles: Vec<String>,
}

impl Caller {
    /// The bearer of a token.
    #[must_use]
    pub fn of_token(token: &Token) -> Self {
        Self {
            actor: Actor(token.name.clone()),
            authority: Authority { actor: token.name.clone(), via: Via::Token { id: token.id.clone() } },
            scope: token.scope,
            roles: token.roles.clone(),
        }
    }

    /// The bearer of an operator's certificate: no scope bounds it, and all roles are those of `roles.yml`.
    #[must_use]
    pub fn of_certificate(name: &Name, generation: Generation) -> Self {
        Self {
            actor: Actor(name.to_string()),
            authority: Authority { actor: name.to_string(), via: Via::Certificate { generation } },
            scope: Scope::Admin,
            roles: Vec::new(),
        }
    }

    /// A user of this host whom the socket lets in: root or the manager's own.
    #[must_use]
    pub fn local(uid: u32) -> Self {
        let actor = format!("local:{uid}");
        Self {
            actor: Actor(actor.clone()),
            authority: Authority { actor, via: Via::Local { uid } },
            scope: Scope::Admin,
            roles: vec![ADMIN.to_owned()],
        }
    }

    /// The name under which `roles.yml` may give roles. That of a local user is no name there: it holds a colon.
    #[must_use]
    pub fn operator(&self) -> &str {
        &self.actor.0
    }
}

/// Who a caller is, and what it may do now.
#[derive(Debug, Clone)]
pub struct CallerView {
    /// The caller.
    pub caller: Caller,
    /// Every role it has, those of `roles.yml` included.
    pub roles: Vec<String>,
    /// What it may do to something at least.
    pub permissions: Vec<Permission>,
    /// When its credential ends.
    pub expires_at: Option<Millis>,
    /// The name of the cluster.
    pub cluster: Name,
}

/// A token in its two forms: what the operator keeps and what the store keeps.
pub struct FreshToken {
    /// The public half, also in audit rows.
    pub id: String,
    /// The whole text, shown once.
    pub text: String,
    /// What is stored of the secret.
    pub hash: [u8; 32],
}

impl FreshToken {
    /// Draws a token of 256 random bits.
    #[must_use]
    pub fn draw() -> Self {
        let id = Uid::random().to_string().chars().take(12).collect::<String>();
        let secret = format!("{}{}", Uid::random(), Uid::random());
        let hash = *blake3::hash(secret.as_bytes()).as_bytes();
        Self { text: format!("{TOKEN_PREFIX}{id}_{secret}"), id, hash }
    }
}

/// Takes a bearer text apart into id and secret.
pub(crate) fn split_bearer(bearer: &str) -> Option<(&str, &str)> {
    let (id, secret) = bearer.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    let plausible = (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && (1..=256).contains(&secret.len());
    plausible.then_some((id, secret))
}

/// A token, the hash of its secret, and when both were read.
type Kept = (Token, [u8; 32], Instant);

/// Tokens that were read a moment ago.
#[derive(Default)]
pub(super) struct TokenCache {
    kept: Mutex<HashMap<String, Kept>>,
}

impl TokenCache {
    fn get(&self, id: &str, now: Instant) -> Option<(Token, [u8; 32])> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, hash, read_at) = kept.get(id)?;
        (now.duration_since(*read_at) < TOKEN_BELIEVED).then(|| (token.clone(), *hash))
    }

    fn put(&self, token: Token, hash: [u8; 32], now: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= TOKENS_KEPT {
            kept.clear();
        }
        kept.insert(token.id.clone(), (token, hash, now));
    }

    pub(super) fn forget(&self, id: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Service {
    /// Tells whose bearer token this is; `None` for unknown, wrong, revoked and expired ones alike.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn authenticate(&self, bearer: &str) -> Result<Option<Caller>, ServiceError> {
        let Some((id, secret)) = split_bearer(bearer) else {
            return Ok(None);
        };
        let now = Instant::now();
        let (token, hash) = match self.tokens_kept().get(id, now) {
            Some(found) => found,
            None => match self.store().token_by_id(id).await? {
                Some((token, hash)) => {
                    self.tokens_kept().put(token.clone(), hash, now);
                    self.store().token_used(id, self.now());
                    (token, hash)
                }
                None => return Ok(None),
            },
        };
        // `blake3::Hash` compares in constant time.
        let right = blake3::hash(secret.as_bytes()) == blake3::Hash::from_bytes(hash);
        let alive = token.revoked_at.is_none() && token.expires_at.is_none_or(|at| at > self.now());
        Ok((right && alive).then(|| Caller::of_token(&token)))
    }
}

impl Service {
    /// Tells a caller who it is.
    #[must_use]
    pub fn whoami(&self, caller: Caller) -> CallerView {
        let (rights, now) = (self.rights(), self.now());
        let held = |need: &Permission| rights.somewhere(&caller, *need, now).is_ok();
        CallerView {
            roles: rights.roles(&caller),
            permissions: Permission::ALL.into_iter().filter(held).collect(),
            expires_at: rights.expires_at(&caller.authority),
            cluster: self.store().identity().cluster,
            caller,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_token_comes_apart_again_and_garbage_does_not() {
        let token = FreshToken::draw();
        let (id, secret) = split_bearer(&token.text).unzip();
        assert_eq!(id, Some(token.id.as_str()));
        assert_eq!(secret.map(|secret| *blake3::hash(secret.as_bytes()).as_bytes()), Some(token.hash));
        assert_eq!(secret.map(str::len), Some(64), "256 bits in hexadecimal");
        for bad in ["", "paprika_", "paprika__x", "paprika_a", "paprika_a_", "Bearer x", "paprika_../x_y"] {
            assert_eq!(split_bearer(bad), None, "{bad}");
        }
    }
}
