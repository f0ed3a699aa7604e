//! The edges of the time in which a certificate that ended can still ask for the next one.

use std::time::Duration;

use rustls::server::danger::ClientCertVerifier;

use super::pki::{Ca, DAY, HOUR, NOW, Spec, at};
use crate::limits::RECOVERY_WINDOW;
use crate::tls::configs::provider;
use crate::tls::recovery::RecoveringClients;

/// Protocol R-JOIN-6.
#[test]
fn a_certificate_recovers_for_thirty_days_to_the_second() {
    let (ca, second) = (Ca::new("ours"), Duration::from_secs(1));
    let door = RecoveringClients::new(ca.roots(), provider()).unwrap();
    let made = ca.make(&Spec { from: NOW - HOUR, to: NOW, ..Spec::agent() });
    assert_eq!(RECOVERY_WINDOW, 30 * DAY);
    for (moment, fits) in [
        (NOW - HOUR - second, false),
        (NOW - HOUR, true),
        (NOW, true),
        (NOW + second, true),
        (NOW + RECOVERY_WINDOW - second, true),
        (NOW + RECOVERY_WINDOW, true),
        (NOW + RECOVERY_WINDOW + second, false),
        (NOW + 400 * DAY, false),
    ] {
        let verdict = door.verify_client_cert(made.leaf(), made.rest(), at(moment));
        assert_eq!(verdict.is_ok(), fits, "{:?} after its end", moment.checked_sub(NOW));
    }
    assert!(door.offer_client_auth() && !door.client_auth_mandatory(), "strangers are let in and known as such");
}

#[test]
fn what_is_over_is_judged_in_everything_but_its_time() {
    let (ca, foreign) = (Ca::new("ours"), Ca::new("ours"));
    let door = RecoveringClients::new(ca.roots(), provider()).unwrap();
    let over = Spec { from: NOW - 2 * DAY, to: NOW - DAY, ..Spec::agent() };
    let says = |made: &super::pki::Made| door.verify_client_cert(made.leaf(), made.rest(), at(NOW));
    assert!(says(&ca.make(&over)).is_ok());
    // An authority of the same name with another key.
    assert!(says(&foreign.make(&over)).is_err());
    let server = Spec { from: over.from, to: over.to, ..Spec::manager() };
    assert!(says(&ca.make(&server)).is_err());
    // A validity that ends before it begins was never valid.
    assert!(says(&ca.make(&Spec { from: NOW - HOUR, to: NOW - DAY, ..Spec::agent() })).is_err());
}
