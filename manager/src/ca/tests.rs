//! What the authority keeps, issues and refuses, and each step of a rotation with a crash between its files.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::config::Secret;
use common::id::{Generation, Name};
use common::limits::{AUTHORITY_BACK_DATED, BACK_DATED, MAX_BUNDLE_PEM, MAX_CHAIN_PEM};
use common::pin::Pin;
use common::tls::{self, ClientConfig, Csr, MANAGER_DNS, Role, TlsAcceptor, TlsConnector, manager_name};
use tokio::io::duplex;

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

/// Protocol R-JOIN-4.
#[test]
fn of_a_request_nothing_but_the_key_reaches_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut grand = rcgen::CertificateParams::new(vec![MANAGER_DNS.to_owned()]).unwrap();
    let uri = "paprika://c1/manager/m1/1".try_into().unwrap();
    grand.subject_alt_names.push(rcgen::SanType::URI(uri));
    grand.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let csr = Csr::read(grand.serialize_request(&pair).unwrap().der()).unwrap();
    let (name, now) = ("web1".parse().unwrap(), unix_now());
    let valid = Duration::from_secs(3600);
    for (chain_pem, identity) in [
        (authority.issue_agent_for(&csr, &name, Generation(7), now, valid), "paprika://c1/agent/web1/7"),
        (authority.issue_operator_for(&csr, &name, Generation(8), now, valid), "paprika://c1/operator/web1/8"),
    ] {
        let chain = tls::chain_from_pem(chain_pem.unwrap().as_bytes()).unwrap();
        let leaf = tls::read_leaf(chain.first().unwrap()).unwrap();
        assert_eq!(leaf.identity.to_string(), identity);
        assert_eq!(leaf.spki, csr.spki());
        let bytes = chain.first().unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"manager"), "no name of the request is in it");
    }
}

#[test]
fn an_operators_certificate_is_one_of_an_operator() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).unwrap();
    let issued = authority.issue_operator(&"ann".parse().unwrap(), Generation(2), Duration::from_secs(60)).unwrap();
    assert!(!format!("{issued:?}").contains("PRIVATE"), "a key does not show itself");
    let chain = tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
    assert_eq!(tls::peer_identity(chain.first().unwrap()).unwrap().to_string(), "paprika://c1/operator/ann/2");
    assert!(tls::verifies(&chain, &authority.bundle_pem(), unix_now()));
}

/// Protocol R-TLS-7.
#[test]
fn certificates_are_dated_back_by_what_they_guard() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).unwrap();
    let begins = |chain_pem: &str| {
        tls::read_leaf(tls::chain_from_pem(chain_pem.as_bytes()).unwrap().first().unwrap()).unwrap().not_before
    };
    let name = "x1".parse().unwrap();
    let back = |begins: Duration| unix_now().checked_sub(begins).unwrap();
    let slack = Duration::from_secs(60);
    let agent = back(begins(&authority.issue_agent(&name, Generation(1), slack).unwrap().chain_pem));
    assert!(agent >= BACK_DATED && agent < BACK_DATED + slack, "{agent:?}");
    let manager = back(begins(&authority.issue_manager(&name, &[]).unwrap().chain_pem));
    assert!(manager >= AUTHORITY_BACK_DATED && manager < AUTHORITY_BACK_DATED + slack, "{manager:?}");
}

/// Whether a client takes the manager that `authority` makes now.
async fn takes(authority: &Authority, client: Arc<ClientConfig>) -> bool {
    let issued = authority.issue_manager(&"m1".parse().unwrap(), &[]).unwrap();
    let chain = tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap();
    let key = tls::key_from_pem(issued.key_pem.as_bytes()).unwrap();
    let roots = tls::roots_from_pem(authority.bundle_pem().as_bytes()).unwrap();
    let server = tls::api_server(chain, key, roots).unwrap();
    let (near, far) = duplex(64 * 1024);
    let (_, connected) =
        tokio::join!(TlsAcceptor::from(server).accept(far), TlsConnector::from(client).connect(manager_name(), near),);
    connected.is_ok()
}

