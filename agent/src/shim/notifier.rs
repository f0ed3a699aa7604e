//! How a shim tells the agent that there is something to read, and where its command stands.
//!
//! A note is the command's uid in the agent's FIFO `notify`: "look again", never what changed. What is to be seen then is
//! in files; nobody has to listen.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::clock;
use common::id::Uid;
use common::wire::Command;
use rustix::fs::OFlags;

use crate::commands::layout;
use crate::commands::status::{self, ShimPhase, ShimStatus};

/// Notes to the agent are at least this far apart.
const NOTE_PAUSE: Duration = Duration::from_millis(2);
/// How long a note that did not fit waits for its next try.
const NOTE_AGAIN: Duration = Duration::from_millis(50);
/// How long a status that could not be written waits for its next try: only a full disk refuses one.
const STATUS_AGAIN: Duration = Duration::from_millis(500);

/// Sends notes.
pub(super) struct Notifier {
    path: Option<PathBuf>,
    note: Vec<u8>,
    fifo: Option<File>,
    wanted: bool,
    not_before: Option<Instant>,
}

impl Notifier {
    pub(super) fn new(dir: &Path, command: &Command) -> Self {
        // commands/<uid> stands two levels below the state directory.
        let path = dir.parent().and_then(Path::parent).map(|state| state.join("notify"));
        let path = path.filter(|_| Uid::from_wire(&command.uid).is_ok());
        Self { path, note: command.uid.to_vec(), fifo: None, wanted: false, not_before: None }
    }

    /// Something is there to be read.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The same, not at once: a command that is over by then needs one note and not two.
    pub(super) fn soon(&mut self, now: Instant) {
        self.wanted = true;
        self.not_before = Some(now + NOTE_PAUSE);
    }

    /// When the waiting note may go.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.wanted { self.not_before } else { None }
    }

    /// Sends the waiting note if it may go.
    pub(super) fn flush(&mut self, now: Instant) {
        if !self.wanted || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        let sent = self.send();
        self.wanted = !sent;
        self.not_before = Some(now + if sent { NOTE_PAUSE } else { NOTE_AGAIN });
    }

    /// Sends one now; lost when nobody listens, which the agent's next look makes good.
    pub(super) fn now(&mut self) {
        self.send();
    }

    /// `true`: sent, or there is nobody who could read it.
    fn send(&mut self) -> bool {
        let Some(path) = &self.path else { return true };
        if self.fifo.is_none() {
            self.fifo = layout::open_fifo(path, OFlags::WRONLY).ok();
        }
        let Some(fifo) = &mut self.fifo else { return true };
        match fifo.write(&self.note) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.fifo = None;
                true
            }
        }
    }
}

/// Keeps the file `status` true.
pub(super) struct Teller {
    dir: PathBuf,
    /// What is to be said; the time is set when it is said.
    wanted: ShimStatus,
    /// What was said. A started command of which nothing was said is running.
    said: ShimStatus,
    not_before: Option<Instant>,
}

impl Teller {
    pub(super) fn new(dir: &Path) -> Self {
        let running = ShimStatus::new(ShimPhase::Running, 0);
        Self { dir: dir.to_owned(), wanted: running.clone(), said: running, not_before: None }
    }

    /// Another process than the one in START is the main one now.
    pub(super) fn main_is(&mut self, pid: u32, start_time: u64) {
        self.wanted.pid = pid;
        self.wanted.start_time = start_time;
    }

    /// Where the command stands now, and what of it does not die.
    pub(super) fn stands(&mut self, phase: ShimPhase, stuck: &[i32]) {
        self.wanted.phase = phase;
        self.wanted.stuck.clear();
        self.wanted.stuck.extend_from_slice(stuck);
    }

    /// When the next try is due.
    pub(super) fn due(&self) -> Option<Instant> {
        // What failed may have become what was said before: then there is nothing to try again.
        if self.wanted == self.said { None } else { self.not_before }
    }

    /// Says what has changed; `true` when a note is worth it.
    pub(super) fn flush(&mut self, now: Instant) -> bool {
        if self.wanted == self.said || self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        let said = status::write(&self.dir, &ShimStatus { at_ms: clock::unix_ms(), ..self.wanted.clone() }).is_ok();
        self.not_before = (!said).then(|| now + STATUS_AGAIN);
        if said {
            self.said = self.wanted.clone();
        }
        said
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_could_not_be_said_and_is_true_no_more_is_not_tried_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let away = folder.path().join("away");
        let mut teller = Teller::new(&away);
        let now = Instant::now();
        teller.stands(ShimPhase::Paused, &[]);
        assert!(!teller.flush(now), "there is no folder to write into");
        assert_eq!(teller.due(), Some(now + STATUS_AGAIN));
        teller.stands(ShimPhase::Running, &[]);
        assert!(!teller.flush(now));
        assert_eq!(teller.due(), None, "it runs, as everybody thinks");
        teller.stands(ShimPhase::Paused, &[]);
        assert_eq!(teller.due(), Some(now + STATUS_AGAIN), "a new wish waits for its turn");
    }
}
