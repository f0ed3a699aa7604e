//! What is wrong with a site: as a compiler says it for people, as a list for programs.

use api::site::SiteProblem;
use serde::Serialize;
use site::{Problem, Problems, Site};

use crate::error::Failure;
use crate::output::Printer;

/// What a check found.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    /// How many files the site has; absent when it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<String>,
    /// How many files were looked at; 0 when something is wrong.
    pub(super) files: usize,
    /// What is wrong; empty is good.
    pub(super) problems: Vec<SiteProblem>,
    /// How many more mistakes there are.
    pub(super) more: usize,
}

impl Checked {
    /// Nothing is wrong.
    pub(super) fn good(site: &Site) -> Self {
        Self { hash: Some(site.hash().to_string()), files: site.tree().len(), problems: Vec::new(), more: 0 }
    }

    fn bad(problems: &Problems) -> Self {
        let list = problems.list().iter().map(shown).collect();
        Self { hash: None, files: 0, problems: list, more: problems.more() }
    }
}

/// Prints every mistake; the code says that there are some.
pub(super) fn print(printer: Printer, problems: &Problems) -> Result<u8, Failure> {
    printer
        .document(&Checked::bad(problems), |_| format!("{}\n{}\n", problems.render().trim_end(), count(problems)))?;
    Ok(1)
}

fn count(problems: &Problems) -> String {
    match problems.list().len() + problems.more() {
        1 => "1 mistake".to_owned(),
        count => format!("{count} mistakes"),
    }
}

/// One mistake as the API writes it.
fn shown(problem: &Problem) -> SiteProblem {
    let place = problem.place();
    let number = |number: usize| u64::try_from(number).ok();
    SiteProblem {
        code: problem.code.to_owned(),
        text: problem.text.clone(),
        line: place.as_ref().and_then(|place| number(place.line)),
        column: place.as_ref().and_then(|place| number(place.column)),
        file: place.map(|place| place.file),
        path: problem.path.clone(),
        hint: problem.hint.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use site::tree::{SitePath, Tree};

    use super::*;

    fn broken() -> Problems {
        let mut tree = Tree::default();
        let mut put = |path: &str, text: &str| {
            tree.insert(SitePath::parse(path).unwrap(), text.as_bytes().to_vec()).unwrap();
        };
        put("groups.yml", "web1: [web]\nweb1: [db]\n");
        put("roles.yml", "roles: {a: [{may: comand.run}]}\n");
        Site::load(tree).unwrap_err()
    }

    #[test]
    fn mistakes_are_told_as_a_compiler_does() {
        let problems = broken();
        insta::assert_snapshot!(problems.render(), @r"
        error[duplicate_key]: the key web1 stands twice in this map
         --> groups.yml:2:1
          |
        2 | web1: [db]
          | ^^^^
         --> groups.yml:1:1
          |
        1 | web1: [web]
          | ^^^^ it stands here first

        error[invalid]: there is no permission comand.run; did you mean command.run?
         --> roles.yml:1:19 in roles.a[0].may
          |
        1 | roles: {a: [{may: comand.run}]}
          |                   ^^^^^^^^^^
        ");
        assert_eq!(count(&problems), "2 mistakes");
    }

    #[test]
    fn programs_get_each_mistake_with_its_place() {
        let checked = serde_json::to_value(Checked::bad(&broken())).unwrap();
        assert_eq!(checked["problems"][0]["file"], "groups.yml");
        assert_eq!((&checked["problems"][0]["line"], &checked["problems"][1]["column"]), (&2.into(), &19.into()));
        assert_eq!(checked["problems"][1]["path"], "roles.a[0].may");
        let good = serde_json::to_value(Checked::good(&Site::empty())).unwrap();
        assert_eq!((&good["files"], &good["problems"]), (&0.into(), &serde_json::json!([])));
    }
}
