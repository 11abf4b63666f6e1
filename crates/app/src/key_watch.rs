//! Keys whose event streams are open: a stream ends when its key does.
//!
//! Every request looks its key up; a stream is a request that does not end by itself. What this server revokes ends at
//! once. What another process revokes is found by looking at each key again now and then: once for all of its streams,
//! and by one task, which lives as long as there is a stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use herm_store::{Store, keys};
use herm_types::key::KeyInfo;
use herm_types::{Clock, KeyId, Timestamp};
use tokio_util::sync::CancellationToken;

/// How long a stream may outlive its key where another process revoked it.
const RECHECK: Duration = Duration::from_secs(2);
/// Keys that one look at the database goes through, so that it is held for a moment only.
const KEYS_AT_ONCE: usize = 200;

/// The keys that have streams; cheap to clone.
#[derive(Clone)]
pub(crate) struct KeyWatch {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    keys: HashMap<KeyId, Entry>,
    /// Whether the task that looks again is at work.
    is_looked_after: bool,
}

struct Entry {
    parent_key_id: Option<KeyId>,
    streams: usize,
    ended: CancellationToken,
}

/// One stream's hold on its key.
pub(crate) struct KeyHold {
    shared: Arc<Shared>,
    key_id: KeyId,
    expires_at: Option<Timestamp>,
    ended: CancellationToken,
}

impl KeyWatch {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { store, clock, watched: Mutex::default() }) }
    }

    /// Watches a key as long as the hold lives. Whether the key was live to begin with is for the caller to see,
    /// afterwards: then no revocation falls in between.
    pub(crate) fn hold(&self, key: &KeyInfo) -> KeyHold {
        let mut watched = self.shared.lock();
        let entry = watched.keys.entry(key.key_id).or_insert_with(|| Entry {
            parent_key_id: key.parent_key_id,
            streams: 0,
            ended: CancellationToken::new(),
        });
        entry.streams += 1;
        let ended = entry.ended.clone();
        if !std::mem::replace(&mut watched.is_looked_after, true) {
            tokio::spawn(look_after(Arc::clone(&self.shared)));
        }
        let shared = Arc::clone(&self.shared);
        KeyHold { shared, key_id: key.key_id, expires_at: key.expires_at, ended }
    }

    /// Ends the streams of a key that was just revoked, and of its tokens.
    pub(crate) fn revoked(&self, key_id: KeyId) {
        let watched = self.shared.lock();
        for (held, entry) in &watched.keys {
            if *held == key_id || entry.parent_key_id == Some(key_id) {
                entry.ended.cancel();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys to look at; `None`, and the end of looking, when there are none.
    fn next_round(&self) -> Option<Vec<KeyId>> {
        let mut watched = self.lock();
        watched.is_looked_after = !watched.keys.is_empty();
        watched.is_looked_after.then(|| watched.keys.keys().copied().collect())
    }

    async fn end_dead(&self, key_ids: Vec<KeyId>) -> Result<(), herm_store::Error> {
        let now = self.clock.now();
        let dead = self
            .store
            .read("recheck_keys", move |tx| {
                Box::pin(async move {
                    let mut dead = Vec::new();
                    for key_id in key_ids {
                        // A token that has expired may be gone.
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

async fn look_after(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(RECHECK).await;
        let Some(key_ids) = shared.next_round() else { return };
        for part in key_ids.chunks(KEYS_AT_ONCE) {
            if let Err(error) = shared.end_dead(part.to_vec()).await {
                // While the database is away no key is known to have ended; the next round asks again.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to look at the keys of streams"
                );
                break;
            }
        }
    }
}

impl KeyHold {
    /// Whether the key has expired or is known to be revoked.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled() || self.expires_at.is_some_and(|end| end <= self.shared.clock.now())
    }

    /// Resolves when the key has expired or is revoked. Safe to drop and to call again.
    pub(crate) async fn ended(&self) {
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = self.expired() => {}
        }
    }

    async fn expired(&self) {
        let Some(expires_at) = self.expires_at else { return std::future::pending().await };
        loop {
            let left = expires_at.as_micros() - self.shared.clock.now().as_micros();
            let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return };
            tokio::time::sleep(Duration::from_micros(left)).await;
        }
    }
}

impl Drop for KeyHold {
    fn drop(&mut self) {
        let mut watched = self.shared.lock();
        if let Some(entry) = watched.keys.get_mut(&self.key_id) {
            entry.streams -= 1;
            if entry.streams == 0 {
                watched.keys.remove(&self.key_id);
            }
        }
    }
}
