//! The house rules that no compiler checks: module docs, size and names of files, direction of dependencies, no
//! switched-off tests or lints, requirement numbers of the protocol page cited in code and tests.
//!
//! Reads the checkout and the output of `cargo metadata`; changes nothing. Every test lists all offenders at once,
//! one per line, with what is right instead.
#![expect(clippy::expect_used, reason = "a checkout that cannot be read ends the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A file longer than this has two subjects. Tests at its end are not counted.
const MAX_LINES: usize = 1000;

/// File and folder names that say nothing about their subject.
const EMPTY_NAMES: [&str; 9] = ["util", "utils", "helper", "helpers", "misc", "handler", "handlers", "data", "info"];

/// Which packages of the workspace a package may name. Packages that are not listed stand at the top of the house:
/// nobody may depend on them, and they may use everything.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("paprika-common", &[]),
    ("paprika-api", &["paprika-common"]),
    ("paprika-site", &["paprika-common"]),
    ("paprika-store", &["paprika-common"]),
    ("paprika-agent", &["paprika-common"]),
    ("paprika-manager", &["paprika-api", "paprika-store", "paprika-site", "paprika-common"]),
    ("paprika-cli", &["paprika-api", "paprika-site", "paprika-common"]),
    ("paprika-testkit", &["paprika-manager", "paprika-agent", "paprika-api", "paprika-store", "paprika-common"]),
];

/// What must never be linked into a package, directly or through others.
const NEVER_LINKED: [(&str, &[&str]); 5] = [
    ("paprika-agent", &["axum", "hyper", "tonic", "rusqlite", "tokio-postgres", "async-nats", "utoipa"]),
    ("paprika-common", &["axum", "hyper", "tonic", "rusqlite", "tokio-postgres", "async-nats"]),
    ("paprika-store", &["axum", "hyper", "tonic", "async-nats"]),
    ("paprika-cli", &["axum", "rusqlite", "tokio-postgres", "async-nats"]),
    ("paprika-site", &["axum", "hyper", "tonic", "rusqlite", "async-nats"]),
];

/// Libraries that one package wraps for all others.
const ONE_HOME: [(&str, &[&str]); 5] = [
    ("rustls", &["paprika-common"]),
    ("axum", &["paprika-manager"]),
    ("rusqlite", &["paprika-store", "paprika-bench"]),
    ("prost-build", &["paprika-common", "paprika-api"]),
    ("granit-parser", &["paprika-site"]),
];

/// The root file of each test binary: a file beside or below it that no `mod` line leads to is never compiled.
const TEST_ROOTS: [&str; 5] = [
    "tests/system/main.rs",
    "manager/tests/behaviour/main.rs",
    "manager/store/tests/conformance/main.rs",
    "agent/tests/process.rs",
    "site/tests/broken/main.rs",
];

/// The first lines of the list of requirements that are not cited yet.
const UNCITED_HEAD: &str =
    "# Requirements of docs/protocol.md that no code or no test cites yet. This list only shrinks.\n";

#[test]
fn every_source_file_says_what_it_is_for() {
    let offenders = sources()
        .iter()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| format!("{}: begins without //!", file.name))
        .collect();
    report("every .rs file begins with its module doc: what it is for, owns, must not do", offenders);
}

#[test]
fn files_have_one_subject() {
    let offenders = sources()
        .iter()
        .filter_map(|file| {
            let lines = file.code().lines().count();
            (lines > MAX_LINES).then(|| format!("{}: {lines} lines, at most {MAX_LINES}", file.name))
        })
        .collect();
    report("split the file by owner of the data", offenders);
}

#[test]
fn maps_hold_no_logic() {
    let offenders = sources()
        .iter()
        .filter(|file| file.name.ends_with("/mod.rs") || file.name.ends_with("/src/lib.rs"))
        .flat_map(|file| {
            file.code()
                .lines()
                .enumerate()
                .filter(|(_, line)| defines_logic(line))
                .map(|(at, line)| format!("{}:{}: {}", file.name, at + 1, line.trim()))
                .collect::<Vec<_>>()
        })
        .collect();
    report("mod.rs and lib.rs are maps: doc, mod, few pub use", offenders);
}

