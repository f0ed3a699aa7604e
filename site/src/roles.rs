//! `roles.yml`: who may do what. Everything is denied that no rule allows, and no rule takes anything away.
//!
//! ```yaml
//! roles:
//!   deployer:
//!   - may: [command.run, command.read, output.read]
//!     on: "@web and not web3"            # agents; needed where a permission is about agents
//!     as: [www-data]                     # users; needed for command.run; "*" is everybody, root included
//!     operations: [command.run, agent.*] # all when absent
//! operators:
//!   alice: [deployer]
//! ```
//! The role `admin` is built in and may do everything.

use std::collections::BTreeMap;

use common::id::Name;

use crate::fields::Reader;
use crate::glob::Pattern;
use crate::groups::GroupName;
use crate::limits::{MAX_RULE_ITEMS, MAX_RULES};
use crate::permission::Permission;
use crate::problem::{Problem, Problems};
use crate::source::Span;
use crate::target::{Subject, Target};
use crate::yaml::{Entry, Node};

/// The role that may do everything.
pub const ADMIN: &str = "admin";
const FILE: [&str; 2] = ["roles", "operators"];
const RULE: [&str; 4] = ["may", "on", "as", "operations"];

/// One thing a role may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where it stands.
    pub span: Span,
    /// What it allows.
    pub may: Vec<Permission>,
    /// On which agents; `None`: it allows nothing that is about agents.
    pub on: Option<Target>,
    /// As which users commands may run.
    pub run_as: RunAs,
    /// Which operations; empty: all.
    pub operations: Vec<Pattern>,
}

/// As which users commands may run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RunAs {
    /// As nobody.
    #[default]
    Nobody,
    /// As these.
    Users(Vec<String>),
    /// As everybody, root included.
    Everybody,
}

/// Roles and who has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Roles {
    roles: BTreeMap<String, Vec<Rule>>,
    operators: BTreeMap<String, Vec<String>>,
}

/// One question to the roles.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What somebody wants to do.
    pub permission: Permission,
    /// To which agent, where it is about one.
    pub agent: Option<Subject<'a>>,
    /// As which user, for `command.run`: the agent's own is `root`. `None` is an operation that starts no process: it runs as
    /// nobody, so that no list of users stands in its way.
    pub user: Option<&'a str>,
    /// Which operation, for `command.run`.
    pub operation: Option<&'a str>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision<'r> {
    /// By this role; its rule, where it is not built in.
    Allowed { role: &'r str, rule: Option<&'r Rule> },
    /// No rule of any of the roles allows it.
    Denied,
}

impl Decision<'_> {
    /// It is allowed.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

impl Roles {
    /// Reads the file; what is wrong is noted and left out.
    #[must_use]
    pub fn read(root: &Node, problems: &mut Problems) -> Self {
        let mut reader = Reader::new(problems);
        let Some(file) = reader.fields(root, &FILE) else { return Self::default() };
        let mut this = Self::default();
        if let Some(node) = file.get("roles") {
            this.roles = reader.under("roles", |reader| roles(node, reader));
        }
        if let Some(node) = file.get("operators") {
            this.operators = reader.under("operators", |reader| operators(node, &this.roles, reader));
        }
        this
    }

    /// The roles of an operator.
    #[must_use]
    pub fn of(&self, operator: &str) -> &[String] {
        self.operators.get(operator).map_or(&[], Vec::as_slice)
    }

    /// The rules of a role; `None`: there is no such role here, which is true of the built-in one too.
    #[must_use]
    pub fn rules(&self, role: &str) -> Option<&[Rule]> {
        self.roles.get(role).map(Vec::as_slice)
    }

    /// The names of all roles but the built-in one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// All operators with their roles.
    pub fn operators(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.operators.iter().map(|(name, roles)| (name.as_str(), roles.as_slice()))
    }

    /// All rules.
    pub fn all_rules(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.roles.iter().flat_map(|(role, rules)| rules.iter().map(move |rule| (role.as_str(), rule)))
    }

