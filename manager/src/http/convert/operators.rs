//! Operators' certificates.

use api::operators::{Operator, OperatorCertificate};
use api::time::Time;

use crate::service::{IssuedOperator, OperatorView};

/// Shows a certificate on record.
pub(in crate::http) fn operator(view: OperatorView) -> Operator {
    let OperatorView { row, roles } = view;
    Operator {
        name: row.name,
        generation: row.generation.0,
        roles,
        created_at: Time(row.created_at),
        created_by: row.created_by.0,
        expires_at: Time(row.not_after),
        revoked_at: row.revoked_at.map(Time),
    }
}

/// Shows a certificate that was just issued.
pub(in crate::http) fn certificate(issued: IssuedOperator) -> OperatorCertificate {
    OperatorCertificate {
        name: issued.name,
        cluster: issued.cluster,
        generation: issued.generation.0,
        expires_at: Time(issued.not_after),
        chain_pem: issued.chain_pem,
        key_pem: issued.key_pem.map(|key| key.expose().to_owned()),
        ca_pem: issued.ca_pem,
    }
}