#[test]
fn names_say_something() {
    let mut offenders: Vec<String> = tracked_files()
        .into_iter()
        .filter(|name| name.ends_with(".rs") || name.ends_with(".proto"))
        .filter(|name| {
            let mut parts = name.split('/').map(|part| part.split('.').next().unwrap_or(part));
            parts.any(|part| EMPTY_NAMES.contains(&part))
                && !name.contains("/tests/data/")
                && !name.starts_with("tests/data/")
        })
        .collect();
    // `common` is the name of one package at the top, and of nothing below it.
    offenders.extend(
        tracked_files().into_iter().filter(|name| name.ends_with("/common.rs") || name[1..].contains("/common/")),
    );
    report("a file is named after its subject", offenders);
}

#[test]
fn tests_and_lints_are_not_switched_off() {
    // Written in two halves, so that this file does not find itself.
    let ignored = concat!("#[", "ignore");
    let allows = [concat!("#[", "allow("), concat!("#![", "allow(")];
    let mut offenders = Vec::new();
    for file in sources() {
        for (at, line) in file.text.lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with(ignored) {
                offenders.push(format!("{}:{}: put the test into a nextest profile instead", file.name, at + 1));
            }
            if allows.iter().any(|allow| line.starts_with(allow)) {
                offenders.push(format!("{}:{}: use #[expect(…, reason = \"…\")]", file.name, at + 1));
            }
            if line.contains("#[expect(") && line.ends_with(")]") && !line.contains("reason") {
                offenders.push(format!("{}:{}: the exception has no reason", file.name, at + 1));
            }
        }
    }
    report("exceptions carry a reason and are noticed when they are needed no more", offenders);
}

#[test]
fn every_test_file_runs() {
    let files: BTreeSet<String> = tracked_files().into_iter().filter(|name| name.ends_with(".rs")).collect();
    let mut reached = BTreeSet::new();
    let mut offenders = Vec::new();
    for root in TEST_ROOTS {
        if files.contains(root) {
            reach(root, &files, &mut reached, &mut offenders);
        } else {
            offenders.push(format!("{root}: is named in TEST_ROOTS and not there"));
        }
    }
    // A file directly in the folder `tests` of a package is a binary of its own, whatever it is called.
    let binary = |name: &str| name.rsplit_once('/').is_some_and(|(folder, _)| folder.ends_with("/tests"));
    offenders.extend(
        files
            .iter()
            .filter(|name| is_of_a_test_binary(name))
            .filter(|name| !reached.contains(*name) && !binary(name))
            .map(|name| format!("{name}: no mod line leads to it")),
    );
    report("a test file is reached by mod lines from the root of its binary, else its tests never run", offenders);
}

