//! A stream that counts its operations, so that idle connections can be detected. It can also start with a byte that
//! was already read from the underlying stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that counts its completed read and write operations.
pub(crate) struct MonitoredStream<S> {
    stream: S,
    operations: Arc<AtomicU64>,
    /// A byte that was already read from the stream to detect the protocol. The next read operation returns it first.
    first_byte: Option<u8>,
}

/// Observes the operations of a [`MonitoredStream`].
pub(crate) struct Activity(Arc<AtomicU64>);

impl Activity {
    /// Waits until the stream has had no operation for at least `limit`. May wait up to `limit` longer than
    /// necessary.
    pub(crate) async fn wait_until_idle(&self, limit: Duration) {
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

impl<S> MonitoredStream<S> {
    pub(crate) fn new(stream: S) -> (Self, Activity) {
        let operations = Arc::new(AtomicU64::new(0));
        (Self { stream, operations: operations.clone(), first_byte: None }, Activity(operations))
    }

    /// Creates a stream that returns `first_byte`, which was already read, and then the data of `stream`.
    pub(crate) fn with_first_byte(first_byte: u8, stream: S) -> Self {
        Self { stream, operations: Arc::default(), first_byte: Some(first_byte) }
    }

    fn count<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.operations.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first_byte.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.count(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
