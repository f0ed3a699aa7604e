//! What is wrong with a site, as data: one shape for terminals, JSON and logs.

use std::fmt;

use common::escape;

use crate::limits::{MAX_PROBLEMS, MAX_SNIPPET};
use crate::source::{Place, Span};

/// One mistake.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Stable, for programs.
    pub code: &'static str,
    /// One sentence about it, without the place.
    pub text: String,
    /// Where; `None` only for what concerns no file.
    pub span: Option<Span>,
    /// The path of the value, for example `groups.web[2]`.
    pub path: String,
    /// What would be right.
    pub hint: Option<String>,
    /// Another place that belongs to it, and why.
    pub also: Option<Box<(Span, String)>>,
}

/// Everything that was found; at least one when it is an error.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Problems {
    found: Vec<Problem>,
    /// How many more there were.
    more: usize,
}

impl Problem {
    /// A mistake at a place.
    #[must_use]
    pub fn new(code: &'static str, span: &Span, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), span: Some(span.clone()), path: String::new(), hint: None, also: None }
    }

    /// A mistake of a file as a whole.
    #[must_use]
    pub fn of_file(code: &'static str, file: &str, text: impl Into<String>) -> Self {
        let source = crate::Source::new(file, "");
        Self::new(code, &source.span(0, 0), text)
    }

    /// With the path of the value.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// With what would be right.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a second place.
    #[must_use]
    pub fn also(mut self, span: &Span, why: impl Into<String>) -> Self {
        self.also = Some(Box::new((span.clone(), why.into())));
        self
    }

    /// Where it begins.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.span.as_ref().map(Span::place)
    }

    /// The message as a compiler writes it: place, sentence, the line, a mark below, and the hint.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!("error[{}]: {}\n", self.code, self.text);
        if let Some(span) = &self.span {
            show(&mut out, span, &self.path, "");
        }
        if let Some((span, why)) = self.also.as_deref() {
            show(&mut out, span, "", why);
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("  = {hint}\n"));
        }
        out
    }
}

/// Appends the place and the line with a mark below the range.
fn show(out: &mut String, span: &Span, path: &str, why: &str) {
    let place = span.place();
    let line = escape::text(span.line().chars().take(MAX_SNIPPET).collect::<String>());
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let path = if path.is_empty() { String::new() } else { format!(" in {path}") };
    out.push_str(&format!("{margin}--> {place}{path}\n"));
    if line.is_empty() {
        return;
    }
    let before: String = span.line().chars().take((place.column - 1).min(MAX_SNIPPET)).collect();
    let indent = " ".repeat(escape::text(&before).chars().count());
    let room = MAX_SNIPPET.saturating_sub(place.column - 1).max(1);
    let mark = "^".repeat(span.width().min(room));
    let why = if why.is_empty() { String::new() } else { format!(" {why}") };
    out.push_str(&format!("{margin} |\n{number} | {line}\n{margin} | {indent}{mark}{why}\n"));
}

/// One line: what logs and short answers show.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place() {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl Problems {
    /// Adds one; beyond the limit it is only counted.
    pub fn push(&mut self, problem: Problem) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Adds those of another look.
    pub fn extend(&mut self, others: Self) {
        self.more += others.more;
        others.found.into_iter().for_each(|problem| self.push(problem));
    }

    /// Tells whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Those that were kept, in the order of their finding.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.found
    }

    /// How many more there were.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }

    /// The value when nothing is wrong.
    ///
    /// # Errors
    /// Itself, when something is.
    pub fn unless<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// All messages, as a compiler writes them.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out: String = self.found.iter().map(Problem::render).collect::<Vec<_>>().join("\n");
        if self.more > 0 {
            out.push_str(&format!("\nand {} more\n", self.more));
        }
        out
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { found: vec![problem], more: 0 }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.found.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.more > 0 { write!(f, "\nand {} more", self.more) } else { Ok(()) }
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    #[test]
    fn a_message_points_at_the_range_and_says_what_would_be_right() {
        let source = Source::new("groups.yml", "web1: [web]\nweb\u{1b}2: [wbe]\n");
        let (first, second) = (source.span(7, 10), source.span(21, 24));
        let problem = Problem::new("unknown_group", &second, "there is no group wbe")
            .at("web2[0]")
            .hint("did you mean web?")
            .also(&first, "it is used here");
        insta::assert_snapshot!(problem.render(), @r"
        error[unknown_group]: there is no group wbe
         --> groups.yml:2:10 in web2[0]
          |
        2 | web\u{1b}2: [wbe]
          |               ^^^
         --> groups.yml:1:8
          |
        1 | web1: [web]
          |        ^^^ it is used here
          = did you mean web?
        ");
        assert_eq!(problem.to_string(), "groups.yml:2:10: web2[0]: there is no group wbe; did you mean web?");
    }

    #[test]
    fn a_thousand_mistakes_are_counted_and_a_screen_of_them_kept() {
        let mut all = Problems::default();
        assert!(all.clone().unless(()).is_ok());
        for _ in 0..1_000 {
            all.push(Problem::of_file("x", "a.yml", "is wrong"));
        }
        assert_eq!((all.list().len(), all.more()), (MAX_PROBLEMS, 1_000 - MAX_PROBLEMS));
        assert!(all.to_string().ends_with("and 950 more"));
        assert!(all.unless(()).is_err());
    }
}
