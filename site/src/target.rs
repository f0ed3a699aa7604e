//! Target expressions: which agents are meant. One grammar for roles, the command line and jobs.
//!
//! ```text
//! expression = any { ("," | "or") any }          "," and "or" are the same
//! any        = each { "and" each }
//! each       = "not" each | "(" expression ")" | "@" group | name or pattern
//! ```
//! Names match exactly, patterns with `*` and `?`; `@group` asks `groups.yml`. What an agent says about itself is no part of
//! it: facts join for commands only, never for rights.

use std::fmt;

use common::id::Name;

use crate::glob::Pattern;
use crate::groups::GroupName;
use crate::limits::{MAX_TARGET, MAX_TARGET_DEPTH};

/// An expression over agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Agents of that name or pattern.
    Name(Pattern),
    /// Members of a group.
    Group(GroupName),
    /// All others.
    Not(Box<Target>),
    /// Those that fit every part.
    All(Vec<Target>),
    /// Those that fit one part.
    Any(Vec<Target>),
}

/// What is wrong with an expression, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (character {column})")]
pub struct TargetError {
    /// One sentence.
    pub text: String,
    /// Characters before the mistake, plus one.
    pub column: usize,
}

/// What an expression is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The agent.
    pub name: &'a Name,
    /// Its groups.
    pub groups: &'a [GroupName],
}

impl Target {
    /// Reads an expression.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.len() > MAX_TARGET {
            return Err(TargetError { text: format!("a target has at most {MAX_TARGET} bytes"), column: 1 });
        }
        let mut parser = Parser { text, at: 0, depth: 0 };
        let target = parser.expression()?;
        match parser.peek() {
            None => Ok(target),
            Some(token) => Err(parser.unexpected(token, "and, or, a comma or the end is wanted here")),
        }
    }

    /// Tells whether an agent is meant.
    #[must_use]
    pub fn matches(&self, subject: Subject<'_>) -> bool {
        match self {
            Self::Name(pattern) => pattern.matches(subject.name.as_str()),
            Self::Group(group) => subject.groups.contains(group),
            Self::Not(inner) => !inner.matches(subject),
            Self::All(parts) => parts.iter().all(|part| part.matches(subject)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(subject)),
        }
    }

    /// Tells whether every agent is meant whose name fits a pattern and that is in exactly these groups; `false` where that
    /// is so for some names only.
    #[must_use]
    pub fn covers(&self, names: &Pattern, groups: &[GroupName]) -> bool {
        self.for_all(names, groups) == Some(true)
    }

    /// The answer for every one of these names; `None` where they differ or nobody knows.
    fn for_all(&self, names: &Pattern, groups: &[GroupName]) -> Option<bool> {
        // What decides by itself; else all parts have to be known.
        let joined = |parts: &[Self], decisive: bool| {
            let answers: Vec<_> = parts.iter().map(|part| part.for_all(names, groups)).collect();
            if answers.contains(&Some(decisive)) {
                return Some(decisive);
            }
            answers.iter().all(Option::is_some).then_some(!decisive)
        };
        match self {
            Self::Name(pattern) if !names.is_wild() => Some(pattern.matches(names.as_str())),
            Self::Name(pattern) => (pattern.as_str() == "*" || pattern == names).then_some(true),
            Self::Group(group) => Some(groups.contains(group)),
            Self::Not(inner) => inner.for_all(names, groups).map(|answer| !answer),
            Self::All(parts) => joined(parts, false),
            Self::Any(parts) => joined(parts, true),
        }
    }

    /// The groups it asks for.
    pub fn groups(&self) -> Vec<&GroupName> {
        match self {
            Self::Name(_) => Vec::new(),
            Self::Group(group) => vec![group],
            Self::Not(inner) => inner.groups(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::groups).collect(),
        }
    }

    /// The one agent it names, when it is no more than a name.
    #[must_use]
    pub fn single(&self) -> Option<&str> {
        match self {
            Self::Name(pattern) if !pattern.is_wild() => Some(pattern.as_str()),
            _ => None,
        }
    }
}

