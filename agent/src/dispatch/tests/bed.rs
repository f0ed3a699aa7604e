//! What the tests stand on: an agent in a temporary folder and a manager that does what the test says.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::handshake::{HelloParams, WelcomeParams, welcome};
use common::id::{Epoch, Incarnation, StorePosition, Uid};
use common::limits::MAX_FRAME;
use common::link::{Lane, Reader, Writer};
use common::model::{Outcome, StreamName};
use common::shutdown::{Shutdown, Tasks};
use common::version::Version;
use common::wire::frame::Body;
use common::wire::{Command, CommandAck, CommandResult, Frame, Inventory, Reconcile, ReconcileItem, reconcile_item};
use prost::Message;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::clock::{ManagerClock, ManagerMemory, MemoryFiles};
use crate::commands::accept::{NewCommand, accept_many};
use crate::commands::kept::Kept;
use crate::commands::reserve::Reserve;
use crate::commands::tombstones::Tombstones;
use crate::commands::{End, RecordLock, StateDir, StreamEnd};
use crate::config::Keep;
use crate::dispatch::{Dispatcher, Home, Parts};
use crate::link::{self, Attached};
use crate::shim::{Base, ShimCommand};

/// Nothing in these tests takes this long.
const BOUND: Duration = Duration::from_secs(20);
/// Manager time at every welcome.
pub(super) const NOW: u64 = 1_000_000;
/// The generation in the agent's certificate.
pub(super) const GENERATION: u64 = 4;

/// What of the configuration matters here.
pub(super) struct Setup {
    pub(super) max_running: usize,
    pub(super) keep: Keep,
    pub(super) reserve: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { max_running: 256, keep: Keep::default(), reserve: 0 }
    }
}

/// An agent without a link.
pub(super) struct Bed {
    sessions: mpsc::Sender<Attached>,
    shutdown: Shutdown,
    tasks: Tasks,
    pub(super) home: Arc<Home>,
    pub(super) memory: Arc<Mutex<ManagerMemory>>,
}

impl Bed {
    /// Starts an agent in `folder`; its shims are `exe`.
    pub(super) async fn start(folder: &Path, exe: &str) -> Self {
        Self::start_with(folder, exe, Setup::default()).await
    }

    /// The same with another configuration.
    pub(super) async fn start_with(folder: &Path, exe: &str, setup: Setup) -> Self {
        let state = StateDir::open(folder).unwrap();
        let files = MemoryFiles::new(state.path());
        let memory = Arc::new(Mutex::new(files.load_manager().unwrap().unwrap_or_default()));
        let home = Arc::new(Home {
            shim: ShimCommand { exe: exe.into(), ..ShimCommand::default() },
            base: Base::BestEffort,
            agent: "web1".parse().unwrap(),
            tombstones: Tombstones::open(&state.tombstones(), 0).unwrap(),
            files,
            kept: Kept::open(state.path(), setup.keep).unwrap(),
            reserve: Reserve::open(state.path(), setup.reserve),
            state,
        });
        let (sessions, attach) = mpsc::channel(1);
        let shutdown = Shutdown::new();
        let parts = Parts {
            home: Arc::clone(&home),
            generation: GENERATION,
            max_running: setup.max_running,
            clock: ManagerClock::new("boot", None),
            memory: Arc::clone(&memory),
            sessions: attach,
            shutdown: shutdown.clone(),
        };
        let dispatcher = Dispatcher::start(parts).await.unwrap();
        let tasks = Tasks::new();
        tasks.spawn("dispatcher", async move { dispatcher.run().await.unwrap() });
        Self { sessions, shutdown, tasks, home, memory }
    }

    /// Connects a manager whose store has this incarnation, and hears the first page of the inventory.
    pub(super) async fn connect(&self, incarnation: u64, credit: u64) -> (Manager, Inventory) {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let (read, write) = tokio::io::split(far);
        let (mut reader, mut writer) = (Reader::new(read, MAX_FRAME), Writer::new(write));
        let hello = hello();
        let greeted = tokio::join!(link::greet(Box::new(near), &hello), async {
            reader.next().await.unwrap().unwrap();
            let said = welcome(&WelcomeParams {
                version: Version::V1,
                epoch: Epoch(1),
                incarnation: Incarnation(incarnation),
                store_position: StorePosition(10),
                heartbeat: Duration::from_secs(60),
                manager_addresses: vec!["other:7051".to_owned()],
                cluster: "c1".parse().unwrap(),
                clock_ms: NOW,
                bundle_hash: None,
            });
            let Body::ServerHello(mut said) = said else { return };
            said.limits.as_mut().unwrap().stream_credit = credit;
            writer.push(Lane::Control, Body::ServerHello(said));
            writer.flush().await.unwrap();
        });
        let (ended, heard) = oneshot::channel();
        self.sessions.send(Attached { session: greeted.0.unwrap(), ended }).await.ok().unwrap();
        let mut manager = Manager { reader, writer, ended: heard };
        let Body::Inventory(first) = manager.hear().await.body.unwrap() else { panic!("no inventory") };
        (manager, first)
    }

    /// Connects until the inventory is what the test waits for.
    pub(super) async fn connect_until(
        &self,
        incarnation: u64,
        wanted: impl Fn(&Inventory) -> bool,
    ) -> (Manager, Inventory) {
        let search = async {
            loop {
                let found = self.connect(incarnation, 1 << 20).await;
                if wanted(&found.1) {
                    return found;
                }
            }
        };
        timeout(BOUND, search).await.unwrap()
    }