/// Whether somebody who knows only this bundle does.
async fn trusted_by(authority: &Authority, bundle: &str) -> bool {
    takes(authority, tls::api_client(tls::roots_from_pem(bundle.as_bytes()).unwrap(), None).unwrap()).await
}

/// Whether somebody who has only this pin does.
async fn pinned_by(authority: &Authority, pin: Pin) -> bool {
    takes(authority, tls::api_client_pinned(pin).unwrap()).await
}

fn agents_chain(authority: &Authority) -> Vec<tls::CertificateDer<'static>> {
    let issued = authority.issue_agent(&"web1".parse().unwrap(), Generation(1), Duration::from_secs(60)).unwrap();
    tls::chain_from_pem(issued.chain_pem.as_bytes()).unwrap()
}

/// Protocol R-RENEW-6.
#[tokio::test]
async fn a_rotation_shuts_nobody_out_before_its_last_step() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).unwrap();
    for round in 1..4_u32 {
        assert_eq!(authority.active(), round);
        let (old, old_pin, old_hash) = (authority.bundle_pem(), authority.pin(), authority.bundle_hash());
        let old_agent = agents_chain(&authority);

        assert_eq!(authority.prepare(unix_now()).unwrap(), round + 1);
        let (both, both_hash) = (authority.bundle_pem(), authority.bundle_hash());
        assert_ne!(both_hash, old_hash);
        assert_eq!((authority.active(), authority.pin()), (round, old_pin), "it signs nothing yet");
        assert!(trusted_by(&authority, &old).await && trusted_by(&authority, &both).await);

        assert_eq!(authority.activate().unwrap(), round + 1);
        let (new, new_pin) = (authority.ca_pem(), authority.pin());
        assert!(new_pin != old_pin && authority.bundle_hash() == both_hash);
        for bundle in [&old, &both, &new] {
            assert!(trusted_by(&authority, bundle).await, "round {round}");
        }
        assert!(pinned_by(&authority, old_pin).await, "a join token of yesterday is good");
        assert!(pinned_by(&authority, new_pin).await);
        let new_agent = agents_chain(&authority);
        let now = unix_now();
        assert!(tls::verifies(&old_agent, &authority.bundle_pem(), now));
        assert!(tls::verifies(&new_agent, &authority.bundle_pem(), now));

        authority.retire().unwrap();
        assert_eq!(authority.bundle_pem(), new);
        assert!(!trusted_by(&authority, &old).await, "the retired one proves nobody any more");
        assert!(!pinned_by(&authority, old_pin).await);
        assert!(trusted_by(&authority, &both).await && trusted_by(&authority, &new).await);
        assert!(!tls::verifies(&old_agent, &authority.bundle_pem(), now), "and what it signed is void");
        assert!(tls::verifies(&new_agent, &authority.bundle_pem(), now));
    }
    let last = authority.trusted();
    assert_eq!(last.iter().map(|one| one.number).collect::<Vec<_>>(), [4]);
    assert!(last.iter().all(|one| one.subject == "Paprika CA 4 of c1" && one.not_after > unix_now()));
    // The next start finds the same; the keys of the retired ones are gone.
    let again = Authority::open(dir.path(), &"c1".parse().unwrap(), unix_now()).unwrap();
    assert_eq!((again.active(), again.bundle_hash()), (4, authority.bundle_hash()));
    for key in ["ca.key", "ca-2.key", "ca-3.key"] {
        assert!(!dir.path().join("ca").join(key).exists(), "{key}");
    }
}

#[test]
fn a_step_that_does_not_follow_is_refused_and_one_that_is_repeated_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).unwrap();
    let refused = |result: Result<u32, CaError>| assert!(matches!(result, Err(CaError::Step(_))));
    let retire = || authority.retire().map(|()| 0);
    refused(authority.activate());
    refused(retire());
    authority.prepare(unix_now()).unwrap();
    let prepared = authority.bundle_pem();
    assert_eq!(authority.prepare(unix_now()).unwrap(), 2);
    assert_eq!(authority.bundle_pem(), prepared);
    refused(retire());
    authority.activate().unwrap();
    assert_eq!(authority.activate().unwrap(), 2);
    refused(authority.prepare(unix_now()));
    authority.retire().unwrap();
    refused(retire());
    refused(authority.activate());
    assert_eq!(authority.prepare(unix_now()).unwrap(), 3);
}

