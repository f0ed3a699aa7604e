//! One thread that owns the only writing connection of a file and commits in groups.
//!
//! It takes all that waits, runs each change in a savepoint of its own, commits once and answers then. Changes that
//! nobody waits for are patient: they wait a few milliseconds for others and share their commit. A change that
//! fails takes back itself and nothing else. A commit that fails fails every change in it. After an error of the disk
//! the connection is opened anew, so that the next group works as soon as the disk does.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread::{JoinHandle, Thread as OsThread};
use std::time::Instant;

use common::id::CommandId;
use rusqlite::{CachedStatement, Connection, ErrorCode};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use crate::error::StoreError;
use crate::limits::{GROUP, PATIENCE, QUEUE_WAIT};
use crate::types::Identity;

/// The inside of a change: the connection, and what is to be made known once it is committed.
pub(super) struct Tx<'a> {
    connection: &'a Connection,
    effects: RefCell<Effects>,
}

/// What is to be done after a commit. It runs on the writer's thread and must not wait for anything.
type Deed = Box<dyn FnOnce() + Send>;

/// What is made known after a commit.
#[derive(Default)]
pub(super) struct Effects {
    /// Whose watchers wake.
    pub(super) commands: Vec<CommandId>,
    /// The number of the newest event.
    pub(super) last_event: Option<u64>,
    /// The life that began.
    pub(super) identity: Option<Identity>,
    deeds: Vec<Deed>,
}

impl Effects {
    fn add(&mut self, newer: Self) {
        self.deeds.extend(newer.deeds);
        self.commands.extend(newer.commands);
        self.last_event = newer.last_event.or(self.last_event);
        if newer.identity.is_some() {
            self.identity = newer.identity;
        }
    }
}

impl Tx<'_> {
    /// Prepares a statement, or takes it from the cache.
    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, StoreError> {
        Ok(self.connection.prepare_cached(sql)?)
    }

    /// The connection, for functions that readers share.
    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }

    /// Wakes the watchers of a command after the commit.
    pub(super) fn touch(&self, command: CommandId) {
        self.effects.borrow_mut().commands.push(command);
    }

    /// Makes the number of an event known after the commit.
    pub(super) fn announce(&self, event: u64) {
        self.effects.borrow_mut().last_event = Some(event);
    }

    /// Does something after the commit, whoever still waits for the answer of the change.
    pub(super) fn after_commit(&self, deed: impl FnOnce() + Send + 'static) {
        self.effects.borrow_mut().deeds.push(Box::new(deed));
    }

    /// Makes a new life known after the commit.
    pub(super) fn become_identity(&self, identity: Identity) {
        self.effects.borrow_mut().identity = Some(identity);
    }
}

/// What belongs to every commit of one file.
pub(super) trait Seal: Send + 'static {
    /// Names of the crash points around a commit.
    const POINTS: (&'static str, &'static str);
    /// How far the thread stands back behind the others of this process.
    const NICE: i32 = 0;
    /// Runs before `BEGIN`.
    fn prepare(&mut self, _connection: &Connection, _sync: bool) -> rusqlite::Result<()> {
        Ok(())
    }
    /// Runs before `COMMIT` of a group that changed something, or that is to be synced.
    fn seal(&mut self, connection: &Connection, sync: bool) -> rusqlite::Result<()>;
    /// Runs after `COMMIT`, before anybody is answered.
    fn committed(&mut self, effects: Effects, sync: bool);
}

/// Opens the connection again.
pub(super) type Opener = Box<dyn Fn() -> Result<Connection, StoreError> + Send>;

type Run = dyn FnOnce(Result<&Tx<'_>, Failure>) -> (bool, Finish) + Send;
type Finish = Box<dyn FnOnce(Option<Failure>) + Send>;

struct Job {
    /// Runs the change, or refuses it; answers whether it holds, and how to tell its caller.
    run: Box<Run>,
    sync: bool,
    patient: bool,
}

enum Message {
    Job(Job),
    Close,
}

/// Why a commit failed; every change in it hears the same.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Full,
    Corrupt,
    Unavailable,
}

impl Failure {
    fn of(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt,
            _ => Self::Unavailable,
        }
    }

    fn error(self) -> StoreError {
        match self {
            Self::Full => StoreError::Full(None),
            Self::Corrupt => StoreError::corrupt("database"),
            Self::Unavailable => StoreError::Unavailable(None),
        }
    }
}

