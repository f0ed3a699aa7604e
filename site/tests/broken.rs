//! Broken sites: every mistake is found at its place, with its path and, where there is one, the nearest right name.
//!
//! Each case is one file; what is expected is the first problem as one line, or the beginning of it.

#![expect(clippy::unwrap_used, reason = "tests")]

use site::Site;
use site::tree::{SitePath, Tree};

/// File, content, the first problem.
const CASES: &[(&str, &str, &str)] = &[
    // --- YAML itself
    ("groups.yml", "web1: [web\n", "groups.yml:1:7: this is not YAML: unclosed bracket"),
    ("groups.yml", "web1: {a\n", "groups.yml:1:7: this is not YAML: "),
    ("groups.yml", "web1: 'web\n", "groups.yml:2:1: this is not YAML: "),
    ("groups.yml", "web1: \"web\\q\"\n", "groups.yml:1:7: this is not YAML: "),
    ("groups.yml", "web1: [a]\n web2: [b]\n", "groups.yml:2:2: this is not YAML: "),
    ("groups.yml", "web1:\n\t- web\n", "groups.yml:2:2: a line is indented with a tab; YAML is indented with spaces"),
    ("groups.yml", "web1: @web\n", "groups.yml:1:7: this is not YAML: "),
    ("groups.yml", "web1: `web`\n", "groups.yml:1:7: this is not YAML: "),
    ("groups.yml", "web1: *web\n", "groups.yml:1:7: this alias stands for no anchor before it"),
    (
        "groups.yml",
        "*: [base]\n",
        "groups.yml:1:1: this alias stands for no anchor before it; a pattern that begins with * stands in quotes",
    ),
    ("groups.yml", "*web: [base]\n", "groups.yml:1:1: this alias stands for no anchor before it"),
    ("groups.yml", "web1: &a [*a]\n", "groups.yml:1:11: this alias is inside of what it stands for"),
    (
        "groups.yml",
        "web1: [a]\n---\nweb2: [b]\n",
        "groups.yml:2:1: a second document begins here; a file holds one document",
    ),
    ("groups.yml", "%YAML 1.1\n---\nweb1: [a]\n", "groups.yml:1:1: this is not YAML: "),
    ("groups.yml", "web1: [a]\nweb1: [b]\n", "groups.yml:2:1: the key web1 stands twice in this map"),
    ("groups.yml", "web1: [a]\n\"web1\": [b]\n", "groups.yml:2:1: the key web1 stands twice in this map"),
    ("groups.yml", "web1: !grop [a]\n", "groups.yml:1:7: there is no tag !grop; there are !raw, "),
    ("groups.yml", "web1: !sercet a\n", "groups.yml:1:7: there is no tag !sercet; did you mean !secret?"),
    ("groups.yml", "web1: !!binary YQ==\n", "groups.yml:1:7: there is no tag !!binary; there are "),
    ("groups.yml", "web1: !secret a\n", "groups.yml:1:7: web1: the tag !secret has no meaning here"),
    ("groups.yml", "? [a, b]\n: [web]\n", "groups.yml:1:3: a key is a single value, not a list or map"),
    ("groups.yml", ": [web]\n", "groups.yml:1:1: a key is missing before the colon"),
    ("groups.yml", "~: [web]\n", "groups.yml:1:1: a key is missing before the colon"),
    ("groups.yml", "<<: [1]\n", "groups.yml:1:6: << takes a map or a list of maps, not a number"),
    (
        "groups.yml",
        "a: &x {b: c}\nd: {<<: *x, <<: *x}\n",
        "groups.yml:2:13: the key << stands twice in this map; one << takes a list of maps",
    ),
    // --- groups.yml
    ("groups.yml", "- web\n", "groups.yml:1:1: a map is wanted here, not a list"),
    ("groups.yml", "web\n", "groups.yml:1:1: a map is wanted here, not text"),
    ("groups.yml", "7\n", "groups.yml:1:1: a map is wanted here, not a number"),
    ("groups.yml", "web1: {web: true}\n", "groups.yml:1:7: web1: a list is wanted here, not a map"),
    ("groups.yml", "web1: [7]\n", "groups.yml:1:8: web1[0]: text is wanted here, not a number; write \"7\""),
    (
        "groups.yml",
        "web1: [yes, true]\n",
        "groups.yml:1:13: web1[1]: text is wanted here, not true or false; write \"true\"",
    ),
    ("groups.yml", "web1: [null]\n", "groups.yml:1:8: web1[0]: text is wanted here, not nothing"),
    ("groups.yml", "web1: [[a]]\n", "groups.yml:1:8: web1[0]: text is wanted here, not a list"),
    ("groups.yml", "web1: [a, b, a]\n", "groups.yml:1:14: web1[2]: the group a stands twice in this list"),
    ("groups.yml", "web1: ['a b']\n", "groups.yml:1:8: web1[0]: 'a b' is no name of a group"),
    ("groups.yml", "web1: ['../x']\n", "groups.yml:1:8: web1[0]: '../x' is no name of a group"),
    ("groups.yml", "web1: ['@web']\n", "groups.yml:1:8: web1[0]: '@web' is no name of a group"),
    ("groups.yml", "web1: ['']\n", "groups.yml:1:8: web1[0]: '' is no name of a group"),
    ("groups.yml", "'web[12]': [web]\n", "groups.yml:1:1: web[12]: '[' stands in no name"),
    ("groups.yml", "'we b': [web]\n", "groups.yml:1:1: we b: ' ' stands in no name"),
    ("groups.yml", "'': [web]\n", "groups.yml:1:1: a name or pattern is wanted here, not nothing"),
    ("groups.yml", "\"web\\n1\": [web]\n", "groups.yml:1:1: web\\n1: '\\n' stands in no name"),
    // --- agents.yml
    ("agents.yml", "'web*': {}\n", "agents.yml:1:1: web*: 'web*' is no name of an agent: "),
    ("agents.yml", "web1: [a]\n", "agents.yml:1:7: web1: a map is wanted here, not a list"),
    (
        "agents.yml",
        "web1: {allowed_ip: 10.0.0.1}\n",
        "agents.yml:1:8: web1: there is no key allowed_ip here; did you mean allowed_ips?",
    ),
    (
        "agents.yml",
        "web1: {secret_hash: x}\n",
        "agents.yml:1:8: web1: there is no key secret_hash here; there are allowed_ips, data",
    ),
    (
        "agents.yml",
        "web1: {allowed_ips: 10}\n",
        "agents.yml:1:21: web1.allowed_ips: text is wanted here, not a number; write \"10\"",
    ),
    (
        "agents.yml",
        "web1: {allowed_ips: [10.0.0.300]}\n",
        "agents.yml:1:22: web1.allowed_ips[0]: '10.0.0.300' is no IP address",
    ),
    (
        "agents.yml",
        "web1: {allowed_ips: [10.0.0.0/33]}\n",
        "agents.yml:1:22: web1.allowed_ips[0]: '10.0.0.0/33' has no number of bits",
    ),
    (
        "agents.yml",
        "web1: {allowed_ips: [10.0.0.1/8]}\n",
        "agents.yml:1:22: web1.allowed_ips[0]: '10.0.0.1/8' has bits behind its network part; did you mean 10.0.0.0/8?",
    ),
    ("agents.yml", "web1: {allowed_ips: [manager.example.org]}\n", "agents.yml:1:22: web1.allowed_ips[0]: "),
    ("agents.yml", "web1: {data: [1]}\n", "agents.yml:1:14: web1.data: a map is wanted here, not a list"),
    ("agents.yml", "web1: {}\nweb1: {}\n", "agents.yml:2:1: the key web1 stands twice in this map"),
    // --- roles.yml
    ("roles.yml", "role: {}\n", "roles.yml:1:1: there is no key role here; did you mean roles?"),
    ("roles.yml", "roles: [a]\n", "roles.yml:1:8: roles: a map is wanted here, not a list"),
    (
        "roles.yml",
        "roles: {admin: []}\n",
        "roles.yml:1:9: roles.admin: the role admin is built in and cannot be changed",
    ),
    ("roles.yml", "roles: {a: {may: x}}\n", "roles.yml:1:12: roles.a: a list is wanted here, not a map"),
    ("roles.yml", "roles: {a: [{}]}\n", "roles.yml:1:13: roles.a[0]: a rule says with `may` what it allows"),
    (
        "roles.yml",
        "roles: {a: [{may: comand.run}]}\n",
        "roles.yml:1:19: roles.a[0].may: there is no permission comand.run; did you mean command.run?",
    ),
    (
        "roles.yml",
        "roles: {a: [{may: agent.read}]}\n",
        "roles.yml:1:13: roles.a[0]: agent.read is about agents, and this rule does not say which",
    ),
    (
        "roles.yml",
        "roles: {a: [{may: agent.read, on: 'web1 web2'}]}\n",
        "roles.yml:1:35: roles.a[0].on: and, or, a comma or the end is wanted here, not web2 (character 6)",
    ),
    (
        "roles.yml",
        "roles: {a: [{may: agent.read, on: ''}]}\n",
        "roles.yml:1:35: roles.a[0].on: a name, a pattern, @group, not or ( is wanted here",
    ),
    ("roles.yml", "roles: {a: [{may: command.run, on: '*'}]}\n", "roles.yml:1:13: roles.a[0]: command.run needs `as`"),
    (
        "roles.yml",
        "roles: {a: [{may: command.run, on: '*', as: ['*', root]}]}\n",
        "roles.yml:1:45: roles.a[0].as: * stands alone",
    ),
    (
        "roles.yml",
        "roles: {a: [{may: command.run, on: '*', as: 'a:b'}]}\n",
        "roles.yml:1:45: roles.a[0].as: 'a:b' is no name of a user",
    ),
    (
        "roles.yml",
        "roles: {a: [{may: command.run, on: '*', as: root, operations: []}]}\n",
        "roles.yml:1:13: roles.a[0].operations: names no operation",
    ),
    (
        "roles.yml",
        "roles: {a: [{may: agent.read, on: '*', opertions: [x]}]}\n",
        "roles.yml:1:40: roles.a[0]: there is no key opertions here; did you mean operations?",
    ),
    (
        "roles.yml",
        "roles: {a: []}\noperators: {alice: [b]}\n",
        "roles.yml:2:21: operators.alice[0]: there is no role b; did you mean a?",
    ),
    (
        "roles.yml",
        "operators: {alice: [admni]}\n",
        "roles.yml:1:21: operators.alice[0]: there is no role admni; did you mean admin?",
    ),
    ("roles.yml", "operators: {'a b': []}\n", "roles.yml:1:13: operators.a b: 'a b' is no name of an operator"),
    ("roles.yml", "operators: [alice]\n", "roles.yml:1:12: operators: a map is wanted here, not a list"),
    // --- places
    ("group.yml", "", "group.yml:1:1: a site has no such file at its top; did you mean groups.yml?"),
    ("agents.yaml", "", "agents.yaml:1:1: a site has no such file at its top; did you mean agents.yml?"),
    ("states/web.yml", "", "states:1:1: a site has no such folder; did you mean state?"),
    ("file/web/x", "", "file:1:1: a site has no such folder; did you mean files?"),
];

