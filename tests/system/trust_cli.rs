//! The verbs about trust against a real manager: who may join, who may give orders, what the site says, and the record.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::house::{House, PAPRIKA, Running, text};

/// Alice may run things as root on dev-1 and see all; nobody else is named.
const ROLES: &str = "\
roles:
  starter:
  - may: [agent.read, command.read, output.read, status.read]
    on: \"*\"
  - may: [command.run, command.control]
    on: \"@web\"
    as: [root]
operators:
  alice: [starter]
";

fn ok(house: &House, args: &[&str]) -> String {
    let out = house.paprika(args);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn site(folder: &Path, files: &[(&str, &str)]) -> String {
    fs::create_dir_all(folder).unwrap();
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

/// Runs a verb over TCP with what `show` puts into the environment.
fn over_tcp(house: &House, shown: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = std::process::Command::new(PAPRIKA);
    command.args(args).envs(house.variables()).env_remove("PAPRIKA_TOKEN").envs(shown.iter().copied());
    Running::start(&mut command).finish()
}

#[test]
fn a_join_token_is_one_line_that_is_shown_once() {
    let house = House::with_agents(0);
    let out = house.paprika(&["join-token", "new", "--group", "web", "--uses", "3", "--ttl", "2h", "--name", "web*"]);
    let line = text(&out.stdout);
    assert!(out.status.success() && line.lines().count() == 1 && line.starts_with("paprikajoin_"), "{line}");
    assert!(text(&out.stderr).contains("good for 3 hosts (groups web; web*)"), "{}", text(&out.stderr));
    let listed = house.json(&["join-token", "list", "-o", "json"]);
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&listed[0]["uses"], &listed[0]["used"], &listed[0]["groups"][0]),
        (&3.into(), &0.into(), &"web".into())
    );
    let secret = line.trim().split('_').nth(2).unwrap();
    assert!(!listed.to_string().contains(secret), "the secret is shown once");
    assert!(ok(&house, &["join-token", "list"]).contains("0 of 3"));
    ok(&house, &["join-token", "revoke", &id]);
    assert!(ok(&house, &["join-token", "list"]).contains("revoked"));
    assert_eq!(house.paprika(&["join-token", "revoke", "nosuch"]).status.code(), Some(4));
}

#[test]
fn a_pushed_site_gives_groups_and_rights_and_targets_mean_them() {
    let house = House::with_agents(3);
    let groups = "dev-1: [web]\ndev-2: [web]\n";
    let folder = site(&house.folder.join("site"), &[("groups.yml", groups), ("roles.yml", ROLES)]);
    ok(&house, &["site", "check", &folder]);
    let would = house.paprika(&["site", "push", &folder, "--check"]);
    assert!(text(&would.stderr).contains("would change groups.yml, roles.yml"), "{}", text(&would.stderr));
    let pushed = house.paprika(&["site", "push", &folder]);
    assert_eq!(pushed.status.code(), Some(0), "{}", text(&pushed.stderr));
    let number = text(&pushed.stdout).trim().to_owned();
    assert!(text(&pushed.stderr).contains(&format!("revision {number} is in force")), "{}", text(&pushed.stderr));
    assert!(ok(&house, &["site", "show"]).contains(&format!("in force  {number} (push by ")));
    assert!(ok(&house, &["site", "show", &number]).contains("roles.yml"));
    assert!(ok(&house, &["site", "revisions"]).contains("in force"));
    let again = house.paprika(&["site", "push", &folder]);
    assert!(text(&again.stderr).contains("nothing differs"), "{}", text(&again.stderr));
    let stale = house.paprika(&["site", "push", &folder, "--base", "999"]);
    assert_eq!(stale.status.code(), Some(1), "{}", text(&stale.stderr));
    assert!(text(&stale.stderr).contains("paprika site show"), "{}", text(&stale.stderr));

    let names = |expression: &str| -> Vec<String> {
        let agents = house.json(&["agents", "-t", expression, "-o", "json"]);
        agents.as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("@web"), ["dev-1", "dev-2"]);
    assert_eq!(names("@web and not dev-2"), ["dev-1"]);
    assert_eq!(names("dev-* and not @web"), ["dev-3"]);
    assert!(ok(&house, &["agents", "-t", "@web"]).contains("web"));
    let ran = house.paprika(&["run", "@web", "--", "echo", "hi"]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).contains("@web is dev-1, dev-2"), "{}", text(&ran.stderr));
    assert_eq!(text(&ran.stdout).matches("hi").count(), 2);
    let one = house.paprika(&["run", "@web and not dev-2", "--shell", "exit 7"]);
    assert_eq!(one.status.code(), Some(7), "one agent: the code of its program");
    for (target, says) in
        [("@web or dev-9", "there is no agent dev-9"), ("@nosuch", "means no agent"), ("dev-1,dev-9", "dev-9")]
    {
        let out = house.paprika(&["run", target, "--", "true"]);
        assert_eq!(out.status.code(), Some(125), "{target}");
        assert!(text(&out.stderr).contains(says), "{target}: {}", text(&out.stderr));
    }
    let spared = house.paprika(&["run", "@web and not dev-9", "--", "true"]);
    assert!(text(&spared.stderr).contains("there is no agent dev-9"), "{}", text(&spared.stderr));
    let commands = house.json(&["commands", "-o", "json"]);
    assert_eq!(commands.as_array().unwrap().len(), 5, "what was refused started nothing: {commands}");
}

