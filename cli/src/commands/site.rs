//! `site check|show|push|revisions|approve|reject`: the folder that says who belongs to which group and who may do what.
//!
//! A folder is read and checked here with the code that the manager uses, so that a mistake is told before anything is
//! sent, with the line it stands in.

use std::path::Path;

use api::base64;
use api::client::Client;
use api::page::MAX_LIMIT;
use api::site::{RevisionStatus, SitePush, SitePushed, SiteRevision, SiteRevisionFiles, SiteStatus};
use api::time::Time;
use site::{Problems, Site, folder};

use super::site_problems::{self, Checked};
use crate::args::{Format, SitePushArgs, SiteVerb};
use crate::error::{Failure, Kind};
use crate::output::{Align, Printer, Table, ago, card, columns, note, now};

/// The code of a push that was made from another revision than the one in force.
const OTHER_BASE: &str = "site_changed";
/// Paths that are shown before the rest is only counted: a line or two.
const SHOWN: usize = 20;

/// `site check`: needs no manager.
pub(super) fn check(printer: Printer, path: &Path) -> Result<u8, Failure> {
    match load(path)? {
        Ok(site) => {
            let checked = Checked::good(&site);
            printer.document(&checked, |checked| format!("{}, nothing is wrong\n", files(checked.files)))?;
            Ok(0)
        }
        Err(problems) => site_problems::print(printer, &problems),
    }
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// The other verbs.
pub(super) async fn run(client: &Client, printer: Printer, verb: &SiteVerb) -> Result<u8, Failure> {
    match verb {
        SiteVerb::Check(args) => return check(printer, &args.folder),
        SiteVerb::Push(args) => return push(client, printer, args).await,
        SiteVerb::Show(args) => match args.number {
            Some(number) => {
                let shown = client.site_revision(number).await?;
                printer.document(&shown, |shown| revision_text(shown, now()))?;
            }
            None => printer.document(&client.site().await?, |site| status_text(site, now()))?,
        },
        SiteVerb::Revisions(args) => revisions(client, printer, args.limit as usize).await?,
        SiteVerb::Approve(args) => {
            let revision = client.approve_site(args.number).await?;
            printer.document(&revision, |_| String::new())?;
            note(&format!("revision {} is in force", revision.number));
        }
        SiteVerb::Reject(args) => {
            let revision = client.reject_site(args.number).await?;
            printer.document(&revision, |_| String::new())?;
            note(&format!("revision {} was rejected; it never comes into force", revision.number));
        }
    }
    Ok(0)
}

/// Reads a folder as a site. That it is no folder is a mistake of the command line, not of the site.
fn load(path: &Path) -> Result<Result<Site, Problems>, Failure> {
    let is_folder = std::fs::metadata(path)
        .map_err(|error| Failure::new(Kind::Usage, format!("{} cannot be read", path.display())).because(error))?
        .is_dir();
    if !is_folder {
        return Err(Failure::new(Kind::Usage, format!("{} is no folder", path.display()))
            .hint("a site is a folder with agents.yml, groups.yml and roles.yml"));
    }
    Ok(folder::read(path).and_then(Site::load))
}

async fn push(client: &Client, printer: Printer, args: &SitePushArgs) -> Result<u8, Failure> {
    let site = match load(&args.folder)? {
        Ok(site) => site,
        Err(problems) => return site_problems::print(printer, &problems),
    };
    let base = match args.base {
        Some(base) => base,
        // Whoever pushes between this look and our push is not overwritten unseen. Before the first one it is 0.
        None => client.site().await?.live.map_or(0, |live| live.number),
    };
    let files = site.tree().iter().map(|(path, content)| (path.to_string(), base64::encode(content))).collect();
    let pushed =
        client.push_site(&SitePush { base: Some(base), files, check_only: args.check }).await.map_err(|error| {
            let is_other_base = error.problem().is_some_and(|problem| problem.code == OTHER_BASE);
            let failure = Failure::from(error);
            if is_other_base {
                failure.hint("somebody changed the site meanwhile: look at paprika site show, and push again")
            } else {
                failure
            }
        })?;
    printer.document(&pushed, |pushed| {
        pushed.revision.as_ref().map_or_else(String::new, |it| format!("{}\n", it.number))
    })?;
    if printer.format == Format::Table {
        note(&outcome(&pushed, base, args.check));
    }
    Ok(0)
}

/// What a push came to, in a sentence.
fn outcome(pushed: &SitePushed, base: u64, is_check: bool) -> String {
    let changed = paths(&pushed.changed);
    match &pushed.revision {
        None if pushed.changed.is_empty() => format!("nothing differs from revision {base}, which stays in force"),
        Some(revision) if revision.status == RevisionStatus::Held => format!(
            "revision {} waits for approval, because it changes what grants rights: {changed}; paprika site approve {}",
            revision.number, revision.number
        ),
        Some(revision) if pushed.changed.is_empty() => format!("revision {} is in force", revision.number),
        Some(revision) => format!("revision {} is in force: {changed}", revision.number),
        None if is_check => format!("would change {changed}"),
        None => format!("changed {changed}"),
    }
}

fn paths(changed: &[String]) -> String {
    let shown = changed.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = changed.len().saturating_sub(SHOWN);
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

async fn revisions(client: &Client, printer: Printer, wanted: usize) -> Result<(), Failure> {
    let mut found: Vec<SiteRevision> = Vec::new();
    let mut after: Option<String> = None;
    while found.len() < wanted {
        let missing = u32::try_from(wanted - found.len()).unwrap_or(MAX_LIMIT);
        let page = client.site_revisions(after.as_deref(), Some(missing.min(MAX_LIMIT))).await?;
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    found.truncate(wanted);
    printer.document(&found, |found| table(found, now()).lay_out(columns()))
}

fn table(revisions: &[SiteRevision], now: Time) -> Table<6> {
    let mut table = Table::new([
        ("NUMBER", Align::Right),
        ("STATUS", Align::Left),
        ("TAKEN IN", Align::Left),
        ("FROM", Align::Left),
        ("FILES", Align::Right),
        ("NOTE", Align::Left),
    ]);
    // The newest that came into force is; those before it were.
    let in_force = revisions.iter().filter(|it| it.status == RevisionStatus::Live).map(|it| it.number).max();
    for revision in revisions {
        let status = match revision.status {
            RevisionStatus::Live if in_force == Some(revision.number) => "in force",
            RevisionStatus::Live => "was in force",
            other => other.as_str(),
        };
        table.row([
            revision.number.to_string(),
            status.to_owned(),
            ago(revision.at, now),
            format!("{} by {}", revision.source, revision.actor),
            revision.files.to_string(),
            revision.note.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn status_text(site: &SiteStatus, now: Time) -> String {
    let one = |revision: &SiteRevision| {
        format!(
            "{} ({} by {}, {}, {} files)",
            revision.number,
            revision.source,
            revision.actor,
            ago(revision.at, now),
            revision.files
        )
    };
    let mut lines: Vec<(&str, String)> = vec![
        ("in force", site.live.as_ref().map_or_else(|| "none yet".to_owned(), one)),
        ("folder", site.folder.clone().unwrap_or_else(|| "none: the site is pushed".to_owned())),
    ];
    lines.extend(site.live.iter().map(|live| ("hash", live.hash.clone())));
    lines.extend(site.held.iter().map(|held| ("held", one(held))));
    lines.extend(site.problems.iter().map(|problem| ("problem", problem.to_string())));
    card(&lines)
}

fn revision_text(shown: &SiteRevisionFiles, now: Time) -> String {
    let revision = &shown.revision;
    let mut lines: Vec<(&str, String)> = vec![
        ("number", revision.number.to_string()),
        ("status", revision.status.as_str().to_owned()),
        ("taken in", format!("{} ({})", revision.at, ago(revision.at, now))),
        ("from", format!("{} by {}", revision.source, revision.actor)),
        ("hash", revision.hash.clone()),
    ];
    lines.extend(revision.note.iter().map(|text| ("note", text.clone())));
    lines.extend(shown.changed.iter().map(|path| ("differs", path.clone())));
    lines.extend(shown.files.iter().map(|(path, hash)| ("file", format!("{path}  {hash}"))));
    card(&lines)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    fn revision(number: u64, status: RevisionStatus) -> SiteRevision {
        SiteRevision {
            number,
            at: Time(0),
            actor: "alice".into(),
            source: "push".into(),
            hash: "ab".into(),
            status,
            note: None,
            files: 3,
        }
    }

    #[test]
    fn revisions_for_people() {
        let held = SiteRevision { note: Some("changes\u{1b} roles.yml".into()), ..revision(9, RevisionStatus::Held) };
        let all = [
            held,
            revision(8, RevisionStatus::Live),
            revision(7, RevisionStatus::Rejected),
            revision(6, RevisionStatus::Live),
        ];
        insta::assert_snapshot!(table(&all, Time(60_000)).lay_out(None), @r"
        NUMBER  STATUS        TAKEN IN  FROM           FILES  NOTE
             9  held          60s ago   push by alice      3  changes\u{1b} roles.yml
             8  in force      60s ago   push by alice      3
             7  rejected      60s ago   push by alice      3
             6  was in force  60s ago   push by alice      3
        ");
    }

    #[test]
    fn a_site_for_people() {
        let problem = serde_json::from_str(
            r#"{"code":"x","text":"there is no group wbe","file":"roles.yml","line":3,"column":7,"hint":"did you mean web?"}"#,
        );
        let mut site = SiteStatus {
            folder: Some("/etc/paprika/site".into()),
            live: Some(revision(8, RevisionStatus::Live)),
            held: vec![revision(9, RevisionStatus::Held)],
            problems: vec![problem.unwrap()],
        };
        insta::assert_snapshot!(status_text(&site, Time(60_000)), @r"
        in force  8 (push by alice, 60s ago, 3 files)
        folder    /etc/paprika/site
        hash      ab
        held      9 (push by alice, 60s ago, 3 files)
        problem   roles.yml:3:7: there is no group wbe; did you mean web?
        ");
        site = SiteStatus { folder: None, live: None, held: vec![], problems: vec![] };
        assert_eq!(status_text(&site, Time(0)), "in force  none yet\nfolder    none: the site is pushed\n");
    }

    #[test]
    fn a_push_says_what_it_came_to() {
        let pushed = |status: Option<RevisionStatus>, changed: &[&str]| SitePushed {
            revision: status.map(|status| revision(9, status)),
            changed: changed.iter().map(|path| (*path).to_owned()).collect(),
        };
        let live = outcome(&pushed(Some(RevisionStatus::Live), &["a.md", "roles.yml"]), 8, false);
        assert_eq!(live, "revision 9 is in force: a.md, roles.yml");
        let held = outcome(&pushed(Some(RevisionStatus::Held), &["roles.yml"]), 8, false);
        assert!(held.ends_with("roles.yml; paprika site approve 9"), "{held}");
        assert!(outcome(&pushed(None, &[]), 8, false).contains("revision 8, which stays in force"));
        assert_eq!(outcome(&pushed(None, &["a.md"]), 8, true), "would change a.md");
        let many: Vec<String> = (0..25).map(|number| format!("f{number}")).collect();
        assert!(paths(&many).ends_with("f19 and 5 more"));
    }

    #[test]
    fn what_is_no_folder_is_a_usage_error_and_a_broken_one_is_a_failed_check() {
        let printer = Printer { format: Format::Json };
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(check(printer, &at("none")).unwrap_err().kind(), Kind::Usage);
        fs::write(at("file"), "x").unwrap();
        assert!(check(printer, &at("file")).unwrap_err().lines().contains("is no folder"));
        fs::create_dir(at("site")).unwrap();
        assert_eq!(check(printer, &at("site")).unwrap(), 0, "an empty site is one");
        fs::write(at("site/groups.yml"), "web1: [web\n").unwrap();
        assert_eq!(check(printer, &at("site")).unwrap(), 1);
    }
}
