//! A store in its own folder, and the short ways to bring it where a test begins.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use common::id::{CommandId, Epoch, Generation, Name, Uid};
use common::model::{Outcome, Phase, StreamName};
use store::Store;
use store::types::{
    AckAnswer, Actor, Cancel, Chunk, Command, Connect, Due, DueKind, End, Held, HeldPhase, Idempotency, Millis,
    ProgressReport, Reported, Request, StreamEnd, Submit, Submitted, Taker, everybody,
};
use tempfile::TempDir;

/// When tests begin, in the manager's milliseconds.
pub const NOW: Millis = 1_800_000_000_000;
/// One hour.
pub const HOUR: Millis = 3_600_000;
/// When a send is repeated.
pub const RESEND: Duration = Duration::from_secs(10);
/// The journal of most agents here.
pub const JOURNAL: Uid = Uid([7; 16]);

/// A store and its folder.
pub struct Home {
    folder: TempDir,
    pub store: Store,
}

impl Home {
    /// A new one.
    pub async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        Self { folder, store }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Closes it and opens the same folder again.
    pub async fn reopened(&self) -> Store {
        self.store.close().await;
        Store::open(self.folder()).await.unwrap()
    }

    /// Makes an agent with an open session.
    pub async fn connected(&self, agent: &str) -> (Generation, Epoch) {
        let (row, _) = self.store.ensure_agent(&name(agent), &admin(), NOW).await.unwrap();
        let epoch = self.store.agent_connected(connect(agent, row.generation), NOW).await.unwrap();
        (row.generation, epoch)
    }

    /// Accepts a command for an agent that is there.
    pub async fn queued(&self, agent: &str) -> CommandId {
        self.store.submit(submit(&[agent])).await.unwrap().commands[0]
    }

    /// Brings a command of a new or present agent into a phase that is not final.
    pub async fn in_phase(&self, agent: &str, phase: Phase) -> Command {
        let (generation, _) = match self.store.agent(&name(agent)).await.unwrap() {
            Some(agent) => (agent.generation, agent.epoch),
            None => self.connected(agent).await,
        };
        let id = self.queued(agent).await;
        if phase != Phase::Queued {
            self.store.due(taker(agent, generation, 100), &everybody(), NOW).await.unwrap();
            let uid = self.command(id).await.uid;
            if phase != Phase::Dispatched {
                self.store.acked(&uid, &name(agent), AckAnswer::Accepted, NOW).await.unwrap();
            }
            if let Some(held) = held_phase(phase).filter(|held| *held != HeldPhase::Accepted) {
                self.store.progress(&uid, &name(agent), report(held), NOW).await.unwrap();
            }
        }
        let command = self.command(id).await;
        assert_eq!(command.phase, phase);
        command
    }

    /// Reads a command that is there.
    pub async fn command(&self, id: CommandId) -> Command {
        self.store.command(id).await.unwrap().unwrap()
    }

    /// Takes what is due, by kind.
    pub async fn due(&self, agent: &str, now: Millis) -> (Vec<CommandId>, Vec<CommandId>) {
        let row = self.store.agent(&name(agent)).await.unwrap().unwrap();
        let due = self.store.due(taker(agent, row.generation, 100), &everybody(), now).await.unwrap();
        kinds(&due)
    }

    /// Appends bytes and waits until they are readable.
    pub async fn write(&self, id: CommandId, offset: u64, data: &[u8]) -> Result<u64, store::StoreError> {
        let appended = self.store.append_output(vec![chunk(id, offset, data)])?.await?;
        Ok(appended[0].length)
    }
}

/// Sends and cancels of an answer.
pub fn kinds(due: &[Due]) -> (Vec<CommandId>, Vec<CommandId>) {
    let of =
        |send: bool| due.iter().filter(|one| matches!(one.what, DueKind::Send(_)) == send).map(|one| one.id).collect();
    (of(true), of(false))
}

/// A name.
pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The operator of most tests.
pub fn admin() -> Actor {
    Actor("admin".to_owned())
}

/// A hello.
pub fn connect(agent: &str, generation: Generation) -> Connect {
    Connect {
        name: name(agent),
        generation,
        journal: JOURNAL,
        boot_id: "boot".to_owned(),
        address: "192.0.2.1:4000".to_owned(),
        version: "0.1.0".to_owned(),
        isolation: "cgroup".to_owned(),
        cores: 2,
        memory_bytes: 1 << 30,
        labels: BTreeMap::from([("rack".to_owned(), "a".to_owned())]),
        spki: None,
    }
}

