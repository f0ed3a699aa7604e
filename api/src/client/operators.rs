//! Calls about operators' certificates.

use common::id::Name;
use http::Method;

use super::calls::{Client, list};
use super::error::ClientError;
use crate::operators::{Operator, OperatorCertificate, OperatorCertificateRequest};
use crate::page::Page;

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Lists operators' certificates.
    pub async fn operators(&self, after: Option<&str>, limit: Option<u32>) -> Result<Page<Operator>, ClientError> {
        self.call(self.get(list("/operators", after, limit))).await
    }

    /// Issues a certificate for an operator. It is sent once: each answer is another certificate.
    pub async fn operator_certificate(
        &self,
        name: &Name,
        request: &OperatorCertificateRequest,
    ) -> Result<OperatorCertificate, ClientError> {
        self.call(self.post(format!("/operators/{name}/certificate"), request)?).await
    }

    /// Revokes all certificates of an operator.
    pub async fn revoke_operator(&self, name: &Name) -> Result<(), ClientError> {
        self.send(&self.bare(Method::DELETE, format!("/operators/{name}")).repeatable()).await.map(drop)
    }
}
