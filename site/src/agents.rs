//! `agents.yml`: what the site says about single agents. It adds factors and data; it never makes an agent exist.
//!
//! ```yaml
//! web1:
//!   allowed_ips: [10.1.0.0/16, "2001:db8::/32"]
//!   data: { role: primary }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use common::id::Name;

use crate::fields::Reader;
use crate::limits::MAX_NETWORKS;
use crate::problem::{Problem, Problems};
use crate::source::Span;
use crate::yaml::{Entry, Node};

const KEYS: [&str; 2] = ["allowed_ips", "data"];

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// What is said about one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentEntry {
    /// Where its name stands.
    pub span: Span,
    /// From where it may connect; `None`: from everywhere. An empty list is nowhere.
    pub allowed_ips: Option<Vec<Network>>,
    /// Its own data, as written.
    pub data: Option<Node>,
}

/// All entries by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agents {
    entries: BTreeMap<Name, AgentEntry>,
}

impl Network {
    /// Reads `address` or `address/bits`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = || common::escape::text(text);
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| format!("'{}' is no IP address or network such as 10.1.0.0/16", shown()))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|count| *count <= most && (bits == "0" || !bits.starts_with(['0', '+'])))
                .ok_or_else(|| format!("'{}' has no number of bits from 0 to {most} after the slash", shown()))?,
        };
        let network = Self { address, bits };
        if network.first() == address {
            Ok(network)
        } else {
            let first = Self { address: network.first(), bits };
            Err(format!("'{}' has bits behind its network part; did you mean {first}?", shown()))
        }
    }

    /// Tells whether an address lies in it; an IPv4 address in IPv6 clothes is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }

    fn first(&self) -> IpAddr {
        masked(self.address, self.bits)
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Agents {
    /// Reads the file; what is wrong is noted and left out.
    #[must_use]
    pub fn read(root: &Node, problems: &mut Problems) -> Self {
        let mut reader = Reader::new(problems);
        let entries = reader.map(root).map(|map| map.iter().collect::<Vec<_>>()).unwrap_or_default();
        let read = entries.into_iter().filter_map(|entry| reader.under(&entry.key, |reader| agent(entry, reader)));
        Self { entries: read.collect() }
    }

    /// What is said about an agent.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&AgentEntry> {
        self.entries.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &AgentEntry)> {
        self.entries.iter()
    }
}

fn agent(entry: &Entry, reader: &mut Reader<'_>) -> Option<(Name, AgentEntry)> {
    let name: Name = match entry.key.parse() {
        Ok(name) => name,
        Err(error) => {
            let what = format!("'{}' is no name of an agent: {error}", common::escape::text(&*entry.key));
            let mut problem = Problem::new("invalid", &entry.key_span, what);
            if entry.key.contains(['*', '?']) {
                problem = problem.hint("patterns stand in groups.yml");
            }
            reader.wrong(problem);
            return None;
        }
    };
    let fields = reader.fields(&entry.value, &KEYS)?;
    let allowed_ips =
        fields.get("allowed_ips").and_then(|node| reader.under("allowed_ips", |reader| networks(node, reader)));
    let data = fields.get("data").filter(|node| !node.is_null()).cloned();
    if let Some(node) = &data {
        reader.under("data", |reader| reader.map(node).map(drop));
    }
    Some((name, AgentEntry { span: entry.key_span.clone(), allowed_ips, data }))
}

/// A list in which something is wrong lets nobody in that it should not: it is noted, and the file is not used.
fn networks(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<Network>> {
    reader.each(node, MAX_NETWORKS, |node, reader| reader.parsed(node, Network::parse))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::Source;
    use crate::yaml::parse;

    fn read(text: &str) -> (Agents, String) {
        let mut problems = Problems::default();
        let agents = Agents::read(&parse(&Source::new("agents.yml", text)).unwrap(), &mut problems);
        (agents, problems.to_string())
    }

    #[test]
    fn networks_hold_what_lies_in_them_to_the_bit() {
        let holds = |network: &str, address: &str| Network::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(holds("10.1.0.0/16", "10.1.255.255"));
        assert!(!holds("10.1.0.0/16", "10.2.0.0"));
        assert!(holds("10.1.2.3", "10.1.2.3") && !holds("10.1.2.3", "10.1.2.4"));
        assert!(holds("0.0.0.0/0", "255.255.255.255") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("2001:db8::/33", "2001:db8:7fff::1") && !holds("2001:db8::/33", "2001:db8:8000::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.1.1"));
        for bad in ["", "10.1", "10.1.0.0/33", "10.1.0.0/", "10.1.0.0/+8", "10.1.0.0/08", "::/129", "localhost"] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
        assert!(Network::parse("10.1.2.3/16").unwrap_err().ends_with("did you mean 10.1.0.0/16?"));
    }

    #[test]
    fn entries_add_factors_and_data_and_mistakes_have_their_places() {
        let text = "web1: {allowed_ips: 10.0.0.0/8, data: {a: 1}}\nweb2:\nweb3: {allowed_ips: []}\n\
                    'web*': {}\nweb4: {allowed_ip: 1, data: 7}\nweb5: {allowed_ips: [10.0.0.1, x]}\n";
        let (agents, problems) = read(text);
        insta::assert_snapshot!(problems, @r"
        agents.yml:4:1: web*: 'web*' is no name of an agent: a name has 1 to 253 characters of letters, digits, '.', '-' and '_', and starts and ends with a letter or digit; patterns stand in groups.yml
        agents.yml:5:8: web4: there is no key allowed_ip here; did you mean allowed_ips?
        agents.yml:5:29: web4.data: a map is wanted here, not a number
        agents.yml:6:32: web5.allowed_ips[1]: 'x' is no IP address or network such as 10.1.0.0/16
        ");
        let of = |name: &str| agents.get(&name.parse().ok()?).cloned();
        assert_eq!(of("web1").unwrap().allowed_ips.unwrap().len(), 1);
        assert!(of("web2").unwrap().allowed_ips.is_none());
        assert_eq!(of("web3").unwrap().allowed_ips, Some(Vec::new()), "an empty list is nowhere");
        assert!(of("web*").is_none());
    }
}
