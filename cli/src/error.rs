//! Why a verb failed, what to do about it, and the exit code that says so to a script.

use std::error::Error;
use std::io::{self, Write as _};

use api::client::ClientError;
use api::problem::Problem;
use common::error::Chain;
use common::escape;
use serde_json::{Value, json};

use crate::args::{Format, Needs};

/// The kinds of failure that scripts can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The work was done and failed, or the manager could not do it.
    Work,
    /// The request makes no sense as it was written.
    Usage,
    /// The caller may not do that.
    Denied,
    /// There is no such thing.
    NotFound,
    /// No manager answered.
    Unreachable,
}

impl Kind {
    /// The exit code of a verb that failed this way.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Work => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::NotFound => 4,
            Self::Unreachable => 5,
        }
    }

    /// The stable code in a problem body that no manager wrote.
    fn code(self) -> &'static str {
        match self {
            Self::Work => "failed",
            Self::Usage => "usage",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
        }
    }

    /// The kind in words, the same for every failure of the kind.
    fn title(self) -> &'static str {
        match self {
            Self::Work => "it was not done",
            Self::Usage => "the request makes no sense as it was written",
            Self::Denied => "not allowed",
            Self::NotFound => "not found",
            Self::Unreachable => "no manager answered",
        }
    }

    /// Sorts the status of an answer of the manager.
    fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            400 | 405 | 413 | 415 | 422 => Self::Usage,
            _ => Self::Work,
        }
    }
}

/// A verb could not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    kind: Kind,
    text: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
    /// What the manager said, word for word.
    problem: Option<Box<Problem>>,
    /// What would have been allowed with these, where the manager did not allow it.
    needs: Option<Needs>,
    is_closed_pipe: bool,
}

impl Failure {
    /// Makes one from its kind and a text that fits behind "paprika:".
    #[must_use]
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), hint: None, source: None, problem: None, needs: None, is_closed_pipe: false }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what the verb needs; told only where the manager knew the caller and did not let it.
    #[must_use]
    pub fn needing(mut self, needs: Needs) -> Self {
        let is_refused = self.problem.as_ref().is_some_and(|problem| problem.status == 403);
        self.needs = (is_refused && !needs.permissions().is_empty()).then_some(needs);
        self
    }

    /// Says what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// stdout took nothing more.
    #[must_use]
    pub fn stdout(error: io::Error) -> Self {
        let is_closed_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Self { is_closed_pipe, ..Self::new(Kind::Work, "the output cannot be written").because(error) }
    }

    /// A result could not be turned into the format that was asked for.
    #[must_use]
    pub fn unprintable(error: impl Error + Send + Sync + 'static) -> Self {
        Self::new(Kind::Work, "the result cannot be printed in this format").because(error)
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Tells whether the reader of our output went away, as `head` does: nothing worth a message.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        self.is_closed_pipe
    }

    /// Prints it on stderr in the form in which results were asked for.
    pub fn tell(&self, format: Format) {
        let text = match format {
            Format::Table => self.lines(),
            Format::Json => format!("{}\n", self.document()),
            // The document is text, numbers and truth values: no YAML writer refuses those.
            Format::Yaml => {
                serde_yaml::to_string(&self.document()).map_or_else(|_| self.lines(), |text| format!("---\n{text}"))
            }
        };
        // Nobody is left to tell when stderr is gone too.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// The problem body for programs: the manager's own, or one of the same shape without an HTTP status.
    #[must_use]
    pub fn document(&self) -> Value {
        let written = self.problem.as_deref().and_then(|problem| serde_json::to_value(problem).ok());
        let mut document = written.unwrap_or_else(|| {
            let code = self.kind.code();
            json!({
                "type": format!("urn:paprika:problem:{code}"),
                "title": self.kind.title(),
                "detail": Chain(self).to_string(),
                "code": code,
                "retryable": self.kind == Kind::Unreachable,
            })
        });
        if let (Some(object), Some(hint)) = (document.as_object_mut(), &self.hint) {
            object.entry("hint").or_insert_with(|| json!(hint));
        }
        if let (Some(object), Some(needs)) = (document.as_object_mut(), self.needs) {
            let words: Vec<&str> = needs.permissions().iter().map(|permission| permission.as_str()).collect();
            object.insert("needs".to_owned(), json!(words));
        }
        document
    }

    /// The lines for stderr: what, why, and what to do.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut lines = format!("paprika: {}\n", escape::text(Chain(self).to_string()));
        for problem in self.problem.iter().flat_map(|problem| &problem.problems) {
            lines.push_str(&format!("  {}\n", escape::text(problem.to_string())));
        }
        if let Some(hint) = &self.hint {
            lines.push_str(&format!("hint: {}\n", escape::text(hint)));
        }
        if let Some(needs) = self.needs {
            lines.push_str(&format!("hint: this verb needs {needs}; paprika whoami shows what you may\n"));
        }
        lines
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let text = Chain(&error).to_string();
        if let Some(problem) = error.problem() {
            let failure = Self::new(Kind::of_status(problem.status), text);
            let hint = match (&problem.hint, problem.status) {
                (Some(hint), _) => Some(hint.clone()),
                (None, 401) => Some("the token is missing, wrong, expired or revoked: see PAPRIKA_TOKEN".to_owned()),
                (None, _) if problem.retryable => Some("the same may succeed a little later".to_owned()),
                (None, _) => None,
            };
            return Self { hint, problem: Some(Box::new(problem.clone())), ..failure };
        }
        if !error.is_unreachable() {
            return Self::new(Kind::Work, text);
        }
        let failure = Self::new(Kind::Unreachable, text);
        match cause_of(&error) {
            Some(io::ErrorKind::PermissionDenied) => failure
                .hint("the socket is for root and the manager's own user; others need PAPRIKA_API and PAPRIKA_TOKEN"),
            Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                failure.hint("is the manager running? Which one is meant is said by PAPRIKA_API or --context")
            }
            _ => failure,
        }
    }
}

