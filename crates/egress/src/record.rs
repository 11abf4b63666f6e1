//! Counts the bytes that are sent and received on connections to destination hosts, for the connection records.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::owner::{Owner, RecordId, Traffic};

/// The record of a connection to a destination host. When the last reference to the record is dropped, the
/// traffic on the connection is reported to the [`Owner`].
pub(crate) struct Record {
    owner: Arc<dyn Owner>,
    id: RecordId,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Record {
    pub(crate) fn new(owner: Arc<dyn Owner>, id: RecordId) -> Arc<Self> {
        let (sent_bytes, received_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { owner, id, sent_bytes, received_bytes, error: Mutex::default() })
    }

    /// Sets the cause of the connection's failure. Only the first cause is recorded, because later failures follow
    /// from it.
    pub(crate) fn fail(&self, cause: &dyn std::fmt::Display) {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.get_or_insert_with(|| cause.to_string());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let error = self.error.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let traffic = Traffic {
            sent_bytes: *self.sent_bytes.get_mut(),
            received_bytes: *self.received_bytes.get_mut(),
            error,
        };
        self.owner.ended(self.id, traffic);
    }
}

/// A stream whose sent and received bytes are counted in a record.
pub(crate) struct CountedStream<T> {
    stream: T,
    record: Arc<Record>,
}

impl<T> CountedStream<T> {
    pub(crate) fn new(stream: T, record: Arc<Record>) -> Self {
        Self { stream, record }
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        self.record.clone()
    }

    fn count_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.record.sent_bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CountedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len().saturating_sub(before);
        self.record.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CountedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
