//! A whole manager: its start, its files, its stop.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::shutdown::Shutdown;
use manager::config::ManagerConfig;
use manager::{Ready, RunError, run};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::house::BOUND;

fn config(dir: &Path) -> ManagerConfig {
    let mut config = ManagerConfig { dir: dir.to_owned(), ..ManagerConfig::default() };
    config.api.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.link.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config
}

/// Runs a manager, does something while it is up, and stops it.
async fn during(dir: &Path, work: impl AsyncFnOnce(&Ready)) -> Result<(), RunError> {
    let shutdown = Shutdown::new();
    let (ready, is_ready) = oneshot::channel();
    let running = run(config(dir), shutdown.clone(), ready);
    let working = async {
        if let Ok(ready) = is_ready.await {
            work(&ready).await;
        }
        shutdown.request();
    };
    let (ended, ()) = timeout(BOUND, async { tokio::join!(running, working) }).await.expect("it starts and stops");
    ended
}

#[tokio::test]
async fn a_manager_starts_with_everything_and_finds_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = None;
    during(dir.path(), async |ready| {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&ready.token_path), 0o600);
        assert_eq!(mode(&ready.socket_path), 0o600);
        assert_eq!(mode(&dir.path().join("ca/ca.key")), 0o600);
        let token = std::fs::read_to_string(&ready.token_path).unwrap();
        assert!(token.starts_with("paprika_") && token.ends_with('\n'));
        first = Some((token, ready.ca_pem.clone()));
    })
    .await
    .unwrap();
    let (token, ca_pem) = first.expect("it was up");
    during(dir.path(), async |ready| {
        assert_eq!(std::fs::read_to_string(&ready.token_path).unwrap(), token);
        assert_eq!(ready.ca_pem, ca_pem);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_second_manager_in_the_same_folder_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    during(dir.path(), async |_| {
        let (ready, _) = oneshot::channel();
        let second = run(config(dir.path()), Shutdown::new(), ready).await;
        assert!(matches!(second, Err(RunError::Locked { .. })));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(dir.path());
    config.link.listen = taken.local_addr().unwrap();
    let (ready, _) = oneshot::channel();
    let ended = timeout(BOUND, run(config, Shutdown::new(), ready)).await.expect("it ends").unwrap_err();
    assert!(ended.to_string().contains(&taken.local_addr().unwrap().to_string()), "{ended}");
}
