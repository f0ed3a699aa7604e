//! Reads typed values out of a tree and collects what is wrong instead of stopping at the first mistake.

use common::escape;
use common::suggest;

use crate::problem::{Problem, Problems};
use crate::yaml::{Entry, Map, Node, Plain};

/// A value on its way to a type, with its path and the place for mistakes.
pub struct Reader<'p> {
    problems: &'p mut Problems,
    path: String,
}

impl<'p> Reader<'p> {
    /// Begins at the root of a document.
    pub fn new(problems: &'p mut Problems) -> Self {
        Self { problems, path: String::new() }
    }

    /// The path of the value that is read.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads a value below a key.
    pub fn under<T>(&mut self, key: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let shown = escape::text(key);
        let path = if self.path.is_empty() { shown } else { format!("{}.{shown}", self.path) };
        read(&mut Reader { problems: self.problems, path })
    }

    /// Reads an item of a list.
    pub fn item<T>(&mut self, index: usize, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let path = format!("{}[{index}]", self.path);
        read(&mut Reader { problems: self.problems, path })
    }

    /// Notes a mistake.
    pub fn wrong(&mut self, problem: Problem) {
        let problem = if problem.path.is_empty() { problem.at(self.path.clone()) } else { problem };
        self.problems.push(problem);
    }

    /// Notes that a value has the wrong type.
    pub fn wrong_type(&mut self, node: &Node, wanted: &str) {
        let problem =
            Problem::new("wrong_type", node.span(), format!("{wanted} is wanted here, not {}", node.describe()));
        self.wrong(problem);
    }

    /// A map whose keys are all known.
    pub fn fields<'n>(&mut self, node: &'n Node, known: &[&str]) -> Option<&'n Map> {
        let map = self.map(node)?;
        for entry in map.iter().filter(|entry| !known.contains(&&*entry.key)) {
            self.unknown_key(entry, known);
        }
        Some(map)
    }

    /// Notes a key that means nothing here.
    pub fn unknown_key(&mut self, entry: &Entry, known: &[&str]) {
        let mut problem =
            Problem::new("unknown_key", &entry.key_span, format!("there is no key {} here", escape::text(&*entry.key)));
        problem = match suggest::nearest(&entry.key, known.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None => problem.hint(format!("there are {}", known.join(", "))),
        };
        self.wrong(problem);
    }

    /// A map with keys of the writer's own; nothing is a map without keys.
    pub fn map<'n>(&mut self, node: &'n Node) -> Option<&'n Map> {
        static EMPTY: std::sync::LazyLock<Map> = std::sync::LazyLock::new(Map::default);
        self.untagged(node)?;
        match node.as_map() {
            Some(map) => Some(map),
            None if node.is_null() => Some(&EMPTY),
            None => {
                self.wrong_type(node, "a map");
                None
            }
        }
    }

    /// A list; nothing is a list without items.
    pub fn list<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        self.untagged(node)?;
        match node.as_list() {
            Some(list) => Some(list),
            None if node.is_null() => Some(&[]),
            None => {
                self.wrong_type(node, "a list");
                None
            }
        }
    }

    /// Reads the items of a list, or one value that stands for a list of one; those that are wrong are noted and left out.
    pub fn each<'n, T>(
        &mut self,
        node: &'n Node,
        most: usize,
        mut read: impl FnMut(&'n Node, &mut Reader<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if node.as_scalar().is_some() && !node.is_null() {
            return Some(read(node, self).into_iter().collect());
        }
        let list = self.list(node)?;
        if list.len() > most {
            let what = format!("{} items stand here; at most {most} are taken", list.len());
            self.wrong(Problem::new("too_many", node.span(), what));
        }
        let list = list.iter().take(most).enumerate();
        Some(list.filter_map(|(at, node)| self.item(at, |reader| read(node, reader))).collect())
    }

    /// Text; numbers and truth values in a place for text were meant as text only in quotes.
    pub fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        self.untagged(node)?;
        match node.as_scalar().map(|scalar| (scalar.plain(), scalar)) {
            Some((Plain::Text(text), _)) => Some(text),
            Some((Plain::Int(_) | Plain::Float(_) | Plain::Bool(_), scalar)) => {
                let problem =
                    Problem::new("wrong_type", node.span(), format!("text is wanted here, not {}", node.describe()))
                        .hint(format!("write \"{}\"", escape::text(scalar.text())));
                self.wrong(problem);
                None
            }
            _ => {
                self.wrong_type(node, "text");
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn truth(&mut self, node: &Node) -> Option<bool> {
        self.untagged(node)?;
        match node.as_scalar().map(|scalar| (scalar.plain(), scalar.text())) {
            Some((Plain::Bool(truth), _)) => Some(truth),
            Some((_, "yes" | "no" | "on" | "off" | "Yes" | "No" | "On" | "Off")) => {
                let problem = Problem::new("wrong_type", node.span(), "true or false is wanted here")
                    .hint("in YAML 1.2 yes, no, on and off are text");
                self.wrong(problem);
                None
            }
            _ => {
                self.wrong_type(node, "true or false");
                None
            }
        }
    }

    /// Text that a type understands; its error is the message.
    pub fn parsed<T>(&mut self, node: &Node, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(node)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(said) => {
                self.wrong(Problem::new("invalid", node.span(), said));
                None
            }
        }
    }

    /// Tags mean something in data only.
    fn untagged(&mut self, node: &Node) -> Option<()> {
        let Some((tag, span)) = node.tag_span() else { return Some(()) };
        let problem = Problem::new("unexpected_tag", span, format!("the tag {} has no meaning here", tag.as_str()));
        self.wrong(problem);
        None
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::Source;
    use crate::yaml::parse;

    #[test]
    fn mistakes_are_collected_with_their_paths_and_the_right_values_kept() {
        let root =
            parse(&Source::new("t.yml", "nmae: web\nlist: [a, 7, true, !secret x]\nflag: yes\nmap: [1]\n")).unwrap();
        let mut problems = Problems::default();
        let mut reader = Reader::new(&mut problems);
        let map = reader.fields(&root, &["name", "list", "flag", "map"]).unwrap();
        let kept: Vec<_> = reader.under("list", |reader| {
            let list = reader.list(map.get("list").unwrap()).unwrap();
            list.iter().enumerate().filter_map(|(at, node)| reader.item(at, |reader| reader.text(node))).collect()
        });
        assert_eq!(kept, ["a"]);
        reader.under("flag", |reader| assert_eq!(reader.truth(map.get("flag").unwrap()), None));
        reader.under("map", |reader| assert!(reader.map(map.get("map").unwrap()).is_none()));
        insta::assert_snapshot!(problems.to_string(), @r#"
        t.yml:1:1: there is no key nmae here; did you mean name?
        t.yml:2:11: list[1]: text is wanted here, not a number; write "7"
        t.yml:2:14: list[2]: text is wanted here, not true or false; write "true"
        t.yml:2:20: list[3]: the tag !secret has no meaning here
        t.yml:3:7: flag: true or false is wanted here; in YAML 1.2 yes, no, on and off are text
        t.yml:4:6: map: a map is wanted here, not a list
        "#);
    }
}
