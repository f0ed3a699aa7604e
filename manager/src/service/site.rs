//! The site: where revisions come from, which one is in force, and who may change what grants rights.
//!
//! ```text
//! push ───────► read, checked ─► no trusted file differs, or the caller may ─────────────► in force
//! folder ─────► read, checked ─► no trusted file differs, or only we can write there ────► in force
//!                     │                     └────────── else ─► held ─► approved ────────► in force
//!                     └─ broken: the last good one stays          └──► rejected
//! ```
//! What comes into force is in the store before anybody is judged by it. Whoever changes the site holds one lock, so that what
//! differs is always told against what is in force.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use common::error::Chain;
use site::permission::Permission;
use site::site::{changed, is_trusted};
use site::tree::{SitePath, Tree};
use site::{Problem, Problems, Site};
use store::types::{Actor, NewRevision, SiteFile, SiteRevision, SiteStatus};

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use super::rights::{About, Rights};
use crate::limits::{REVISIONS_LISTED, TRUSTED_NAMED};

/// Where a revision came from, as its row says.
pub const PUSH: &str = "push";
/// The same for a watched folder.
pub const FOLDER: &str = "folder";

/// How the site is.
#[derive(Debug, Clone)]
pub struct SiteView {
    /// The folder that is watched.
    pub folder: Option<String>,
    /// The revision in force.
    pub live: Option<SiteRevision>,
    /// What waits for approval, newest first.
    pub held: Vec<SiteRevision>,
    /// What is wrong with the folder, or with what the store says is in force.
    pub problems: Problems,
}

/// A revision with its files.
#[derive(Debug, Clone)]
pub struct RevisionView {
    /// The revision.
    pub revision: SiteRevision,
    /// Its files.
    pub files: Vec<SiteFile>,
    /// The paths that differ from what is in force.
    pub changed: Vec<String>,
}

/// A whole site that a caller wants in force.
#[derive(Debug, Clone, Default)]
pub struct Push {
    /// The revision it was made from, 0 for none; `None`: whatever is in force is replaced.
    pub base: Option<u64>,
    /// All files.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Only tell what would happen.
    pub check_only: bool,
}

/// What a push did, or would do.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// What is in force by it; `None` when nothing differs or it was only checked.
    pub revision: Option<SiteRevision>,
    /// The paths that differ from what was in force.
    pub changed: Vec<String>,
}

/// What the folder last came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It is what is in force, or was looked at before.
    Same,
    /// It is in force now.
    Live(u64),
    /// It waits for approval.
    Held(u64),
    /// It is broken; what was in force stays.
    Broken,
}

/// What is known of the source besides what the store knows.
#[derive(Debug, Default)]
pub(super) struct SiteSource {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    folder: Option<String>,
    /// Of the folder.
    problems: Problems,
    /// Of what the store says is in force.
    stored: Problems,
}

impl SiteSource {
    fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looking.
impl Service {
    /// Shows how the site is.
    ///
    /// # Errors
    /// When the caller may not, or the store cannot be read.
    pub async fn site_view(&self, caller: &Caller) -> Result<SiteView, ServiceError> {
        self.must(caller, Permission::SiteRead, "site.read", "site").await?;
        let live = self.store().revision_live().await?;
        let newest = live.as_ref().map_or(0, |live| live.number);
        let held = self.store().revisions(REVISIONS_LISTED).await?.into_iter();
        // What was held before something newer came into force cannot be approved any more.
        let held = held.filter(|row| row.status == SiteStatus::Held && row.number > newest).collect();
        let (folder, problems) = self.site_source().with(|kept| {
            let mut problems = kept.stored.clone();
            problems.extend(kept.problems.clone());
            (kept.folder.clone(), problems)
        });
        Ok(SiteView { folder, live, held, problems })
    }

    /// Lists revisions, newest first.
    ///
    /// # Errors
    /// When the caller may not, or the store cannot be read.
    pub async fn site_revisions(&self, caller: &Caller) -> Result<Vec<SiteRevision>, ServiceError> {
        self.must(caller, Permission::SiteRead, "site.read", "site").await?;
        Ok(self.store().revisions(REVISIONS_LISTED).await?)
    }

    /// Shows one revision with its files.
    ///
    /// # Errors
    /// When there is none of that number, or the caller may not.
    pub async fn site_revision(&self, caller: &Caller, number: u64) -> Result<RevisionView, ServiceError> {
        self.must(caller, Permission::SiteRead, "site.read", &format!("revision:{number}")).await?;
        let revision = self.store().revision(number).await?;
        let revision = revision.ok_or_else(|| ServiceError::not_found("revision", number))?;
        let files = self.store().revision_files(number).await?;
        let rights = self.rights();
        let tree = rights.site().tree();
        let hash_of = |path: &str| tree.get(path).map(|content| *blake3::hash(content).as_bytes());
        let differing =
            files.iter().filter(|file| hash_of(&file.path) != Some(file.hash)).map(|file| file.path.clone());
        let gone = tree.iter().map(|(path, _)| path.as_str());
        let gone = gone.filter(|path| files.iter().all(|file| file.path != **path)).map(str::to_owned);
        let mut changed: Vec<String> = differing.chain(gone).collect();
        changed.sort();
        Ok(RevisionView { revision, files, changed })
    }

