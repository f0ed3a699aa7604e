//! A site that loaded cleanly: every document read, every name between them resolved.

use std::sync::Arc;

use common::id::Name;

use crate::agents::Agents;
use crate::groups::{GroupName, Groups};
use crate::problem::{Problem, Problems};
use crate::roles::Roles;
use crate::source::Source;
use crate::target::Subject;
use crate::tree::{Tree, TreeHash};
use crate::yaml::{self, Node};

/// Documents at the top that change what somebody may do or what runs on the manager.
const TRUSTED: [&str; 3] = ["agents.yml", "groups.yml", "roles.yml"];
/// Folders of which the same is true.
const TRUSTED_FOLDERS: [&str; 2] = ["operations", "requests"];
/// Everything else that may stand at the top.
const PLAIN_FOLDERS: [&str; 3] = ["data", "files", "state"];

/// A site.
#[derive(Debug, Clone)]
pub struct Site {
    tree: Arc<Tree>,
    hash: TreeHash,
    agents: Agents,
    groups: Groups,
    roles: Roles,
}

impl Site {
    /// The site without a file: everybody is in no group, and nobody but the built-in role may anything.
    #[must_use]
    pub fn empty() -> Self {
        let tree = Tree::default();
        let hash = tree.hash();
        Self {
            tree: Arc::new(tree),
            hash,
            agents: Agents::default(),
            groups: Groups::default(),
            roles: Roles::default(),
        }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// All that is wrong, in the order of the files.
    pub fn load(tree: Tree) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        known_places(&tree, &mut problems);
        let agents = document(&tree, "agents.yml", &mut problems, Agents::read);
        let groups = document(&tree, "groups.yml", &mut problems, Groups::read);
        let roles = document(&tree, "roles.yml", &mut problems, Roles::read);
        known_groups(&groups, &roles, &mut problems);
        let hash = tree.hash();
        problems.unless(()).map(|()| Self { tree: Arc::new(tree), hash, agents, groups, roles })
    }

    /// Its files.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The hash of its files.
    #[must_use]
    pub fn hash(&self) -> TreeHash {
        self.hash
    }

    /// `agents.yml`.
    #[must_use]
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// `groups.yml`.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// `roles.yml`.
    #[must_use]
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The groups of an agent: those of the site, then those it was enrolled with.
    #[must_use]
    pub fn groups_of(&self, agent: &Name, enrolled: &[GroupName]) -> Vec<GroupName> {
        let mut found = self.groups.of(agent);
        for group in enrolled {
            if !found.contains(group) {
                found.push(group.clone());
            }
        }
        found
    }

    /// Tells whether an agent is meant by a target.
    #[must_use]
    pub fn is_meant(&self, target: &crate::target::Target, agent: &Name, enrolled: &[GroupName]) -> bool {
        target.matches(Subject { name: agent, groups: &self.groups_of(agent, enrolled) })
    }
}

/// Tells whether a change of this file needs the permission `site.trust`.
#[must_use]
pub fn is_trusted(path: &str) -> bool {
    TRUSTED.contains(&path) || path.split_once('/').is_some_and(|(folder, _)| TRUSTED_FOLDERS.contains(&folder))
}

/// The paths that differ between two trees.
#[must_use]
pub fn changed(before: &Tree, after: &Tree) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for (path, content) in after.iter() {
        if before.get(path.as_str()) != Some(content) {
            paths.push(path.to_string());
        }
    }
    paths
        .extend(before.iter().filter(|(path, _)| after.get(path.as_str()).is_none()).map(|(path, _)| path.to_string()));
    paths.sort();
    paths
}

fn document<T: Default>(
    tree: &Tree,
    name: &str,
    problems: &mut Problems,
    read: impl FnOnce(&Node, &mut Problems) -> T,
) -> T {
    let Some(content) = tree.get(name) else { return T::default() };
    match parsed(name, content) {
        Ok(root) => read(&root, problems),
        Err(problem) => {
            problems.push(problem);
            T::default()
        }
    }
}