/// The expression in its plainest form; reads back as the same.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], word: &str| {
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    write!(f, " {word} ")?;
                }
                match part {
                    Self::Any(_) | Self::All(_) => write!(f, "({part})")?,
                    _ => write!(f, "{part}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::Name(pattern) => write!(f, "{pattern}"),
            Self::Group(group) => write!(f, "@{group}"),
            Self::Not(inner) if matches!(**inner, Self::Any(_) | Self::All(_)) => write!(f, "not ({inner})"),
            Self::Not(inner) => write!(f, "not {inner}"),
            Self::All(parts) => joined(f, parts, "and"),
            Self::Any(parts) => joined(f, parts, "or"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'t> {
    Open,
    Close,
    Comma,
    Word(&'t str),
    Other(char),
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next token and its length; blanks before it are skipped.
    fn peek(&mut self) -> Option<Token<'t>> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let rest = self.rest();
        let first = rest.chars().next()?;
        Some(match first {
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            _ if is_word(first) => {
                let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
                Token::Word(rest.get(..end).unwrap_or_default())
            }
            other => Token::Other(other),
        })
    }

    fn skip(&mut self, token: Token<'_>) {
        self.at += match token {
            Token::Open | Token::Close | Token::Comma => 1,
            Token::Word(word) => word.len(),
            Token::Other(character) => character.len_utf8(),
        };
    }

    fn wrong(&self, text: String) -> TargetError {
        let column = self.text.get(..self.at).unwrap_or_default().chars().count() + 1;
        TargetError { text, column }
    }

    fn unexpected(&self, token: Token<'_>, wanted: &str) -> TargetError {
        let found = match token {
            Token::Open => "(".to_owned(),
            Token::Close => ")".to_owned(),
            Token::Comma => "a comma".to_owned(),
            Token::Word(word) => common::escape::text(word),
            Token::Other(character) => common::escape::text(character.to_string()),
        };
        self.wrong(format!("{wanted}, not {found}"))
    }

    fn expression(&mut self) -> Result<Target, TargetError> {
        let mut parts = vec![self.every()?];
        while let Some(token @ (Token::Comma | Token::Word("or"))) = self.peek() {
            self.skip(token);
            parts.push(self.every()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Target::Any(parts) })
    }

    fn every(&mut self) -> Result<Target, TargetError> {
        let mut parts = vec![self.each()?];
        while let Some(token @ Token::Word("and")) = self.peek() {
            self.skip(token);
            parts.push(self.each()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Target::All(parts) })
    }

    fn each(&mut self) -> Result<Target, TargetError> {
        const WANTED: &str = "a name, a pattern, @group, not or ( is wanted here";
        let Some(token) = self.peek() else { return Err(self.wrong(format!("{WANTED}, not the end"))) };
        match token {
            Token::Open | Token::Word("not") => {
                self.depth += 1;
                if self.depth > MAX_TARGET_DEPTH {
                    return Err(self.wrong(format!("a target is nested at most {MAX_TARGET_DEPTH} levels deep")));
                }
                self.skip(token);
                let inner = if token == Token::Open { self.expression()? } else { Target::Not(Box::new(self.each()?)) };
                if token == Token::Open {
                    match self.peek() {
                        Some(close @ Token::Close) => self.skip(close),
                        Some(other) => return Err(self.unexpected(other, "and, or, a comma or ) is wanted here")),
                        None => return Err(self.wrong("a ) is missing".to_owned())),
                    }
                }
                self.depth -= 1;
                Ok(inner)
            }
            Token::Word("and" | "or") | Token::Close | Token::Comma | Token::Other(_) => {
                Err(self.unexpected(token, WANTED))
            }
            Token::Word(word) => {
                let read = match word.strip_prefix('@') {
                    Some(group) => GroupName::parse(group).map(Target::Group),
                    None => Pattern::parse(word).map(Target::Name),
                };
                let target = read.map_err(|said| self.wrong(said))?;
                self.skip(token);
                Ok(target)
            }
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_' | '*' | '?' | '@')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn meant(text: &str, name: &str, groups: &[&str]) -> bool {
        let groups: Vec<_> = groups.iter().map(|group| GroupName::parse(group).unwrap()).collect();
        Target::parse(text).unwrap().matches(Subject { name: &name.parse().unwrap(), groups: &groups })
    }

    #[test]
    fn words_bind_as_everywhere() {
        assert!(meant("web1", "web1", &[]));
        assert!(!meant("web1", "web10", &[]));
        assert!(meant("web1,web2", "web2", &[]));
        assert!(meant("@web and not web3", "web1", &["web"]));
        assert!(!meant("@web and not web3", "web3", &["web"]));
        assert!(meant("db1 or @web and web*", "db1", &[]), "and binds before or");
        assert!(!meant("(db1 or @web) and web*", "db1", &[]));
        assert!(meant("not (a or b)", "c", &[]));
        assert!(meant("not not a", "a", &[]));
        assert!(!meant("@all", "web1", &["web"]), "a group nobody gave is no match");
    }

    #[test]
    fn a_target_covers_names_only_where_it_means_each_of_them() {
        let covers = |text: &str, names: &str, groups: &[&str]| {
            let groups: Vec<_> = groups.iter().map(|group| GroupName::parse(group).unwrap()).collect();
            Target::parse(text).unwrap().covers(&Pattern::parse(names).unwrap(), &groups)
        };
        for (text, names, groups, expected) in [
            ("*", "*", &[][..], true),
            ("@web", "*", &["web"], true),
            ("@web", "*", &["db"], false),
            ("@web", "*", &[], false),
            ("web*", "web*", &[], true),
            ("web*", "*", &[], false),
            ("web*", "web1", &[], true),
            ("web1", "web2", &[], false),
            ("not web1", "web2", &[], true),
            ("not web1", "*", &[], false),
            ("not web1", "web*", &["web"], false),
            ("* and not @db", "*", &["web"], true),
            ("* and not @db", "*", &["web", "db"], false),
            ("@web and not web3", "*", &["web"], false),
            ("web1, @web", "*", &["web"], true),
            ("web1, @web", "*", &[], false),
            ("not (web1 or @db)", "*", &["db"], false),
        ] {
            assert_eq!(covers(text, names, groups), expected, "{text} {names} {groups:?}");
        }
    }

    #[test]
    fn mistakes_say_where_they_are() {
        for (text, expected) in [
            ("", "a name, a pattern, @group, not or ( is wanted here, not the end (character 1)"),
            ("web1 web2", "and, or, a comma or the end is wanted here, not web2 (character 6)"),
            ("web1 and", "a name, a pattern, @group, not or ( is wanted here, not the end (character 9)"),
            ("(a or b", "a ) is missing (character 8)"),
            ("a,,b", "a name, a pattern, @group, not or ( is wanted here, not a comma (character 3)"),
            ("a)", "and, or, a comma or the end is wanted here, not ) (character 2)"),
            ("ü", "a name, a pattern, @group, not or ( is wanted here, not ü (character 1)"),
        ] {
            assert_eq!(Target::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        assert!(Target::parse("@").is_err());
        assert!(Target::parse("a@b").is_err());
        assert!(Target::parse(&format!("{}a", "not ".repeat(MAX_TARGET_DEPTH))).is_ok());
        assert!(Target::parse(&format!("{}a", "not ".repeat(MAX_TARGET_DEPTH + 1))).is_err());
        assert!(Target::parse(&"a".repeat(MAX_TARGET + 1)).is_err());
    }

    fn targets() -> impl Strategy<Value = Target> {
        let leaf = prop_oneof![
            "[a-c*]{1,3}".prop_map(|text| Target::Name(Pattern::parse(&text).unwrap())),
            "[a-c]{1,2}".prop_map(|text| Target::Group(GroupName::parse(&text).unwrap())),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|inner| Target::Not(Box::new(inner))),
                prop::collection::vec(inner.clone(), 2..4).prop_map(Target::All),
                prop::collection::vec(inner, 2..4).prop_map(Target::Any),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same(target in targets(), name in "[a-c]{1,3}", group in "[a-c]{1,2}") {
            let again = Target::parse(&target.to_string()).unwrap();
            let (name, groups) = (name.parse().unwrap(), [GroupName::parse(&group).unwrap()]);
            let subject = Subject { name: &name, groups: &groups };
            prop_assert_eq!(again.matches(subject), target.matches(subject));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = Target::parse(&text);
        }
    }
}
