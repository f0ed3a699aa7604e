//! Who calls: tokens and the local socket's users, and what their scope allows.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use common::id::Uid;
use store::types::{Actor, Scope, Token};
use tokio::time::Instant;

use super::core::Service;
use super::error::ServiceError;
use crate::limits::{TOKEN_BELIEVED, TOKENS_KEPT};

/// What every token starts with, so that scanners for leaked secrets can find them.
const TOKEN_PREFIX: &str = "paprika_";

/// Who calls and what they may do at the most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name in audit rows and in `created_by`.
    pub actor: Actor,
    /// What they may do.
    pub scope: Scope,
}

impl Caller {
    /// Checks that the caller may do what `need` stands for.
    ///
    /// # Errors
    /// `Forbidden` when the scope is smaller.
    pub fn may(&self, need: Scope) -> Result<(), ServiceError> {
        if rank(self.scope) >= rank(need) { Ok(()) } else { Err(ServiceError::Forbidden { need }) }
    }
}

fn rank(scope: Scope) -> u8 {
    match scope {
        Scope::Read => 0,
        Scope::Run => 1,
        Scope::Admin => 2,
    }
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
        Ok((right && alive).then_some(Caller { actor: Actor(token.name), scope: token.scope }))
    }

    /// The caller behind the Unix socket, whose user the kernel vouches for.
    #[must_use]
    pub fn local_caller(&self, uid: u32) -> Caller {
        Caller { actor: Actor(format!("local:{uid}")), scope: Scope::Admin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_includes_the_smaller_ones_and_no_larger() {
        let order = [Scope::Read, Scope::Run, Scope::Admin];
        for (has, scope) in order.into_iter().enumerate() {
            let caller = Caller { actor: Actor("x".to_owned()), scope };
            for (needs, need) in order.into_iter().enumerate() {
                assert_eq!(caller.may(need).is_ok(), has >= needs, "{scope:?} {need:?}");
            }
        }
    }

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
