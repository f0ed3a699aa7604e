//! Which names a join token may take, from where, and with which groups: pure, asked inside the transaction of a join.
//!
//! ```text
//! token's pattern ─► agents.yml: an entry needs a token for exactly that name ─► groups beyond `*` must be the token's
//!                 └► token's networks, allowed_ips of the entry
//! ```
//! A token is a bound, never a grant beyond it: whoever holds one must not become a host that the site gives more to.

use std::net::IpAddr;

use common::id::Name;
use site::Site;
use site::agents::Network;
use site::glob::Pattern;

/// The part of a join token that bounds what can be taken with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Names that it may take; `None` is any.
    pub(crate) name: Option<String>,
    /// Groups that it gives.
    pub(crate) groups: Vec<String>,
    /// Networks that it may be used from; none is anywhere.
    pub(crate) networks: Vec<String>,
}

/// Why a host does not get a name. For the audit: the peer hears less.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// The token is for other names.
    #[error("the token is for names like {pattern}")]
    Pattern {
        /// What it is for.
        pattern: String,
    },
    /// The site says something about this very name.
    #[error("agents.yml has an entry for {name}: that needs a token with exactly this name")]
    Entry {
        /// Which name.
        name: Name,
    },
    /// The site gives this name more than the token may give.
    #[error("groups.yml gives {name} the group {group} by the pattern {pattern}, which the token does not give")]
    Group {
        /// Which name.
        name: Name,
        /// What it would get.
        group: String,
        /// By which line.
        pattern: String,
    },
    /// The token is for other networks.
    #[error("the token may not be used from {address}")]
    TokenAddress {
        /// Where the host is.
        address: IpAddr,
    },
    /// The site wants this host elsewhere.
    #[error("agents.yml does not allow {name} at {address}")]
    Address {
        /// Which name.
        name: Name,
        /// Where the host is.
        address: IpAddr,
    },
    /// What the store holds of the token is no bound. It allows nothing.
    #[error("the token cannot be read: {what}")]
    Unreadable {
        /// What is wrong with it.
        what: String,
    },
}

/// Tells whether a host at `address` may take `name` with a token.
///
/// # Errors
/// What it lacks.
pub(crate) fn admit(site: &Site, bounds: &Bounds, name: &Name, address: IpAddr) -> Result<(), Denied> {
    if let Some(text) = &bounds.name {
        let pattern = Pattern::parse(text).map_err(|what| Denied::Unreadable { what })?;
        if !pattern.matches(name.as_str()) {
            return Err(Denied::Pattern { pattern: text.clone() });
        }
    }
    let networks = networks(&bounds.networks)?;
    if !networks.is_empty() && !networks.iter().any(|network| network.contains(address)) {
        return Err(Denied::TokenAddress { address });
    }
    // A name has no wildcard in it, so that a pattern equal to it means it alone.
    let exact = bounds.name.as_deref() == Some(name.as_str());
    if site.agents().get(name).is_some() && !exact {
        return Err(Denied::Entry { name: name.clone() });
    }
    if !allowed_from(site, name, address) {
        return Err(Denied::Address { name: name.clone(), address });
    }
    let grants = site.groups().grants().iter();
    for grant in grants.filter(|grant| grant.pattern.as_str() != "*" && grant.pattern.matches(name.as_str())) {
        if let Some((group, _)) = grant.groups.iter().find(|(group, _)| !gives(bounds, group.as_str())) {
            let pattern = grant.pattern.to_string();
            return Err(Denied::Group { name: name.clone(), group: group.to_string(), pattern });
        }
    }
    Ok(())
}

/// Tells whether the site lets an agent connect from an address (`allowed_ips` of `agents.yml`).
pub(crate) fn allowed_from(site: &Site, name: &Name, address: IpAddr) -> bool {
    let networks = site.agents().get(name).and_then(|entry| entry.allowed_ips.as_ref());
    networks.is_none_or(|networks| networks.iter().any(|network| network.contains(address)))
}

fn networks(texts: &[String]) -> Result<Vec<Network>, Denied> {
    texts.iter().map(|text| Network::parse(text).map_err(|what| Denied::Unreadable { what })).collect()
}

