//! The site through the manager: pushed and found, broken and held, approved and rejected.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::base64;
use http::Method;
use serde_json::{Value, json};
use store::types::Scope;
use tokio::time::{Instant, sleep};

use super::house::{Answer, House};
use broken::CASES;

#[path = "../../../../site/tests/broken/cases.rs"]
mod broken;

/// Longest time until a folder that changed is in force here, with room for a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// So seldom that whatever is seen was told by the kernel.
const SELDOM: Duration = Duration::from_secs(3_600);

fn push(files: &[(&str, &[u8])]) -> Value {
    let files: serde_json::Map<_, _> =
        files.iter().map(|(path, content)| ((*path).to_owned(), base64::encode(content).into())).collect();
    json!({ "files": files })
}

async fn pushed(house: &House, token: &str, body: &Value) -> Answer {
    house.call(Method::POST, "/site/revisions", token, Some(&body.to_string())).await
}

async fn live(house: &House) -> u64 {
    house.get("/site").await.json()["live"]["number"].as_u64().unwrap_or(0)
}

/// The first problem as one line, as compilers write it.
fn line(problem: &Value) -> String {
    let problem: api::site::SiteProblem = serde_json::from_value(problem.clone()).unwrap();
    problem.to_string()
}

#[tokio::test]
async fn a_site_is_pushed_listed_read_and_replaced() {
    let house = House::new().await;
    let before = house.get("/site").await.json();
    assert_eq!(before, json!({ "folder": null, "live": null, "held": [], "problems": [] }));
    let files: &[(&str, &[u8])] = &[("groups.yml", b"web1: [web]\n"), ("data/web.yml", b"a: 1\n")];
    let mut body = push(files);
    body["check_only"] = true.into();
    let checked = pushed(&house, &house.admin, &body).await;
    assert_eq!((checked.status.as_u16(), &checked.json()["revision"]), (200, &Value::Null));
    assert_eq!(checked.json()["changed"], json!(["data/web.yml", "groups.yml"]));
    assert_eq!(live(&house).await, 0, "it was only checked");

    let made = pushed(&house, &house.admin, &push(files)).await;
    assert_eq!(made.status, 201);
    let first = made.json()["revision"]["number"].as_u64().unwrap();
    assert_eq!(
        (&made.json()["revision"]["source"], &made.json()["revision"]["actor"]),
        (&"push".into(), &"admin".into())
    );
    let again = pushed(&house, &house.admin, &push(files)).await;
    assert_eq!((again.status.as_u16(), &again.json()["changed"]), (200, &json!([])), "nothing differs");

    let mut other = push(&[("groups.yml", b"web1: [db]\n")]);
    other["base"] = 0.into();
    pushed(&house, &house.admin, &other).await.problem(409, "site_changed");
    other["base"] = first.into();
    let second = pushed(&house, &house.admin, &other).await;
    assert_eq!((second.status.as_u16(), live(&house).await), (201, first + 1));
    assert_eq!(second.json()["changed"], json!(["data/web.yml", "groups.yml"]));

    let listed = house.get("/site/revisions").await.json();
    let numbers: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|row| row["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [first + 1, first]);
    assert_eq!(house.get(&format!("/site/revisions?after={}", first + 1)).await.json()["items"][0]["number"], first);
    let shown = house.get(&format!("/site/revisions/{first}")).await.json();
    assert_eq!(shown["changed"], json!(["data/web.yml", "groups.yml"]), "against what is in force");
    assert_eq!(shown["files"]["groups.yml"], blake3::hash(b"web1: [web]\n").to_hex().as_str());
    let file = house.get("/site/files?path=groups.yml").await.json();
    assert_eq!((&file["b64"], &file["revision"]), (&base64::encode(b"web1: [db]\n").into(), &(first + 1).into()));
    house.get("/site/files?path=data/web.yml").await.problem(404, "not_found");
    house.get("/site/files?path=../admin.token").await.problem(404, "not_found");
    house.get("/site/files").await.problem(400, "invalid");
    house.get("/site/revisions/99").await.problem(404, "not_found");
    house.get("/site/revisions/x").await.problem(400, "invalid");
    let rows = house.store.audit_rows(0, 1_000).await.unwrap();
    assert!(rows.iter().any(|row| row.actor.0 == "admin" && row.action.starts_with("site.")), "{rows:?}");
}

#[tokio::test]
async fn paths_that_leave_the_site_and_content_that_is_no_base64_are_refused() {
    let house = House::new().await;
    for path in ["../x", "/etc/passwd", "data/../../x", "data/.git/config", "data//x", "", "a\\b", "data/\u{7}"] {
        let problem = pushed(&house, &house.admin, &push(&[(path, b"x")])).await.problem(400, "site_invalid");
        assert!(!problem.problems.is_empty(), "{path}");
    }
    let wrong = json!({ "files": { "groups.yml": "###" } });
    let problem = pushed(&house, &house.admin, &wrong).await.problem(400, "invalid");
    assert_eq!(problem.field.as_deref(), Some("files"));
    assert_eq!(live(&house).await, 0);
}

#[tokio::test]
async fn a_pushed_site_has_a_largest_size() {
    let house = House::new().await;
    let send = async |length: usize| {
        // Blanks behind the value are part of the body and cost nothing to read.
        let mut body = r#"{"files":{}}"#.to_owned();
        body.push_str(&" ".repeat(length - body.len()));
        house.call(Method::POST, "/site/revisions", &house.admin, Some(&body)).await
    };
    send(crate::limits::MAX_PUSH + 1).await.problem(413, "too_large");
    assert_eq!(send(crate::limits::MAX_PUSH).await.status, 201);
}

#[tokio::test]
async fn what_grants_rights_needs_site_trust_and_the_rest_does_not() {
    let house = House::new().await;
    let roles: &[u8] = b"roles: {writer: [{may: [site.write, site.read]}]}\n";
    house.site(&[("roles.yml", std::str::from_utf8(roles).unwrap())]).await;
    let (_, writer) = house.token("writer", Scope::Admin, &["writer"]).await;
    let with = |extra: &[(&str, &[u8])]| push(&[&[("roles.yml", roles)][..], extra].concat());
    assert_eq!(pushed(&house, &writer, &with(&[("data/web.yml", b"a: 1\n")])).await.status, 201);
    let before = live(&house).await;
    for (path, content) in [
        ("groups.yml", &b"web1: [web]\n"[..]),
        ("agents.yml", b"web1: {}\n"),
        ("operations/x", b"x"),
        ("requests/x", b"x"),
    ] {
        let mut body = with(&[("data/web.yml", b"a: 1\n"), (path, content)]);
        pushed(&house, &writer, &body).await.problem(403, "forbidden");
        body["check_only"] = true.into();
        pushed(&house, &writer, &body).await.problem(403, "forbidden");
    }
    let more = push(&[("roles.yml", b"operators: {writer: admin}\n"), ("data/web.yml", b"a: 1\n")]);
    pushed(&house, &writer, &more).await.problem(403, "forbidden");
    // Taking a file away changes it too.
    pushed(&house, &writer, &push(&[("data/web.yml", b"a: 1\n")])).await.problem(403, "forbidden");
    assert_eq!(live(&house).await, before);
    let path = format!("/site/revisions/{before}/approve");
    house.call(Method::POST, &path, &writer, None).await.problem(403, "forbidden");
    let rows = house.store.audit_rows(0, 1_000).await.unwrap();
    let refused = rows.iter().filter(|row| row.action == "site.push" && row.outcome == "refused").count();
    assert_eq!(refused, 10, "every refusal is a row");
}

/// Must-hold 9, by push: every broken site is refused with its place and the nearest right name, and the last good one stays.
#[tokio::test]
async fn every_broken_site_that_is_pushed_is_refused_with_its_place() {
    let house = House::new().await;
    let good = house.site(&[("groups.yml", "web1: [web]\n")]).await;
    assert!(CASES.len() >= 60);
    for (file, content, expected) in CASES {
        let answer = pushed(&house, &house.admin, &push(&[(file, content.as_bytes())])).await;
        let problem = answer.problem(400, "site_invalid");
        let first = problem.problems.first().unwrap();
        assert!(first.to_string().starts_with(expected), "{content:?}\n expected {expected}\n found    {first}");
        assert!(first.file.is_some() && first.line.is_some() && first.column.is_some());
    }
    assert_eq!(live(&house).await, good);
    let groups = house.service.rights().groups(&super::house::AGENT.parse().unwrap());
    assert_eq!(groups.iter().map(ToString::to_string).collect::<Vec<_>>(), ["web"]);
}

/// A folder that the manager watches.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path()).unwrap();
        // The folder above is ours alone, and so is everything on the way to it.
        folder.allow(0o755);
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("site")
    }

    /// Who may write to it.
    fn allow(&self, mode: u32) {
        fs::set_permissions(self.path(), Permissions::from_mode(mode)).unwrap();
    }

    /// Puts a file in its place at once, as a careful tool does.
    fn put(&self, path: &str, content: &[u8]) {
        let target = self.path().join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let building = self.0.path().join("building");
        fs::write(&building, content).unwrap();
        fs::rename(&building, &target).unwrap();
    }

    fn remove(&self, path: &str) {
        let target = self.path().join(path);
        if target.is_dir() { fs::remove_dir_all(target).unwrap() } else { fs::remove_file(target).unwrap() }
    }

    /// Takes back what a case did. Never without the good file: that would be another site.
    fn mend(&self, file: &str) {
        match file {
            "groups.yml" => self.put(file, b"web1: [web]\n"),
            _ => self.remove(file.split('/').next().unwrap()),
        }
    }

    fn watched_by(&self, house: &House, poll: Duration) {
        let watch = crate::site::run(house.service.clone(), self.path(), poll, house.shutdown.clone());
        house.tasks.spawn("site", watch);
    }
}