    /// Connects and answers an empty inventory.
    pub(super) async fn ready(&self) -> Manager {
        let (mut manager, first) = self.connect(1, 1 << 20).await;
        assert!(first.last && first.items.is_empty(), "{first:?}");
        manager.say(Body::Reconcile(Reconcile { items: Vec::new(), last: true })).await;
        manager
    }

    /// Stops the agent as a signal would.
    pub(super) async fn stop(self) {
        self.shutdown.request();
        assert!(self.tasks.join(BOUND).await.is_empty());
    }
}

/// A manager that does what the test says.
pub(super) struct Manager {
    reader: Reader<ReadHalf<DuplexStream>>,
    writer: Writer<WriteHalf<DuplexStream>>,
    ended: oneshot::Receiver<link::End>,
}

impl Manager {
    pub(super) async fn say(&mut self, body: Body) -> u64 {
        let seq = self.writer.push(Lane::Control, body);
        timeout(BOUND, self.writer.flush()).await.unwrap().unwrap();
        seq
    }

    /// Answers a frame of the agent.
    pub(super) async fn answer(&mut self, to: u64, body: Body) {
        self.writer.reply(Lane::Control, to, body);
        timeout(BOUND, self.writer.flush()).await.unwrap().unwrap();
    }

    pub(super) async fn hear(&mut self) -> Frame {
        timeout(BOUND, self.reader.next()).await.unwrap().unwrap().unwrap()
    }

    /// Hears until the connection closes.
    pub(super) async fn hear_close(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = timeout(BOUND, self.reader.next()).await.unwrap().unwrap() {
            frames.push(frame);
        }
        frames
    }

    pub(super) async fn ack(&mut self) -> (u64, CommandAck) {
        let frame = self.hear().await;
        match frame.body {
            Some(Body::CommandAck(ack)) => (frame.reply_to, ack),
            other => panic!("no ack but {other:?}"),
        }
    }

    pub(super) async fn result(&mut self) -> CommandResult {
        match self.hear().await.body {
            Some(Body::CommandResult(result)) => result,
            other => panic!("no result but {other:?}"),
        }
    }

    pub(super) async fn want(&mut self, uid: Uid, action: reconcile_item::Action) {
        let item = ReconcileItem { uid: uid.to_wire(), action: action.into(), streams: Vec::new() };
        self.say(Body::Reconcile(Reconcile { items: vec![item], last: true })).await;
    }

    /// Why the agent's side says the session ended.
    pub(super) async fn end(self) -> link::End {
        timeout(BOUND, self.ended).await.unwrap().unwrap()
    }
}

pub(super) fn hello() -> HelloParams {
    HelloParams {
        name: "web1".parse().unwrap(),
        cluster: "c1".parse().unwrap(),
        boot_id: "boot".into(),
        journal: Uid([9; 16]),
        incarnation: 0,
        store_position: 0,
        cores: 1,
        memory_bytes: 1,
        labels: Default::default(),
        agent_version: "0".into(),
        isolation: "best_effort".into(),
        capabilities: Vec::new(),
        bundle_hash: None,
    }
}

pub(super) fn ping(uid: Uid, id: u64) -> Command {
    Command {
        uid: uid.to_wire(),
        id,
        operation: "agent.ping".into(),
        args: "{}".into(),
        expires_ms: NOW + 60_000,
        generation: GENERATION,
        store_position: 20,
        ..Command::default()
    }
}

pub(super) fn run(uid: Uid, id: u64) -> Command {
    Command { operation: "command.run".into(), args: r#"{"run":["true"]}"#.into(), ..ping(uid, id) }
}

/// Lets a file of tombstones be one that no byte fits into, as on a full disk.
pub(super) fn fill_tombstones(state: &StateDir, expires_ms: u64) -> std::path::PathBuf {
    let hour = (expires_ms + 3_600_000) / 3_600_000;
    let path = state.tombstones().join(hour.to_string());
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    path
}

/// Puts a command that was accepted into the state directory.
pub(super) fn put(state: &StateDir, command: &Command) -> Uid {
    put_at(state, command, NOW)
}

/// The same at another manager time.
pub(super) fn put_at(state: &StateDir, command: &Command, accepted_ms: u64) -> Uid {
    let uid = Uid::from_wire(&command.uid).unwrap();
    let new =
        NewCommand { uid, accepted_ms, raw: command.encode_to_vec().into(), sealed: bytes::Bytes::new(), end: None };
    assert!(accept_many(state, &[new]).iter().all(Result::is_ok));
    uid
}

/// Puts a command that has ended with this output into the state directory.
pub(super) fn prepare(state: &StateDir, command: &Command, stdout: &[u8]) {
    let dir = state.command(put(state, command));
    std::fs::write(dir.join(format!("stdout.{:020}", 0)), stdout).unwrap();
    let mut end = End::without_process(Outcome::Succeeded, 5);
    end.streams.push(StreamEnd {
        stream: StreamName::Stdout,
        length: stdout.len() as u64,
        gaps: Vec::new(),
        segments: Vec::new(),
    });
    RecordLock::try_take(&dir).unwrap().unwrap().append_end(end).unwrap();
}
