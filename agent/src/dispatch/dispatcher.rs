//! The dispatcher's loop: `next()` only waits, `apply()` decides. Frames, job answers and delivery have their own files;
//! this one owns the fields, the timers, start and stop.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use common::credit::SendWindow;
use common::error::Chain;
use common::id::Uid;
use common::model::StreamName;
use common::shutdown::Shutdown;
use common::wire::bye::Code;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, warn};

use super::again::Again;
use super::burial::{self, Delivered};
use super::deaf::Deaf;
use super::deliver::Readers;
use super::jobs::{self, Done, Home, Intake};
use super::notes::Notes;
use super::past::Past;
use super::places::Places;
use super::scan::{Found, scan_all};
use super::table::{Step, Table};
use crate::clock::{ManagerClock, ManagerMemory, boot_ms};
use crate::commands::FileError;
use crate::commands::request::WakeWatch;
use crate::limits::{
    ADOPT_PAUSE, ADOPTIONS, FORGET_LINGER, FORGET_MANY, INTAKES, RESCAN, RESCAN_EACH, ROOM_EACH, SAVE, STOP_JOBS,
    SWEEP_EACH,
};
use crate::link::{Attached, End, Incoming, Session};
use crate::shim::ShimProcess;

/// What a dispatcher is made of.
pub(crate) struct Parts {
    pub(crate) home: Arc<Home>,
    /// The generation in the agent's certificate.
    pub(crate) generation: u64,
    /// Commands that run at the same time.
    pub(crate) max_running: usize,
    pub(crate) clock: ManagerClock,
    pub(crate) memory: Arc<Mutex<ManagerMemory>>,
    pub(crate) sessions: mpsc::Receiver<Attached>,
    pub(crate) shutdown: Shutdown,
}