/// Who asks for what is due for an agent.
pub fn taker(agent: &str, generation: Generation, limit: usize) -> Taker {
    Taker { agent: name(agent), generation, journal: JOURNAL, limit, resend: RESEND }
}

/// A request.
pub fn request() -> Request {
    Request {
        operation: "command.run".to_owned(),
        args: r#"{"run":["uname","-a"]}"#.to_owned(),
        timeout: Some(Duration::from_secs(30)),
        env: BTreeMap::from([("K".to_owned(), "V \u{1f336}".to_owned())]),
        cwd: Some("/tmp".to_owned()),
        stdin: Some(vec![0, 159, 146, 150]),
        ..Request::default()
    }
}

/// A submit without a key.
pub fn submit(agents: &[&str]) -> Submit {
    Submit {
        agents: agents.iter().map(|agent| name(agent)).collect(),
        request: request(),
        expires_at: NOW + HOUR,
        actor: admin(),
        authority: None,
        as_job: false,
        idempotency: None,
        now: NOW,
    }
}

/// A submit with a key.
pub fn keyed(agents: &[&str], key: &str, fingerprint: u8) -> Submit {
    let idempotency = Idempotency { key: key.to_owned(), fingerprint: [fingerprint; 32] };
    Submit { idempotency: Some(idempotency), ..submit(agents) }
}

/// The one command of an answer.
pub fn only(submitted: &Submitted) -> CommandId {
    assert_eq!(submitted.commands.len(), 1);
    submitted.commands[0]
}

/// A wish.
pub fn wish(grace: Option<u64>) -> Cancel {
    Cancel {
        by: admin(),
        reason: Some("because".to_owned()),
        at: NOW,
        grace: grace.map(Duration::from_secs),
        begun: None,
        keys: Vec::new(),
    }
}

/// How far a command has come.
pub fn report(phase: HeldPhase) -> ProgressReport {
    ProgressReport { phase, progress: None, waiting: None, isolation: None, at: Some(NOW) }
}

/// The phase as an agent says it, for those that it can hold.
pub fn held_phase(phase: Phase) -> Option<HeldPhase> {
    match phase {
        Phase::Accepted => Some(HeldPhase::Accepted),
        Phase::Waiting => Some(HeldPhase::Waiting),
        Phase::Running => Some(HeldPhase::Running),
        Phase::Paused => Some(HeldPhase::Paused),
        Phase::Stopping => Some(HeldPhase::Stopping),
        _ => None,
    }
}

/// A line of an inventory.
pub fn held(uid: Uid, generation: Generation, phase: HeldPhase) -> Held {
    Held { uid, id: CommandId(0), generation, phase, started_ms: None, tombstone: false }
}

/// An end with these streams of these lengths.
pub fn ended(outcome: Outcome, streams: &[(StreamName, u64)]) -> Reported {
    let end = End {
        outcome,
        changed: true,
        exit_code: Some(0),
        signal: None,
        core_dumped: false,
        oom: false,
        error: None,
        duration_us: Some(1000),
        cpu_us: Some(900),
        memory_peak: Some(1 << 20),
        io_read: None,
        io_written: None,
        tasks_peak: None,
        flags: Vec::new(),
        value: None,
        started_ms: Some(NOW + 1),
        finished_ms: Some(NOW + 2),
        cancelled_by: None,
        cancel_reason: None,
        lengths_are_lower_bounds: false,
    };
    let streams = streams
        .iter()
        .map(|(name, length)| StreamEnd {
            name: *name,
            length: *length,
            gaps: Vec::new(),
            segments: vec![(0, *length, [9; 32])],
        })
        .collect();
    Reported { end, streams, isolation: Some("cgroup".to_owned()) }
}

/// Bytes of standard output.
pub fn chunk(command: CommandId, offset: u64, data: &[u8]) -> Chunk {
    Chunk { command, stream: StreamName::Stdout, offset, data: Bytes::copy_from_slice(data), gap: 0 }
}

/// A gap in standard output.
pub fn gap(command: CommandId, offset: u64, length: u64) -> Chunk {
    Chunk { command, stream: StreamName::Stdout, offset, data: Bytes::new(), gap: length }
}

/// What an inventory named.
pub fn listed(uids: &[Uid]) -> HashSet<Uid> {
    uids.iter().copied().collect()
}
