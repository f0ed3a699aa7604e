//! What the authority keeps, issues and refuses, and each step of a rotation with a crash between its files.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use common::id::{Generation, Name};
use common::tls::{self, Role};

use super::*;

fn unix_now() -> Duration {
    Duration::from_millis(common::clock::unix_ms())
}

fn authority(dir: &Path) -> Result<Authority, CaError> {
    Authority::open(dir, &"c1".parse().unwrap(), unix_now())
}

#[test]
fn an_authority_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = authority(dir.path()).unwrap();
    let again = authority(dir.path()).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    let mode = fs::metadata(dir.path().join("ca/ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_lost_key_is_an_error_and_not_a_new_cluster() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path()).unwrap();
    fs::remove_file(dir.path().join("ca/ca.key")).unwrap();
    assert!(matches!(authority(dir.path()), Err(CaError::Half { .. })));
}

#[test]
fn a_lost_certificate_is_made_again_from_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path()).unwrap();
    let key = fs::read(dir.path().join("ca/ca.key")).unwrap();
    fs::remove_file(dir.path().join("ca/ca.pem")).unwrap();
    authority(dir.path())
        .unwrap()
        .issue_agent(&"web1".parse().unwrap(), Generation(1), Duration::from_secs(60))
        .unwrap();
    assert_eq!(fs::read(dir.path().join("ca/ca.key")).unwrap(), key);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path()).unwrap();
    let key = dir.path().join("ca/ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(authority(dir.path()), Err(CaError::Key(_))));
}

#[test]
fn an_agents_certificate_carries_its_identity_and_fits_the_link() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).unwrap();
    let name: Name = "web1.example".parse().unwrap();
    let issued = authority.issue_agent(&name, Generation(7), Duration::from_secs(3600)).unwrap();
    let chain = tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
    let identity = tls::peer_identity(chain.first().unwrap()).unwrap();
    assert_eq!(identity.to_string(), "paprika://c1/agent/web1.example/7");
    let key = tls::key_from_pem(issued.key_pem.as_bytes()).unwrap();
    let roots = tls::roots_from_pem(authority.ca_pem().as_bytes()).unwrap();
    tls::link_client(chain, key, roots).unwrap();
}

#[test]
fn a_managers_certificate_takes_more_names_and_refuses_what_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).unwrap();
    let name: Name = "m1".parse().unwrap();
    let issued = authority.issue_manager(&name, &["api.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    let chain = tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
    assert_eq!(tls::peer_identity(chain.first().unwrap()).unwrap().role, Role::Manager);
    assert!(matches!(authority.issue_manager(&name, &["a b".to_owned()]), Err(CaError::Name(_))));
}
