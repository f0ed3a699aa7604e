//! The site as JSON: which revision is in force, what waits for approval, what is wrong, and how a folder is pushed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// What became of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum RevisionStatus {
    /// It is, or was, in force; the newest of these is.
    Live,
    /// It changes what grants rights, and waits for somebody who may approve that.
    Held,
    /// It was rejected and never came into force.
    Rejected,
}

impl RevisionStatus {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Held => "held",
            Self::Rejected => "rejected",
        }
    }
}

/// One revision of the site, without its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteRevision {
    /// Its number; numbers only grow.
    pub number: u64,
    /// When it was taken in.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Time,
    /// Who pushed it; of a watched folder: the manager.
    pub actor: String,
    /// Where it came from: `push` or `folder`.
    #[cfg_attr(feature = "openapi", schema(example = "push"))]
    pub source: String,
    /// The hash of all its files, hexadecimal.
    pub hash: String,
    /// What became of it.
    pub status: RevisionStatus,
    /// More about it, for example who approved it.
    #[serde(default)]
    pub note: Option<String>,
    /// How many files it has.
    pub files: u64,
}

/// One revision with its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteRevisionFiles {
    /// All but the files.
    pub revision: SiteRevision,
    /// The BLAKE3 hash of each file by its path, hexadecimal.
    pub files: BTreeMap<String, String>,
    /// The paths that differ from the revision in force.
    #[serde(default)]
    pub changed: Vec<String>,
}

/// How the site is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteStatus {
    /// The watched folder; absent when the site is only pushed.
    pub folder: Option<String>,
    /// The revision in force; absent before the first.
    pub live: Option<SiteRevision>,
    /// Revisions that wait for approval, the newest first.
    #[serde(default)]
    pub held: Vec<SiteRevision>,
    /// What is wrong with the watched folder, so that an older revision stays in force.
    #[serde(default)]
    pub problems: Vec<SiteProblem>,
}

/// One mistake in a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteProblem {
    /// Stable, for programs.
    #[cfg_attr(feature = "openapi", schema(example = "unknown_key"))]
    pub code: String,
    /// One sentence about it, without the place.
    pub text: String,
    /// The file, relative to the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "groups.yml"))]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The column, from 1, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// The path of the value, for example `web1[2]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// One line, as compilers and editors know it: `file:line:column: path: text; hint`.
impl std::fmt::Display for SiteProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:{}:{}: ", self.line.unwrap_or(1), self.column.unwrap_or(1))?;
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

/// A whole site to take into force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SitePush {
    /// The number of the revision it was made from, 0 for none; the push is refused with 409 when another one is in force.
    /// When absent, whatever is in force is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// All files: base64 of the content by path. A file that is not here is gone afterwards.
    #[cfg_attr(feature = "openapi", schema(example = json!({"groups.yml": "d2ViMTogW3dlYl0K"})))]
    pub files: BTreeMap<String, String>,
    /// Only say what would happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check_only: bool,
}

/// What a push did, or would do. What is wrong with the files is told by a problem body with `problems` instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SitePushed {
    /// The new revision; absent when nothing was to be changed or it was only checked.
    pub revision: Option<SiteRevision>,
    /// The paths that differ from the revision that was in force.
    pub changed: Vec<String>,
}

/// The content of one file of the revision in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteFile {
    /// Its path.
    pub path: String,
    /// The revision it was read from.
    pub revision: u64,
    /// Its content, base64.
    pub b64: String,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_push_refuses_what_it_does_not_know_and_writes_only_what_was_asked_for() {
        let push: SitePush = serde_json::from_str(r#"{"files":{"a.md":""}}"#).unwrap();
        assert_eq!((push.base, push.check_only), (None, false));
        assert_eq!(serde_json::to_string(&push).unwrap(), r#"{"files":{"a.md":""}}"#);
        assert!(serde_json::from_str::<SitePush>(r#"{"files":{},"chek_only":true}"#).is_err());
        assert!(serde_json::from_str::<SitePush>("{}").is_err(), "a push without files would empty the site");
    }

    #[test]
    fn a_problem_is_one_line_with_its_place() {
        let text = r#"{"code":"x","text":"there is no group wbe","file":"roles.yml","line":3,"column":7,"hint":"did you mean web?"}"#;
        let mut problem: SiteProblem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.to_string(), "roles.yml:3:7: there is no group wbe; did you mean web?");
        assert_eq!(serde_json::to_string(&problem).unwrap(), text);
        problem.file = None;
        problem.path = "roles.a".into();
        assert_eq!(problem.to_string(), "roles.a: there is no group wbe; did you mean web?");
    }
}