fn gives(bounds: &Bounds, group: &str) -> bool {
    bounds.groups.iter().any(|given| given == group)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use site::tree::{SitePath, Tree};

    use super::*;

    fn site(files: &[(&str, &str)]) -> Site {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.insert(SitePath::parse(path).unwrap(), text.as_bytes().to_vec()).unwrap();
        }
        Site::load(tree).unwrap()
    }

    fn bounds(name: Option<&str>, groups: &[&str], networks: &[&str]) -> Bounds {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Bounds { name: name.map(str::to_owned), groups: owned(groups), networks: owned(networks) }
    }

    /// `None` is admitted, else the word of the refusal.
    fn refusal(site: &Site, bounds: &Bounds, name: &str, address: &str) -> Option<&'static str> {
        match admit(site, bounds, &name.parse().unwrap(), address.parse().unwrap()) {
            Ok(()) => None,
            Err(Denied::Pattern { .. }) => Some("pattern"),
            Err(Denied::Entry { .. }) => Some("entry"),
            Err(Denied::Group { .. }) => Some("group"),
            Err(Denied::TokenAddress { .. }) => Some("token address"),
            Err(Denied::Address { .. }) => Some("address"),
            Err(Denied::Unreadable { .. }) => Some("unreadable"),
        }
    }

    #[test]
    fn a_token_is_a_bound_on_names_groups_and_addresses() {
        let site = site(&[
            ("agents.yml", "db1: {allowed_ips: 10.1.0.0/16}\nbare: {}\nnowhere: {allowed_ips: []}\n"),
            ("groups.yml", "'*': [base]\n'web*': [web]\nweb1: [web, canary]\ndb1: [db]\n'w?b9': [odd]\n"),
        ]);
        let any = |groups: &[&str]| bounds(None, groups, &[]);
        let table: &[(Bounds, &str, &str, Option<&str>)] = &[
            // Groups that everybody has need no token.
            (any(&[]), "app1", "10.0.0.1", None),
            (any(&["unrelated"]), "app1", "10.0.0.1", None),
            // Groups that this name gains beyond that do, all of them, in whatever order and by whichever line.
            (any(&[]), "web2", "10.0.0.1", Some("group")),
            (any(&["web"]), "web2", "10.0.0.1", None),
            (any(&["web"]), "web1", "10.0.0.1", Some("group")),
            (any(&["canary"]), "web1", "10.0.0.1", Some("group")),
            (any(&["canary", "web"]), "web1", "10.0.0.1", None),
            (any(&["web"]), "web9", "10.0.0.1", Some("group")),
            (bounds(Some("web1"), &[], &[]), "web1", "10.0.0.1", Some("group")),
            // Patterns of the token.
            (bounds(Some("web*"), &["web"], &[]), "web2", "10.0.0.1", None),
            (bounds(Some("web*"), &["web"], &[]), "app1", "10.0.0.1", Some("pattern")),
            (bounds(Some("web2"), &["web"], &[]), "web20", "10.0.0.1", Some("pattern")),
            (bounds(Some("web 2"), &["web"], &[]), "web2", "10.0.0.1", Some("unreadable")),
            (bounds(Some(""), &["web"], &[]), "web2", "10.0.0.1", Some("unreadable")),
            // A name with an entry needs a token for it alone, even where the entry says nothing.
            (any(&["db"]), "db1", "10.1.0.1", Some("entry")),
            (bounds(Some("db?"), &["db"], &[]), "db1", "10.1.0.1", Some("entry")),
            (bounds(Some("*"), &["db"], &[]), "db1", "10.1.0.1", Some("entry")),
            (bounds(Some("db1"), &["db"], &[]), "db1", "10.1.0.1", None),
            (any(&[]), "bare", "10.1.0.1", Some("entry")),
            (bounds(Some("bare"), &[], &[]), "bare", "10.1.0.1", None),
            // Addresses: of the entry, of the token, of both.
            (bounds(Some("db1"), &["db"], &[]), "db1", "10.2.0.1", Some("address")),
            (bounds(Some("db1"), &["db"], &["10.1.2.0/24"]), "db1", "10.1.2.9", None),
            (bounds(Some("db1"), &["db"], &["10.1.2.0/24"]), "db1", "10.1.3.9", Some("token address")),
            (bounds(Some("nowhere"), &[], &[]), "nowhere", "10.1.3.9", Some("address")),
            (bounds(None, &[], &["10.0.0.0/8", "2001:db8::/32"]), "app1", "2001:db8::7", None),
            (bounds(None, &[], &["10.0.0.0/8"]), "app1", "::ffff:10.1.1.1", None),
            (bounds(None, &[], &["10.0.0.0/8"]), "app1", "192.168.0.1", Some("token address")),
            (bounds(None, &[], &["10.0.0.0/99"]), "app1", "10.0.0.1", Some("unreadable")),
        ];
        for (bounds, name, address, expected) in table {
            assert_eq!(refusal(&site, bounds, name, address), *expected, "{bounds:?} {name} {address}");
        }
    }

    #[test]
    fn without_a_site_every_token_takes_the_names_it_is_for() {
        let site = Site::empty();
        assert_eq!(refusal(&site, &Bounds::default(), "web1", "::1"), None);
        assert_eq!(refusal(&site, &bounds(Some("db*"), &[], &[]), "web1", "::1"), Some("pattern"));
    }

    #[test]
    fn the_audit_reads_what_was_missing() {
        let site = site(&[("groups.yml", "'web*': [web]\n")]);
        let denied = admit(&site, &Bounds::default(), &"web1".parse().unwrap(), [10, 0, 0, 1].into()).unwrap_err();
        insta::assert_snapshot!(
            denied.to_string(),
            @"groups.yml gives web1 the group web by the pattern web*, which the token does not give"
        );
    }

    #[test]
    fn an_agent_connects_from_where_its_entry_allows() {
        let site =
            site(&[("agents.yml", "db1: {allowed_ips: [10.1.0.0/16, '2001:db8::/32']}\nnowhere: {allowed_ips: []}\n")]);
        let allowed = |name: &str, address: &str| allowed_from(&site, &name.parse().unwrap(), address.parse().unwrap());
        assert!(allowed("db1", "10.1.255.255") && allowed("db1", "::ffff:10.1.0.1") && allowed("db1", "2001:db8::1"));
        assert!(!allowed("db1", "10.2.0.1") && !allowed("db1", "::1"));
        assert!(!allowed("nowhere", "10.1.0.1"));
        assert!(allowed("web1", "192.168.0.1"), "no entry, no bound");
    }
}
