//! The loop: waits until the folder may have changed, lets it come to rest, reads it and offers it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::error::Chain;
use common::shutdown::Shutdown;
use rustix::process::geteuid;
use site::tree::Tree;
use site::{Problem, Problems};
use tokio::time::{Instant, sleep, timeout};

use super::ownership;
use super::watch::Watch;
use crate::limits::{SITE_SETTLES, SITE_SETTLES_AT_MOST};
use crate::service::Service;

/// Watches a folder until shutdown. `poll` is how often it is read without a word from the kernel.
pub async fn run(service: Service, folder: PathBuf, poll: Duration, shutdown: Shutdown) {
    service.site_folder(&folder);
    let mut warned = false;
    loop {
        // Before it is read: what changes from here on wakes again.
        let watch = watch(&folder).await;
        if let Err(error) = &watch
            && !warned
        {
            warned = true;
            tracing::warn!(folder = %folder.display(), error = %Chain(error), "the site folder cannot be watched; it is read now and then");
        }
        offer(&service, &folder).await;
        let mut watch = watch.ok();
        tokio::select! {
            () = shutdown.requested() => return,
            () = sleep(poll) => {}
            () = changed(&mut watch) => tokio::select! {
                () = shutdown.requested() => return,
                () = settled(&mut watch) => {}
            },
        }
    }
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits until nothing has changed for a moment, but not for ever.
async fn settled(watch: &mut Option<Watch>) {
    let at_most = Instant::now() + SITE_SETTLES_AT_MOST;
    while Instant::now() < at_most && timeout(SITE_SETTLES, changed(watch)).await.is_ok() {}
}

async fn watch(folder: &Path) -> std::io::Result<Watch> {
    let folder = folder.to_owned();
    let made = tokio::task::spawn_blocking(move || Watch::start(&folder)).await;
    made.unwrap_or_else(|_| Err(std::io::Error::other("the start of the watch was interrupted")))
        .and_then(Watch::listen)
}

/// Reads the folder and offers it. What fails here is tried again with the next look.
pub(crate) async fn offer(service: &Service, folder: &Path) {
    let read = {
        let folder = folder.to_owned();
        tokio::task::spawn_blocking(move || look(&folder)).await
    };
    let (tree, ours) = read.unwrap_or_else(|_| {
        let what = "the reading of the folder was interrupted";
        (Err(Problem::of_file("unreadable", &folder.display().to_string(), what).into()), false)
    });
    if let Err(error) = service.site_found(tree, ours).await {
        tracing::warn!(error = %Chain(&error), "the site folder could not be taken in; it is read again");
    }
}

/// Reads the folder, and tells whether only root and our own user can write there. Both before and after: whoever can
/// write at one of these moments may have written what was read between them.
fn look(folder: &Path) -> (Result<Tree, Problems>, bool) {
    let us = geteuid().as_raw();
    let before = ownership::is_ours(folder, us);
    let read = site::folder::read(folder);
    (read, before && ownership::is_ours(folder, us))
}