#[test]
fn a_preparation_that_died_between_its_files_is_made_again() {
    for left in 0..8_u8 {
        let dir = tempfile::tempdir().unwrap();
        let first = authority(dir.path()).unwrap().bundle_pem();
        let folder = dir.path().join("ca");
        for (bit, name) in ["ca-2.key", "ca-2.pem", "ca-2.cross.pem"].iter().enumerate() {
            if left & (1 << bit) != 0 {
                fs::write(folder.join(name), "half a fi").unwrap();
                fs::write(folder.join(format!("{name}.new")), "ha").unwrap();
            }
        }
        fs::write(folder.join("authorities.json.new"), "{").unwrap();
        let opened = authority(dir.path()).unwrap();
        assert_eq!((opened.active(), opened.bundle_pem()), (1, first), "what was not finished counts for nothing");
        opened.prepare(unix_now()).unwrap();
        opened.activate().unwrap();
        let again = authority(dir.path()).unwrap();
        assert_eq!((again.active(), again.bundle_hash()), (2, opened.bundle_hash()));
        let mode = fs::metadata(folder.join("ca-2.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_list_that_makes_no_sense_or_names_what_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let first = authority(dir.path()).unwrap();
    first.prepare(unix_now()).unwrap();
    let folder = dir.path().join("ca");
    let list = folder.join("authorities.json");
    for bad in [
        "",
        "{",
        "[]",
        r#"{"active":1}"#,
        r#"{"active":1,"trusted":[]}"#,
        r#"{"active":0,"trusted":[0]}"#,
        r#"{"active":3,"trusted":[1,2]}"#,
        r#"{"active":1,"trusted":[1,1]}"#,
        r#"{"active":1,"trusted":[2,1]}"#,
        r#"{"active":1,"trusted":[1,2,3]}"#,
        r#"{"active":1,"trusted":[1,2],"more":1}"#,
    ] {
        fs::write(&list, bad).unwrap();
        assert!(matches!(authority(dir.path()), Err(CaError::List { .. })), "{bad}");
    }
    fs::write(&list, r#"{"active":1,"trusted":[1,2]}"#).unwrap();
    authority(dir.path()).unwrap();
    for file in ["ca-2.pem", "ca-2.key", "ca-2.cross.pem"] {
        let kept = fs::read(folder.join(file)).unwrap();
        fs::remove_file(folder.join(file)).unwrap();
        assert!(authority(dir.path()).is_err(), "{file} is missing, and no new cluster begins");
        common::durable::replace(&folder.join(file), &kept).unwrap();
    }
    authority(dir.path()).unwrap();
}

#[test]
fn the_largest_chain_and_bundle_fit_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let cluster: Name = "c".repeat(253).parse().unwrap();
    let authority = Authority::open(dir.path(), &cluster, unix_now()).unwrap();
    authority.prepare(unix_now()).unwrap();
    authority.activate().unwrap();
    let csr = Csr::read(&tls::new_key().unwrap().csr).unwrap();
    let name: Name = "n".repeat(253).parse().unwrap();
    let generation = Generation(u64::MAX);
    let chain = authority.issue_agent_for(&csr, &name, generation, unix_now(), Duration::from_secs(60)).unwrap();
    assert!(chain.len() <= MAX_CHAIN_PEM, "{}", chain.len());
    assert!(authority.bundle_pem().len() <= MAX_BUNDLE_PEM);
    // A key that was made elsewhere and its own certificate: what `join` ends with.
    let key = tls::new_key().unwrap();
    let csr = Csr::read(&key.csr).unwrap();
    let chain = authority.issue_agent_for(&csr, &name, generation, unix_now(), Duration::from_secs(60)).unwrap();
    let expected =
        tls::Expected { spki: key.spki, name: &name, cluster: Some(&cluster), generation: None, now: unix_now() };
    let taken = tls::check_issued(&chain, &authority.bundle_pem(), &expected).unwrap();
    assert_eq!(taken.bundle_hash, authority.bundle_hash());
    assert!(tls::make_csr(&Secret::new(key.key_pem.expose().to_owned())).is_ok());
}
