//! Calls about the site.

use http::Method;

use super::calls::{Client, Words, list};
use super::error::ClientError;
use crate::page::Page;
use crate::site::{SiteFile, SitePush, SitePushed, SiteRevision, SiteRevisionFiles, SiteStatus};

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Reads how the site is: what is in force, what waits, what is wrong.
    pub async fn site(&self) -> Result<SiteStatus, ClientError> {
        self.call(self.get("/site".to_owned())).await
    }

    /// Lists revisions, the newest first.
    pub async fn site_revisions(
        &self,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Page<SiteRevision>, ClientError> {
        self.call(self.get(list("/site/revisions", after, limit))).await
    }

    /// Reads one revision with the list of its files.
    pub async fn site_revision(&self, number: u64) -> Result<SiteRevisionFiles, ClientError> {
        self.call(self.get(format!("/site/revisions/{number}"))).await
    }

    /// Reads one file of the revision in force.
    pub async fn site_file(&self, path: &str) -> Result<SiteFile, ClientError> {
        let mut words = Words::default();
        words.add("path", Some(path));
        self.call(self.get(words.behind("/site/files"))).await
    }

    /// Takes a whole site into force, or checks it. It is sent once: a repeat would meet its own work as another base.
    pub async fn push_site(&self, push: &SitePush) -> Result<SitePushed, ClientError> {
        self.call(self.post("/site/revisions".to_owned(), push)?).await
    }

    /// Takes a held revision into force.
    pub async fn approve_site(&self, number: u64) -> Result<SiteRevision, ClientError> {
        self.call(self.bare(Method::POST, format!("/site/revisions/{number}/approve"))).await
    }

    /// Refuses a held revision.
    pub async fn reject_site(&self, number: u64) -> Result<SiteRevision, ClientError> {
        self.call(self.bare(Method::POST, format!("/site/revisions/{number}/reject"))).await
    }
}
