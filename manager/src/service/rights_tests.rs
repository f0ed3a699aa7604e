//! Rights against an oracle that knows nothing of rules, patterns or snapshots: it spells out every policy by hand.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use site::tree::{SitePath, Tree};

use super::*;

const NOW: Millis = 1_000_000;
const AGENTS: [&str; 5] = ["web1", "web2", "web3", "db1", "db2"];
const GROUPS: [&str; 3] = ["red", "green", "blue"];
const USERS: [&str; 3] = ["root", "daemon", "www"];
const OPERATIONS: [&str; 3] = ["command.run", "script.run", "agent.ping"];
const ROLES: [&str; 3] = ["one", "two", "three"];

/// The same numbers in every run: a difference that was found is found again.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn some<T: Copy>(&mut self, from: &[T]) -> Vec<T> {
        from.iter().copied().filter(|_| self.below(2) == 0).collect()
    }

    fn often(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Whom a rule is about, as the oracle sees it.
#[derive(Clone, Copy)]
enum Whom {
    All,
    Web,
    Name(&'static str),
    Group(&'static str),
    GroupBut(&'static str, &'static str),
    NotGroup(&'static str),
    Either(&'static str, &'static str),
}

impl Whom {
    fn draw(draw: &mut Draw) -> Self {
        let (name, other, group) = (draw.one(&AGENTS), draw.one(&AGENTS), draw.one(&GROUPS));
        match draw.below(7) {
            0 => Self::All,
            1 => Self::Web,
            2 => Self::Name(name),
            3 => Self::Group(group),
            4 => Self::GroupBut(group, name),
            5 => Self::NotGroup(group),
            _ => Self::Either(name, other),
        }
    }

    fn text(self) -> String {
        match self {
            Self::All => "*".to_owned(),
            Self::Web => "web?".to_owned(),
            Self::Name(name) => name.to_owned(),
            Self::Group(group) => format!("@{group}"),
            Self::GroupBut(group, name) => format!("@{group} and not {name}"),
            Self::NotGroup(group) => format!("not @{group}"),
            Self::Either(name, other) => format!("{name}, {other}"),
        }
    }

    fn holds(self, agent: &str, groups: &[&str]) -> bool {
        match self {
            Self::All => true,
            Self::Web => agent.starts_with("web"),
            Self::Name(name) => agent == name,
            Self::Group(group) => groups.contains(&group),
            Self::GroupBut(group, name) => groups.contains(&group) && agent != name,
            Self::NotGroup(group) => !groups.contains(&group),
            Self::Either(name, other) => agent == name || agent == other,
        }
    }
}

struct PlainRule {
    may: Vec<Permission>,
    whom: Option<Whom>,
    /// `None`: the key is absent; empty: everybody.
    users: Option<Vec<&'static str>>,
    operations: Vec<&'static str>,
}

/// Everything there is, in the plainest form.
struct World {
    roles: BTreeMap<&'static str, Vec<PlainRule>>,
    operators: BTreeMap<&'static str, Vec<&'static str>>,
    groups: BTreeMap<&'static str, Vec<&'static str>>,
    enrolled: BTreeMap<&'static str, Vec<&'static str>>,
}

struct Holder {
    operator: &'static str,
    scope: Scope,
    roles: Vec<&'static str>,
    revoked: bool,
    expired: bool,
}

impl World {
    fn draw(draw: &mut Draw) -> Self {
        let rule = |draw: &mut Draw| {
            let mut may = draw.some(&Permission::ALL);
            if may.is_empty() {
                may.push(draw.one(&Permission::ALL));
            }
            let needs_whom = may.iter().any(|permission| permission.is_of_agents());
            let whom = (needs_whom || draw.often(20)).then(|| Whom::draw(draw));
            let users = may.contains(&Permission::CommandRun).then(|| draw.some(&USERS));
            PlainRule { may, whom, users, operations: draw.some(&OPERATIONS) }
        };
        let mut given = ROLES.to_vec();
        given.push("admin");
        let mut roles = BTreeMap::new();
        for role in ROLES {
            let rules = (0..draw.below(3)).map(|_| rule(draw)).collect();
            roles.insert(role, rules);
        }
        let some_roles = |draw: &mut Draw| {
            let mut held = draw.some(&given);
            // Who may everything would leave nothing to compare.
            held.retain(|role| *role != "admin" || draw.often(10));
            held
        };
        Self {
            roles,
            operators: [("alice", some_roles(draw)), ("bob", some_roles(draw))].into(),
            groups: AGENTS.map(|agent| (agent, draw.some(&GROUPS))).into(),
            enrolled: AGENTS.map(|agent| (agent, draw.some(&GROUPS))).into(),
        }
    }

    fn site(&self) -> Site {
        let list = |items: &[&str]| items.iter().map(|item| format!("'{item}'")).collect::<Vec<_>>().join(", ");
        let mut roles = "roles:\n".to_owned();
        for (role, rules) in &self.roles {
            roles.push_str(&format!("  {role}:\n"));
            if rules.is_empty() {
                roles.truncate(roles.len() - 1);
                roles.push_str(" []\n");
            }
            for rule in rules {
                let may: Vec<_> = rule.may.iter().map(|permission| permission.as_str()).collect();
                roles.push_str(&format!("  - may: [{}]\n", list(&may)));
                if let Some(whom) = rule.whom {
                    roles.push_str(&format!("    on: '{}'\n", whom.text()));
                }
                match rule.users.as_deref() {
                    None => {}
                    Some([]) => roles.push_str("    as: '*'\n"),
                    Some(users) => roles.push_str(&format!("    as: [{}]\n", list(users))),
                }
                if !rule.operations.is_empty() {
                    roles.push_str(&format!("    operations: [{}]\n", list(&rule.operations)));
                }
            }
        }
        roles.push_str("operators:\n");
        for (operator, held) in &self.operators {
            roles.push_str(&format!("  {operator}: [{}]\n", list(held)));
        }
        // Every group is named somewhere, so that none looks like a misspelt other.
        let mut groups = format!("nobody: [{}]\n", list(&GROUPS));
        for (agent, held) in &self.groups {
            groups.push_str(&format!("{agent}: [{}]\n", list(held)));
        }
        let mut tree = Tree::default();
        tree.insert(SitePath::parse("roles.yml").unwrap(), roles.as_bytes().to_vec()).unwrap();
        tree.insert(SitePath::parse("groups.yml").unwrap(), groups.as_bytes().to_vec()).unwrap();
        Site::load(tree).unwrap_or_else(|problems| panic!("{problems}\n{roles}\n{groups}"))
    }

    /// The answer, spelt out.
    fn oracle(
        &self,
        holder: &Holder,
        permission: Permission,
        agent: Option<&str>,
        run: Option<(Option<&str>, &str)>,
    ) -> bool {
        let in_scope = match holder.scope {
            Scope::Admin => true,
            Scope::Run => [
                "agent.read",
                "command.read",
                "output.read",
                "status.read",
                "site.read",
                "command.run",
                "command.control",
            ]
            .contains(&permission.as_str()),
            Scope::Read => {
                ["agent.read", "command.read", "output.read", "status.read", "site.read"].contains(&permission.as_str())
            }
        };
        if holder.revoked || holder.expired || !in_scope {
            return false;
        }
        let mut held = holder.roles.clone();
        held.extend(self.operators.get(holder.operator).into_iter().flatten());
        if held.contains(&"admin") {
            return true;
        }
        let rules = held.iter().flat_map(|role| self.roles.get(role).into_iter().flatten());
        for rule in rules.filter(|rule| rule.may.contains(&permission)) {
            let about = match agent {
                None => !permission.is_of_agents(),
                Some(agent) => {
                    let mut groups = self.groups[agent].clone();
                    groups.extend(&self.enrolled[agent]);
                    rule.whom.is_some_and(|whom| whom.holds(agent, &groups))
                }
            };
            let runs = permission != Permission::CommandRun
                || run.is_some_and(|(user, operation)| {
                    let users = rule.users.as_deref().unwrap_or(&["nobody at all"]);
                    (user.is_none() || users.is_empty() || users.contains(&user.unwrap()))
                        && (rule.operations.is_empty() || rule.operations.contains(&operation))
                });
            if about && runs {
                return true;
            }
        }
        false
    }
}

fn groups_named(groups: &[&str]) -> Vec<GroupName> {
    groups.iter().map(|group| GroupName::parse(group).unwrap()).collect()
}

/// S31: a hundred thousand pairs of policy and question.
#[test]
fn the_rights_agree_with_an_independent_oracle_a_hundred_thousand_times() {
    let mut draw = Draw(31);
    let (mut asked, mut allowed) = (0_u32, 0_u32);
    while asked < 100_000 {
        let world = World::draw(&mut draw);
        let mut holders = Vec::new();
        let mut credentials = Credentials::default();
        for at in 0..6_u64 {
            let scope = draw.one(&[Scope::Admin, Scope::Admin, Scope::Run, Scope::Read]);
            let is_token = at < 4;
            let holder = Holder {
                operator: draw.one(&["alice", "bob", "carol"]),
                scope: if is_token { scope } else { Scope::Admin },
                roles: if is_token { draw.some(&ROLES) } else { Vec::new() },
                revoked: draw.often(10),
                expired: draw.often(10),
            };
            let credential = Credential {
                operator: holder.operator.to_owned(),
                scope: holder.scope,
                roles: holder.roles.iter().map(|role| (*role).to_owned()).collect(),
                revoked: holder.revoked,
                expires_at: if holder.expired { Some(NOW) } else { draw.one(&[None, Some(NOW + 1)]) },
            };
            let via = if is_token {
                credentials.tokens.insert(at.to_string(), credential);
                Via::Token { id: at.to_string() }
            } else {
                credentials.certificates.insert(Generation(at), credential);
                Via::Certificate { generation: Generation(at) }
            };
            let caller = Caller {
                actor: Actor(holder.operator.to_owned()),
                authority: Authority { actor: holder.operator.to_owned(), via },
                scope: holder.scope,
                roles: holder.roles.iter().map(|role| (*role).to_owned()).collect(),
            };
            holders.push((holder, caller));
        }
        let enrolled = world.enrolled.iter().map(|(agent, groups)| (agent.parse().unwrap(), groups_named(groups)));
        let rights = Rights::default()
            .with_site(1, Arc::new(world.site()))
            .with_credentials(credentials)
            .with_enrolled(enrolled.collect());
        for _ in 0..200 {
            let (holder, caller) = &holders[draw.below(holders.len())];
            let permission = draw.one(&Permission::ALL);
            let agent = draw.often(80).then(|| draw.one(&AGENTS));
            let name: Option<Name> = agent.map(|agent| agent.parse().unwrap());
            let operation = draw.one(&OPERATIONS);
            let user = draw.one(&[None, Some("root"), Some("daemon"), Some("www"), Some("nobody")]);
            let user = runs_as(operation, user);
            let run = draw.often(80).then_some((user, operation));
            let about = match (&name, run) {
                (None, _) => About::Nothing,
                (Some(name), None) => About::Agent(name),
                (Some(agent), Some((user, operation))) => About::Run { agent, user, operation },
            };
            let found = rights.weigh(caller, permission, about, NOW).is_ok();
            let run = name.as_ref().and(run);
            assert_eq!(
                found,
                world.oracle(holder, permission, agent, run),
                "{caller:?} {permission} {about:?}\n{:?}",
                world.site().roles()
            );
            // A thing that is allowed is allowed somewhere, or the door would never let it in.
            assert!(!found || rights.somewhere(caller, permission, NOW).is_ok());
            if let (Some(agent), Some((user, operation)), false) = (&name, run, holder.expired) {
                let ask = JudgeAsk {
                    authority: Some(caller.authority.clone()),
                    agent: agent.clone(),
                    groups: world.enrolled[agent.as_str()].iter().map(|group| (*group).to_owned()).collect(),
                    operation: operation.to_owned(),
                    user: user.map(str::to_owned),
                };
                let may = rights.weigh(caller, Permission::CommandRun, About::Run { agent, user, operation }, NOW);
                assert_eq!(rights.may_send(&ask), may.is_ok(), "at submit and at dispatch: {ask:?}");
            }
            asked += 1;
            allowed += u32::from(found);
        }
    }
    // A test in which everything is refused would show nothing.
    assert!(allowed > 10_000, "{allowed} of {asked}");
}

#[test]
fn what_nobody_knows_is_worth_nothing() {
    let rights = Rights::default();
    for via in [Via::Token { id: "x".to_owned() }, Via::Certificate { generation: Generation(7) }] {
        let caller = Caller {
            actor: Actor("alice".to_owned()),
            authority: Authority { actor: "alice".to_owned(), via },
            scope: Scope::Admin,
            roles: vec![ADMIN.to_owned()],
        };
        for permission in Permission::ALL {
            assert_eq!(rights.weigh(&caller, permission, About::Nothing, NOW), Err(Denied::Credential));
        }
        let agent: Name = "web1".parse().unwrap();
        let ask = JudgeAsk {
            authority: Some(caller.authority.clone()),
            agent,
            groups: Vec::new(),
            operation: "command.run".to_owned(),
            user: None,
        };
        assert!(!rights.may_send(&ask));
    }
    assert!(rights.weigh(&Caller::local(0), Permission::SiteTrust, About::Nothing, NOW).is_ok());
}

#[test]
fn a_command_outlives_the_end_of_its_token_and_not_its_revocation() {
    let credential = |revoked| Credential {
        operator: "ci".to_owned(),
        scope: Scope::Run,
        roles: vec![ADMIN.to_owned()],
        revoked,
        expires_at: Some(NOW),
    };
    let ask = JudgeAsk {
        authority: Some(Authority { actor: "ci".to_owned(), via: Via::Token { id: "t".to_owned() } }),
        agent: "web1".parse().unwrap(),
        groups: Vec::new(),
        operation: "command.run".to_owned(),
        user: None,
    };
    for revoked in [false, true] {
        let tokens = HashMap::from([("t".to_owned(), credential(revoked))]);
        let rights = Rights::default().with_credentials(Credentials { tokens, ..Credentials::default() });
        assert_eq!(rights.may_send(&ask), !revoked);
        assert!(!rights.stands(ask.authority.as_ref().unwrap(), NOW));
    }
    assert!(Rights::default().may_send(&JudgeAsk { authority: None, ..ask }), "the manager's own");
}

#[test]
fn a_scope_holds_the_smaller_ones_and_nobody_gives_more_than_they_have() {
    let order = [Scope::Read, Scope::Run, Scope::Admin];
    for (at, scope) in order.into_iter().enumerate() {
        for (other_at, other) in order.into_iter().enumerate() {
            assert_eq!(covers(scope, other), at >= other_at, "{scope:?} {other:?}");
        }
    }
    let mut tree = Tree::default();
    let roles = "roles: {a: [{may: audit.read}], b: [{may: status.read}]}\noperators: {alice: a, bob: b}\n";
    tree.insert(SitePath::parse("roles.yml").unwrap(), roles.as_bytes().to_vec()).unwrap();
    let rights = Rights::default().with_site(1, Arc::new(Site::load(tree).unwrap()));
    let alice = Caller::of_certificate(&"alice".parse().unwrap(), Generation(1));
    let role = |role: &str| vec![role.to_owned()];
    assert_eq!(rights.lacks(&alice, "alice", &role("a")), None);
    assert_eq!(rights.lacks(&alice, "alice", &role("b")), Some("b"));
    assert_eq!(rights.lacks(&alice, "alice", &role("admin")), Some("admin"));
    for other in ["bob", "ci"] {
        assert_eq!(rights.lacks(&alice, other, &[]), Some("admin"), "the name may be given roles later");
    }
    assert_eq!(rights.lacks(&Caller::local(0), "bob", &role("a")), None);
}
