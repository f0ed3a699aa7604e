//! Wake-ups for whoever waits for a change of one command. They carry nothing: the reader reads the truth again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::id::CommandId;
use tokio::sync::watch;

/// Who watches what. An entry lives as long as its last watcher.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    entries: Mutex<HashMap<CommandId, Entry>>,
    /// So that a commit costs nothing when nobody watches.
    watchers: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    sender: watch::Sender<()>,
    watchers: usize,
}

impl Hub {
    /// Starts to watch one command.
    pub(crate) fn watch(self: &Arc<Self>, command: CommandId) -> CommandWatch {
        // Counted before the entry is there: a commit in between finds nobody, and the watcher has yet to read.
        self.watchers.fetch_add(1, Ordering::SeqCst);
        let mut entries = self.lock();
        let entry = entries.entry(command).or_insert_with(|| Entry { sender: watch::Sender::new(()), watchers: 0 });
        entry.watchers += 1;
        CommandWatch { command, receiver: entry.sender.subscribe(), hub: Arc::clone(self) }
    }

    /// Wakes the watchers of these commands. Called after the commit, never before.
    pub(crate) fn wake(&self, commands: &[CommandId]) {
        if commands.is_empty() || self.watchers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let entries = self.lock();
        for command in commands {
            if let Some(entry) = entries.get(command) {
                entry.sender.send_replace(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CommandId, Entry>> {
        // Nothing here can be left half done by a panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes when the row or the output of one command changed.
#[derive(Debug)]
pub struct CommandWatch {
    command: CommandId,
    receiver: watch::Receiver<()>,
    hub: Arc<Hub>,
}

impl CommandWatch {
    /// Waits until something changed since the watch began or since the last return. Several changes may wake once.
    ///
    /// # Cancel safety
    /// A wake-up that was not returned is returned by the next call.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The sender lives as long as this watch; without it there is nothing to wake for.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for CommandWatch {
    fn drop(&mut self) {
        let mut entries = self.hub.lock();
        if let Some(entry) = entries.get_mut(&self.command) {
            entry.watchers -= 1;
            if entry.watchers == 0 {
                entries.remove(&self.command);
            }
        }
        drop(entries);
        self.hub.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watch_wakes_for_its_command_and_leaves_nothing_behind() {
        let hub = Arc::new(Hub::default());
        let mut one = hub.watch(CommandId(1));
        let two = hub.watch(CommandId(1));
        hub.wake(&[CommandId(2)]);
        assert!(!one.receiver.has_changed().unwrap_or(true));
        hub.wake(&[CommandId(1)]);
        one.changed().await;
        drop((one, two));
        assert!(hub.lock().is_empty());
        assert_eq!(hub.watchers.load(Ordering::SeqCst), 0);
    }
}
