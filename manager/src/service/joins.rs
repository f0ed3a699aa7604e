//! Join tokens, and the hosts that become agents with them.
//!
//! ```text
//! operator: make ─► one line (addresses, pin, id, secret) ─► host
//! host: id, secret, certificate request ─► pace ─► signature ─► store.join (one transaction) ─► certificate
//! ```
//! Only the public key of a request is used; name, generation and groups come from the store (protocol R-JOIN-4). What was
//! consumed is durable before a certificate is signed: the same key may ask again, another may not (R-JOIN-3).

use std::net::SocketAddr;
use std::time::Duration;

use common::crash;
use common::handshake::{IssuedText, JoinHello, Refusal};
use common::join_token::{self, JoinToken};
use common::tls::Csr;
use common::wire::bye::Code;
use site::agents::Network;
use site::glob::Pattern;
use site::groups::GroupName;
use site::limits::{MAX_GROUPS_OF_ENTRY, MAX_NETWORKS};
use site::permission::Permission;
use store::types::{JoinClaim, JoinOutcome, JoinRefused, JoinTokenRow, NewJoinToken, NotAdmitted};

use super::admit::{Bounds, Denied, admit};
use super::callers::Caller;
use super::commands::millis;
use super::core::Service;
use super::error::ServiceError;
use super::sessions::{draining, refusal};
use crate::limits::{JOIN_TTL, MAX_JOIN_TTL, MAX_JOIN_USES};

/// What an operator wants of a join token.
#[derive(Debug, Clone, Default)]
pub struct JoinWish {
    /// Groups that a host gets.
    pub groups: Vec<String>,
    /// How many hosts; one when absent.
    pub uses: Option<u32>,
    /// How long it is good; an hour when absent.
    pub ttl: Option<Duration>,
    /// Names that a host may take; any when absent.
    pub name: Option<String>,
    /// Networks that a host may come from; any when empty.
    pub networks: Vec<String>,
}

/// For operators.
impl Service {
    /// Makes a join token; answers its row and the line, which nobody can show again.
    ///
    /// # Errors
    /// When the caller may not, or what is wanted makes no sense.
    pub async fn join_token_new(
        &self,
        caller: &Caller,
        wish: JoinWish,
    ) -> Result<(JoinTokenRow, String), ServiceError> {
        self.must(caller, Permission::JoinManage, "join_token.create", "join_token").await?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        let wish = checked(wish)?;
        self.may_enrol(caller, &wish).await?;
        let pin = self.authority().pin();
        let token =
            JoinToken::draw(self.settings().link_addresses.clone(), pin).map_err(|_| ServiceError::Conflict {
                code: "no_addresses",
                text: "the addresses in `link.advertise` cannot stand in a join token".to_owned(),
            })?;
        let now = self.now();
        let new = NewJoinToken {
            id: token.id.clone(),
            hash: token.secret_hash(),
            expires_at: now.saturating_add(millis(wish.ttl.unwrap_or(JOIN_TTL))),
            uses: wish.uses.unwrap_or(1),
            name_pattern: wish.name,
            groups: wish.groups,
            cidrs: wish.networks,
        };
        let row = self.store().join_token_create(new, &caller.actor, now).await?;
        Ok((row, token.expose()))
    }

    /// Nobody lets in a host that they could not manage then.
    async fn may_enrol(&self, caller: &Caller, wish: &JoinWish) -> Result<(), ServiceError> {
        let names = Pattern::parse(wish.name.as_deref().unwrap_or("*"));
        let names = names.map_err(|said| ServiceError::invalid("name", said))?;
        let groups: Vec<_> = wish.groups.iter().filter_map(|group| GroupName::parse(group).ok()).collect();
        let may = self.rights().may_enrol(caller, &names, &groups, self.now());
        let Err(because) = may else { return Ok(()) };
        let refusal = ServiceError::Forbidden { need: Permission::AgentManage, because };
        self.note_refusal(caller, "join_token.create", "join_token", &refusal).await;
        Err(refusal)
    }

    /// Lists join tokens without their secrets, newest first.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn join_tokens(&self, caller: &Caller) -> Result<Vec<JoinTokenRow>, ServiceError> {
        self.must(caller, Permission::JoinManage, "join_token.list", "join_token").await?;
        Ok(self.store().join_tokens().await?)
    }

    /// Takes a join token back at once; who joined with it stays.
    ///
    /// # Errors
    /// When there is no such token, or the caller may not.
    pub async fn join_token_revoke(&self, caller: &Caller, id: &str) -> Result<(), ServiceError> {
        self.must(caller, Permission::JoinManage, "join_token.revoke", &format!("join_token:{id}")).await?;
        Ok(self.store().join_token_revoke(id, &caller.actor, self.now()).await?)
    }
}

