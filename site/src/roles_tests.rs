//! Tests of who may do what.

#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::Source;
use crate::groups::GroupName;
use crate::yaml::parse;

fn read(text: &str) -> (Roles, String) {
    let mut problems = Problems::default();
    let roles = Roles::read(&parse(&Source::new("roles.yml", text)).unwrap(), &mut problems);
    (roles, problems.to_string())
}

const SITE: &str = "
roles:
  deployer:
  - may: [command.run, command.read]
    on: '@web and not web3'
    as: [www-data]
    operations: ['command.*']
  - may: [agent.read]
    on: '*'
  auditor:
  - may: audit.read
operators:
  alice: [deployer]
  bob: [auditor, deployer]
  root: admin
  nobody: []
";

fn asked(roles: &Roles, who: &str, permission: Permission, agent: Option<&str>, user: &str, operation: &str) -> bool {
    let name: Option<Name> = agent.map(|agent| agent.parse().unwrap());
    let groups = [GroupName::parse("web").unwrap()];
    let agent = name.as_ref().map(|name| Subject { name, groups: &groups });
    roles.decide(roles.of(who), Ask { permission, agent, user: Some(user), operation: Some(operation) }).is_allowed()
}

#[test]
fn a_right_is_permission_target_user_and_operation_together() {
    use Permission as P;
    let (roles, problems) = read(SITE);
    assert_eq!(problems, "");
    for (who, permission, agent, user, operation, expected) in [
        ("alice", P::CommandRun, Some("web1"), "www-data", "command.run", true),
        ("alice", P::CommandRun, Some("web3"), "www-data", "command.run", false),
        ("alice", P::CommandRun, Some("web1"), "root", "command.run", false),
        ("alice", P::CommandRun, Some("web1"), "www-data", "script.run", false),
        ("alice", P::CommandRead, Some("web1"), "", "", true),
        ("alice", P::CommandControl, Some("web1"), "", "", false),
        ("alice", P::AuditRead, None, "", "", false),
        ("bob", P::AuditRead, None, "", "", true),
        ("bob", P::CommandRead, None, "", "", false),
        ("root", P::SiteTrust, None, "", "", true),
        ("root", P::CommandRun, Some("web3"), "root", "script.run", true),
        ("nobody", P::AgentRead, Some("web1"), "", "", false),
        ("stranger", P::AgentRead, Some("web1"), "", "", false),
    ] {
        let found = asked(&roles, who, permission, agent, user, operation);
        assert_eq!(found, expected, "{who} {permission} {agent:?} {user} {operation}");
    }
    assert!(roles.holds_somewhere(roles.of("alice"), P::CommandRun));
    assert!(!roles.holds_somewhere(roles.of("alice"), P::AuditRead));
}