fn parsed(name: &str, content: &[u8]) -> Result<Node, Problem> {
    let text = match std::str::from_utf8(content) {
        Ok(text) => text,
        Err(error) => {
            let good = content.get(..error.valid_up_to()).unwrap_or_default();
            let source = Source::new(name, String::from_utf8_lossy(good));
            let end = source.text().len();
            return Err(Problem::new("not_utf8", &source.span(end, end), "here begins something that is not UTF-8"));
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    yaml::parse(&Source::new(name, text))
}

/// What stands at the top and means nothing is a mistake: `group.yml` would be read by nobody.
fn known_places(tree: &Tree, problems: &mut Problems) {
    let mut seen: Vec<&str> = Vec::new();
    for (path, _) in tree.iter() {
        let (top, below) = path.as_str().split_once('/').map_or((path.as_str(), false), |(top, _)| (top, true));
        let known = if below {
            PLAIN_FOLDERS.contains(&top) || TRUSTED_FOLDERS.contains(&top)
        } else {
            TRUSTED.contains(&top) || is_about(top)
        };
        if known || seen.contains(&top) {
            continue;
        }
        seen.push(top);
        let names: Vec<&str> = if below { [&PLAIN_FOLDERS[..], &TRUSTED_FOLDERS].concat() } else { TRUSTED.to_vec() };
        let what = if below { "a site has no such folder" } else { "a site has no such file at its top" };
        let hint = match common::suggest::nearest(top, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}; words for people go into README.md", names.join(", ")),
        };
        problems.push(Problem::of_file("unknown_file", top, what).hint(hint));
    }
}

/// Words for people, which nothing reads.
fn is_about(name: &str) -> bool {
    name == "README" || name == "LICENSE" || name.ends_with(".md") || name.ends_with(".txt")
}

/// A right on a group whose name is nearly that of another is a typing mistake, and one that shows only when somebody is
/// refused. A group that `groups.yml` does not name is none by itself: enrolment gives groups too.
fn known_groups(groups: &Groups, roles: &Roles, problems: &mut Problems) {
    let names: Vec<_> = groups.names().into_iter().map(|(name, _)| name.as_str()).collect();
    for (role, rule) in roles.all_rules() {
        for group in rule.on.iter().flat_map(crate::target::Target::groups) {
            if names.contains(&group.as_str()) {
                continue;
            }
            if let Some(near) = common::suggest::nearest(group.as_str(), names.iter().copied()) {
                let what = format!("groups.yml names no group {group}");
                let problem = Problem::new("unknown_group", &rule.span, what);
                problems.push(problem.at(format!("roles.{role}")).hint(format!("did you mean {near}?")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::tree::SitePath;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.insert(SitePath::parse(path).unwrap(), text.as_bytes().to_vec()).unwrap();
        }
        tree
    }

    #[test]
    fn a_clean_site_loads_and_knows_its_groups() {
        let site = Site::load(tree(&[
            ("README.md", "words"),
            ("agents.yml", "web1: {allowed_ips: 10.0.0.0/8}\n"),
            ("groups.yml", "\u{feff}'web*': [web]\n"),
            ("roles.yml", "roles: {r: [{may: agent.read, on: '@web'}]}\noperators: {alice: r}\n"),
            ("data/web.yml", "a: 1\n"),
        ]))
        .unwrap();
        let enrolled = [GroupName::parse("canary").unwrap(), GroupName::parse("web").unwrap()];
        let of = site.groups_of(&"web1".parse().unwrap(), &enrolled);
        assert_eq!(of.iter().map(GroupName::as_str).collect::<Vec<_>>(), ["web", "canary"]);
        assert!(Site::load(Tree::default()).is_ok_and(|site| site.hash() == Site::empty().hash()));
    }

    #[test]
    fn mistakes_of_all_files_are_found_at_once() {
        let problems = Site::load(tree(&[
            ("group.yml", "x"),
            ("dta/web.yml", "a: 1"),
            ("dta/db.yml", "a: 1"),
            ("agents.yml", "web1: {alowed_ips: x}\n"),
            ("groups.yml", "web1: [web\n"),
            ("roles.yml", "roles: {r: [{may: [command.read], on: '@wbe'}]}\n"),
        ]))
        .unwrap_err();
        insta::assert_snapshot!(problems.to_string(), @r"
        dta:1:1: a site has no such folder; did you mean data?
        group.yml:1:1: a site has no such file at its top; did you mean groups.yml?
        agents.yml:1:8: web1: there is no key alowed_ips here; did you mean allowed_ips?
        groups.yml:1:7: this is not YAML: unclosed bracket '['
        ");
    }

    #[test]
    fn a_right_on_a_misspelt_group_is_found_and_one_that_only_enrolment_gives_is_none() {
        let roles = |group: &str| format!("roles: {{r: [{{may: [command.read], on: '@{group}'}}]}}\n");
        let load = |group: &str| Site::load(tree(&[("groups.yml", "web1: [web]\n"), ("roles.yml", &roles(group))]));
        let problems = load("wbe").unwrap_err();
        insta::assert_snapshot!(
            problems.to_string(),
            @"roles.yml:1:13: roles.r: groups.yml names no group wbe; did you mean web?"
        );
        assert!(load("web").is_ok());
        assert!(load("canary").is_ok(), "enrolment may give it");
        let unnamed = Site::load(tree(&[("groups.yml", "{}\n"), ("roles.yml", &roles("wbe"))]));
        assert!(unnamed.is_ok(), "nothing is near it");
    }

    #[test]
    fn files_that_grant_rights_or_run_here_are_told_from_the_rest() {
        for (path, expected) in [
            ("roles.yml", true),
            ("groups.yml", true),
            ("agents.yml", true),
            ("requests/web/x", true),
            ("operations/x", true),
            ("data/roles.yml", false),
            ("state/web.yml", false),
            ("requests", false),
        ] {
            assert_eq!(is_trusted(path), expected, "{path}");
        }
        let before = tree(&[("a.md", "1"), ("b.md", "1")]);
        let after = tree(&[("b.md", "2"), ("c.md", "1")]);
        assert_eq!(changed(&before, &after), ["a.md", "b.md", "c.md"]);
    }
}
