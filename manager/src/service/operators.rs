//! Certificates of operators: made, listed, revoked. A private key that is made here is shown once and never stored.
//!
//! What the bearer may do follows from its name in `roles.yml`; the generation in the certificate finds the row that says
//! whether it is still worth anything. Nobody gives more than they have.

use std::time::Duration;

use common::config::Secret;
use common::id::{Generation, Name};
use common::tls::Csr;
use site::permission::Permission;
use store::types::{Millis, OperatorCert};

use super::callers::Caller;
use super::commands::millis;
use super::core::Service;
use super::error::ServiceError;
use crate::ca::CaError;
use crate::limits::{MAX_OPERATOR_TTL, OPERATOR_TTL};

/// A certificate that was just issued.
#[derive(Debug, Clone)]
pub struct IssuedOperator {
    /// Whose it is.
    pub name: Name,
    /// Which certificate.
    pub generation: Generation,
    /// When it ends.
    pub not_after: Millis,
    /// Certificate and issuer, PEM.
    pub chain_pem: String,
    /// Private key, PEM, where it was made here.
    pub key_pem: Option<Secret>,
    /// What managers are verified by, PEM.
    pub ca_pem: String,
    /// Name of the cluster.
    pub cluster: Name,
}

/// A certificate on record, and what its bearer has by it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorView {
    /// The row.
    pub row: OperatorCert,
    /// What `roles.yml` gives the name.
    pub roles: Vec<String>,
}

impl Service {
    /// Issues a certificate. The key is made here unless `csr` shows one that was made elsewhere.
    ///
    /// # Errors
    /// When the caller may not, or would give more than it has, or the certificate cannot be made.
    pub async fn operator_certificate(
        &self,
        caller: &Caller,
        name: &Name,
        ttl: Option<Duration>,
        csr: Option<&str>,
    ) -> Result<IssuedOperator, ServiceError> {
        let object = format!("operator:{name}");
        self.must(caller, Permission::OperatorManage, "operator.certificate", &object).await?;
        if self.draining() {
            return Err(ServiceError::Draining);
        }
        if let Some(role) = self.rights().lacks(caller, name.as_str(), &[]) {
            let refusal =
                ServiceError::gives("name", format!("the role {role}, which a credential in another name takes"));
            self.note_refusal(caller, "operator.certificate", &object, &refusal).await;
            return Err(refusal);
        }
        let valid = ttl.unwrap_or(OPERATOR_TTL);
        if valid.is_zero() || valid > MAX_OPERATOR_TTL {
            let text = format!("is above 0 and at most {} days", MAX_OPERATOR_TTL.as_secs() / 86_400);
            return Err(ServiceError::invalid("expires_in", text));
        }
        let csr = csr.map(request).transpose()?;
        let now = self.now();
        let not_after = now.saturating_add(millis(valid));
        // On record before it exists: one that nobody knows of could not be revoked.
        let generation = self.store().operator_cert_create(name, not_after, &caller.actor, now).await?;
        self.credentials_changed().await?;
        let (authority, wanted) = (self.authority().clone(), name.clone());
        let made = tokio::task::spawn_blocking(move || {
            let issued = match csr {
                Some(csr) => {
                    let at = Duration::from_millis(now);
                    (authority.issue_operator_for(&csr, &wanted, generation, at, valid)?, None)
                }
                None => {
                    let issued = authority.issue_operator(&wanted, generation, valid)?;
                    (issued.chain_pem, Some(Secret::new(issued.key_pem)))
                }
            };
            Ok((issued, authority.bundle_pem()))
        });
        let ((chain_pem, key_pem), ca_pem) = made
            .await
            .map_err(|_| ServiceError::Certificate(CaError::Interrupted))?
            .map_err(ServiceError::Certificate)?;
        let cluster = self.store().identity().cluster;
        Ok(IssuedOperator { name: name.clone(), generation, not_after, chain_pem, key_pem, ca_pem, cluster })
    }

    /// The bearer of a certificate whose key TLS has proven; `None` for one that is revoked, has expired or is not on
    /// record.
    #[must_use]
    pub fn operator_caller(&self, name: &Name, generation: Generation) -> Option<Caller> {
        let caller = Caller::of_certificate(name, generation);
        self.rights().stands(&caller.authority, self.now()).then_some(caller)
    }

    /// Lists certificates, newest first, revoked and expired ones included.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn operators(&self, caller: &Caller) -> Result<Vec<OperatorView>, ServiceError> {
        self.must(caller, Permission::OperatorManage, "operator.list", "operator").await?;
        let rights = self.rights();
        let rows = self.store().operator_certs().await?;
        let views = rows.into_iter().map(|row| {
            let roles = rights.site().roles().of(row.name.as_str()).to_vec();
            OperatorView { row, roles }
        });
        Ok(views.collect())
    }

    /// Revokes every certificate of an operator: requests are refused at once, streams end within two seconds.
    ///
    /// # Errors
    /// When there never was one, or the caller may not.
    pub async fn operator_revoke(&self, caller: &Caller, name: &Name) -> Result<(), ServiceError> {
        self.must(caller, Permission::OperatorManage, "operator.revoke", &format!("operator:{name}")).await?;
        let (name, actor) = (name.clone(), caller.actor.clone());
        let revoke = async move |service: Self| {
            service.store().operator_revoke(&name, &actor, service.now()).await?;
            service.credentials_changed().await
        };
        self.to_its_end(revoke).await
    }
}

/// Reads a certificate request in PEM form.
fn request(pem: &str) -> Result<Csr, ServiceError> {
    let der = common::tls::csr_from_pem(pem.as_bytes())
        .map_err(|_| ServiceError::invalid("csr", "holds no certificate request in PEM form"))?;
    Csr::read(&der).map_err(|error| ServiceError::invalid("csr", error.to_string()))
}