/// The handle of a writer thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    /// Woken when it waits with patient changes and others came.
    waiting: OsThread,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread. `queue` bounds what waits.
    pub(super) fn start<S: Seal>(
        name: &str,
        queue: usize,
        connection: Connection,
        open: Opener,
        seal: S,
    ) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel(queue);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || Thread { receiver, connection: Some(connection), open, seal }.run())
            .map_err(|_| StoreError::Unavailable(None))?;
        Ok(Self { queue: sender, waiting: thread.thread().clone(), thread: Mutex::new(Some(thread)) })
    }

    /// Runs a change and answers after its commit.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answer) = job(change, false);
        self.push(job).await?;
        answer.await.unwrap_or(Err(StoreError::Unavailable(None)))
    }

    /// Runs a change that may wait a moment for others to share their commit, and answers after it.
    pub(super) async fn run_patiently<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answer) = job(change, false);
        self.push(Job { patient: true, ..job }).await?;
        answer.await.unwrap_or(Err(StoreError::Unavailable(None)))
    }

    /// Makes everything that is committed durable.
    pub(super) async fn sync(&self) -> Result<(), StoreError> {
        let (job, answer) = job(|_| Ok(()), true);
        self.push(job).await?;
        answer.await.unwrap_or(Err(StoreError::Unavailable(None)))
    }

    /// Queues a change without waiting.
    pub(super) fn try_run<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let (job, answer) = job(change, false);
        match self.queue.try_send(Message::Job(job)) {
            Ok(()) => {
                self.waiting.unpark();
                Ok(answer)
            }
            Err(mpsc::error::TrySendError::Full(_)) => Err(StoreError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(StoreError::Unavailable(None)),
        }
    }

    /// Ends the thread after everything that waits now.
    pub(super) async fn close(&self) {
        // A send that fails found the thread ended.
        let _ = self.queue.send(Message::Close).await;
        self.waiting.unpark();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn push(&self, job: Job) -> Result<(), StoreError> {
        use mpsc::error::SendTimeoutError as E;
        let patient = job.patient;
        self.queue.send_timeout(Message::Job(job), QUEUE_WAIT).await.map_err(|error| match error {
            E::Timeout(_) => StoreError::Busy,
            E::Closed(_) => StoreError::Unavailable(None),
        })?;
        if !patient {
            self.waiting.unpark();
        }
        Ok(())
    }
}

fn job<T: Send + 'static>(
    change: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    sync: bool,
) -> (Job, oneshot::Receiver<Result<T, StoreError>>) {
    let (reply, answer) = oneshot::channel();
    let run = move |tx: Result<&Tx<'_>, Failure>| -> (bool, Finish) {
        let result = tx.map_err(Failure::error).and_then(change);
        let holds = result.is_ok();
        let finish = move |failure: Option<Failure>| {
            let result = match failure {
                Some(failure) => result.and_then(|_| Err(failure.error())),
                None => result,
            };
            // The caller may have gone; the change stands all the same.
            let _ = reply.send(result);
        };
        (holds, Box::new(finish))
    };
    (Job { run: Box::new(run), sync, patient: false }, answer)
}

struct Thread<S> {
    receiver: mpsc::Receiver<Message>,
    connection: Option<Connection>,
    open: Opener,
    seal: S,
}

impl<S: Seal> Thread<S> {
    fn run(mut self) {
        if S::NICE > 0 {
            // On Linux this is the thread's own. Where it is refused, everything is as it was.
            let _ = rustix::process::nice(S::NICE);
        }
        let mut closing = false;
        while !closing {
            let Some(Message::Job(first)) = self.receiver.blocking_recv() else { break };
            let mut group = vec![first];
            closing = self.gather(&mut group);
            self.serve(group);
        }
        if let Some(connection) = self.connection {
            // Leaves one tidy file behind; readers that are still there make it fail, which costs nothing.
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }

    /// Adds to a group what waits, and as long as all of it is patient what comes soon. Answers whether to close then.
    fn gather(&mut self, group: &mut Vec<Job>) -> bool {
        let mut patient = group.iter().all(|job| job.patient);
        let mut until = None;
        while group.len() < GROUP {
            match self.receiver.try_recv() {
                Ok(Message::Job(job)) => {
                    patient &= job.patient;
                    group.push(job);
                }
                Ok(Message::Close) => return true,
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) if !patient => return false,
                Err(TryRecvError::Empty) => {
                    let until = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    // Whoever is not patient wakes it; being woken for nothing costs another look.
                    std::thread::park_timeout(left);
                }
            }
        }
        false
    }

