//! Patterns of names: `*` is any run of characters, `?` is one, everything else is itself. Nothing more, on purpose.

use std::fmt;

/// Bytes of a pattern: longer than any name.
const MAX_PATTERN: usize = 300;

/// A pattern of names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a name or pattern is wanted here, not nothing".to_owned());
        }
        if text.len() > MAX_PATTERN {
            return Err(format!("a pattern has at most {MAX_PATTERN} characters"));
        }
        match text.chars().find(|character| !is_allowed(*character)) {
            Some(odd) => {
                let shown = common::escape::text(odd.to_string());
                Err(format!("'{shown}' stands in no name; a pattern has letters, digits, '.', '-', '_', '*' and '?'"))
            }
            None => Ok(Self(text.to_owned())),
        }
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// It stands for more than one name.
    #[must_use]
    pub fn is_wild(&self) -> bool {
        self.0.contains(['*', '?'])
    }

    /// Tells whether a name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_' | '*' | '?')
}

/// Goes back to the last star only: linear in practice, never more than pattern times name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || Some(wanted) == name.get(from) => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((place, begin)) => {
                    star = Some((place, begin + 1));
                    at = place + 1;
                    from = begin + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_means_what_it_looks_like() {
        for (pattern, name, expected) in [
            ("web1", "web1", true),
            ("web1", "web10", false),
            ("web*", "web", true),
            ("web*", "web10", true),
            ("*", "anything", true),
            ("*-db?", "eu-db1", true),
            ("*-db?", "eu-db", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "", false),
            ("**", "", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        for bad in ["", "a b", "web[1]", "ü", "a/b", "a\n"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Pattern::parse(&"*".repeat(MAX_PATTERN)).is_ok());
        assert!(Pattern::parse(&"*".repeat(MAX_PATTERN + 1)).is_err());
    }

    /// The definition, without cleverness.
    fn oracle(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                oracle(rest, name) || name.split_first().is_some_and(|(_, n)| oracle(pattern, n))
            }
            (Some((b'?', rest)), Some((_, name))) => oracle(rest, name),
            (Some((wanted, rest)), Some((first, name))) => wanted == first && oracle(rest, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_its_definition(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), oracle(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