/// For hosts.
impl Service {
    /// Lets a host become an agent, or tells it why not.
    ///
    /// # Errors
    /// What the host may know of the reason. The audit knows more.
    pub(crate) async fn join(&self, hello: JoinHello, peer: SocketAddr) -> Result<IssuedText, Refusal> {
        if self.draining() {
            return Err(draining());
        }
        self.may_knock(peer.ip())?;
        let csr = Csr::read(&hello.csr).map_err(|error| Refusal::new(Code::AuthFailed, error.to_string()))?;
        let terms = self.terms();
        let claim = JoinClaim {
            token_id: hello.token_id,
            secret_hash: join_token::hash_secret(&hello.secret),
            spki: csr.spki(),
            name: hello.name,
            address: peer.to_string(),
            issuer: terms.issuer,
            not_after: terms.not_after,
            now: terms.now,
        };
        let (site, name, address) = (self.rights().site().clone(), claim.name.clone(), peer.ip());
        let judged = move |token: &JoinTokenRow| {
            let bounds = Bounds {
                name: token.name_pattern.clone(),
                groups: token.groups.clone(),
                networks: token.cidrs.clone(),
            };
            match admit(&site, &bounds, &name, address) {
                Ok(()) => Ok(bounds.groups),
                Err(denied @ (Denied::TokenAddress { .. } | Denied::Address { .. })) => {
                    Err(NotAdmitted::address(denied.to_string()))
                }
                Err(denied) => Err(NotAdmitted::name(denied.to_string())),
            }
        };
        let joined = self.store().join(claim, judged).await.map_err(|error| refusal(&error))?;
        let JoinOutcome { agent, generation, groups, repeated } = joined.map_err(|refused| heard(&refused))?;
        crash::point("manager.join.consumed");
        self.groups_changed(&agent, &groups).await;
        let issued = self.certify(csr, &agent, generation, terms).await?;
        self.counters().joins.add(1);
        tracing::info!(agent.id = %agent, generation = generation.0, peer.addr = %peer, repeated, "a host joined");
        Ok(issued)
    }
}

/// What a host hears that was refused. It knew the secret, unless it hears nothing but that there is no such token.
fn heard(refused: &JoinRefused) -> Refusal {
    let hint = match refused {
        JoinRefused::Taken => "; remove it first, or join under another name",
        JoinRefused::Expired | JoinRefused::Revoked | JoinRefused::Used => "; `paprika join-token new` makes another",
        JoinRefused::Unknown | JoinRefused::Name | JoinRefused::Address => "",
    };
    Refusal::new(Code::AuthFailed, format!("{refused}{hint}"))
}

/// Checks a wish; what is said twice in it is kept once.
fn checked(mut wish: JoinWish) -> Result<JoinWish, ServiceError> {
    let invalid = |field: &str, text: String| Err(ServiceError::invalid(field, text));
    if wish.groups.len() > MAX_GROUPS_OF_ENTRY {
        return invalid("groups", format!("has at most {MAX_GROUPS_OF_ENTRY} groups"));
    }
    for (at, group) in wish.groups.iter().enumerate() {
        GroupName::parse(group).map_err(|said| ServiceError::invalid(format!("groups[{at}]"), said))?;
    }
    if wish.networks.len() > MAX_NETWORKS {
        return invalid("addresses", format!("has at most {MAX_NETWORKS} networks"));
    }
    for (at, network) in wish.networks.iter().enumerate() {
        Network::parse(network).map_err(|said| ServiceError::invalid(format!("addresses[{at}]"), said))?;
    }
    if let Some(name) = &wish.name {
        Pattern::parse(name).map_err(|said| ServiceError::invalid("name", said))?;
    }
    if wish.uses.is_some_and(|uses| uses == 0 || uses > MAX_JOIN_USES) {
        return invalid("uses", format!("is from 1 to {MAX_JOIN_USES}"));
    }
    if wish.ttl.is_some_and(|ttl| ttl.is_zero() || ttl > MAX_JOIN_TTL) {
        return invalid("expires_in", format!("is above 0 and at most {} days", MAX_JOIN_TTL.as_secs() / 86_400));
    }
    for list in [&mut wish.groups, &mut wish.networks] {
        let mut kept: Vec<String> = Vec::with_capacity(list.len());
        for item in list.drain(..) {
            if !kept.contains(&item) {
                kept.push(item);
            }
        }
        *list = kept;
    }
    Ok(wish)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn field(wish: JoinWish) -> Option<String> {
        match checked(wish) {
            Ok(_) => None,
            Err(ServiceError::Invalid { field, .. }) => Some(field),
            Err(other) => Some(other.to_string()),
        }
    }

    #[test]
    fn a_wish_has_bounds_on_both_sides() {
        let wish = JoinWish::default;
        assert_eq!(field(wish()), None);
        let day = Duration::from_secs(86_400);
        let cases = [
            (JoinWish { uses: Some(0), ..wish() }, Some("uses")),
            (JoinWish { uses: Some(MAX_JOIN_USES), ..wish() }, None),
            (JoinWish { uses: Some(MAX_JOIN_USES + 1), ..wish() }, Some("uses")),
            (JoinWish { ttl: Some(Duration::ZERO), ..wish() }, Some("expires_in")),
            (JoinWish { ttl: Some(MAX_JOIN_TTL), ..wish() }, None),
            (JoinWish { ttl: Some(MAX_JOIN_TTL + day), ..wish() }, Some("expires_in")),
            (JoinWish { name: Some("web*".to_owned()), ..wish() }, None),
            (JoinWish { name: Some("web[1]".to_owned()), ..wish() }, Some("name")),
            (JoinWish { groups: vec!["web".to_owned(), "a b".to_owned()], ..wish() }, Some("groups[1]")),
            (JoinWish { groups: vec!["web".to_owned(); MAX_GROUPS_OF_ENTRY + 1], ..wish() }, Some("groups")),
            (JoinWish { networks: vec!["10.0.0.0/33".to_owned()], ..wish() }, Some("addresses[0]")),
            (JoinWish { networks: vec!["10.0.0.0/8".to_owned(); MAX_NETWORKS + 1], ..wish() }, Some("addresses")),
        ];
        for (wish, expected) in cases {
            assert_eq!(field(wish.clone()).as_deref(), expected, "{wish:?}");
        }
    }

    #[test]
    fn what_is_said_twice_is_kept_once_and_in_order() {
        let groups = ["web", "base", "web"].map(str::to_owned).to_vec();
        assert_eq!(checked(JoinWish { groups, ..JoinWish::default() }).unwrap().groups, ["web", "base"]);
    }
}
