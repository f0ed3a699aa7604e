//! `groups.yml`: which agents belong to which groups, in which order. Groups are the access boundary of a site.
//!
//! ```yaml
//! "*":    [base]            # name or pattern: list of groups
//! "web*": [web]
//! web1:   [web, canary]
//! ```
//! The groups of an agent stand in the order of their first grant; data of later ones wins.

use std::fmt;
use std::sync::Arc;

use common::id::Name;

use crate::fields::Reader;
use crate::glob::Pattern;
use crate::limits::{MAX_GROUP_NAME, MAX_GROUPS_OF_ENTRY};
use crate::problem::{Problem, Problems};
use crate::source::Span;
use crate::yaml::{Entry, Node};

/// The name of a group: letters, digits, `-`, `_`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(Arc<str>);

/// One line of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// Whom it is about.
    pub pattern: Pattern,
    /// Where that stands.
    pub span: Span,
    /// What it gives, in order.
    pub groups: Vec<(GroupName, Span)>,
}

/// All grants in the order of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Groups {
    grants: Vec<Grant>,
}

impl GroupName {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = !text.is_empty()
            && text.len() <= MAX_GROUP_NAME
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '_'));
        if fits {
            return Ok(Self(text.into()));
        }
        let shown = common::escape::text(text);
        Err(format!(
            "'{shown}' is no name of a group: 1 to {MAX_GROUP_NAME} letters, digits, '-' and '_', a letter or digit first"
        ))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Groups {
    /// Reads the file; what is wrong is noted and left out.
    #[must_use]
    pub fn read(root: &Node, problems: &mut Problems) -> Self {
        let mut reader = Reader::new(problems);
        let entries = reader.map(root).map(|map| map.iter().collect::<Vec<_>>()).unwrap_or_default();
        let grants = entries.into_iter().filter_map(|entry| reader.under(&entry.key, |reader| grant(entry, reader)));
        Self { grants: grants.collect() }
    }

    /// The grants in order.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The groups of an agent, in the order of their first grant.
    #[must_use]
    pub fn of(&self, agent: &Name) -> Vec<GroupName> {
        let mut found: Vec<GroupName> = Vec::new();
        for grant in self.grants.iter().filter(|grant| grant.pattern.matches(agent.as_str())) {
            for (group, _) in &grant.groups {
                if !found.contains(group) {
                    found.push(group.clone());
                }
            }
        }
        found
    }

    /// Every group that is named, each once, with the place of its first mention.
    #[must_use]
    pub fn names(&self) -> Vec<(&GroupName, &Span)> {
        let mut found: Vec<(&GroupName, &Span)> = Vec::new();
        for (group, span) in self.grants.iter().flat_map(|grant| &grant.groups) {
            if !found.iter().any(|(known, _)| *known == group) {
                found.push((group, span));
            }
        }
        found
    }
}

fn grant(entry: &Entry, reader: &mut Reader<'_>) -> Option<Grant> {
    let pattern = match Pattern::parse(&entry.key) {
        Ok(pattern) => pattern,
        Err(said) => {
            reader.wrong(Problem::new("invalid", &entry.key_span, said));
            return None;
        }
    };
    let mut groups: Vec<(GroupName, Span)> = Vec::new();
    reader.each(&entry.value, MAX_GROUPS_OF_ENTRY, |node, reader| {
        let group = reader.parsed(node, GroupName::parse)?;
        if let Some((_, first)) = groups.iter().find(|(known, _)| *known == group) {
            let what = format!("the group {group} stands twice in this list");
            reader.wrong(Problem::new("duplicate", node.span(), what).also(first, "it stands here first"));
            return None;
        }
        groups.push((group, node.span().clone()));
        Some(())
    })?;
    Some(Grant { pattern, span: entry.key_span.clone(), groups })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::Source;
    use crate::yaml::parse;

    fn read(text: &str) -> (Groups, String) {
        let mut problems = Problems::default();
        let groups = Groups::read(&parse(&Source::new("groups.yml", text)).unwrap(), &mut problems);
        (groups, problems.to_string())
    }

    #[test]
    fn groups_stand_in_the_order_of_their_first_grant() {
        let (groups, problems) = read("'*': [base, all]\n'web*': [web, base]\nweb1: canary\ndb1: []\n");
        assert_eq!(problems, "");
        let of = |name: &str| groups.of(&name.parse().unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("web1"), ["base", "all", "web", "canary"]);
        assert_eq!(of("web2"), ["base", "all", "web"]);
        assert_eq!(of("db1"), ["base", "all"]);
        assert_eq!(groups.names().len(), 4);
        assert!(read("").0.grants().is_empty());
    }

    #[test]
    fn mistakes_have_their_places_and_do_not_hide_the_rest() {
        let (groups, problems) = read("'we b': [web]\nweb1: [web, 'a b', web, 7]\nx: {a: 1}\nok: [fine]\n");
        insta::assert_snapshot!(problems, @r#"
        groups.yml:1:1: we b: ' ' stands in no name; a pattern has letters, digits, '.', '-', '_', '*' and '?'
        groups.yml:2:13: web1[1]: 'a b' is no name of a group: 1 to 64 letters, digits, '-' and '_', a letter or digit first
        groups.yml:2:20: web1[2]: the group web stands twice in this list
        groups.yml:2:25: web1[3]: text is wanted here, not a number; write "7"
        groups.yml:3:4: x: a list is wanted here, not a map
        "#);
        assert_eq!(groups.grants().len(), 2);
    }
}
