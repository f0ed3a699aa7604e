//! One file of a site: its name, its text, and where in it something stands.

use std::fmt;
use std::sync::Arc;

/// A file with its text. Cheap to clone: everything that was read from it keeps it alive.
#[derive(Debug, Clone)]
pub struct Source {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    text: String,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
}

/// A range of bytes in one file.
#[derive(Clone)]
pub struct Span {
    source: Source,
    start: usize,
    end: usize,
}

/// Where something stands, for people: lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, relative to the site.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Source {
    /// A file of that name, relative to the site.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { inner: Arc::new(Inner { name: name.into(), text, lines }) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// All of it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// A range of it; what lies behind the end or inside of a character is moved to where text is.
    #[must_use]
    pub fn span(&self, start: usize, end: usize) -> Span {
        let text = self.text();
        let start = text.floor_char_boundary(start);
        let end = text.floor_char_boundary(end).max(start);
        Span { source: self.clone(), start, end }
    }

    /// The line a byte stands in, counted from 0, and where that line begins.
    fn line_of(&self, offset: usize) -> (usize, usize) {
        let line = self.inner.lines.partition_point(|start| *start <= offset).saturating_sub(1);
        (line, self.inner.lines.get(line).copied().unwrap_or(0))
    }
}

impl Span {
    /// The file.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Offset of the first byte.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Offset behind the last byte.
    #[must_use]
    pub fn end(&self) -> usize {
        self.end
    }

    /// Where it begins.
    #[must_use]
    pub fn place(&self) -> Place {
        let (line, begin) = self.source.line_of(self.start);
        let before = self.source.text().get(begin..self.start).unwrap_or_default();
        Place { file: self.source.name().to_owned(), line: line + 1, column: before.chars().count() + 1 }
    }

    /// The text of the line in which it begins.
    #[must_use]
    pub fn line(&self) -> &str {
        let (_, begin) = self.source.line_of(self.start);
        self.source.text().get(begin..).and_then(|rest| rest.lines().next()).unwrap_or_default()
    }

    /// How many characters of it stand in that line; at least one, so that there is something to point at.
    #[must_use]
    pub fn width(&self) -> usize {
        let text = self.source.text().get(self.start..self.end).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim_end().chars().count().max(1)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place())
    }
}

/// Two ranges are the same when they are the same bytes of the same file.
impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source.inner, &other.source.inner) && (self.start, self.end) == (other.start, other.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_columns_in_characters() {
        let source = Source::new("a.yml", "eins\nzwölf: drei\n\nende");
        let at = |text: &str| {
            let start = source.text().find(text).unwrap_or_default();
            let span = source.span(start, start + text.len());
            (span.place().to_string(), span.line().to_owned(), span.width())
        };
        assert_eq!(at("eins"), ("a.yml:1:1".to_owned(), "eins".to_owned(), 4));
        assert_eq!(at("drei"), ("a.yml:2:8".to_owned(), "zwölf: drei".to_owned(), 4));
        assert_eq!(at("ende"), ("a.yml:4:1".to_owned(), "ende".to_owned(), 4));
        let past = source.span(1_000, 2_000);
        assert_eq!((past.place().line, past.width()), (4, 1));
        let inside = source.text().find('ö').map(|at| source.span(at + 1, at + 1).place().column);
        assert_eq!(inside, Some(3), "the middle of a character is its beginning");
    }
}