#[test]
fn no_machine_is_written_down() {
    // What would give this machine away is learnt from it: the place of the checkout and of the tool chain.
    let mut places = vec![root().display().to_string()];
    for key in ["CARGO_HOME", "RUSTUP_HOME"] {
        places.extend(std::env::var(key).ok());
    }
    places.retain(|place| place.matches('/').count() >= 2 && !place.starts_with("/usr"));
    let mut offenders = Vec::new();
    for name in tracked_files().into_iter().filter(|name| name != "Cargo.lock") {
        let Ok(text) = fs::read_to_string(root().join(&name)) else {
            continue;
        };
        for (at, line) in text.lines().enumerate() {
            if places.iter().any(|place| line.contains(place.as_str())) {
                offenders.push(format!("{name}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    report("paths are relative to the checkout or come from configuration", offenders);
}

#[test]
fn links_lead_somewhere() {
    let mut offenders = Vec::new();
    for name in tracked_files().into_iter().filter(|name| name.ends_with(".md")) {
        let page = root().join(&name);
        let text = fs::read_to_string(&page).expect("pages are UTF-8");
        let folder = page.parent().expect("a page lies in a folder");
        for (at, line) in text.lines().enumerate() {
            for target in links(line) {
                if !folder.join(target).exists() {
                    offenders.push(format!("{name}:{}: {target}", at + 1));
                }
            }
        }
    }
    report("a page links to files that are there", offenders);
}

#[test]
fn the_architecture_page_names_files_that_are_there() {
    let files = tracked_files();
    let page = fs::read_to_string(root().join("docs/architecture.md")).expect("the page is UTF-8");
    let mut seen = 0;
    let mut offenders = Vec::new();
    for (at, line) in page.lines().enumerate() {
        // The text between backticks; a path may begin at any folder, where the sentence says which.
        for word in line.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs")) {
            seen += 1;
            if !files.iter().any(|name| name == word || name.ends_with(&format!("/{word}"))) {
                offenders.push(format!("docs/architecture.md:{}: {word}", at + 1));
            }
        }
    }
    assert!(seen > 20, "the page names {seen} files: is it still read right?");
    report("the walk through the house names files that are there", offenders);
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata(&["--no-deps"]);
    let rules: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut offenders = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            // Tests may look at their neighbours; the house itself may not.
            if dependency["kind"] == "dev" {
                continue;
            }
            if ours.contains(target) && rules.get(name).is_some_and(|may| !may.contains(&target)) {
                offenders.push(format!("{name} -> {target}"));
            }
            if ours.contains(target) && !rules.contains_key(target) {
                offenders.push(format!("{name} -> {target}, which is the top of the house"));
            }
            for (library, homes) in ONE_HOME {
                if target == library && !homes.contains(&name) {
                    offenders.push(format!("{name} -> {library}, whose home is {}", homes.join(", ")));
                }
            }
        }
    }
    report("cli -> api -> common; manager -> {api, store, common}; agent -> common", offenders);
}

#[test]
fn nothing_heavy_is_linked_where_it_must_not_be() {
    let metadata = metadata(&["--filter-platform", &host()]);
    let graph = Graph::from(&metadata);
    let mut offenders = Vec::new();
    for (package, banned) in NEVER_LINKED {
        for (library, through) in graph.linked_into(package) {
            if banned.contains(&library.as_str()) {
                offenders.push(format!("{package} links {library} (through {through})"));
            }
        }
    }
    report("the agent never sees HTTP servers, SQL or a bus; the command line never sees the manager's", offenders);
}

#[test]
fn rules_about_packages_name_packages_that_exist() {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for (package, others) in MAY_USE {
        named.insert(package);
        named.extend(others);
    }
    // The libraries of NEVER_LINKED need not exist: that they do not is what its rule is for.
    named.extend(NEVER_LINKED.iter().map(|(package, _)| *package));
    named.extend(ONE_HOME.iter().flat_map(|(_, homes)| homes.iter().copied()));
    let offenders = named.difference(&ours).map(|name| format!("{name}: no package has this name")).collect();
    report("a rule about a package that does not exist holds nothing", offenders);
}

#[test]
fn protocol_requirements_are_met_and_tested() {
    let page = fs::read_to_string(root().join("docs/protocol.md")).unwrap_or_default();
    let demanded = requirements(&page);
    let mut in_code = BTreeSet::new();
    let mut in_tests = BTreeSet::new();
    // This file writes numbers that mean nothing.
    for file in sources().into_iter().filter(|file| file.name != "tests/system/tidy.rs") {
        if is_test_file(&file.name) {
            in_tests.extend(requirements(&file.text));
        } else {
            in_code.extend(requirements(file.code()));
            in_tests.extend(requirements(file.tests()));
        }
    }
    let mut offenders: Vec<String> = in_code
        .union(&in_tests)
        .filter(|number| !demanded.contains(*number))
        .map(|number| format!("{number} is cited but docs/protocol.md does not have it"))
        .collect();

    // What is not cited yet is listed, and the list only shrinks. PAPRIKA_TIDY_ACCEPT=1 writes it anew, which makes no
    // number right that the page does not have.
    let list = root().join("tests/system/tidy/uncited.txt");
    let listed = fs::read_to_string(&list).unwrap_or_default();
    let listed: BTreeSet<&str> =
        listed.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut missing = BTreeSet::new();
    for number in &demanded {
        if !in_code.contains(number) {
            missing.insert(format!("{number} code"));
        }
        if !in_tests.contains(number) {
            missing.insert(format!("{number} test"));
        }
    }
    if std::env::var_os("PAPRIKA_TIDY_ACCEPT").is_some() {
        let lines: String = missing.iter().map(|line| line.clone() + "\n").collect();
        fs::write(&list, UNCITED_HEAD.to_owned() + &lines).expect("the list is writable");
        report("every number that is cited stands in docs/protocol.md", offenders);
        return;
    }
    offenders.extend(missing.iter().filter(|line| !listed.contains(line.as_str())).map(|line| {
        format!("{line}: cite it where it is met, or add this line to tests/system/tidy/uncited.txt: {line}")
    }));
    offenders.extend(
        listed
            .iter()
            .filter(|line| !missing.contains(**line))
            .map(|line| format!("{line}: is cited now (or gone), remove it from tests/system/tidy/uncited.txt")),
    );
    report("every requirement of docs/protocol.md is cited in code and in a test", offenders);
}

/// One `.rs` file of the checkout.
struct Source {
    /// Relative to the checkout.
    name: String,
    text: String,
    /// Where the tests at the end of the file begin.
    tests_at: usize,
}

impl Source {
    fn read(name: String) -> Self {
        let text = fs::read_to_string(root().join(&name)).unwrap_or_else(|error| panic!("read {name}: {error}"));
        let tests_at = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
        Self { name, text, tests_at }
    }

    fn code(&self) -> &str {
        &self.text[..self.tests_at]
    }

    fn tests(&self) -> &str {
        &self.text[self.tests_at..]
    }
}

/// Whether a whole file is tests: it lies in a folder of tests, or is what a `#[path]` behind `#[cfg(test)]` names.
fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("_tests.rs") || name.ends_with("/tests.rs")
}

/// Whether a file belongs to an integration test. Below `src` (that of the test kit too) the library names its modules.
fn is_of_a_test_binary(name: &str) -> bool {
    let mut folders = name.split('/');
    folders.clone().any(|folder| folder == "tests") && folders.all(|folder| folder != "src")
}

/// Walks the `mod` lines from one file on; a line that leads nowhere is an offender.
fn reach(file: &str, files: &BTreeSet<String>, reached: &mut BTreeSet<String>, offenders: &mut Vec<String>) {
    if !reached.insert(file.to_owned()) {
        return;
    }
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("read {file}: {error}"));
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let stem = name.trim_end_matches(".rs");
    // The root of a binary and a mod.rs have their modules beside them, every other file in a folder of its name.
    let beside = stem == "mod" || TEST_ROOTS.contains(&file);
    let home = if beside { folder.to_owned() } else { format!("{folder}/{stem}") };
    for module in modules(&text) {
        let places = [format!("{home}/{module}.rs"), format!("{home}/{module}/mod.rs")];
        match places.iter().find(|place| files.contains(*place)) {
            Some(place) => reach(place, files, reached, offenders),
            None => offenders.push(format!("{file}: mod {module} is in none of {}", places.join(", "))),
        }
    }
}

