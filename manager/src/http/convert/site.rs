//! The site: revisions, problems, pushes.

use std::collections::BTreeMap;
use std::fmt::Write;

use api::base64;
use api::site::{
    RevisionStatus, SiteProblem, SitePush, SitePushed, SiteRevision, SiteRevisionFiles, SiteStatus as Status,
};
use api::time::Time;
use site::Problems;
use store::types;

use crate::http::problem::Refusal;
use crate::service::site::{Push, Pushed, RevisionView, SiteView};

/// Shows how the site is.
pub(in crate::http) fn view(view: SiteView) -> Status {
    Status {
        folder: view.folder,
        live: view.live.map(revision),
        held: view.held.into_iter().map(revision).collect(),
        problems: problems(&view.problems),
    }
}

/// Shows a revision.
pub(in crate::http) fn revision(row: types::SiteRevision) -> SiteRevision {
    let status = match row.status {
        types::SiteStatus::Live => RevisionStatus::Live,
        types::SiteStatus::Held => RevisionStatus::Held,
        types::SiteStatus::Rejected => RevisionStatus::Rejected,
    };
    SiteRevision {
        number: row.number,
        at: Time(row.at),
        actor: row.actor.0,
        source: row.source,
        hash: hex(&row.hash),
        status,
        note: row.note,
        files: row.files,
    }
}

/// Shows a revision with its files.
pub(in crate::http) fn files(view: RevisionView) -> SiteRevisionFiles {
    let files: BTreeMap<_, _> = view.files.into_iter().map(|file| (file.path, hex(&file.hash))).collect();
    SiteRevisionFiles { revision: revision(view.revision), files, changed: view.changed }
}

/// Reads a push.
pub(in crate::http) fn push(push: SitePush) -> Result<Push, Refusal> {
    let mut files = BTreeMap::new();
    for (path, text) in push.files {
        let wrong =
            |error: base64::NotBase64| Refusal::invalid("files", format!("{}: {error}", common::escape::text(&path)));
        let content = base64::decode(&text).map_err(wrong)?;
        files.insert(path, content);
    }
    Ok(Push { base: push.base, files, check_only: push.check_only })
}

/// Shows what a push did.
pub(in crate::http) fn pushed(pushed: Pushed) -> SitePushed {
    SitePushed { revision: pushed.revision.map(revision), changed: pushed.changed }
}

/// Shows everything that is wrong.
pub(in crate::http) fn problems(problems: &Problems) -> Vec<SiteProblem> {
    let shown = problems.list().iter().map(|problem| {
        let place = problem.place();
        SiteProblem {
            code: problem.code.to_owned(),
            text: problem.text.clone(),
            line: place.as_ref().map(|place| place.line as u64),
            column: place.as_ref().map(|place| place.column as u64),
            file: place.map(|place| place.file),
            path: problem.path.clone(),
            hint: problem.hint.clone(),
        }
    });
    let more = (problems.more() > 0).then(|| SiteProblem {
        code: "more".to_owned(),
        text: format!("and {} more", problems.more()),
        file: None,
        line: None,
        column: None,
        path: String::new(),
        hint: None,
    });
    shown.chain(more).collect()
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
