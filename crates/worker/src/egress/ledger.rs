//! The record of connections. An attempt is written before anything is sent; how it ended is written later, many at a
//! time, so that no connection waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use herm_egress::{Attempt, RecordId, Traffic, Unavailable, Verdict};
use herm_store::connections::{self, Ended, NewConnection};
use herm_store::journal::Position;
use herm_store::{Error, Store};
use herm_types::{DeploymentId, Rng};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::run::parse_call_name;

/// How long a connection waits for its record; then it is refused.
const RECORD_LIMIT: Duration = Duration::from_secs(5);
/// Attempts that are being written at a time; one beyond is refused at once, as the database does not keep up.
const MAX_RECORDING: usize = 512;
/// Ends that wait to be written. What comes beyond is dropped: its row says that its bytes are not known.
const MAX_ENDS: usize = 16 * 1024;
/// Ends that one transaction writes.
const ENDS_AT_ONCE: usize = 256;
/// Before ends that could not be written are tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the last ends may take to be written when the server stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// Written of a connection that was recorded too late to be made.
const TOO_LATE: &str = "it was refused, as the server took too long to record it";

pub(super) struct Ledger {
    store: Store,
    rng: Arc<dyn Rng>,
    recording: Arc<Semaphore>,
    ends: Mutex<Option<Sender<Ended>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Ledger {
    pub(super) fn new(store: Store, rng: Arc<dyn Rng>) -> Self {
        let (ends, waiting) = channel(MAX_ENDS);
        let writer = tokio::spawn(write_ends(store.clone(), waiting));
        Self {
            store,
            rng,
            recording: Arc::new(Semaphore::new(MAX_RECORDING)),
            ends: Mutex::new(Some(ends)),
            writer: Mutex::new(Some(writer)),
        }
    }

    /// Records an attempt. It is written or refused, also if nobody waits for it any more.
    pub(super) async fn record(
        &self,
        deployment_id: DeploymentId,
        attempt: Attempt,
    ) -> Result<RecordId, Unavailable> {
        let permit = Arc::clone(&self.recording).try_acquire_owned().map_err(|_| Unavailable)?;
        let claimed = attempt.user.as_deref().and_then(parse_call_name);
        let new = self.new_connection(attempt);
        let (store, ends) = (self.store.clone(), self.sender());
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let _permit = permit;
            let recorded = write(&store, deployment_id, claimed, new).await;
            let Err(unheard) = tell.send(recorded) else { return };
            // Who asked has gone, and with it the connection.
            if let (Ok(connection_id), Some(ends)) = (unheard, ends) {
                let error = Some(TOO_LATE.to_owned());
                put(&ends, Ended { connection_id, sent_bytes: 0, received_bytes: 0, error });
            }
        });
        match tokio::time::timeout(RECORD_LIMIT, told).await {
            Ok(Ok(Ok(connection_id))) => Ok(RecordId(connection_id.cast_unsigned())),
            Ok(Ok(Err(error))) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%deployment_id, error, "a connection was refused, as it could not be recorded");
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
        put(
            &ends,
            Ended {
                connection_id: id.cast_signed(),
                sent_bytes: bytes(traffic.sent_bytes),
                received_bytes: bytes(traffic.received_bytes),
                error: traffic.error,
            },
        );
    }

    fn sender(&self) -> Option<Sender<Ended>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes the ends that were told so far, unless that takes too long, and takes no more.
    pub(super) async fn close(&self) {
        drop(self.ends.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut writer) = writer
            && tokio::time::timeout(CLOSE_LIMIT, &mut writer).await.is_err()
        {
            writer.abort();
            tracing::warn!("what went over some connections of sandboxes was not written down");
        }
    }
}

fn put(ends: &Sender<Ended>, ended: Ended) {
    if ends.try_send(ended).is_err() {
        tracing::warn!("the database does not keep up: what went over a connection is not written down");
    }
}

async fn write(
    store: &Store,
    deployment_id: DeploymentId,
    claimed: Option<Position>,
    new: NewConnection,
) -> Result<i64, Error> {
    store
        .transaction("record_connection", move |tx| {
            Box::pin(async move { connections::record(tx, deployment_id, claimed, &new).await })
        })
        .await
}

/// Writes ends as they come, many in one transaction, until nobody can tell any more.
async fn write_ends(store: Store, mut waiting: Receiver<Ended>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, ENDS_AT_ONCE).await > 0 {
        // In one order, whoever else writes some of these rows.
        batch.sort_unstable_by_key(|ended| ended.connection_id);
        let ended: Arc<[Ended]> = std::mem::take(&mut batch).into();
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
                        "failed to write how connections ended"
                    );
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }
}
