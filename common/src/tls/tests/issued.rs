//! What a host takes as its own certificate, and what a certificate of anybody else looks like to it.

use proptest::prelude::*;

use super::pki::{Ca, DAY, HOUR, Made, NOW, Spec};
use crate::config::Secret;
use crate::id::{Generation, Name};
use crate::limits::{MAX_BUNDLE_PEM, MAX_CHAIN_PEM};
use crate::tls::{
    Csr, CsrError, Expected, IssuedError, KeyRequest, bundle_hash, bundle_hash_of_pem, chain_from_pem, check_issued,
    csr_from_pem, make_csr, new_key, peer_identity, read_leaf, to_pem, verifies,
};

struct Bench {
    ca: Ca,
    key: KeyRequest,
    name: Name,
    cluster: Name,
}

impl Bench {
    fn new() -> Self {
        Self {
            ca: Ca::new("ours"),
            key: new_key().unwrap(),
            name: "web1".parse().unwrap(),
            cluster: "c1".parse().unwrap(),
        }
    }

    fn made(&self, spec: &Spec) -> Made {
        self.ca.make_for(spec, self.key.key_pem.expose())
    }

    fn says(&self, made: &Made, bundle: &str) -> Result<(), String> {
        let expected = Expected {
            spki: self.key.spki,
            name: &self.name,
            cluster: Some(&self.cluster),
            generation: Some(Generation(3)),
            now: NOW,
        };
        check_issued(&made.chain_pem, bundle, &expected).map(drop).map_err(|error| error.to_string())
    }
}

/// Protocol R-JOIN-5, R-RENEW-3.
#[test]
fn a_certificate_that_is_not_the_one_asked_for_is_not_taken() {
    let bench = Bench::new();
    let ours = bench.ca.pem.clone();
    assert_eq!(bench.says(&bench.made(&Spec::agent()), &ours), Ok(()));
    let error = |made: &Made, bundle: &str| bench.says(made, bundle).unwrap_err();
    let another_key = bench.ca.make(&Spec::agent());
    assert_eq!(error(&another_key, &ours), "the issued certificate is for another key");
    let cases = [
        (Spec::of("agent", "web2"), "another name"),
        (Spec::uris(&["paprika://c2/agent/web1/3"]), "another cluster"),
        (Spec::uris(&["paprika://c1/agent/web1/4"]), "another generation"),
        (Spec::of("manager", "web1"), "not one of an agent"),
        (Spec::of("operator", "web1"), "not one of an agent"),
        (Spec { eku: Vec::new(), ..Spec::agent() }, "not one of an agent"),
        (Spec { from: NOW - 2 * DAY, to: NOW - DAY, ..Spec::agent() }, "does not verify"),
        (Spec { from: NOW + HOUR, to: NOW + DAY, ..Spec::agent() }, "does not verify"),
    ];
    for (spec, told) in cases {
        let said = error(&bench.made(&spec), &ours);
        assert!(said.contains(told), "{said}: {told}");
    }
    let good = bench.made(&Spec::agent());
    assert!(error(&good, &Ca::new("theirs").pem).contains("does not verify"));
    assert!(error(&good, &format!("{ours}{}", to_pem(good.leaf()))).contains("not one of an authority"));
    assert!(error(&good, "nothing").contains("cannot be read"));
    assert!(verifies(&good.chain, &ours, NOW) && !verifies(&good.chain, &ours, NOW + DAY));
    assert!(!verifies(&[], &ours, NOW) && !verifies(&good.chain, "nothing", NOW));
}

#[test]
fn a_chain_or_bundle_beyond_its_limit_is_not_read() {
    let bench = Bench::new();
    let good = bench.made(&Spec::agent());
    let expected = Expected { spki: bench.key.spki, name: &bench.name, cluster: None, generation: None, now: NOW };
    let padded = |text: &str, length: usize| format!("{text}{}", "\n".repeat(length - text.len()));
    let says = |chain: usize, bundle: usize| {
        check_issued(&padded(&good.chain_pem, chain), &padded(&bench.ca.pem, bundle), &expected)
    };
    assert!(says(MAX_CHAIN_PEM, MAX_BUNDLE_PEM).is_ok());
    assert!(matches!(says(MAX_CHAIN_PEM + 1, MAX_BUNDLE_PEM), Err(IssuedError::Long)));
    assert!(matches!(says(MAX_CHAIN_PEM, MAX_BUNDLE_PEM + 1), Err(IssuedError::Long)));
}