#[test]
fn a_rule_that_does_not_say_enough_is_a_mistake_and_allows_nothing_more() {
    let text = "
roles:
  admin: []
  a b: []
  x:
  - on: web1
  - may: [command.rnu]
    on: 'web1 and'
  - may: [command.run]
  - may: [command.run]
    on: '*'
    as: ['*', root]
    operations: []
  - may: [agent.read]
    onn: '*'
operators:
  alice: [y, admn]
  'a b': []
rolls: {}
";
    let (roles, problems) = read(text);
    insta::assert_snapshot!(problems, @r#"
    roles.yml:19:1: there is no key rolls here; did you mean roles?
    roles.yml:3:3: roles.admin: the role admin is built in and cannot be changed
    roles.yml:4:3: roles.a b: 'a b' is no name of a role
    roles.yml:6:5: roles.x[0]: a rule says with `may` what it allows
    roles.yml:7:11: roles.x[1].may[0]: there is no permission command.rnu; did you mean command.run?
    roles.yml:8:9: roles.x[1].on: a name, a pattern, @group, not or ( is wanted here, not the end (character 9)
    roles.yml:9:5: roles.x[2]: command.run is about agents, and this rule does not say which; add on: "*" for all of them
    roles.yml:9:5: roles.x[2]: command.run needs `as`: the users commands may run as; add as: [root], or the users you mean
    roles.yml:12:9: roles.x[3].as: * stands alone: it is everybody already
    roles.yml:10:5: roles.x[3].operations: names no operation; leave the key out to allow all
    roles.yml:15:5: roles.x[4]: there is no key onn here; did you mean on?
    roles.yml:14:5: roles.x[4]: agent.read is about agents, and this rule does not say which; add on: "*" for all of them
    roles.yml:17:11: operators.alice[0]: there is no role y; did you mean x?
    roles.yml:17:14: operators.alice[1]: there is no role admn; did you mean admin?
    roles.yml:18:3: operators.a b: 'a b' is no name of an operator
    "#);
    for (_, rule) in roles.all_rules() {
        assert!(rule.on.is_none() || rule.may.is_empty(), "{rule:?}");
    }
}

#[test]
fn an_operation_that_starts_no_process_needs_no_user() {
    let (roles, _) = read(SITE);
    let name: Name = "web1".parse().unwrap();
    let groups = [GroupName::parse("web").unwrap()];
    let ask = |operation| Ask {
        permission: Permission::CommandRun,
        agent: Some(Subject { name: &name, groups: &groups }),
        user: None,
        operation: Some(operation),
    };
    assert!(roles.decide(roles.of("alice"), ask("command.ping")).is_allowed());
    assert!(!roles.decide(roles.of("alice"), ask("agent.ping")).is_allowed(), "the operation counts all the same");
    assert!(!roles.decide(roles.of("nobody"), ask("command.ping")).is_allowed());
}

type PlainRule<'a> = (Vec<Permission>, &'a str, Vec<&'a str>, Vec<&'a str>);

/// The same question answered by trying every combination that the rules spell out.
fn oracle(rules: &[PlainRule<'_>], ask: (Permission, &str, &str, &str)) -> bool {
    let (permission, agent, user, operation) = ask;
    rules.iter().any(|(may, on, users, operations)| {
        may.contains(&permission)
            && (*on == "*" || *on == agent)
            && (permission != Permission::CommandRun
                || ((users.contains(&"*") || users.contains(&user))
                    && (operations.is_empty() || operations.contains(&operation))))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn the_decision_agrees_with_a_simple_oracle(
        rules in prop::collection::vec((
            prop::collection::vec(prop::sample::select(vec![Permission::CommandRun, Permission::CommandRead, Permission::AgentRead]), 1..3),
            prop::sample::select(vec!["*", "web1", "web2"]),
            prop::sample::subsequence(vec!["root", "daemon"], 0..2).prop_map(|users| if users.is_empty() { vec!["*"] } else { users }),
            prop::sample::subsequence(vec!["command.run", "script.run"], 0..2),
        ), 0..4),
        permission in prop::sample::select(vec![Permission::CommandRun, Permission::CommandRead, Permission::AgentRead, Permission::AgentManage]),
        agent in prop::sample::select(vec!["web1", "web2", "db1"]),
        user in prop::sample::select(vec!["root", "daemon", "nobody"]),
        operation in prop::sample::select(vec!["command.run", "script.run", "agent.ping"]),
    ) {
        let list = |items: &[&str]| items.iter().map(|item| format!("'{item}'")).collect::<Vec<_>>().join(", ");
        let mut text = "roles:\n  r:\n".to_owned();
        for (may, on, users, operations) in &rules {
            let may = may.iter().map(|permission| permission.as_str()).collect::<Vec<_>>();
            text.push_str(&format!("  - {{may: [{}], on: '{on}', as: [{}]", list(&may), list(users)));
            if !operations.is_empty() {
                text.push_str(&format!(", operations: [{}]", list(operations)));
            }
            text.push_str("}\n");
        }
        text.push_str("operators: {alice: [r]}\n");
        let (roles, problems) = read(&text);
        prop_assert_eq!(problems, "");
        let found = asked(&roles, "alice", permission, Some(agent), user, operation);
        prop_assert_eq!(found, oracle(&rules, (permission, agent, user, operation)));
    }
}
