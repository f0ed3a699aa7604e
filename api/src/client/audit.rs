//! Calls about the audit: pages, the check, and the whole of it as lines.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::calls::{Client, Words};
use super::connection::Connection;
use super::error::ClientError;
use crate::audit::{AuditQuery, AuditRow, AuditVerification};
use crate::page::Page;

/// How long the check of the whole audit may take: some millions of rows.
const VERIFY: Duration = Duration::from_secs(600);
/// How long an export may stand still before it is given up.
const SILENCE: Duration = Duration::from_secs(60);

impl Client {
    // Every method here fails in the ways of `ClientError`.

    /// Lists rows of the audit, the oldest first.
    pub async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, ClientError> {
        self.call(self.get(words(query).behind("/audit"))).await
    }

    /// Has the manager check its whole audit. It reads every row, so it may take its time.
    pub async fn verify_audit(&self) -> Result<AuditVerification, ClientError> {
        let mut call = self.get("/audit/verify".to_owned());
        call.deadline = VERIFY;
        self.call(call).await
    }

    /// Reads the whole audit as lines of JSON, one for each row.
    pub async fn export_audit(&self, query: &AuditQuery) -> Result<AuditExport, ClientError> {
        let (connection, answer) =
            self.stream(&words(query).behind("/audit/export"), "application/x-ndjson", None).await?;
        Ok(AuditExport { client: self.clone(), connection, body: answer.into_body() })
    }
}

/// The audit as lines of JSON, read piece by piece. It begins again by itself never: a cut is an error, so that half an
/// audit is not taken for the whole.
pub struct AuditExport {
    client: Client,
    connection: Connection,
    body: Incoming,
}

impl AuditExport {
    /// Waits for the next bytes; `None` behind the last line.
    ///
    /// # Errors
    /// When the connection breaks or stands still.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = timeout(SILENCE, self.connection.frame(&mut self.body))
                .await
                .map_err(|_| ClientError::Deadline { address: self.client.address(), limit: SILENCE })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.shared.dialer.lost(error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

fn words(query: &AuditQuery) -> Words {
    let mut words = Words::default();
    words.add("actor", query.actor.as_ref());
    words.add("action", query.action.as_ref());
    words.add("after", query.after);
    words.add("limit", query.limit);
    words
}