/// Protocol R-JOIN-4.
#[test]
fn of_a_request_only_a_key_that_its_sender_holds_is_taken() {
    let key = new_key().unwrap();
    let read = Csr::read(&key.csr).unwrap();
    assert_eq!(read.spki(), key.spki);
    assert_eq!(make_csr(&key.key_pem).unwrap().spki, key.spki, "the same key again");
    assert!(make_csr(&Secret::new("no key".to_owned())).is_err());
    assert!(!format!("{key:?}").contains("PRIVATE"), "a key does not show itself");
    // What else a request says is passed over, however grand it is.
    let grand = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["manager.paprika.internal".to_owned()]).unwrap();
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let request = params.serialize_request(&grand).unwrap();
    assert!(Csr::read(request.der()).is_ok());
    assert_eq!(csr_from_pem(request.pem().unwrap().as_bytes()).unwrap(), request.der().to_vec());
    assert!(csr_from_pem(b"nothing").is_err());
    for (kind, expected) in [
        (&rcgen::PKCS_ED25519, None),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Some(CsrError::Key)),
        (&rcgen::PKCS_ECDSA_P521_SHA512, Some(CsrError::Key)),
    ] {
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        assert_eq!(Csr::read(request.der()).err(), expected);
    }
    let last = key.csr.len() - 1;
    let mut forged = key.csr.clone();
    forged[last] ^= 1;
    assert_eq!(Csr::read(&forged), Err(CsrError::Signature));
    // The request of one with the key of another.
    let other = new_key().unwrap();
    let spki = |csr: &[u8]| Csr::read(csr).unwrap().spki_der().to_vec();
    let (mine, theirs) = (spki(&key.csr), spki(&other.csr));
    let at = key.csr.windows(mine.len()).position(|window| window == mine).unwrap();
    let mut stolen = key.csr.clone();
    stolen[at..at + theirs.len()].copy_from_slice(&theirs);
    assert_eq!(Csr::read(&stolen), Err(CsrError::Signature));
    let mut longer = key.csr.clone();
    longer.push(0);
    assert_eq!(Csr::read(&longer), Err(CsrError::Unreadable));
    assert_eq!(Csr::read(&[]), Err(CsrError::Unreadable));
    assert_eq!(Csr::read(&vec![0; crate::limits::MAX_CSR_BYTES]), Err(CsrError::Unreadable));
    assert_eq!(Csr::read(&vec![0; crate::limits::MAX_CSR_BYTES + 1]), Err(CsrError::Long));
}

/// Protocol R-RENEW-5.
#[test]
fn a_bundle_has_one_hash_in_whatever_order_it_is_written() {
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let hash = |text: String| bundle_hash_of_pem(text.as_bytes()).unwrap();
    let both = hash(format!("{}{}", one.pem, two.pem));
    assert_eq!(both, hash(format!("{}# a comment\n{}{}", two.pem, one.pem, two.pem)));
    assert_eq!(both, bundle_hash(&[two.der(), one.der()]));
    assert_ne!(both, hash(one.pem.clone()));
    assert_eq!(chain_from_pem(to_pem(&one.der()).as_bytes()).unwrap(), [one.der()]);
    assert!(bundle_hash_of_pem(b"").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    #[test]
    fn no_bytes_make_the_reader_of_requests_or_certificates_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assert!(Csr::read(&bytes).is_err());
        prop_assert!(peer_identity(&bytes.as_slice().into()).is_err());
        prop_assert!(read_leaf(&bytes.as_slice().into()).is_err());
    }

    #[test]
    fn no_text_makes_the_reader_of_identities_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        begun in any::<bool>(),
    ) {
        let rest = String::from_utf8_lossy(&bytes);
        let uri = if begun { format!("paprika://c1/agent/{rest}") } else { rest.into_owned() };
        if let Ok(identity) = uri.parse::<crate::tls::Identity>() {
            prop_assert_eq!(identity.to_string(), uri);
        }
    }
}

/// Bytes that are almost right reach further into a parser than random ones.
#[test]
fn no_damage_of_a_real_request_or_certificate_makes_a_reader_panic() {
    let bench = Bench::new();
    let certificate = bench.made(&Spec::agent()).leaf().to_vec();
    let whole = read_leaf(&certificate.as_slice().into()).unwrap();
    for (bytes, csr) in [(&bench.key.csr, true), (&certificate, false)] {
        for at in 0..bytes.len() {
            for change in [0x01_u8, 0x20, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                if csr {
                    let read = Csr::read(&damaged);
                    assert!(read.is_err() || read.is_ok_and(|read| read.spki() == bench.key.spki), "byte {at}");
                } else if let Ok(read) = read_leaf(&damaged.as_slice().into()) {
                    // The signature is rustls' business; what is read is one well-formed identity all the same.
                    assert!(!read.identity.to_string().is_empty());
                }
            }
            assert!(!csr || Csr::read(&bytes[..at]).is_err());
            assert!(csr || read_leaf(&bytes[..at].into()).is_err());
        }
    }
    assert_eq!(whole.identity.to_string(), "paprika://c1/agent/web1/3");
}