#[test]
fn a_broken_site_is_told_with_its_places_and_is_never_sent() {
    let house = House::with_agents(0);
    let folder = site(&house.folder.join("site"), &[("groups.yml", "web1: [web\n"), ("roles.yml", "role: {}\n")]);
    for verb in ["check", "push"] {
        let out = house.paprika(&["site", verb, &folder]);
        assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
        let told = text(&out.stdout);
        assert!(told.contains("--> groups.yml:1:7") && told.contains("did you mean roles?"), "{told}");
        assert!(told.contains("2 mistakes"), "{told}");
    }
    let list: Value = serde_json::from_slice(&house.paprika(&["site", "check", &folder, "-o", "json"]).stdout).unwrap();
    assert_eq!(
        (&list["problems"][1]["file"], &list["problems"][1]["line"]),
        (&"roles.yml".into(), &1.into()),
        "{list}"
    );
    assert!(ok(&house, &["site", "show"]).contains("none yet"));
    assert_eq!(house.paprika(&["site", "check", "/nonexistent"]).status.code(), Some(2));
    assert_eq!(house.paprika(&["site", "approve", "999"]).status.code(), Some(4));
}

#[test]
fn an_operator_with_a_certificate_has_the_roles_of_the_site() {
    let house = House::with_agents(2);
    let groups = "dev-1: [web]\n";
    let folder = site(&house.folder.join("site"), &[("groups.yml", groups), ("roles.yml", ROLES)]);
    ok(&house, &["site", "push", &folder]);
    let out = house.folder.join("alice");
    let dir = out.to_str().unwrap();
    ok(&house, &["operator", "cert", "alice", "--out", dir, "--ttl", "1h"]);
    assert_eq!(house.paprika(&["operator", "cert", "alice", "--out", dir]).status.code(), Some(2), "not by accident");
    let (cert, key) = (out.join("cert.pem"), out.join("key.pem"));
    let shown = [("PAPRIKA_CERT", cert.to_str().unwrap()), ("PAPRIKA_KEY", key.to_str().unwrap())];
    let with_cert = |args: &[&str]| over_tcp(&house, &shown, args);
    let who = with_cert(&["whoami", "-o", "json"]);
    let who: Value = serde_json::from_slice(&who.stdout).unwrap_or_else(|_| panic!("{}", text(&who.stderr)));
    assert_eq!(
        (&who["actor"], &who["via"], &who["roles"][0]),
        (&"alice".into(), &"certificate".into(), &"starter".into())
    );
    let ran = with_cert(&["run", "dev-1", "--", "echo", "hi"]);
    assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(0), "hi\n"), "{}", text(&ran.stderr));
    let refused = with_cert(&["run", "dev-2", "--", "true"]);
    assert_eq!(refused.status.code(), Some(125), "dev-2 is not in her group");
    let denied = with_cert(&["token", "new", "x"]);
    assert_eq!(denied.status.code(), Some(3));
    assert!(text(&denied.stderr).contains("this verb needs operator.manage"), "{}", text(&denied.stderr));
    let listed = house.json(&["operator", "list", "-o", "json"]);
    assert_eq!((&listed[0]["name"], &listed[0]["revoked_at"]), (&"alice".into(), &Value::Null), "{listed}");
    ok(&house, &["operator", "revoke", "alice"]);
    assert_eq!(with_cert(&["whoami"]).status.code(), Some(3), "worth nothing");
    assert_eq!(house.paprika(&["operator", "revoke", "nobody"]).status.code(), Some(4));
}

