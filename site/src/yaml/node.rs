//! The tree: values, lists and maps, each with its place. Shared, never changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::scalar::{Plain, Scalar};
use crate::source::Span;

/// A value with its place. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Node(Arc<Inner>);

#[derive(Debug, PartialEq)]
struct Inner {
    span: Span,
    tag: Option<(Tag, Span)>,
    kind: Kind,
    /// How many values it is, aliases written out.
    weight: u64,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in the order of the file.
    Map(Map),
}

/// The tags of the language; there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Text in which nothing is replaced.
    Raw,
    /// A value that is never shown.
    Secret,
    /// The content of a file of the site.
    File,
    /// Replaces what earlier groups say instead of merging with it.
    Replace,
    /// Removes what earlier groups say.
    Remove,
}

/// Keys and values; every key is text and stands once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Map {
    entries: Vec<Entry>,
    index: BTreeMap<Arc<str>, usize>,
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Tag {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Secret, Self::File, Self::Replace, Self::Remove];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "!raw",
            Self::Secret => "!secret",
            Self::File => "!file",
            Self::Replace => "!replace",
            Self::Remove => "!remove",
        }
    }
}

impl Node {
    /// A value at a place.
    #[must_use]
    pub fn new(span: Span, tag: Option<(Tag, Span)>, kind: Kind) -> Self {
        let inside: u64 = match &kind {
            Kind::Scalar(_) => 0,
            Kind::List(list) => list.iter().map(Self::weight).fold(0, u64::saturating_add),
            Kind::Map(map) => map.iter().map(|entry| entry.value.weight()).fold(0, u64::saturating_add),
        };
        Self(Arc::new(Inner { span, tag, kind, weight: inside.saturating_add(1) }))
    }

    /// Where it stands.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.0.span
    }

    /// Its tag.
    #[must_use]
    pub fn tag(&self) -> Option<Tag> {
        self.0.tag.as_ref().map(|(tag, _)| *tag)
    }

    /// Its tag with the place of that.
    #[must_use]
    pub fn tag_span(&self) -> Option<&(Tag, Span)> {
        self.0.tag.as_ref()
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// How many values it is, aliases written out.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.0.weight
    }

    /// It is a null without a tag.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.tag().is_none() && matches!(self.kind(), Kind::Scalar(scalar) if scalar.plain() == Plain::Null)
    }

    /// The map it is.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        match self.kind() {
            Kind::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list it is.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        match self.kind() {
            Kind::List(list) => Some(list),
            _ => None,
        }
    }

    /// The single value it is.
    #[must_use]
    pub fn as_scalar(&self) -> Option<&Scalar> {
        match self.kind() {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// What it is, for a sentence.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match self.kind() {
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
            Kind::Scalar(scalar) => match scalar.plain() {
                Plain::Null => "nothing",
                Plain::Bool(_) => "true or false",
                Plain::Int(_) | Plain::Float(_) => "a number",
                Plain::Text(_) => "text",
            },
        }
    }
}

impl Map {
    /// Adds a key; the place of the first one when it is there already.
    ///
    /// # Errors
    /// Where the same key stands.
    pub fn insert(&mut self, entry: Entry) -> Result<(), Span> {
        if let Some(known) = self.index.get(&entry.key).and_then(|at| self.entries.get(*at)) {
            return Err(known.key_span.clone());
        }
        self.index.insert(Arc::clone(&entry.key), self.entries.len());
        self.entries.push(entry);
        Ok(())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A key with its value.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).and_then(|at| self.entries.get(*at))
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.key)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