/// The kind of the first I/O error in a chain of causes.
fn cause_of(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use site::permission::Permission;

    use super::*;

    fn problem(status: u16) -> ClientError {
        ClientError::Problem(Box::new(Problem::new(status, "x", "title").detail("detail")))
    }

    #[test]
    fn every_answer_of_the_manager_has_its_exit_code() {
        for (status, code) in [
            (400, 2),
            (401, 3),
            (403, 3),
            (404, 4),
            (405, 2),
            (409, 1),
            (413, 2),
            (415, 2),
            (422, 2),
            (429, 1),
            (500, 1),
            (503, 1),
        ] {
            assert_eq!(Failure::from(problem(status)).kind().exit_code(), code, "{status}");
        }
    }

    #[test]
    fn a_manager_that_is_not_there_is_code_five_with_a_hint() {
        let failure = Failure::from(ClientError::Unreachable {
            address: "unix:/x".into(),
            source: Box::new(io::Error::from(io::ErrorKind::NotFound)),
        });
        assert_eq!(failure.kind().exit_code(), 5);
        assert!(failure.lines().contains("hint: is the manager running?"), "{}", failure.lines());
        let failure = Failure::from(ClientError::Unreachable {
            address: "unix:/x".into(),
            source: Box::new(io::Error::from(io::ErrorKind::PermissionDenied)),
        });
        assert!(failure.lines().contains("hint: the socket is for root"), "{}", failure.lines());
    }

    #[test]
    fn programs_get_the_managers_problem_word_for_word() {
        let problem =
            Problem::new(404, "not_found", "not found").detail("there is no agent \"web\"").field("agents[0]");
        let failure = Failure::from(ClientError::Problem(Box::new(problem.clone())));
        assert_eq!(serde_json::from_value::<Problem>(failure.document()).ok(), Some(problem));
        let failure = Failure::from(ClientError::Problem(Box::new(Problem::new(401, "unauthorized", "who are you?"))));
        let document = failure.document();
        assert!(document["hint"].as_str().is_some_and(|hint| hint.contains("PAPRIKA_TOKEN")), "{document}");
    }

    #[test]
    fn failures_of_our_own_have_the_same_shape_without_a_status() {
        let failure = Failure::new(Kind::Usage, "--env K is given twice").hint("leave one out");
        assert_eq!(
            failure.document(),
            json!({
                "type": "urn:paprika:problem:usage", "title": "the request makes no sense as it was written",
                "detail": "--env K is given twice", "code": "usage", "hint": "leave one out", "retryable": false
            })
        );
        for kind in [Kind::Work, Kind::Usage, Kind::Denied, Kind::NotFound, Kind::Unreachable] {
            let document = Failure::new(kind, "x").document();
            assert_eq!((document["code"].as_str(), document.get("status")), (Some(kind.code()), None));
        }
    }

    #[test]
    fn who_may_not_is_told_what_the_verb_needs() {
        let needs = Needs::These(&[Permission::CommandRun, Permission::OutputRead]);
        let failure = Failure::from(problem(403)).needing(needs);
        assert!(
            failure
                .lines()
                .ends_with("hint: this verb needs command.run, output.read; paprika whoami shows what you may\n")
        );
        assert_eq!(failure.document()["needs"], json!(["command.run", "output.read"]));
        for (status, needs) in [(401, needs), (404, needs), (403, Needs::AnyCredential)] {
            assert!(!Failure::from(problem(status)).needing(needs).lines().contains("needs"), "{status}");
        }
        assert!(!Failure::new(Kind::Denied, "x").needing(needs).lines().contains("needs"));
    }

    #[test]
    fn every_mistake_in_a_site_is_a_line_of_its_own() {
        let mistake = r#"{"code":"x","text":"bad\u001b","file":"groups.yml","line":2,"column":1}"#;
        let mistakes = vec![serde_json::from_str(mistake).unwrap(), serde_json::from_str(mistake).unwrap()];
        let refused = Problem::new(422, "site", "t").detail("the site has 2 mistakes").problems(mistakes);
        let lines = Failure::from(ClientError::Problem(Box::new(refused))).lines();
        assert_eq!(lines.matches("\n  groups.yml:2:1: bad\\u{1b}\n").count(), 1);
        assert_eq!(lines.lines().count(), 3, "{lines}");
    }

    #[test]
    fn the_managers_text_cannot_command_the_terminal() {
        let bad = Problem::new(404, "x", "t").detail("no \x1b[31m agent\n").hint("try\x07");
        let lines = Failure::from(ClientError::Problem(Box::new(bad))).lines();
        assert_eq!(lines, "paprika: no \\u{1b}[31m agent\\n\nhint: try\\u{7}\n");
    }
}