    fn serve(&mut self, group: Vec<Job>) {
        let connection = match self.connection.take().map_or_else(|| (self.open)(), Ok) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(error = %common::error::Chain(&error), "cannot open the database again");
                let failure = if matches!(error, StoreError::Full(_)) { Failure::Full } else { Failure::Unavailable };
                refuse(group, failure);
                return;
            }
        };
        match self.commit(&connection, group) {
            Ok(()) => self.connection = Some(connection),
            Err(error) => {
                tracing::error!(error = %common::error::Chain(&error), "a commit failed; the database is opened again");
            }
        }
    }

    /// Runs and commits one group. An error means that the connection is not to be used again; everybody was answered.
    fn commit(&mut self, connection: &Connection, group: Vec<Job>) -> Result<(), rusqlite::Error> {
        let sync = group.iter().any(|job| job.sync);
        let changes = connection.total_changes();
        let begun = self.seal.prepare(connection, sync).and_then(|()| execute(connection, "BEGIN IMMEDIATE"));
        if let Err(error) = begun {
            refuse(group, Failure::of(&error));
            return Err(error);
        }
        let mut held: Vec<Finish> = Vec::with_capacity(group.len());
        let mut effects = Effects::default();
        for job in group {
            let tx = Tx { connection, effects: RefCell::default() };
            if let Err(error) = execute(connection, "SAVEPOINT change") {
                let failure = Failure::of(&error);
                refuse(vec![job], failure);
                fail(&mut held, failure);
                effects = Effects::default();
                begin_again(connection)?;
                continue;
            }
            // A change that panics is a bug; it must not take the store of everybody else with it.
            let ran = catch_unwind(AssertUnwindSafe(|| (job.run)(Ok(&tx))));
            let (holds, finish) = ran.unwrap_or_else(|_| (false, Box::new(|_| {})));
            if holds && let Err(error) = execute(connection, "RELEASE change") {
                held.push(finish);
                fail(&mut held, Failure::of(&error));
                effects = Effects::default();
                begin_again(connection)?;
            } else if holds {
                effects.add(tx.effects.into_inner());
                held.push(finish);
            } else {
                finish(None);
                if connection.is_autocommit() || !take_back(connection) {
                    // SQLite took back the whole transaction, as it does when the disk is full.
                    fail(&mut held, Failure::Full);
                    effects = Effects::default();
                    begin_again(connection)?;
                }
            }
        }
        let sealed = if connection.total_changes() != changes || sync {
            common::crash::point(S::POINTS.0);
            self.seal.seal(connection, sync).and_then(|()| execute(connection, "COMMIT"))
        } else {
            execute(connection, "COMMIT")
        };
        if let Err(error) = sealed {
            let failure = Failure::of(&error);
            if !connection.is_autocommit() {
                let _ = connection.execute_batch("ROLLBACK");
            }
            fail(&mut held, failure);
            return Err(error);
        }
        common::crash::point(S::POINTS.1);
        let deeds = std::mem::take(&mut effects.deeds);
        self.seal.committed(effects, sync);
        for deed in deeds {
            // The change holds whatever comes of it; a deed that panics must not end the thread.
            let _ = catch_unwind(AssertUnwindSafe(deed));
        }
        for finish in held {
            finish(None);
        }
        Ok(())
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

/// Takes back the present change; `false` when only the whole transaction can be taken back.
fn take_back(connection: &Connection) -> bool {
    execute(connection, "ROLLBACK TO change").is_ok() && execute(connection, "RELEASE change").is_ok()
}

/// Leaves a transaction that is lost and begins one for the rest of the group.
fn begin_again(connection: &Connection) -> rusqlite::Result<()> {
    if !connection.is_autocommit() {
        execute(connection, "ROLLBACK")?;
    }
    execute(connection, "BEGIN IMMEDIATE")
}

/// Answers changes that were never run.
fn refuse(group: Vec<Job>, failure: Failure) {
    for job in group {
        let (_, finish) = (job.run)(Err(failure));
        finish(None);
    }
}

/// Answers changes that were run and are lost.
fn fail(held: &mut Vec<Finish>, failure: Failure) {
    for finish in held.drain(..) {
        finish(Some(failure));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::*;

    struct Plain;

    impl Seal for Plain {
        const POINTS: (&'static str, &'static str) = ("test.commit.before", "test.commit.after");

        fn seal(&mut self, _connection: &Connection, _sync: bool) -> rusqlite::Result<()> {
            Ok(())
        }

        fn committed(&mut self, _effects: Effects, _sync: bool) {}
    }

    /// A thread that is not started: groups are handed to it.
    fn thread(connection: Connection) -> (Thread<Plain>, mpsc::Sender<Message>) {
        let (sender, receiver) = mpsc::channel(1);
        let open: Opener = Box::new(|| Err(StoreError::Unavailable(None)));
        (Thread { receiver, connection: Some(connection), open, seal: Plain }, sender)
    }

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (x BLOB NOT NULL)").unwrap();
        connection
    }

    type Answer = oneshot::Receiver<Result<(), StoreError>>;

    fn insert(size: usize, fate: Fate) -> (Job, Answer) {
        job(
            move |tx| {
                tx.prepare("INSERT INTO t (x) VALUES (zeroblob(?1))")?.execute([i64::try_from(size).unwrap()])?;
                match fate {
                    Fate::Holds => Ok(()),
                    Fate::Fails => Err(StoreError::NotMine),
                    Fate::Panics => panic!("a bug"),
                }
            },
            false,
        )
    }

    #[derive(Clone, Copy)]
    enum Fate {
        Holds,
        Fails,
        Panics,
    }

    fn rows(connection: &Connection) -> u32 {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_change_that_fails_or_panics_takes_back_itself_and_nothing_else() {
        let (mut thread, _queue) = thread(table());
        let fates = [Fate::Holds, Fate::Fails, Fate::Holds, Fate::Panics, Fate::Holds];
        let (group, answers): (Vec<Job>, Vec<Answer>) = fates.into_iter().map(|fate| insert(10, fate)).unzip();
        thread.serve(group);
        let answers: Vec<_> = answers.into_iter().map(|mut answer| answer.try_recv()).collect();
        assert!(matches!(
            answers.as_slice(),
            [Ok(Ok(())), Ok(Err(StoreError::NotMine)), Ok(Ok(())), Err(_), Ok(Ok(()))]
        ));
        assert_eq!(rows(&thread.connection.unwrap()), 3);
    }

    #[test]
    fn a_full_disk_is_an_answer_and_the_next_change_works_when_there_is_room() {
        let connection = table();
        connection.execute_batch("PRAGMA max_page_count = 20").unwrap();
        let (mut thread, _queue) = thread(connection);
        let (group, answers): (Vec<Job>, Vec<Answer>) =
            [100, 500_000, 100].into_iter().map(|size| insert(size, Fate::Holds)).unzip();
        thread.serve(group);
        let answers: Vec<_> = answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect();
        assert!(matches!(answers[1], Err(StoreError::Full(_))));
        let connection = thread.connection.take().unwrap();
        // Whoever was told that it holds, it holds; the others left nothing.
        assert_eq!(rows(&connection) as usize, answers.iter().filter(|answer| answer.is_ok()).count());
        connection.execute_batch("PRAGMA max_page_count = 2000").unwrap();
        thread.connection = Some(connection);
        let (job, mut answer) = insert(500_000, Fate::Holds);
        thread.serve(vec![job]);
        assert!(answer.try_recv().unwrap().is_ok());
    }

    #[test]
    fn a_database_that_cannot_be_opened_answers_everybody() {
        let (mut thread, _queue) = thread(table());
        thread.connection = None;
        let (group, answers): (Vec<Job>, Vec<Answer>) =
            [1, 2].into_iter().map(|size| insert(size, Fate::Holds)).unzip();
        thread.serve(group);
        for mut answer in answers {
            assert!(matches!(answer.try_recv(), Ok(Err(StoreError::Unavailable(_)))));
        }
    }

    #[tokio::test]
    async fn a_patient_change_shares_the_commit_of_the_next_and_does_not_need_it() {
        let open: Opener = Box::new(|| Err(StoreError::Unavailable(None)));
        let writer = Arc::new(Writer::start("test", 16, table(), open, Plain).unwrap());
        let add = |tx: &Tx<'_>| {
            tx.prepare("INSERT INTO t (x) VALUES (x'00')")?.execute([])?;
            Ok(())
        };
        // Nobody else comes: it is committed all the same.
        writer.run_patiently(add).await.unwrap();
        // Deeds run once the commit stands, also for a caller that has gone.
        let (done, seen) = std::sync::mpsc::sync_channel(1);
        let answer = writer
            .try_run(move |tx| {
                tx.after_commit(move || done.send(()).unwrap());
                add(tx)
            })
            .unwrap();
        drop(answer);
        writer.sync().await.unwrap();
        assert!(seen.try_recv().is_ok());
        // What was pushed first is committed first, patient or not.
        let (patient, other) = tokio::join!(
            writer.run_patiently(add),
            writer.run(|tx| {
                let rows: i64 = tx.prepare("SELECT count(*) FROM t")?.query_row([], |row| row.get(0))?;
                Ok(rows)
            })
        );
        patient.unwrap();
        assert_eq!(other.unwrap(), 3);
        // A deed of a change that failed is not done.
        let (done, seen) = std::sync::mpsc::sync_channel(1);
        let failed = writer.run(move |tx| {
            tx.after_commit(move || done.send(()).unwrap());
            Err::<(), _>(StoreError::Busy)
        });
        assert!(failed.await.is_err() && seen.recv().is_err());
        writer.close().await;
    }
}
