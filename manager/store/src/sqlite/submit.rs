//! Accepting commands: the agents, the job, the rows, the key, the audit and the events in one transaction.

use std::collections::HashSet;

use common::id::{CommandId, JobId, Name, Uid};
use common::model::Phase;
use rusqlite::{OptionalExtension, params};

use super::codes::{int, json, limit, phase_code, uint};
use super::database::Database;
use super::writer::Tx;
use super::{audit, dispatch, events, idempotency, rows};
use crate::error::StoreError;
use crate::types::{Command, Due, DueKind, Judge, Started, Submit, Submitted, Taker};

impl Database {
    /// Accepts commands.
    pub(crate) async fn submit(&self, submit: Submit) -> Result<Submitted, StoreError> {
        self.write(move |tx| accept(tx, &submit)).await
    }

    /// Accepts a command for the agent of a session, and takes in the same commit what is due for that agent.
    pub(crate) async fn submit_and_take(
        &self,
        submit: Submit,
        taker: Taker,
        judge: &Judge,
        deliver: impl FnOnce(Vec<Due>) + Send + 'static,
    ) -> Result<Started, StoreError> {
        let judge = judge.clone();
        self.write(move |tx| {
            let submitted = accept(tx, &submit)?;
            if submitted.replayed {
                return Ok(Started { submitted, command: None });
            }
            let due = match dispatch::take_due(tx, &taker, &judge, submit.now) {
                // The session is not of the present bearer; whoever comes finds the row.
                Err(StoreError::Fenced(_)) => Vec::new(),
                due => due?,
            };
            let made = submitted.commands.first().copied();
            let mut command = due.iter().find(|due| Some(due.id) == made).and_then(|due| match &due.what {
                DueKind::Send(command) => Some(Command::clone(command)),
                DueKind::Cancel(..) | DueKind::Pause(..) => None,
            });
            if let Some(command) = &mut command {
                command.streams = rows::fresh_streams();
            }
            tx.after_commit(move || deliver(due));
            Ok(Started { submitted, command })
        })
        .await
    }
}

fn accept(tx: &Tx<'_>, submit: &Submit) -> Result<Submitted, StoreError> {
    if let Some(key) = &submit.idempotency
        && let Some(before) = idempotency::replay(tx, &submit.actor, key, submit.now)?
    {
        return Ok(before);
    }
    let agents = bearers(tx, &submit.agents)?;
    let request = json(&submit.request)?;
    let job = if submit.as_job { Some(insert_job(tx, submit, &request, agents.len())?) } else { None };
    // The text of a job's request is stored once.
    let own_request = job.is_none().then_some(request.as_str());
    let mut commands = Vec::with_capacity(agents.len());
    for (generation, name) in agents {
        commands.push(insert_command(tx, submit, generation, name, job, own_request)?);
    }
    let submitted = Submitted { job, commands, replayed: false };
    if let Some(key) = &submit.idempotency {
        idempotency::remember(tx, &submit.actor, key, &submitted, submit.now)?;
    }
    write_audit(tx, submit, &submitted)?;
    Ok(submitted)
}

/// Finds the present bearers of the names, each once.
fn bearers<'a>(tx: &Tx<'_>, names: &'a [Name]) -> Result<Vec<(i64, &'a Name)>, StoreError> {
    if names.is_empty() {
        return Err(StoreError::Conflict { what: "a submit names at least one agent" });
    }
    let mut seen = HashSet::with_capacity(names.len());
    let mut statement = tx.prepare("SELECT generation FROM agents WHERE name = ?1 AND removed_at IS NULL")?;
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        if seen.insert(name) {
            let generation: Option<i64> = statement.query_row([name.as_str()], |row| row.get(0)).optional()?;
            found.push((generation.ok_or_else(|| StoreError::UnknownAgent(name.clone()))?, name));
        }
    }
    Ok(found)
}

fn insert_job(tx: &Tx<'_>, submit: &Submit, request: &str, total: usize) -> Result<JobId, StoreError> {
    let id = tx
        .prepare("INSERT INTO jobs (created_at, created_by, operation, request, total) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .insert(params![int(submit.now, "time")?, submit.actor.0, submit.request.operation, request, limit(total)])?;
    Ok(JobId(uint(id)))
}

fn insert_command(
    tx: &Tx<'_>,
    submit: &Submit,
    generation: i64,
    agent: &Name,
    job: Option<JobId>,
    request: Option<&str>,
) -> Result<CommandId, StoreError> {
    let id = tx
        .prepare(
            "INSERT INTO commands (uid, agent, job, attempt, operation, request, phase, live, created_at, created_by,
                 expires_at, authority)
             VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, 1, ?7, ?8, ?9, ?10)",
        )?
        .insert(params![
            &Uid::random().0[..],
            generation,
            job.map(|job| int(job.0, "job")).transpose()?,
            submit.request.operation,
            request,
            phase_code(Phase::Queued),
            int(submit.now, "time")?,
            submit.actor.0,
            int(submit.expires_at, "expiry")?,
            submit.authority.as_ref().map(json).transpose()?,
        ])?;
    let id = CommandId(uint(id));
    let subject = events::Subject { agent: Some(agent.as_str()), command: Some(id) };
    events::add(tx, submit.now, "command.queued", subject, &format!(r#"{{"id":{id},"phase":"queued"}}"#))?;
    Ok(id)
}

fn write_audit(tx: &Tx<'_>, submit: &Submit, submitted: &Submitted) -> Result<(), StoreError> {
    let first = submitted.commands.first().map_or(0, |id| id.0);
    let object = match (submitted.job, submit.agents.as_slice()) {
        (Some(job), _) => format!("job {job}"),
        (None, [one]) => one.to_string(),
        (None, many) => format!("{} agents", many.len()),
    };
    let names: Vec<&str> = submit.agents.iter().map(Name::as_str).collect();
    let details = serde_json::json!({
        "operation": submit.request.operation,
        "agents": names,
        "first": first,
        "commands": submitted.commands.len(),
    });
    audit::done(tx, &submit.actor, "command.submit", &object, &details.to_string(), submit.now)
}
