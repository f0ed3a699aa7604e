//! The judgement of one page of an inventory: what the agent holds against what the store knows.
//!
//! The verdicts are the store's; here they become answers, and what only the agent knew is taken in as history.

use std::collections::HashSet;

use common::error::Chain;
use common::id::{CommandId, Name, Uid};
use common::model::StreamName;
use common::wire;
use common::wire::reconcile_item::Action;
use store::StoreError;
use store::types::{Held, Import, Verdict};

use super::messages;
use crate::registry::SessionHandle;
use crate::service::Service;

/// A command that the session goes on with, and the first byte that is wanted of each stream.
pub(super) type Own = (Uid, CommandId, Vec<(StreamName, u64)>);

/// Answers to the lines, what the session goes on with, and cancels that follow.
pub(super) type Judged = (Vec<wire::ReconcileItem>, Vec<Own>, Vec<wire::CommandCancel>);

/// Judges one page, takes in what was described, and ends the inventory when everything was listed.
pub(super) async fn judge_page(
    service: &Service,
    agent: &Name,
    handle: &SessionHandle,
    held: Vec<Held>,
    described: Vec<Import>,
    listed: Option<HashSet<Uid>>,
) -> Result<Judged, StoreError> {
    let (generation, journal) = (handle.generation(), handle.journal());
    let mut verdicts = Vec::new();
    if !held.is_empty() {
        let now = service.now();
        verdicts = service.store().reconcile_page(agent, generation, journal, held, now).await?;
    }
    let mut again = Vec::new();
    let mut refused = None;
    for import in described {
        let (uid, id, phase, tombstone) = (import.uid, import.id, import.phase, import.tombstone);
        match service.store().import(import, service.now()).await {
            Ok(command) => {
                tracing::debug!(agent.id = %agent, command.id = command.0, command.uid = %uid, "a command that only its agent knew was taken in");
                again.push(Held { uid, id: command, generation, phase, started_ms: None, tombstone });
            }
            Err(error @ (StoreError::NotMine | StoreError::NotFound { .. } | StoreError::Conflict { .. })) => {
                tracing::debug!(agent.id = %agent, command.id = id.0, command.uid = %uid, error = %Chain(&error), "a command that only its agent knew was not taken in");
                refused = Some(error);
                verdicts.push((uid, Verdict::NotMine));
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = refused {
        // One line for a page: what an agent describes must not fill the log.
        tracing::warn!(agent.id = %agent, error = %Chain(&error), "commands that only their agent knew were not taken in");
    }
    if !again.is_empty() {
        tracing::info!(agent.id = %agent, commands = again.len(), "commands that only their agent knew were taken in");
        let now = service.now();
        verdicts.extend(service.store().reconcile_page(agent, generation, journal, again, now).await?);
    }
    let mut judged: Judged = Judged::default();
    for (uid, verdict) in verdicts {
        judge_item(service, handle, uid, verdict, &mut judged).await?;
    }
    if let Some(listed) = listed {
        let ended = service.store().reconcile_finish(agent, generation, journal, listed, service.now()).await?;
        if !ended.is_empty() {
            tracing::warn!(agent.id = %agent, commands = ended.len(), "commands that their agent no longer holds ended as interrupted");
        }
    }
    Ok(judged)
}

async fn judge_item(
    service: &Service,
    handle: &SessionHandle,
    uid: Uid,
    verdict: Verdict,
    (items, own, cancels): &mut Judged,
) -> Result<(), StoreError> {
    let mut item = wire::ReconcileItem { uid: uid.to_wire(), ..Default::default() };
    let action = match verdict {
        Verdict::Continue { command, from, cancel } => {
            item.streams = from
                .iter()
                .map(|(stream, length)| wire::StreamLength { stream: stream.to_wire(), length: *length })
                .collect();
            own.push((uid, command, from));
            match cancel {
                Some(wish) => {
                    let expires = service.store().command(command).await?.map_or(0, |row| row.expires_at);
                    cancels.push(messages::cancel(uid, command, &wish, expires, handle.generation()));
                    service.counters().cancels_sent.add(1);
                    Action::Stop
                }
                None => Action::Continue,
            }
        }
        Verdict::Forget => Action::Forget,
        Verdict::Describe => Action::Describe,
        Verdict::NotMine => Action::NotMine,
    };
    item.action = action.into();
    items.push(item);
    Ok(())
}
