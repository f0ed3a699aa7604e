//! A stream whose peer must go on reading: a write that makes no progress for a while is an error.
//!
//! Without it a peer that asks for much and reads nothing would hold its connection, and what waits for it, for ever. It
//! stands directly on the socket, below TLS, so that every byte the kernel takes counts as progress.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a write may stand still: the slowest line moves something in it.
pub(super) const STALL: Duration = Duration::from_secs(30);

/// The stream.
#[derive(Debug)]
pub(super) struct Unstalled<S> {
    inner: S,
    /// Runs while a write waits.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Unstalled<S> {
    /// Watches a stream.
    pub(super) fn new(inner: S) -> Self {
        Self { inner, waits: None }
    }

    /// Passes an answer on, unless nothing moved for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waits = None;
            return polled;
        }
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(STALL)));
        match waits.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush, and its readiness says nothing about bytes that still wait above it.
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_stands_still_fails_after_the_time_and_one_that_moves_does_not() {
        let (mut near, far) = duplex(8);
        let mut watched = Unstalled::new(far);
        let began = Instant::now();
        let writing = async {
            let error = watched.write_all(&[7; 64]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            began.elapsed()
        };
        let reading = async {
            // Slow, and yet it moves.
            for _ in 0..3 {
                sleep(STALL - Duration::from_secs(1)).await;
                near.read_exact(&mut [0; 8]).await.unwrap();
            }
            sleep(10 * STALL).await;
        };
        let took = tokio::select! {
            took = writing => took,
            () = reading => panic!("a write that stands still never failed"),
        };
        assert!(took >= 4 * STALL - Duration::from_secs(3) && took < 5 * STALL, "{took:?}");
    }
}