fn first_problem(file: &str, content: &[u8]) -> String {
    let mut tree = Tree::default();
    tree.insert(SitePath::parse(file).unwrap(), content.to_vec()).unwrap();
    Site::load(tree).map_or_else(|problems| problems.list()[0].to_string(), |_| "it loaded".to_owned())
}

#[test]
fn every_mistake_is_found_at_its_place_with_the_nearest_right_name() {
    assert!(CASES.len() >= 60);
    let wrong: Vec<_> = CASES
        .iter()
        .map(|(file, content, expected)| (content, expected, first_problem(file, content.as_bytes())))
        .filter(|(_, expected, found)| !found.starts_with(*expected))
        .map(|(content, expected, found)| format!("{content:?}\n  expected {expected}\n  found    {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bytes_that_are_no_text_are_a_mistake_at_their_place() {
    assert_eq!(
        first_problem("groups.yml", b"web1: [a]\nweb2: [\xff]\n"),
        "groups.yml:2:8: here begins something that is not UTF-8"
    );
    assert!(first_problem("roles.yml", b"\0").starts_with("roles.yml:1:1: this is not YAML"));
}

#[test]
fn fifty_bombs_are_refused_in_no_time() {
    let started = std::time::Instant::now();
    for size in 0..50_usize {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 + size {
            let before = vec![format!("*a{}", level - 1); 9].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(first_problem("groups.yml", bomb.as_bytes()).contains("aliases written out"), "{size}");
    }
    // Ten times what one of them may take.
    assert!(started.elapsed() < std::time::Duration::from_secs(25), "{:?}", started.elapsed());
}
