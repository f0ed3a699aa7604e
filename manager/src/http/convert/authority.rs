//! The certificate authority.

use api::authority::{Authority, TrustedCertificate};
use api::time::Time;

use crate::ca::Trusted;
use crate::service::AuthorityView;

/// Shows the authority.
pub(in crate::http) fn authority(view: AuthorityView) -> Authority {
    Authority {
        active: view.active,
        trusted: view.trusted.into_iter().map(trusted).collect(),
        bundle_pem: view.bundle_pem,
        agents_without: view.agents_without,
    }
}

fn trusted(one: Trusted) -> TrustedCertificate {
    let not_after = u64::try_from(one.not_after.as_millis()).unwrap_or(u64::MAX);
    TrustedCertificate {
        number: one.number,
        sha256: one.pin.to_string(),
        not_after: Time(not_after),
        subject: one.subject,
    }
}