    /// Reads a file of the site in force; answers its revision too.
    ///
    /// # Errors
    /// When there is no such file, or the caller may not.
    pub async fn site_file(&self, caller: &Caller, path: &str) -> Result<(u64, Arc<[u8]>), ServiceError> {
        let shown = common::escape::text(path);
        self.must(caller, Permission::SiteRead, "site.read", &format!("file:{shown}")).await?;
        let rights = self.rights();
        let content = rights.site().tree().get(path).cloned();
        content.map(|content| (rights.revision(), content)).ok_or_else(|| ServiceError::not_found("file", shown))
    }
}

/// Changing.
impl Service {
    /// Puts a whole site in force, or tells what that would do.
    ///
    /// # Errors
    /// When the caller may not change what differs, another revision is in force than it was made from, or the site is broken.
    pub async fn site_push(&self, caller: &Caller, push: Push) -> Result<Pushed, ServiceError> {
        self.must(caller, Permission::SiteWrite, "site.push", "site").await?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        let Push { base, files, check_only } = push;
        let site = load(move || tree_of(files)).await?.map_err(|problems| ServiceError::Site { problems })?;
        let caller = caller.clone();
        self.to_its_end(async move |service: Self| service.push_site(&caller, base, site, check_only).await).await
    }

    async fn push_site(
        &self,
        caller: &Caller,
        base: Option<u64>,
        site: Site,
        check_only: bool,
    ) -> Result<Pushed, ServiceError> {
        let held = self.changing().lock().await;
        let rights = self.rights();
        if base.is_some_and(|base| base != rights.revision()) {
            return Err(ServiceError::Conflict {
                code: "site_changed",
                text: format!("revision {} is in force, not the one this was made from", rights.revision()),
            });
        }
        let changed = changed(rights.site().tree(), site.tree());
        let trusted: Vec<&str> = changed.iter().map(String::as_str).filter(|path| is_trusted(path)).collect();
        if let Some(first) = trusted.first()
            && let Err(because) = self.may(caller, Permission::SiteTrust, About::Nothing)
        {
            let refusal = ServiceError::Forbidden { need: Permission::SiteTrust, because };
            self.note_refusal(caller, "site.push", &format!("file:{first}"), &refusal).await;
            return Err(refusal);
        }
        if check_only || (changed.is_empty() && rights.revision() > 0) {
            return Ok(Pushed { revision: None, changed });
        }
        let revision = self.add_revision(PUSH, &site, SiteStatus::Live, None, &caller.actor).await?;
        self.put_site(&rights, revision.number, site);
        drop(held);
        self.refuse_what_waits().await;
        Ok(Pushed { revision: Some(revision), changed })
    }

    /// Puts a held revision in force.
    ///
    /// # Errors
    /// When there is none of that number or it is not held, it is not right any more, or the caller may not.
    pub async fn site_approve(&self, caller: &Caller, number: u64) -> Result<SiteRevision, ServiceError> {
        self.must(caller, Permission::SiteTrust, "site.approve", &format!("revision:{number}")).await?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        let actor = caller.actor.clone();
        self.to_its_end(async move |service: Self| service.approve_site(&actor, number).await).await
    }

    async fn approve_site(&self, actor: &Actor, number: u64) -> Result<SiteRevision, ServiceError> {
        let held = self.changing().lock().await;
        let files = self.store().revision_tree(number).await?;
        let site = load(move || tree_of(files)).await?.map_err(|problems| ServiceError::Site { problems })?;
        let revision = self.store().revision_approve(number, actor, self.now()).await?;
        self.put_site(&self.rights(), number, site);
        drop(held);
        self.refuse_what_waits().await;
        Ok(revision)
    }

    /// Refuses a held revision; the same files in the folder are not held again.
    ///
    /// # Errors
    /// When there is none of that number or it is not held, or the caller may not.
    pub async fn site_reject(&self, caller: &Caller, number: u64) -> Result<SiteRevision, ServiceError> {
        self.must(caller, Permission::SiteTrust, "site.reject", &format!("revision:{number}")).await?;
        Ok(self.store().revision_reject(number, &caller.actor, self.now()).await?)
    }