/// Modules that a text declares in other files.
fn modules(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.split("//").next().unwrap_or(line).trim();
        let line = ["pub(crate) ", "pub(super) ", "pub "]
            .iter()
            .fold(line, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
        line.strip_prefix("mod ")?.strip_suffix(';')
    })
}

/// Who links whom, as cargo resolved it: normal dependencies only.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn from(metadata: &Value) -> Self {
        let mut names = BTreeMap::new();
        for package in metadata["packages"].as_array().into_iter().flatten() {
            if let (Some(id), Some(name)) = (package["id"].as_str(), package["name"].as_str()) {
                names.insert(id.to_owned(), name.to_owned());
            }
        }
        let mut edges = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().into_iter().flatten() {
            let normal = node["deps"].as_array().into_iter().flatten().filter(|dependency| {
                dependency["dep_kinds"].as_array().into_iter().flatten().any(|kind| kind["kind"].is_null())
            });
            let targets = normal.filter_map(|dependency| dependency["pkg"].as_str().map(str::to_owned)).collect();
            edges.insert(node["id"].as_str().unwrap_or_default().to_owned(), targets);
        }
        Self { names, edges }
    }

    /// All libraries below `package`, each with the one that names it.
    fn linked_into(&self, package: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut open: Vec<&String> = self.names.iter().filter(|(_, name)| *name == package).map(|(id, _)| id).collect();
        let mut seen: BTreeSet<&String> = open.iter().copied().collect();
        while let Some(id) = open.pop() {
            for target in self.edges.get(id).into_iter().flatten() {
                if seen.insert(target) {
                    found.insert(self.names[target].clone(), self.names[id].clone());
                    open.push(target);
                }
            }
        }
        found
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let all: Vec<Source> = tracked_files().into_iter().filter(|name| name.ends_with(".rs")).map(Source::read).collect();
    assert!(!all.is_empty(), "no source files below {}", root().display());
    all
}

