//! Which reported ends are whole, so that their agent may forget them. Bytes are durable before anything says so.

use common::crash;
use common::id::{CommandId, Uid};
use store::StoreError;

use crate::service::Service;

/// Finds out which ends are whole, makes their bytes durable and records that the agent may forget them.
pub(super) async fn settle(
    service: &Service,
    look_at: Vec<(CommandId, Uid, bool)>,
) -> Result<Vec<(CommandId, Uid)>, StoreError> {
    let mut whole = Vec::with_capacity(look_at.len());
    let mut bytes = false;
    for (id, uid, output) in look_at {
        if !output || service.store().ready_for_ack(id).await? {
            whole.push((id, uid));
            bytes |= output;
        }
    }
    if whole.is_empty() {
        return Ok(whole);
    }
    if bytes {
        service.store().sync_output().await?;
    }
    crash::point("manager.result.before-ack");
    service.store().mark_result_acked(whole.iter().map(|(id, _)| *id).collect()).await?;
    Ok(whole)
}