/// The dispatcher cannot go on; the next start reads the truth from disk.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The notes of shims cannot be read.
    #[error("the notify FIFO cannot be read")]
    Notes(#[source] io::Error),
    /// The command directories cannot be listed or read.
    #[error("the command directories cannot be read")]
    Directories(#[source] FileError),
    /// A job panicked or was lost.
    #[error("a job of the agent ended unexpectedly")]
    Job(#[source] tokio::task::JoinError),
}

/// An open session and what only counts in it.
pub(super) struct Live {
    pub(super) session: Session,
    ended: oneshot::Sender<End>,
    /// Counts sessions of this process: answers to jobs of an older one are dropped.
    pub(super) number: u64,
    pub(super) window: SendWindow,
    /// Bytes that reads under way may still bring.
    pub(super) reading: u64,
    /// The manager has answered the whole inventory.
    pub(super) synced: bool,
    /// Pages of the inventory that wait for the answer to the one before.
    pub(super) pages: VecDeque<common::wire::Inventory>,
    /// What the manager wants to hear of commands that are gone.
    pub(super) past: Past,
    /// Commands that the manager wants described, and whether some are being read.
    pub(super) describe: VecDeque<Uid>,
    pub(super) describing: bool,
}

/// Work that waits for its turn.
#[derive(Default)]
pub(super) struct Work {
    pub(super) intake: Vec<Intake>,
    pub(super) intakes: usize,
    /// Bytes of commands in `intake` and in what is being written.
    pub(super) intake_bytes: usize,
    pub(super) spawning: usize,
    pub(super) forget: Vec<Delivered>,
    pub(super) forget_at: Option<Instant>,
    pub(super) forgetting: bool,
    /// Streams that have something to send, in turn.
    pub(super) ring: VecDeque<(Uid, StreamName)>,
    pub(super) ringed: HashSet<(Uid, StreamName)>,
    /// Streams that wait for credit.
    pub(super) starved: Vec<(Uid, StreamName)>,
    pub(super) reads: usize,
    /// Sending stopped because enough is queued.
    pub(super) hungry: bool,
    pub(super) again: Again,
    /// Accepted in an earlier boot; started once the manager's time is known.
    pub(super) held: Vec<Uid>,
    rescan_at: Option<Instant>,
    save_at: Option<Instant>,
    /// One at a time: an older memory must not replace a newer one.
    pub(super) saving: bool,
    memory_changed: bool,
    /// When the disk is looked at, while something could be given up or taken back.
    pub(super) room_at: Option<Instant>,
    pub(super) looking_at_room: bool,
    /// When cgroups are looked for whose commands are forgotten.
    pub(super) sweep_at: Option<Instant>,
    /// Shims that should hear a cancel.
    pub(super) deaf: Deaf,
}

/// Owns what runs here.
pub(crate) struct Dispatcher {
    pub(super) home: Arc<Home>,
    pub(super) generation: u64,
    pub(super) clock: ManagerClock,
    pub(super) memory: Arc<Mutex<ManagerMemory>>,
    pub(super) table: Table,
    /// Who may start next.
    pub(super) places: Places,
    pub(super) live: Option<Live>,
    pub(super) work: Work,
    /// Open segment files, between turns.
    pub(super) readers: Readers,
    /// Cancels of commands that are not here, on their way to the disk.
    pub(super) telling: HashSet<Uid>,
    numbers: u64,
    sessions: mpsc::Receiver<Attached>,
    notes: Notes,
    jobs: JoinSet<Done>,
    watches: JoinSet<Uid>,
    shutdown: Shutdown,
}

/// What the loop was woken by.
enum Event {
    Stop,
    Attached(Attached),
    Frame(Incoming),
    Ended(End),
    /// Queued bytes have left.
    Drained,
    Done(Done),
    Gone(Uid),
    Notes,
    Timer,
}

impl Dispatcher {
    /// Reads all directories, so that the first inventory is complete, and begins to recover what needs it.
    ///
    /// # Errors
    /// When the directories or the notify FIFO cannot be used.
    pub(crate) async fn start(parts: Parts) -> Result<Self, DispatchError> {
        let Parts { home, generation, max_running, clock, memory, sessions, shutdown } = parts;
        let notes = Notes::new(home.state.notify()).map_err(DispatchError::Notes)?;
        let mut this = Self {
            home: Arc::clone(&home),
            generation,
            clock,
            memory,
            table: Table::default(),
            places: Places::new(max_running),
            live: None,
            work: Work::default(),
            readers: Readers::new(),
            telling: HashSet::new(),
            numbers: 0,
            sessions,
            notes,
            jobs: JoinSet::new(),
            watches: JoinSet::new(),
            shutdown,
        };
        let mut scan = JoinSet::new();
        scan.spawn_blocking(move || scan_all(&home));
        if let Some(found) = scan.join_next().await {
            let found = found.map_err(DispatchError::Job)?.map_err(DispatchError::Directories)?;
            for Found { uid, entry, store_position, .. } in &found {
                this.memory().recall_position(*store_position, entry.accepted_ms);
                this.clock.recall(entry.accepted_ms);
                debug_assert!(this.table.get(*uid).is_none(), "a directory is listed once");
            }
            let mut active = Vec::new();
            for Found { uid, entry, .. } in found {
                active.extend(entry.is_active().then_some(uid));
                this.table.insert(uid, entry);
                this.look_begins(uid);
            }
            // After all are known: nobody starts before one that was accepted earlier.
            for uid in active {
                this.start_recover(uid);
            }
        }
        this.arm_rescan();
        Ok(this)
    }

    /// Works until the agent stops.
    ///
    /// # Errors
    /// When it cannot go on.
    pub(crate) async fn run(mut self) -> Result<(), DispatchError> {
        loop {
            self.pump();
            match self.next().await? {
                Event::Stop => break,
                event => self.apply(event)?,
            }
        }
        self.stop().await;
        Ok(())
    }

    /// Waits for the next event. Cancel-safe: it only selects.
    async fn next(&mut self) -> Result<Event, DispatchError> {
        let timer = self.next_timer();
        let Self { live, sessions, jobs, watches, notes, shutdown, work, .. } = self;
        tokio::select! {
            () = shutdown.requested() => Ok(Event::Stop),
            frame = next_frame(live, work.hungry), if live.is_some() => Ok(match frame {
                Ok(Some(frame)) => Event::Frame(frame),
                Ok(None) => Event::Drained,
                Err(end) => Event::Ended(end),
            }),
            Some(attached) = sessions.recv(), if live.is_none() => Ok(Event::Attached(attached)),
            Some(done) = jobs.join_next() => done.map(Event::Done).map_err(DispatchError::Job),
            Some(gone) = watches.join_next() => gone.map(Event::Gone).map_err(DispatchError::Job),
            ready = notes.ready() => ready.map(|()| Event::Notes).map_err(DispatchError::Notes),
            () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => Ok(Event::Timer),
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), DispatchError> {
        match event {
            Event::Stop | Event::Drained => {}
            Event::Attached(attached) => self.attached(attached),
            Event::Frame(frame) => self.incoming(frame),
            Event::Ended(end) => self.detached(end),
            Event::Done(done) => self.done(done),
            Event::Gone(uid) => self.gone(uid),
            Event::Notes => {
                for uid in self.notes.take().map_err(DispatchError::Notes)? {
                    self.start_look(uid);
                }
            }
            Event::Timer => self.tick(),
        }
        Ok(())
    }

    /// Starts whatever may start now.
    fn pump(&mut self) {
        if !self.work.intake.is_empty() && self.work.intakes < INTAKES {
            let items = std::mem::take(&mut self.work.intake);
            self.work.intakes += 1;
            let now = self.clock.now(boot_ms());
            for item in &items {
                if let Some(entry) = self.table.get_mut(item.uid) {
                    entry.accepted_ms = now;
                }
            }
            self.job(move |home| jobs::intake(home, now, items));
        }
        self.open_door();
        let due = self.work.forget_at.is_some_and(|at| at <= Instant::now()) || self.work.forget.len() >= FORGET_MANY;
        if due && !self.work.forgetting && !self.work.forget.is_empty() {
            self.work.forgetting = true;
            self.work.forget_at = None;
            let delivered = std::mem::take(&mut self.work.forget);
            self.job(move |home| burial::forget(home, delivered));
        }
        if self.work.room_at.is_none() && (self.home.reserve.is_missing() || !self.home.kept.is_empty()) {
            self.work.room_at = Some(Instant::now() + ROOM_EACH);
        }
        self.ship();
        self.pump_past();
        self.pump_describe();
    }

    /// Runs a job in the blocking pool; its answer comes back as an event.
    pub(super) fn job(&mut self, job: impl FnOnce(&Home) -> Done + Send + 'static) {
        let home = Arc::clone(&self.home);
        self.jobs.spawn_blocking(move || job(&home));
    }

    /// What is remembered of the manager.
    pub(super) fn memory(&self) -> std::sync::MutexGuard<'_, ManagerMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears the manager's clock and store position, wherever they stand.
    pub(super) fn hear(&mut self, clock_ms: u64, store_position: u64) {
        self.clock.hear(clock_ms, boot_ms());
        if self.live.as_ref().is_some_and(|live| live.synced) {
            let mut memory = self.memory();
            let before = memory.store_position;
            memory.hear_position(store_position);
            let changed = memory.store_position != before;
            drop(memory);
            self.work.memory_changed |= changed;
        }
        self.work.save_at.get_or_insert_with(|| Instant::now() + SAVE);
    }

    /// Has what is remembered of the manager saved soon, not at the next usual moment.
    pub(super) fn save_memory_now(&mut self) {
        self.work.memory_changed = true;
        self.work.save_at = Some(Instant::now());
    }

    /// Looks at a directory, unless a look is under way: then once more after it.
    pub(super) fn start_look(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        if !entry.is_active() {
            return;
        }
        if entry.looking {
            entry.look_again = true;
            return;
        }
        entry.looking = true;
        entry.look_again = false;
        let mut wanted = Vec::new();
        if entry.delivery.attached {
            wanted.extend([StreamName::Stdout, StreamName::Stderr].map(|stream| (stream, entry.ship(stream).next())));
        }
        self.job(move |home| jobs::look(home, uid, &wanted));
    }

    /// Finds out what to do with a directory whose shim may be gone.
    pub(super) fn start_recover(&mut self, uid: Uid) {
        let now = self.clock.now(boot_ms());
        let Some(entry) = self.table.get_mut(uid) else { return };
        if std::mem::replace(&mut entry.recovering, true) {
            return;
        }
        self.look_begins(uid);
        self.job(move |home| jobs::recover(home, uid, now));
    }

    /// Watches a shim that this process started.
    pub(super) fn watch_child(&mut self, uid: Uid, child: ShimProcess) {
        self.watches.spawn(async move {
            if let Err(error) = child.wait().await {
                warn!(task.id = %uid, error = %error, "A shim cannot be waited for");
            }
            uid
        });
    }

    /// Watches a shim that an earlier process started.
    pub(super) fn watch_adopted(&mut self, uid: Uid, watch: WakeWatch) {
        self.watches.spawn(async move {
            if let Err(error) = watch.gone().await {
                warn!(task.id = %uid, error = %error, "A shim cannot be watched");
            }
            uid
        });
    }

    /// Looks again soon at a command whose lock is held by a process that cannot be watched, a few times; `false` when
    /// that was enough and the usual scan has to do.
    pub(super) fn adopt_soon(&mut self, uid: Uid) -> bool {
        let Some(entry) = self.table.get_mut(uid) else { return false };
        if entry.adoptions >= ADOPTIONS {
            entry.adoptions = 0;
            return false;
        }
        let pause = ADOPT_PAUSE * (1 << entry.adoptions);
        entry.adoptions += 1;
        // Nobody else looks meanwhile.
        entry.watched = true;
        self.watches.spawn(async move {
            sleep(pause).await;
            uid
        });
        true
    }

    fn gone(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        entry.watched = false;
        if entry.is_active() {
            self.start_recover(uid);
        } else {
            self.forget_if_possible(uid);
        }
    }

    /// Has a delivered command forgotten, once nothing of it is in use any more.
    pub(super) fn forget_if_possible(&mut self, uid: Uid) {
        let Some(entry) = self.table.get_mut(uid) else { return };
        // A shim that only keeps the pipes of strays open has no business with the directory any more.
        let in_use = entry.watched && !entry.keeps_strays();
        if !entry.acked || entry.is_active() || in_use || entry.forgetting {
            return;
        }
        entry.forgetting = true;
        if entry.keeps_strays() {
            // Its cgroup goes when they have gone.
            self.work.sweep_at.get_or_insert_with(|| Instant::now() + SWEEP_EACH);
        }
        self.work.forget.push(Delivered::new(uid, entry));
        self.work.forget_at.get_or_insert_with(|| Instant::now() + FORGET_LINGER);
    }

    /// Makes sure that active commands are looked at from time to time.
    pub(super) fn arm_rescan(&mut self) {
        if self.work.rescan_at.is_none() && self.table.any_active() {
            self.work.rescan_at = Some(Instant::now() + RESCAN);
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let forget = self.work.forget_at.filter(|_| !self.work.forgetting);
        let save = self.work.save_at.filter(|_| !self.work.saving);
        let room = self.work.room_at.filter(|_| !self.work.looking_at_room);
        // A pause that is over is the door's business at once, not a timer that is due for ever.
        let starved = self.places.starved_until().filter(|until| *until > Instant::now());
        let (told, sweep) = (self.places.tell_at, self.work.sweep_at);
        let timers = [
            self.work.rescan_at,
            save,
            forget,
            self.work.again.due(),
            told,
            starved,
            room,
            sweep,
            self.work.deaf.due(),
        ];
        timers.into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.try_again(now);
        self.tell_waiting(now);
        self.look_for_deaf(now);
        if !self.work.looking_at_room && self.work.room_at.is_some_and(|at| at <= now) {
            self.work.looking_at_room = true;
            self.job(burial::look_at_room);
        }
        if self.work.sweep_at.is_some_and(|at| at <= now) {
            self.work.sweep_at = None;
            self.job(burial::sweep);
        }
        if !self.work.saving && self.work.save_at.is_some_and(|at| at <= now) {
            self.work.save_at = None;
            self.start_save();
        }
        if self.work.rescan_at.is_some_and(|at| at <= now) {
            self.work.rescan_at = None;
            let active: Vec<_> = self
                .table
                .iter()
                .filter(|(_, entry)| matches!(entry.step(), Step::Live))
                .map(|(uid, entry)| (uid, entry.watched))
                .collect();
            let each = RESCAN_EACH * u32::try_from(active.len()).unwrap_or(u32::MAX);
            for (uid, watched) in active {
                if watched {
                    self.start_look(uid);
                } else {
                    self.start_recover(uid);
                }
            }
            if self.table.any_active() {
                self.work.rescan_at = Some(now + RESCAN + each);
            }
        }
    }

    fn start_save(&mut self) {
        self.work.saving = true;
        let boot = boot_ms();
        let (clock, now) = (self.clock.take_save(boot), self.clock.now(boot));
        let memory = std::mem::take(&mut self.work.memory_changed).then(|| self.memory().clone());
        self.job(move |home| jobs::save(home, now, clock.as_ref(), memory.as_ref()));
    }

    fn attached(&mut self, attached: Attached) {
        let Attached { session, ended } = attached;
        self.numbers += 1;
        let welcome = &session.welcome;
        let (clock, credit) = (welcome.clock_ms, (welcome.stream_credit, welcome.session_credit));
        self.live = Some(Live {
            window: SendWindow::new(credit.0, credit.1),
            session,
            ended,
            number: self.numbers,
            reading: 0,
            synced: false,
            pages: VecDeque::new(),
            past: Past::default(),
            describe: VecDeque::new(),
            describing: false,
        });
        self.hear(clock, 0);
        self.places.news = true;
        let held = std::mem::take(&mut self.work.held);
        for uid in &held {
            self.look_begins(*uid);
        }
        for uid in held {
            self.start_recover(uid);
        }
        self.start_inventory();
    }

    fn detached(&mut self, end: End) {
        if let Some(live) = self.live.take() {
            // The supervisor is gone only when the agent stops.
            let _ = live.ended.send(end);
        }
        self.work.ring.clear();
        self.work.ringed.clear();
        self.work.starved.clear();
        self.work.hungry = false;
        self.readers.clear();
        for (_, entry) in self.table.iter_mut() {
            entry.detach();
        }
    }

    /// Ends the session and what was begun; commands live on.
    async fn stop(&mut self) {
        if let Some(mut live) = self.live.take() {
            live.session.close(Code::Normal, "the agent stops").await;
            let _ = live.ended.send(End::Stopped);
        }
        self.watches.abort_all();
        let ended = timeout(STOP_JOBS, async {
            self.drain().await;
            // Last and alone, so that nothing older comes after it.
            self.work.memory_changed = true;
            self.start_save();
            self.drain().await;
        });
        if ended.await.is_err() {
            error!("Some file work did not end in time");
        }
    }

    /// Waits for the jobs; what they did is found on disk by the next start.
    async fn drain(&mut self) {
        while let Some(done) = self.jobs.join_next().await {
            if let Ok(Done::Saved(Err(error))) = done {
                warn!(error = %Chain(&error), "The memory of the manager could not be saved");
            }
        }
    }
}

async fn next_frame(live: &mut Option<Live>, hungry: bool) -> Result<Option<Incoming>, End> {
    match live {
        Some(live) => live.session.next(hungry).await,
        None => std::future::pending().await,
    }
}