#[test]
fn a_token_has_the_roles_it_was_given_and_no_more() {
    let house = House::with_agents(2);
    let folder = site(&house.folder.join("site"), &[("groups.yml", "dev-1: [web]\n"), ("roles.yml", ROLES)]);
    ok(&house, &["site", "push", &folder]);
    let secret = ok(&house, &["token", "new", "ci", "--scope", "run", "--role", "starter"]);
    let with_token = |args: &[&str]| over_tcp(&house, &[("PAPRIKA_TOKEN", secret.trim())], args);
    let who = text(&with_token(&["whoami"]).stdout);
    assert!(who.contains("roles    starter") && who.contains("scope    run"), "{who}");
    assert!(ok(&house, &["token", "list"]).contains("starter"));
    assert_eq!(with_token(&["audit"]).status.code(), Some(3));
    assert_eq!(house.paprika(&["token", "new", "x", "--role", "nosuch"]).status.code(), Some(2));
}

#[test]
fn the_audit_is_listed_checked_and_kept_elsewhere() {
    let house = House::with_agents(0);
    ok(&house, &["token", "new", "ci"]);
    let listed = ok(&house, &["audit", "--action", "token."]);
    assert!(listed.starts_with(" ROW") || listed.contains("ROW"), "{listed}");
    assert!(listed.lines().skip(1).all(|line| line.contains("token.")), "{listed}");
    let rows = house.paprika(&["audit", "--limit", "1", "-o", "json"]);
    let row: Value = serde_json::from_slice(&rows.stdout).unwrap();
    assert_eq!(row["hash"].as_str().map(str::len), Some(64), "{row}");
    assert!(ok(&house, &["audit", "verify"]).contains("verdict      whole"));
    let file = house.folder.join("audit.ndjson");
    let path = file.to_str().unwrap();
    ok(&house, &["audit", "export", path]);
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()) && !kept.is_empty());
    assert_eq!(house.paprika(&["audit", "export", path]).status.code(), Some(2), "not by accident");
    let last: Value = serde_json::from_str(kept.lines().last().unwrap()).unwrap();
    let copy = house.folder.join("copy");
    let checkpoint = |hash: &str| {
        let line = serde_json::json!({"seq": last["seq"], "hash": hash, "at": last["at"], "incarnation": 1, "signature": "AA=="});
        fs::write(&copy, format!("{line}\n")).unwrap();
        house.paprika(&["audit", "verify", "--checkpoints", copy.to_str().unwrap()])
    };
    let good = checkpoint(last["hash"].as_str().unwrap());
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stdout));
    let bad = checkpoint(&"0".repeat(64));
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stdout).contains("NOT WHOLE"), "{}", text(&bad.stdout));
}

#[test]
fn an_authority_is_shown_and_rotated_step_by_step() {
    let house = House::with_agents(0);
    let shown = house.json(&["ca", "show", "-o", "json"]);
    assert_eq!((&shown["active"], shown["trusted"].as_array().map(Vec::len)), (&1.into(), Some(1)), "{shown}");
    let prepared = house.paprika(&["ca", "prepare"]);
    assert!(prepared.status.success(), "{}", text(&prepared.stderr));
    assert!(text(&prepared.stderr).contains("next: paprika ca activate"), "{}", text(&prepared.stderr));
    ok(&house, &["ca", "activate"]);
    let retired = house.json(&["ca", "retire", "-o", "json"]);
    assert_eq!((&retired["active"], retired["trusted"].as_array().map(Vec::len)), (&2.into(), Some(1)), "{retired}");
}
