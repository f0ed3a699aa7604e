//! Events of the parser become a tree. The only file that knows the parser.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, options};

use super::node::{Entry, Kind, Map, Node, Tag};
use super::scalar::{Plain, Scalar};
use crate::limits::{MAX_DEPTH, MAX_DOCUMENT, MAX_NODES};
use crate::problem::Problem;
use crate::source::{Source, Span};

type Tagged = Option<(Tag, Span)>;

/// A list or map that is not closed yet.
struct Open {
    /// 0: nobody can refer to it.
    anchor: usize,
    span: Span,
    tag: Tagged,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    /// With the key whose value comes next.
    Map(Map, Option<(Arc<str>, Span)>, Vec<(Node, Span)>),
}

struct Composer<'a> {
    source: &'a Source,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    /// Values made so far, aliases written out: bounds work and memory while reading.
    made: u64,
}

/// Reads a document; a file without one is a null.
///
/// # Errors
/// The first mistake with its place.
pub fn parse(source: &Source) -> Result<Node, Problem> {
    let text = source.text();
    if text.len() > MAX_DOCUMENT {
        let what = format!("the file has {} bytes; at most {MAX_DOCUMENT} are read", text.len());
        return Err(Problem::new("too_large", &source.span(0, 0), what).hint("split it into several files"));
    }
    let options = options! {
        strict_indentation: true,
        disallow_directives: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut composer = Composer { source, open: Vec::new(), anchors: HashMap::new(), root: None, made: 0 };
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, at) = event.map_err(|error| composer.broken(&error))?;
        let range = at.byte_range().unwrap_or_default();
        let span = source.span(range.start, range.end);
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
            if documents > 1 {
                return Err(Problem::new("several_documents", &span, "a second document begins here")
                    .hint("a file holds one document; remove the line `---` or split the file"));
            }
            continue;
        }
        let tag_span = at.tag_span().and_then(|tag| tag.byte_range()).map(|tag| source.span(tag.start, tag.end));
        composer.take(event, span, tag_span)?;
    }
    let empty = || Node::new(source.span(0, 0), None, Kind::Scalar(Scalar::new("", false)));
    Ok(composer.root.unwrap_or_else(empty))
}

