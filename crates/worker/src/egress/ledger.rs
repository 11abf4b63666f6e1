//! The log of egress connections. Each connection attempt is recorded before anything is sent to the destination host.
//! The end of a connection is recorded later, in a batch with others, so that closing a connection never waits for the
//! database.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use herm_egress::{Attempt, RecordId, Traffic, Unavailable, Verdict};
use herm_store::connections::{self, EndedConnection, NewConnection};
use herm_store::journal::Position;
use herm_store::{Error, Store};
use herm_types::{DeploymentId, Rng};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

/// The maximum time to record an attempt to connect. If recording takes longer, the connection is refused.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of connection attempts that are being recorded at a time. Reaching it means that the database is
/// too slow: further attempts are then refused at once.
const MAX_RECORDING: usize = 512;
/// The capacity of the queue of closed connections that wait to be recorded. If it is full, a closed connection is not
/// queued, and its record never contains its byte counts.
const MAX_QUEUED_ENDS: usize = 16 * 1024;
/// The maximum number of closed connections that are recorded in one transaction.
const ENDS_PER_BATCH: usize = 256;
/// The delay before the worker repeats a failed transaction that records closed connections.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The maximum time spent on writing the queued records of closed connections when the server shuts down. Records that
/// are not written by then are lost.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The error that is stored for a connection that was refused because recording it took longer than `RECORD_TIMEOUT`.
const RECORDED_TOO_LATE: &str = "the connection was refused because recording it took too long";

pub(super) struct Ledger {
    store: Store,
    rng: Arc<dyn Rng>,
    recording: Arc<Semaphore>,
    ends: Mutex<Option<Sender<EndedConnection>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Ledger {
    pub(super) fn new(store: Store, rng: Arc<dyn Rng>) -> Self {
        let (ends, queue) = channel(MAX_QUEUED_ENDS);
        let writer = tokio::spawn(write_ends(store.clone(), queue));
        Self {
            store,
            rng,
            recording: Arc::new(Semaphore::new(MAX_RECORDING)),
            ends: Mutex::new(Some(ends)),
            writer: Mutex::new(Some(writer)),
        }
    }

    /// Records an attempt to connect. Returns [`Unavailable`] if this fails or takes too long; the caller must then not
    /// connect. If the record is written after the caller has given up, it is marked as ended at once.
    pub(super) async fn record(
        &self,
        deployment_id: DeploymentId,
        attempt: Attempt,
    ) -> Result<RecordId, Unavailable> {
        let permit = Arc::clone(&self.recording).try_acquire_owned().map_err(|_| Unavailable)?;
        let position = attempt.user.as_deref().and_then(Position::parse_call_name);
        let new = self.new_connection(attempt);
        let (store, ends) = (self.store.clone(), self.sender());
        let (result_tx, result_rx) = oneshot::channel();
        tokio::spawn(async move {
            let _permit = permit;
            let recorded = insert(&store, deployment_id, position, new).await;
            let Err(undelivered) = result_tx.send(recorded) else { return };
            // The caller has timed out or was dropped, so the recorded connection will never be made.
            if let (Ok(connection_id), Some(ends)) = (undelivered, ends) {
                let error = Some(RECORDED_TOO_LATE.to_owned());
                queue_end(&ends, EndedConnection { connection_id, sent_bytes: 0, received_bytes: 0, error });
            }
        });
        match tokio::time::timeout(RECORD_TIMEOUT, result_rx).await {
            Ok(Ok(Ok(connection_id))) => Ok(RecordId(connection_id.cast_unsigned())),
            Ok(Ok(Err(error))) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%deployment_id, error, "refused an egress connection because its record could not be written");
                Err(Unavailable)
            }
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }

    fn new_connection(&self, attempt: Attempt) -> NewConnection {
        let mut random = [0u8; 8];
        self.rng.fill(&mut random);
        NewConnection {
            connection_id: i64::from_le_bytes(random),
            host: attempt.host,
            port: attempt.port,
            verdict: match attempt.verdict {
                Verdict::Allowed => Ok(()),
                Verdict::Denied { reason } => Err(reason),
            },
        }
    }

    pub(super) fn ended(&self, RecordId(id): RecordId, traffic: Traffic) {
        let Some(ends) = self.sender() else { return };
        let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        queue_end(
            &ends,
            EndedConnection {
                connection_id: id.cast_signed(),
                sent_bytes: bytes(traffic.sent_bytes),
                received_bytes: bytes(traffic.received_bytes),
                error: traffic.error,
            },
        );
    }

    fn sender(&self) -> Option<Sender<EndedConnection>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops accepting reports of closed connections, and waits up to `CLOSE_TIMEOUT` until those in the queue are
    /// recorded.
    pub(super) async fn close(&self) {
        drop(self.ends.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut writer) = writer
            && tokio::time::timeout(CLOSE_TIMEOUT, &mut writer).await.is_err()
        {
            writer.abort();
            tracing::warn!(
                "timed out at shutdown while recording that egress connections were closed; some byte counts are lost"
            );
        }
    }
}

fn queue_end(ends: &Sender<EndedConnection>, ended: EndedConnection) {
    let connection_id = ended.connection_id;
    if ends.try_send(ended).is_err() {
        tracing::warn!(
            connection_id,
            "failed to record that an egress connection was closed, so its byte counts are lost: the queue is full or closed"
        );
    }
}

async fn insert(
    store: &Store,
    deployment_id: DeploymentId,
    position: Option<Position>,
    new: NewConnection,
) -> Result<i64, Error> {
    store
        .transaction("record_connection", move |tx| {
            Box::pin(async move { connections::record(tx, deployment_id, position, &new).await })
        })
        .await
}

/// Records closed connections in batches, until the queue or the store is closed.
async fn write_ends(store: Store, mut queue: Receiver<EndedConnection>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, ENDS_PER_BATCH).await > 0 {
        // Sorts the batch by connection id, so that all transactions of this kind lock the rows in the same order. This
        // avoids deadlocks.
        batch.sort_unstable_by_key(|ended| ended.connection_id);
        let ended: Arc<[EndedConnection]> = std::mem::take(&mut batch).into();
        loop {
            let ended = Arc::clone(&ended);
            let written = store.transaction("end_connections", move |tx| {
                Box::pin(async move { connections::end(tx, &ended).await })
            });
            match written.await {
                Ok(()) => break,
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to record that egress connections were closed; retrying"
                    );
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}
