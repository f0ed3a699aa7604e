//! Broken sites: every mistake is found at its place, with its path and, where there is one, the nearest right name.
//!
//! Each case is one file; what is expected is the first problem as one line, or the beginning of it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cases;

use cases::CASES;
use site::Site;
use site::tree::{SitePath, Tree};

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
