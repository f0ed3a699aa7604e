//! Writes bytes to stdout and stderr without stopping the rest: a reader that is slow (or a pager that waits) must not
//! keep us from hearing Ctrl-C.

use std::io::{self, Write as _};

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Data.
    Stdout,
    /// The rest.
    Stderr,
}

/// The two outputs of this process. One write is under way at a time, so memory is bounded by one chunk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sink;

impl Sink {
    /// Writes all bytes and flushes.
    ///
    /// # Errors
    /// When the reader went away or the disk behind it is full.
    ///
    /// # Cancel safety
    /// The bytes are written to their end even when the future is dropped.
    pub async fn write(self, target: Target, bytes: Vec<u8>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        tokio::task::spawn_blocking(move || match target {
            Target::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&bytes)?;
                out.flush()
            }
            Target::Stderr => io::stderr().lock().write_all(&bytes),
        })
        .await
        .map_err(io::Error::other)?
    }
}