impl Composer<'_> {
    fn take(&mut self, event: Event<'_>, span: Span, tag_span: Option<Span>) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = self.tag(tag.as_deref(), tag_span, &span)?;
                // The parser writes a tilde where nothing stands.
                let text = if style == ScalarStyle::Plain && span.start() == span.end() { "" } else { &*text };
                let scalar = Scalar::new(text, style != ScalarStyle::Plain || tag.1);
                self.made += 1;
                let node = Node::new(span, tag.0, Kind::Scalar(scalar));
                self.remember(anchor, &node);
                self.place(node)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let tag = self.tag(tag.as_deref(), tag_span, &span)?.0;
                self.begin(Open { anchor, span, tag, kind: OpenKind::List(Vec::new()) })
            }
            Event::MappingStart(_, anchor, tag) => {
                let tag = self.tag(tag.as_deref(), tag_span, &span)?.0;
                self.begin(Open { anchor, span, tag, kind: OpenKind::Map(Map::default(), None, Vec::new()) })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(&span),
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(Problem::new("alias_loop", &span, "this alias is inside of what it stands for"));
                };
                self.made = self.made.saturating_add(node.weight());
                if self.made > MAX_NODES {
                    let what = format!("with its aliases written out the file has more than {MAX_NODES} values");
                    return Err(Problem::new("too_many_values", &span, what));
                }
                self.place(node)
            }
            _ => Ok(()),
        }
    }

    /// The tag of the language; the tags of YAML itself only where they say nothing new. `true`: it says "text".
    fn tag(
        &self,
        tag: Option<&granit_parser::Tag>,
        tag_span: Option<Span>,
        span: &Span,
    ) -> Result<(Tagged, bool), Problem> {
        let Some(tag) = tag else { return Ok((None, false)) };
        let place = tag_span.unwrap_or_else(|| span.clone());
        if tag.is_yaml_core_schema_tag("str") {
            return Ok((None, true));
        }
        if matches!(tag.core_suffix(), Some("map" | "seq")) {
            return Ok((None, false));
        }
        let written = tag.original();
        match Tag::ALL.into_iter().find(|known| known.as_str() == written) {
            Some(known) => Ok((Some((known, place)), false)),
            None => {
                let names = Tag::ALL.map(Tag::as_str);
                let shown = common::escape::text(&written);
                let hint = match common::suggest::nearest(&written, names) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", names.join(", ")),
                };
                Err(Problem::new("unknown_tag", &place, format!("there is no tag {shown}")).hint(hint))
            }
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            let what = format!("values are nested more than {MAX_DEPTH} levels deep");
            return Err(Problem::new("too_deep", &open.span, what));
        }
        if let Some(Open { kind: OpenKind::Map(_, None, _), .. }) = self.open.last() {
            return Err(Problem::new("key_is_no_text", &open.span, "a key is a single value, not a list or map"));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self, at: &Span) -> Result<(), Problem> {
        let Some(Open { anchor, span, tag, kind }) = self.open.pop() else { return Ok(()) };
        let span = self.source.span(span.start(), at.end().max(span.end()));
        let kind = match kind {
            OpenKind::List(list) => Kind::List(list),
            OpenKind::Map(map, _, merges) => Kind::Map(self.merged(map, merges)?),
        };
        self.made += 1;
        if self.made > MAX_NODES {
            let what = format!("the file has more than {MAX_NODES} values");
            return Err(Problem::new("too_many_values", &span, what));
        }
        let node = Node::new(span, tag, kind);
        self.remember(anchor, &node);
        self.place(node)
    }

    fn remember(&mut self, anchor: usize, node: &Node) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, node: Node) -> Result<(), Problem> {
        if self.made > MAX_NODES {
            let what = format!("the file has more than {MAX_NODES} values");
            return Err(Problem::new("too_many_values", node.span(), what));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { kind: OpenKind::List(list), .. }) => list.push(node),
            Some(Open { kind: OpenKind::Map(map, key, merges), .. }) => match key.take() {
                None => *key = Some(read_key(&node)?),
                Some((name, span))
                    if &*name == "<<" && span.source().text().get(span.start()..span.end()) == Some("<<") =>
                {
                    merges.push((node, span));
                }
                Some((name, span)) => {
                    let entry = Entry { key: Arc::clone(&name), key_span: span.clone(), value: node };
                    if let Err(first) = map.insert(entry) {
                        let what = format!("the key {} stands twice in this map", common::escape::text(&*name));
                        return Err(Problem::new("duplicate_key", &span, what).also(&first, "it stands here first"));
                    }
                }
            },
        }
        Ok(())
    }

    /// Adds what `<<` brings: own keys win, then the earlier of several.
    fn merged(&mut self, mut map: Map, merges: Vec<(Node, Span)>) -> Result<Map, Problem> {
        let mut seen: Option<Span> = None;
        for (node, span) in merges {
            if let Some(first) = seen.replace(span.clone()) {
                return Err(Problem::new("duplicate_key", &span, "the key << stands twice in this map")
                    .hint("one << takes a list of maps")
                    .also(&first, "it stands here first"));
            }
            let parts: &[Node] = match node.kind() {
                Kind::List(list) => list,
                _ => std::slice::from_ref(&node),
            };
            for part in parts {
                let Some(other) = part.as_map() else {
                    let what = format!("<< takes a map or a list of maps, not {}", part.describe());
                    return Err(Problem::new("wrong_type", part.span(), what));
                };
                // Every key that is looked at counts: nested merges of large maps are the dear case.
                self.made = self.made.saturating_add(other.len() as u64);
                if self.made > MAX_NODES {
                    let what = format!("with its merges written out the file has more than {MAX_NODES} values");
                    return Err(Problem::new("too_many_values", &span, what));
                }
                for entry in other.iter() {
                    // A key that is there already wins.
                    let _ = map.insert(entry.clone());
                }
            }
        }
        Ok(map)
    }

    /// What the parser says about text that is no YAML, in our words where they are better.
    fn broken(&self, error: &ScanError) -> Problem {
        let offset = error.marker().byte_offset().unwrap_or(self.source.text().len());
        let span = self.source.span(offset, offset + 1);
        let line_has_tab =
            span.line().starts_with([' ', '\t']) && span.line().trim_start_matches(' ').starts_with('\t');
        if line_has_tab {
            return Problem::new("tab", &span, "a line is indented with a tab").hint("YAML is indented with spaces");
        }
        match error.kind() {
            ErrorKind::UnknownAnchor => {
                Problem::new("unknown_anchor", &span, "this alias stands for no anchor before it")
                    .hint("a pattern that begins with * stands in quotes")
            }
            _ => {
                let said = common::escape::text(error.info());
                Problem::new("yaml", &span, format!("this is not YAML: {said}"))
            }
        }
    }
}

fn read_key(node: &Node) -> Result<(Arc<str>, Span), Problem> {
    let span = node.span();
    match node.as_scalar() {
        Some(_) if node.tag().is_some() => Err(Problem::new("key_is_no_text", span, "a key has no tag")),
        Some(scalar) if scalar.plain() == Plain::Null => {
            Err(Problem::new("key_is_no_text", span, "a key is missing before the colon"))
        }
        Some(scalar) => Ok((scalar.text().into(), span.clone())),
        None => Err(Problem::new("key_is_no_text", span, "a key is a single value, not a list or map")),
    }
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;