/// Every file of the checkout, relative to it; build products and dot folders of tools are left out.
fn tracked_files() -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("the checkout is readable") {
            let entry = entry.expect("the checkout is readable");
            let name = folder.join(entry.file_name());
            let kind = entry.file_type().expect("the checkout is readable");
            let skipped = ["target", "node_modules", "__pycache__", ".git", ".paprika-dev"];
            if kind.is_dir() && !skipped.iter().any(|skip| entry.file_name() == *skip) {
                open.push(name);
            } else if kind.is_file() {
                found.push(name.to_str().expect("file names are UTF-8").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn defines_logic(line: &str) -> bool {
    let line = line.trim_start();
    let bare = ["pub(crate) ", "pub(super) ", "pub ", "async ", "const ", "unsafe "]
        .iter()
        .fold(line, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
    bare.starts_with("fn ") || bare.starts_with("impl ") || bare.starts_with("impl<")
}

/// Targets of the Markdown links in a line that lie in the checkout.
fn links(line: &str) -> Vec<&str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.contains(' ')).collect()
}

/// Requirement numbers (`R-FRAME-3`) named in a text.
fn requirements(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("R-") {
        if text[..at].chars().next_back().is_some_and(char::is_alphanumeric) {
            continue;
        }
        let rest = &text[at + 2..];
        let topic: String = rest.chars().take_while(char::is_ascii_uppercase).collect();
        let Some(after) = rest[topic.len()..].strip_prefix('-') else {
            continue;
        };
        let number: String = after.chars().take_while(char::is_ascii_digit).collect();
        if !topic.is_empty() && !number.is_empty() {
            found.insert(format!("R-{topic}-{number}"));
        }
    }
    found
}

fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// The target triple of the tool chain.
fn host() -> String {
    let output = Command::new(env!("CARGO")).arg("-vV").output().expect("cargo starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.expect("cargo -vV names its host").to_owned()
}

#[track_caller]
fn report(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}\n  {}", offenders.join("\n  "));
}

#[test]
fn requirement_numbers_are_found_in_text() {
    let text = "see R-FRAME-3, R-LANE-12; not XR-A-1, R-, R-frame-1 or R-A-";
    let found: Vec<String> = requirements(text).into_iter().collect();
    assert_eq!(found, ["R-FRAME-3", "R-LANE-12"]);
}

#[test]
fn modules_in_other_files_are_found_in_text() {
    let text = "//! mod a;\nmod b;\n    pub mod c; // why\npub(super) mod d;\nmod e {\n// mod f;\nuse mod_g;\n";
    assert_eq!(modules(text).collect::<Vec<_>>(), ["b", "c", "d"]);
}

#[test]
fn a_file_that_no_line_leads_to_is_not_reached() {
    let files: BTreeSet<String> = tracked_files().into_iter().filter(|name| name.ends_with(".rs")).collect();
    let (mut reached, mut offenders) = (BTreeSet::new(), Vec::new());
    reach("tests/system/main.rs", &files, &mut reached, &mut offenders);
    assert!(offenders.is_empty(), "{offenders:?}");
    assert!(reached.contains("tests/system/crash/storm.rs"), "nested folders are walked");
    assert!(!reached.contains("tests/kit/src/peer.rs"));
    // The same tree in which one file is missing: the line that names it leads nowhere.
    let fewer: BTreeSet<String> = files.into_iter().filter(|name| name != "tests/system/crash/storm.rs").collect();
    reach("tests/system/main.rs", &fewer, &mut BTreeSet::new(), &mut offenders);
    assert_eq!(offenders.len(), 1, "{offenders:?}");
}