    /// Decides: the only place where rights are weighed. `held` are the roles of who asks.
    #[must_use]
    pub fn decide<'r>(&'r self, held: &'r [String], ask: Ask<'_>) -> Decision<'r> {
        for role in held {
            if role == ADMIN {
                return Decision::Allowed { role, rule: None };
            }
            let rules = self.roles.get(role).map(Vec::as_slice).unwrap_or_default();
            if let Some(rule) = rules.iter().find(|rule| rule.allows(ask)) {
                return Decision::Allowed { role, rule: Some(rule) };
            }
        }
        Decision::Denied
    }

    /// Whether a permission about agents is held for every agent that there may be of these names and in exactly these groups:
    /// what is asked before somebody makes them.
    #[must_use]
    pub fn holds_for_all(
        &self,
        held: &[String],
        permission: Permission,
        names: &Pattern,
        groups: &[GroupName],
    ) -> bool {
        let covers = |rule: &Rule| {
            rule.may.contains(&permission) && rule.on.as_ref().is_some_and(|target| target.covers(names, groups))
        };
        held.iter().any(|role| role == ADMIN || self.roles.get(role).is_some_and(|rules| rules.iter().any(covers)))
    }

    /// Whether a permission is held for any agent at all: what is asked before a list is narrowed.
    #[must_use]
    pub fn holds_somewhere(&self, held: &[String], permission: Permission) -> bool {
        held.iter().any(|role| {
            role == ADMIN
                || self.roles.get(role).is_some_and(|rules| rules.iter().any(|rule| rule.may.contains(&permission)))
        })
    }
}

impl Rule {
    /// Everything that is asked about has to be allowed by this one rule.
    fn allows(&self, ask: Ask<'_>) -> bool {
        if !self.may.contains(&ask.permission) {
            return false;
        }
        let on_agent = match (ask.agent, &self.on) {
            (Some(agent), Some(target)) => target.matches(agent),
            (Some(_), None) => false,
            // A question about agents that names none is answered by `holds_somewhere`, never here.
            (None, _) => !ask.permission.is_of_agents(),
        };
        if !on_agent || ask.permission != Permission::CommandRun {
            return on_agent;
        }
        let as_user = match (&self.run_as, ask.user) {
            (_, None) | (RunAs::Everybody, Some(_)) => true,
            (RunAs::Users(users), Some(user)) => users.iter().any(|known| known == user),
            (RunAs::Nobody, Some(_)) => false,
        };
        let does = ask.operation.is_some_and(|operation| {
            self.operations.is_empty() || self.operations.iter().any(|pattern| pattern.matches(operation))
        });
        as_user && does
    }
}

fn roles(node: &Node, reader: &mut Reader<'_>) -> BTreeMap<String, Vec<Rule>> {
    let mut found = BTreeMap::new();
    for entry in reader.map(node).into_iter().flat_map(|map| map.iter()) {
        reader.under(&entry.key, |reader| {
            if let Err(said) = role_name(&entry.key) {
                reader.wrong(Problem::new("invalid", &entry.key_span, said));
                return;
            }
            if *entry.key == *ADMIN {
                reader.wrong(Problem::new(
                    "invalid",
                    &entry.key_span,
                    "the role admin is built in and cannot be changed",
                ));
                return;
            }
            let Some(list) = reader.list(&entry.value) else { return };
            if list.len() > MAX_RULES {
                let what = format!("{} rules stand here; at most {MAX_RULES} are taken", list.len());
                reader.wrong(Problem::new("too_many", entry.value.span(), what));
            }
            let rules = list.iter().take(MAX_RULES).enumerate();
            let rules = rules.filter_map(|(at, node)| reader.item(at, |reader| rule(node, reader))).collect();
            found.insert(entry.key.to_string(), rules);
        });
    }
    found
}