/// Waits until the site looks as wanted.
async fn until(house: &House, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let site = house.get("/site").await.json();
        if wanted(&site) {
            return site;
        }
        assert!(began.elapsed() < SOON, "{what}: {site}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Must-hold 9, by a folder: read as the watch reads it.
#[tokio::test]
async fn every_broken_site_in_the_folder_is_told_with_its_place_and_the_last_good_one_stays() {
    let (house, folder) = (House::new().await, Folder::new());
    let look = async || {
        crate::site::offer(&house.service, &folder.path()).await;
        house.get("/site").await.json()
    };
    folder.put("groups.yml", b"web1: [web]\n");
    let good = look().await["live"].clone();
    assert!(good.is_object());
    for (file, content, expected) in CASES {
        folder.put(file, content.as_bytes());
        let seen = look().await;
        let first = line(&seen["problems"][0]);
        assert!(first.starts_with(expected), "{content:?}\n expected {expected}\n found    {first}");
        assert_eq!(seen["live"], good, "{content:?}");
        folder.mend(file);
        assert_eq!(look().await["problems"], json!([]));
    }
    let seen = look().await;
    assert_eq!((&seen["live"], &seen["held"], &seen["problems"]), (&good, &json!([]), &json!([])));
}

#[tokio::test]
async fn a_folder_that_breaks_and_is_mended_is_noticed_without_being_asked() {
    let (house, folder) = (House::new().await, Folder::new());
    folder.put("groups.yml", b"web1: [web]\n");
    folder.watched_by(&house, SELDOM);
    let good = until(&house, "the first", |site| site["live"].is_object()).await["live"].clone();
    for (file, content, expected) in CASES.iter().step_by(12) {
        folder.put(file, content.as_bytes());
        let first = |site: &Value| site["problems"].get(0).map(line).unwrap_or_default();
        let seen = until(&house, expected, |site| first(site).starts_with(expected)).await;
        assert_eq!(seen["live"], good, "{content:?}");
        folder.mend(file);
        until(&house, "mended", |site| site["problems"].as_array().is_some_and(Vec::is_empty)).await;
    }
    // Bytes that are no text, links and devices are mistakes at their places too.
    folder.put("groups.yml", b"web1: [\xff]\n");
    until(&house, "not UTF-8", |site| site["problems"][0]["code"] == "not_utf8").await;
    folder.put("groups.yml", b"web1: [web]\n");
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("passwd")).unwrap();
    until(&house, "a link", |site| site["problems"][0]["code"] == "link").await;
    folder.remove("passwd");
    until(&house, "no link", |site| site["problems"].as_array().is_some_and(Vec::is_empty)).await;
    assert_eq!(house.get("/site").await.json()["live"], good);
}

#[tokio::test]
async fn a_folder_that_is_ours_alone_comes_into_force_when_it_changes() {
    let (house, folder) = (House::new().await, Folder::new());
    folder.put("roles.yml", b"roles: {r: [{may: status.read}]}\n");
    folder.watched_by(&house, SELDOM);
    let first = until(&house, "the first", |site| site["live"].is_object()).await;
    assert_eq!((&first["live"]["source"], &first["live"]["actor"]), (&"folder".into(), &"manager".into()));
    assert_eq!(first["folder"], folder.path().display().to_string());
    folder.put("data/deep/er/web.yml", b"a: 1\n");
    let second = until(&house, "a new folder", |site| site["live"]["files"] == 2).await;
    folder.put("data/deep/er/web.yml", b"a: 2\n");
    until(&house, "a change in it", |site| site["live"]["number"].as_u64() > second["live"]["number"].as_u64()).await;
    assert!(house.service.rights().site().roles().rules("r").is_some());
    // What was pushed since is not undone by a folder that did not change.
    let pushed = house.site(&[("README.md", "pushed")]).await;
    folder.put(".hidden", b"x");
    folder.put("data/deep/er/web.yml", b"a: 2\n");
    folder.put("README.md", b"new\n");
    until(&house, "the folder again", |site| site["live"]["files"] == 3).await;
    assert_eq!(live(&house).await, pushed + 1, "one revision came from the folder since, and no other");
}

#[tokio::test]
async fn what_grants_rights_is_held_where_others_can_write() {
    let (house, folder) = (House::new().await, Folder::new());
    folder.put("data/web.yml", b"a: 1\n");
    folder.allow(0o777);
    folder.watched_by(&house, SELDOM);
    let first = until(&house, "data is no matter of trust", |site| site["live"].is_object()).await;
    folder.put("roles.yml", b"operators: {mallory: admin}\n");
    let held = until(&house, "held", |site| site["held"].get(0).is_some()).await;
    assert_eq!(held["live"], first["live"], "what was in force stays");
    assert!(held["held"][0]["note"].as_str().unwrap().contains("roles.yml"));
    let number = held["held"][0]["number"].as_u64().unwrap();
    let decide = async |number: u64, word: &str, token: &str| {
        house.call(Method::POST, &format!("/site/revisions/{number}/{word}"), token, None).await
    };
    decide(number, "approve", &house.run).await.problem(403, "forbidden");
    assert_eq!(decide(number, "reject", &house.admin).await.json()["status"], "rejected");
    decide(number, "approve", &house.admin).await.problem(409, "conflict");
    folder.put("data/web.yml", b"a: 1\n");
    // The same files are not held again; others are.
    folder.put("roles.yml", b"operators: {mallory: admin, eve: admin}\n");
    let again = until(&house, "held again", |site| site["held"].get(0).is_some()).await;
    assert_eq!(again["held"].as_array().map(Vec::len), Some(1));
    let number = again["held"][0]["number"].as_u64().unwrap();
    let approved = decide(number, "approve", &house.admin).await;
    assert_eq!((approved.status.as_u16(), live(&house).await), (200, number));
    assert_eq!(house.service.rights().site().roles().of("eve"), ["admin"]);
    assert_eq!(house.get("/site").await.json()["held"], json!([]));
    decide(number, "approve", &house.admin).await.problem(409, "conflict");
    decide(99, "approve", &house.admin).await.problem(404, "not_found");
    let rows = house.store.audit_rows(0, 1_000).await.unwrap();
    assert!(rows.iter().filter(|row| row.actor.0 == "admin" && row.action.starts_with("site.")).count() >= 2);
}

#[tokio::test]
async fn a_folder_is_read_now_and_then_without_a_word_from_the_kernel() {
    let (house, folder) = (House::new().await, Folder::new());
    let moved: &Path = &folder.0.path().join("elsewhere");
    fs::rename(folder.path(), moved).unwrap();
    folder.watched_by(&house, Duration::from_millis(100));
    until(&house, "there is none", |site| site["problems"][0]["code"] == "unreadable").await;
    fs::write(moved.join("groups.yml"), "web1: [web]\n").unwrap();
    fs::rename(moved, folder.path()).unwrap();
    until(&house, "it came", |site| site["live"].is_object()).await;
    house.shutdown.request();
    assert!(house.tasks.join(Duration::from_secs(5)).await.is_empty(), "the watch ends with the manager");
}
