//! Watches the keys of open event streams, so that a stream ends when its key is revoked or expires.
//!
//! A request checks its key only once, at the beginning, but an event stream can stay open for a long time.
//! When this process revokes a key, the streams of the key end at once. A background task finds revocations
//! by other processes: it periodically rechecks each key that has open streams. The task runs only while
//! streams are open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use herm_store::{Store, keys};
use herm_types::key::KeyInfo;
use herm_types::{Clock, KeyId, Timestamp};
use tokio_util::sync::CancellationToken;

/// The interval at which the keys of open streams are rechecked. A stream may stay open for this time after
/// another process has revoked its key.
const RECHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The maximum number of keys that one database read rechecks. More keys are rechecked in several reads, so
/// that other reads are not delayed.
const RECHECK_BATCH: usize = 200;

/// Watches the keys of open event streams. Cheap to clone.
#[derive(Clone)]
pub(crate) struct KeyWatch {
    state: Arc<WatchState>,
}

struct WatchState {
    store: Store,
    clock: Arc<dyn Clock>,
    watched: Mutex<WatchedKeys>,
}

#[derive(Default)]
struct WatchedKeys {
    keys: HashMap<KeyId, Entry>,
    /// True while the background task that rechecks the watched keys is running.
    is_rechecking: bool,
}

struct Entry {
    parent_key_id: Option<KeyId>,
    streams: usize,
    ended: CancellationToken,
}

/// A handle through which one event stream watches its key. A key is watched until all its handles are
/// dropped.
pub(crate) struct KeyHandle {
    state: Arc<WatchState>,
    key_id: KeyId,
    expires_at: Option<Timestamp>,
    ended: CancellationToken,
}

impl KeyWatch {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { state: Arc::new(WatchState { store, clock, watched: Mutex::default() }) }
    }

    /// Watches a key until the returned handle is dropped. The caller must check after this call that the key
    /// is still valid. Otherwise a revocation just before the call could be missed.
    pub(crate) fn watch(&self, key: &KeyInfo) -> KeyHandle {
        let mut watched = self.state.lock();
        let entry = watched.keys.entry(key.key_id).or_insert_with(|| Entry {
            parent_key_id: key.parent_key_id,
            streams: 0,
            ended: CancellationToken::new(),
        });
        entry.streams += 1;
        let ended = entry.ended.clone();
        if !std::mem::replace(&mut watched.is_rechecking, true) {
            tokio::spawn(recheck_keys(Arc::clone(&self.state)));
        }
        let state = Arc::clone(&self.state);
        KeyHandle { state, key_id: key.key_id, expires_at: key.expires_at, ended }
    }

    /// Ends the event streams of a revoked key and of the browser tokens that it created.
    pub(crate) fn notify_revoked(&self, key_id: KeyId) {
        let watched = self.state.lock();
        for (watched_id, entry) in &watched.keys {
            if *watched_id == key_id || entry.parent_key_id == Some(key_id) {
                entry.ended.cancel();
            }
        }
    }
}

impl WatchState {
    fn lock(&self) -> std::sync::MutexGuard<'_, WatchedKeys> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the watched keys. If there are none, returns `None`, and the recheck task must stop.
    fn keys_to_recheck(&self) -> Option<Vec<KeyId>> {
        let mut watched = self.lock();
        watched.is_rechecking = !watched.keys.is_empty();
        watched.is_rechecking.then(|| watched.keys.keys().copied().collect())
    }

    async fn end_dead_keys(&self, key_ids: Vec<KeyId>) -> Result<(), herm_store::Error> {
        let now = self.clock.now();
        let dead = self
            .store
            .read("recheck_keys", move |tx| {
                Box::pin(async move {
                    let mut dead = Vec::new();
                    for key_id in key_ids {
                        // A missing key also counts as ended, because expired browser tokens are deleted from
                        // the database.
                        if keys::find(tx, key_id).await?.is_none_or(|key| !key.is_live(now)) {
                            dead.push(key_id);
                        }
                    }
                    Ok::<_, herm_store::Error>(dead)
                })
            })
            .await?;
        let watched = self.lock();
        for entry in dead.iter().filter_map(|key_id| watched.keys.get(key_id)) {
            entry.ended.cancel();
        }
        Ok(())
    }
}

async fn recheck_keys(state: Arc<WatchState>) {
    loop {
        tokio::time::sleep(RECHECK_INTERVAL).await;
        let Some(key_ids) = state.keys_to_recheck() else { return };
        for part in key_ids.chunks(RECHECK_BATCH) {
            if let Err(error) = state.end_dead_keys(part.to_vec()).await {
                // The keys are rechecked after the next interval. A database failure does not end any stream.
                tracing::warn!(
                    keys = part.len(),
                    error = &error as &dyn std::error::Error,
                    "failed to recheck the keys of open event streams; trying again"
                );
                break;
            }
        }
    }
}

impl KeyHandle {
    /// Returns true if the key has expired or was found to be revoked.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled() || self.expires_at.is_some_and(|end| end <= self.state.clock.now())
    }

    /// Waits until the key expires or is revoked. Cancel-safe, and may be called again.
    pub(crate) async fn ended(&self) {
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = self.expired() => {}
        }
    }

    async fn expired(&self) {
        let Some(expires_at) = self.expires_at else { return std::future::pending().await };
        loop {
            let left = expires_at.as_micros() - self.state.clock.now().as_micros();
            let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return };
            tokio::time::sleep(Duration::from_micros(left)).await;
        }
    }
}

impl Drop for KeyHandle {
    fn drop(&mut self) {
        let mut watched = self.state.lock();
        if let Some(entry) = watched.keys.get_mut(&self.key_id) {
            entry.streams -= 1;
            if entry.streams == 0 {
                watched.keys.remove(&self.key_id);
            }
        }
    }
}
