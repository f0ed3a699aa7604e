//! Notes of shims: 16 bytes with a uid, written whole. A note says "look again", never what changed, so a lost or a
//! repeated one is harmless.

use std::fs::File;
use std::io;

use common::id::Uid;
use tokio::net::unix::pipe::Receiver;

/// Bytes of one note.
const NOTE: usize = 16;

/// The read side of the notify FIFO.
pub(super) struct Notes(Receiver);

impl Notes {
    /// Reads from a FIFO that is open for reading and writing: it never ends.
    ///
    /// # Errors
    /// When it is no FIFO or the runtime has no room.
    pub(super) fn new(fifo: &File) -> io::Result<Self> {
        Receiver::from_file(fifo.try_clone()?).map(Self)
    }

    /// Waits until there may be one.
    ///
    /// # Cancel safety
    /// Nothing is taken.
    pub(super) async fn ready(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Takes those that are there, each uid once.
    ///
    /// # Errors
    /// When the FIFO cannot be read.
    pub(super) fn take(&self) -> io::Result<Vec<Uid>> {
        let mut found = Vec::new();
        // A multiple of the size of a note, so that none is split.
        let mut buffer = [0; NOTE * 256];
        loop {
            let got = match self.0.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let notes = buffer.get(..got).unwrap_or_default().chunks_exact(NOTE);
            found.extend(notes.filter_map(|note| Uid::from_wire(note).ok()));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}