fn rule(node: &Node, reader: &mut Reader<'_>) -> Option<Rule> {
    let fields = reader.fields(node, &RULE)?;
    let Some(may) = fields.get("may") else {
        reader.wrong(Problem::new("missing_key", node.span(), "a rule says with `may` what it allows"));
        return None;
    };
    let may: Vec<Permission> = reader.under("may", |reader| items(may, reader, permission));
    let on = fields.get("on").and_then(|node| {
        reader.under("on", |reader| reader.parsed(node, |text| Target::parse(text).map_err(|e| e.to_string())))
    });
    let run_as = fields.get("as").map(|node| reader.under("as", |reader| run_as(node, reader)));
    let operations = fields
        .get("operations")
        .map(|node| reader.under("operations", |reader| items(node, reader, Pattern::parse)))
        .unwrap_or_default();
    // A list of operations in which nothing is right must not become the list that allows all.
    if fields.get("operations").is_some() && operations.is_empty() {
        let what = "names no operation; leave the key out to allow all";
        reader.under("operations", |reader| reader.wrong(Problem::new("invalid", node.span(), what)));
        return None;
    }
    if fields.get("on").is_none()
        && let Some(permission) = may.iter().find(|permission| permission.is_of_agents())
    {
        let what = format!("{permission} is about agents, and this rule does not say which");
        reader.wrong(Problem::new("missing_key", node.span(), what).hint("add on: \"*\" for all of them"));
    }
    if run_as.is_none() && may.contains(&Permission::CommandRun) {
        let what = "command.run needs `as`: the users commands may run as";
        reader.wrong(Problem::new("missing_key", node.span(), what).hint("add as: [root], or the users you mean"));
    }
    Some(Rule { span: node.span().clone(), may, on, run_as: run_as.unwrap_or_default(), operations })
}

fn run_as(node: &Node, reader: &mut Reader<'_>) -> RunAs {
    let users: Vec<String> = items(node, reader, |text| match text {
        "*" => Ok(text.to_owned()),
        _ if text.is_empty() || text.len() > 32 || text.contains([':', '/', '\0', '\n', '*']) => {
            Err(format!("'{}' is no name of a user", common::escape::text(text)))
        }
        _ => Ok(text.to_owned()),
    });
    match users.as_slice() {
        [] => RunAs::Nobody,
        [one] if one == "*" => RunAs::Everybody,
        _ if users.iter().any(|user| user == "*") => {
            reader.wrong(Problem::new("invalid", node.span(), "* stands alone: it is everybody already"));
            RunAs::Nobody
        }
        _ => RunAs::Users(users),
    }
}

fn operators(
    node: &Node,
    roles: &BTreeMap<String, Vec<Rule>>,
    reader: &mut Reader<'_>,
) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for Entry { key, key_span, value } in reader.map(node).into_iter().flat_map(|map| map.iter()) {
        reader.under(key, |reader| {
            if key.parse::<Name>().is_err() {
                let what = format!("'{}' is no name of an operator", common::escape::text(&**key));
                reader.wrong(Problem::new("invalid", key_span, what));
                return;
            }
            let held: Vec<String> = items(value, reader, |text| {
                if text == ADMIN || roles.contains_key(text) {
                    return Ok(text.to_owned());
                }
                let shown = common::escape::text(text);
                let known = roles.keys().map(String::as_str).chain([ADMIN]);
                Err(match common::suggest::nearest(text, known) {
                    Some(near) => format!("there is no role {shown}; did you mean {near}?"),
                    None => format!("there is no role {shown}"),
                })
            });
            found.insert(key.to_string(), held);
        });
    }
    found
}

/// The items of a list that a type understands; mistakes are noted.
fn items<T>(node: &Node, reader: &mut Reader<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    reader.each(node, MAX_RULE_ITEMS, |node, reader| reader.parsed(node, &parse)).unwrap_or_default()
}

fn permission(text: &str) -> Result<Permission, String> {
    text.parse().map_err(|_| {
        let shown = common::escape::text(text);
        match common::suggest::nearest(text, Permission::ALL.map(Permission::as_str)) {
            Some(near) => format!("there is no permission {shown}; did you mean {near}?"),
            None => format!(
                "there is no permission {shown}; there are {}",
                Permission::ALL.map(Permission::as_str).join(", ")
            ),
        }
    })
}

fn role_name(text: &str) -> Result<(), String> {
    match text.parse::<Name>() {
        Ok(_) if text.len() <= 64 => Ok(()),
        _ => Err(format!("'{}' is no name of a role", common::escape::text(text))),
    }
}

#[cfg(test)]
#[path = "roles_tests.rs"]
mod tests;