    /// Takes what was read from the watched folder. `ours` tells that nobody but root and the manager's own user can write there.
    ///
    /// # Errors
    /// When the store cannot be read or written; the folder is then to be offered again.
    pub(crate) async fn site_found(&self, read: Result<Tree, Problems>, ours: bool) -> Result<Found, ServiceError> {
        let site = match read {
            Ok(tree) => load(move || Ok(tree)).await?,
            Err(problems) => Err(problems),
        };
        let site = match site {
            Ok(site) => site,
            Err(problems) => {
                let news = self.site_source().with(|kept| {
                    let news = kept.problems != problems;
                    kept.problems = problems.clone();
                    news
                });
                if news {
                    let (first, count) = (problems.list().first(), problems.list().len() + problems.more());
                    let first = first.map(ToString::to_string).unwrap_or_default();
                    tracing::error!(
                        problem = first,
                        count,
                        "the site folder is broken; the last good revision stays in force"
                    );
                }
                return Ok(Found::Broken);
            }
        };
        self.site_source().with(|kept| kept.problems = Problems::default());
        let held = self.changing().lock().await;
        let rights = self.rights();
        let seen = self.store().revisions(REVISIONS_LISTED).await?.into_iter().find(|row| row.source == FOLDER);
        // A folder that did not change does not undo what was pushed, approved or rejected since.
        let known = seen.is_some_and(|row| row.hash == site.hash().0);
        if known || (site.hash() == rights.site().hash() && rights.revision() > 0) {
            return Ok(Found::Same);
        }
        let changed = changed(rights.site().tree(), site.tree());
        let trusted: Vec<&str> = changed.iter().map(String::as_str).filter(|path| is_trusted(path)).collect();
        let actor = Actor("manager".to_owned());
        if !trusted.is_empty() && !ours {
            let named = trusted.iter().take(TRUSTED_NAMED).copied().collect::<Vec<_>>().join(", ");
            let note = format!("others can write to the folder, and these grant rights or run here: {named}");
            let revision = self.add_revision(FOLDER, &site, SiteStatus::Held, Some(note), &actor).await?;
            tracing::warn!(
                revision = revision.number,
                files = named,
                "the site folder changes what grants rights, and others can write there: the revision is held until it is approved"
            );
            return Ok(Found::Held(revision.number));
        }
        let revision = self.add_revision(FOLDER, &site, SiteStatus::Live, None, &actor).await?;
        tracing::info!(revision = revision.number, files = changed.len(), "a revision of the site folder is in force");
        self.put_site(&rights, revision.number, site);
        drop(held);
        self.refuse_what_waits().await;
        Ok(Found::Live(revision.number))
    }

    /// Says which folder is watched.
    pub(crate) fn site_folder(&self, folder: &std::path::Path) {
        self.site_source().with(|kept| kept.folder = Some(folder.display().to_string()));
    }

    /// The rights with the site that the store says is in force. One that cannot be read grants nobody anything: an older one
    /// might grant what was taken away.
    pub(super) async fn with_stored_site(&self, rights: &Rights) -> Result<Rights, ServiceError> {
        let Some(live) = self.store().revision_live().await? else { return Ok(rights.clone()) };
        let files = self.store().revision_tree(live.number).await;
        let site = match files {
            Ok(files) => load(move || tree_of(files)).await?,
            Err(error) => {
                tracing::error!(revision = live.number, error = %Chain(&error), "the site in force cannot be read from the store");
                Err(Problem::of_file("unreadable", "store", "the revision in force cannot be read from the store")
                    .into())
            }
        };
        let site = site.unwrap_or_else(|problems| {
            tracing::error!(revision = live.number, problem = %problems, "the site in force is not right for this release: no role but admin grants anything until another is pushed");
            self.site_source().with(|kept| kept.stored = problems);
            Site::empty()
        });
        Ok(rights.with_site(live.number, Arc::new(site)))
    }

    async fn add_revision(
        &self,
        source: &str,
        site: &Site,
        status: SiteStatus,
        note: Option<String>,
        actor: &Actor,
    ) -> Result<SiteRevision, ServiceError> {
        let files = site.tree().iter().map(|(path, content)| (path.to_string(), Arc::clone(content))).collect();
        let new = NewRevision { source: source.to_owned(), hash: site.hash().0, files, status, note, base: None };
        Ok(self.store().revision_add(new, actor, self.now()).await?)
    }

    /// Judges by another site from now on. The caller holds `changing`.
    fn put_site(&self, rights: &Rights, number: u64, site: Site) {
        self.site_source().with(|kept| kept.stored = Problems::default());
        self.rights_slot().send_replace(Arc::new(rights.with_site(number, Arc::new(site))));
        self.site_slot().send_replace(number);
    }
}

/// Makes a site of what a closure gathers, away from the runtime: a large one takes a moment.
async fn load(
    gather: impl FnOnce() -> Result<Tree, Problems> + Send + 'static,
) -> Result<Result<Site, Problems>, ServiceError> {
    let loaded = tokio::task::spawn_blocking(move || gather().and_then(Site::load)).await;
    loaded.map_err(|_| ServiceError::Busy { retry_after: std::time::Duration::from_secs(1) })
}

/// Puts files together; every path that is none is named.
fn tree_of(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Tree, Problems> {
    let (mut tree, mut problems) = (Tree::default(), Problems::default());
    for (path, content) in files {
        let put = SitePath::parse(&path).and_then(|path| tree.insert(path, content));
        if let Err(error) = put {
            problems.push(Problem::of_file("invalid_file", &common::escape::text(&path), error.to_string()));
        }
    }
    problems.unless(tree)
}
