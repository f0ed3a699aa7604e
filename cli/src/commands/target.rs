//! From a target to the agents that are meant: asked for once, shown, and not looked at again, so that what was read is
//! what runs.

use api::agents::Agent;
use api::client::Client;
use api::page::MAX_LIMIT;
use common::id::Name;
use site::target::Target;

use crate::args::Format;
use crate::args::values::Targets;
use crate::error::{Failure, Kind};
use crate::output::{Printer, note};

/// Names that are shown before the rest is only counted: a line or two.
const SHOWN: usize = 20;

/// Finds the agents that are meant. Names between commas are taken as they are: the manager knows best which of them it
/// has.
pub(super) async fn resolve(client: &Client, printer: Printer, targets: &Targets) -> Result<Vec<Name>, Failure> {
    if let Some(names) = targets.names() {
        return Ok(names.to_vec());
    }
    let meant: Vec<Name> = list(client, targets.text()).await?.into_iter().map(|agent| agent.name).collect();
    let absent = absent(client, targets.target(), &meant).await?;
    if let Some(failure) = absent.as_failure() {
        return Err(failure);
    }
    if meant.is_empty() {
        let text = format!("{} means no agent that you may see", targets.text());
        return Err(
            Failure::new(Kind::NotFound, text).hint("paprika agents shows all of them with -o json their groups")
        );
    }
    if printer.format == Format::Table {
        for name in &absent.excluded {
            note(&format!("there is no agent {name}: leaving it out means nothing"));
        }
        note(&format!("{} is {}", targets.text(), enumerated(&meant)));
    }
    Ok(meant)
}

/// All agents that an expression means, by name.
pub(super) async fn list(client: &Client, expression: &str) -> Result<Vec<Agent>, Failure> {
    let mut agents: Vec<Agent> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = client.agents_of(expression, after.as_deref(), Some(MAX_LIMIT)).await?;
        agents.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(agents);
        }
    }
}

/// Names that stand in an expression and that no agent has.
#[derive(Debug, Default, PartialEq)]
struct Absent<'t> {
    /// Somebody wanted to reach them.
    wanted: Vec<&'t str>,
    /// Somebody wanted to spare them.
    excluded: Vec<&'t str>,
}

impl Absent<'_> {
    fn as_failure(&self) -> Option<Failure> {
        let names = match self.wanted.as_slice() {
            [] => return None,
            [one] => format!("there is no agent {one}"),
            several => format!("there are no agents {}", several.join(", ")),
        };
        Some(Failure::new(Kind::NotFound, names).hint("paprika agents lists them; nothing was started"))
    }
}

/// Asks the manager for the names in an expression that are not among those it means.
async fn absent<'t>(client: &Client, target: &'t Target, meant: &[Name]) -> Result<Absent<'t>, Failure> {
    let mut named = Absent::default();
    mentions(target, false, &mut named);
    let is_known = |name: &str, known: &[Name]| known.iter().any(|known| known.as_str() == name);
    let unsure: Vec<&str> =
        named.wanted.iter().chain(&named.excluded).copied().filter(|name| !is_known(name, meant)).collect();
    if unsure.is_empty() {
        return Ok(Absent::default());
    }
    let found: Vec<Name> = list(client, &unsure.join(",")).await?.into_iter().map(|agent| agent.name).collect();
    let missing = |names: Vec<&'t str>| -> Vec<&'t str> {
        names.into_iter().filter(|name| !is_known(name, meant) && !is_known(name, &found)).collect()
    };
    Ok(Absent { wanted: missing(named.wanted), excluded: missing(named.excluded) })
}

/// Collects the plain names of an expression, each once, by whether they stand behind an odd number of `not`.
fn mentions<'t>(target: &'t Target, is_negated: bool, into: &mut Absent<'t>) {
    match target {
        Target::Name(_) => {
            if let Some(name) = target.single() {
                let list = if is_negated { &mut into.excluded } else { &mut into.wanted };
                if !list.contains(&name) {
                    list.push(name);
                }
            }
        }
        Target::Group(_) => {}
        Target::Not(inner) => mentions(inner, !is_negated, into),
        Target::All(parts) | Target::Any(parts) => parts.iter().for_each(|part| mentions(part, is_negated, into)),
    }
}

fn enumerated(names: &[Name]) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).map(Name::as_str).collect();
    let more = names.len().saturating_sub(SHOWN);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::args::values;

    fn named(text: &str) -> (Vec<String>, Vec<String>) {
        let targets = values::targets(text).unwrap();
        let mut into = Absent::default();
        mentions(targets.target(), false, &mut into);
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        (owned(into.wanted), owned(into.excluded))
    }

    #[test]
    fn names_are_found_wherever_they_stand_and_patterns_are_none() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(named("@web and not web3"), (list(&[]), list(&["web3"])));
        assert_eq!(named("web* or db1, db1"), (list(&["db1"]), list(&[])));
        assert_eq!(named("not (a or not b)"), (list(&["b"]), list(&["a"])));
        assert_eq!(named("@web and not web*"), (list(&[]), list(&[])));
    }

    #[test]
    fn many_names_are_counted_and_a_missing_one_is_named() {
        let names: Vec<Name> = (1..=23).map(|number| format!("web{number}").parse().unwrap()).collect();
        assert!(enumerated(&names).ends_with("web19, web20 and 3 more"));
        assert_eq!(enumerated(&names[..2]), "web1, web2");
        let absent = Absent { wanted: vec!["a", "b"], excluded: vec!["c"] };
        let failure = absent.as_failure().unwrap();
        assert_eq!(failure.kind(), Kind::NotFound);
        assert!(failure.lines().contains("there are no agents a, b"), "{}", failure.lines());
        assert!(Absent { wanted: vec![], excluded: vec!["c"] }.as_failure().is_none());
    }
}
