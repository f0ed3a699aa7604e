//! Tests of how documents become trees.

#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Node, Problem> {
    parse(&Source::new("t.yml", text))
}

fn wrong(text: &str) -> String {
    let problem = read(text).unwrap_err();
    let place = problem.place().unwrap();
    format!("{} {}:{}", problem.code, place.line, place.column)
}

#[test]
fn every_value_knows_where_it_stands() {
    let root = read("a: 1\nb:\n  - x\n  - {c: two words}\n").unwrap();
    let map = root.as_map().unwrap();
    assert_eq!(map.keys().collect::<Vec<_>>(), ["a", "b"]);
    let list = map.get("b").unwrap().as_list().unwrap();
    let deep = list[1].as_map().unwrap().entry("c").unwrap();
    assert_eq!(deep.key_span.place().to_string(), "t.yml:4:6");
    assert_eq!(deep.value.span().place().to_string(), "t.yml:4:9");
    assert_eq!(deep.value.span().width(), 9);
    assert_eq!(deep.value.as_scalar().unwrap().text(), "two words");
    assert!(read("").unwrap().is_null());
    assert!(read("# only a word\n").unwrap().is_null());
}

#[test]
fn what_is_ambiguous_or_unknown_is_refused_at_its_place() {
    for (text, expected) in [
        ("a: 1\na: 2\n", "duplicate_key 2:1"),
        ("a: {x: 1, x: 2}\n", "duplicate_key 1:11"),
        ("---\na: 1\n---\nb: 2\n", "several_documents 3:1"),
        ("a: !sercet x\n", "unknown_tag 1:4"),
        ("a: !!binary eA==\n", "unknown_tag 1:4"),
        ("? [a]\n: 1\n", "key_is_no_text 1:3"),
        (": 1\n", "key_is_no_text 1:1"),
        ("!raw a: 1\n", "key_is_no_text 1:6"),
        ("a:\n\tb: 1\n", "tab 2:2"),
        ("a: *nobody\n", "unknown_anchor 1:4"),
        ("a: &x [*x]\n", "alias_loop 1:8"),
        ("%YAML 1.1\n---\na: 1\n", "yaml 1:1"),
        ("<<: 7\n", "wrong_type 1:5"),
        ("<<: {a: 1}\n<<: {b: 1}\n", "duplicate_key 2:1"),
        ("a: [1, 2\n", "yaml 1:4"),
        ("a: \"x\n", "yaml 2:1"),
    ] {
        assert_eq!(wrong(text), expected, "{text:?}");
    }
}

#[test]
fn tags_of_the_language_stay_with_their_values_and_tags_for_text_make_text() {
    let root = read("a: !secret hush\nb: !remove\nc: !!str 7\nd: !replace [1]\ne: !raw '${x}'\n").unwrap();
    let map = root.as_map().unwrap();
    let tags: Vec<_> = map.iter().map(|entry| entry.value.tag()).collect();
    assert_eq!(tags, [Some(Tag::Secret), Some(Tag::Remove), None, Some(Tag::Replace), Some(Tag::Raw)]);
    assert!(map.get("c").unwrap().as_scalar().unwrap().is_quoted());
    assert_eq!(map.get("a").unwrap().tag_span().unwrap().1.place().column, 4);
}

#[test]
fn merges_take_what_is_missing_and_the_first_of_several_wins() {
    let text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], c: 3}\n'<<': kept\n";
    let root = read(text).unwrap();
    let z = root.as_map().unwrap().get("z").unwrap().as_map().unwrap();
    let said: Vec<_> = z.iter().map(|entry| (&*entry.key, entry.value.as_scalar().unwrap().text())).collect();
    assert_eq!(said, [("c", "3"), ("a", "1"), ("b", "1")]);
    assert!(root.as_map().unwrap().get("<<").is_some(), "in quotes it is a key like any other");
}

#[test]
fn bombs_are_refused_by_their_weight_and_cost_nothing() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    let mut merges = "m0: &m0 {a: 1}\n".to_owned();
    for level in 1..30 {
        let before = level - 1;
        aliases.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
        merges.push_str(&format!("m{level}: &m{level} {{<<: [{}]}}\n", vec![format!("*m{before}"); 1_000].join(", ")));
    }
    assert!(wrong(&aliases).starts_with("too_many_values "));
    assert!(read(&merges).is_ok() || wrong(&merges).starts_with("too_many_values "));
    let wide = format!("[{}]", "1,".repeat(usize::try_from(MAX_NODES).unwrap() + 1));
    assert!(wrong(&wide).starts_with("too_many_values "));
    let deep = "[".repeat(MAX_DEPTH + 1);
    assert!(read(&deep).is_err());
    let nested: String = (0..MAX_DEPTH + 2).map(|level| format!("{}a:\n", "  ".repeat(level))).collect();
    assert!(read(&nested).is_err());
    let large = "x".repeat(MAX_DOCUMENT + 1);
    assert!(wrong(&large).starts_with("too_large "));
}

#[test]
fn the_deepest_allowed_nesting_is_read_and_one_more_is_not() {
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert!(read(&nested(MAX_DEPTH)).is_ok());
    assert!(read(&nested(MAX_DEPTH + 1)).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_every_mistake_has_a_place(text in "(?s).{0,200}") {
        if let Err(problem) = read(&text) {
            prop_assert!(problem.place().is_some());
            prop_assert!(!problem.render().is_empty());
        }
    }

    #[test]
    fn no_mixture_of_yaml_makes_it_panic(parts in prop::collection::vec(
        prop::sample::select(vec!["a: ", "- ", "\n", "  ", "[", "]", "{", "}", "&x ", "*x", "<<: ", "!secret ", "'", "\"", "|\n", "? ", ": ", "# ", "---\n", "x", "\t", "ü"]), 0..60)) {
        if let Err(problem) = read(&parts.concat()) {
            prop_assert!(!problem.to_string().is_empty());
        }
    }
}
