//! Streams that are looked at from outside or begin with what was read already.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that tells whether anything goes over it.
pub(crate) struct Watched<S> {
    stream: S,
    steps: Arc<AtomicU64>,
    /// A byte that was read before, to find out what follows.
    first: Option<u8>,
}

/// Whether anything goes over a stream.
pub(crate) struct Activity(Arc<AtomicU64>);

impl Activity {
    /// Ends when nothing went over the stream for so long, and at most twice so long.
    pub(crate) async fn quiet_for(&self, limit: Duration) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(limit).await;
            let now = self.0.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S) -> (Self, Activity) {
        let steps = Arc::new(AtomicU64::new(0));
        (Self { stream, steps: steps.clone(), first: None }, Activity(steps))
    }

    /// A stream whose first byte was read already.
    pub(crate) fn beginning_with(first: u8, stream: S) -> Self {
        Self { stream, steps: Arc::default(), first: Some(first) }
    }

    fn step<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.step(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.step(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
