//! All sandboxes of a server: started once each, found again, stopped.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::process::Child;
use tokio::time::timeout;

use super::bubblewrap::{self, START_LIMIT, Shared};
use super::connection::Guest;
use super::door::Door;
use super::place::Place;
use super::sandbox::LocalSandbox;
use super::{Error, Options, Spec};

/// How long a guest of an earlier server is awaited: it dials every 100 ms.
const ADOPT_LIMIT: Duration = Duration::from_millis(1_500);
/// How long a guest may take to end politely.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// How long the kernel may take to end what was killed: a process that waits for a disk cannot be ended sooner.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(30);

/// One sandbox's place in the table; its lock lets one start or stop it at a time.
type Slot = Arc<tokio::sync::Mutex<Option<LocalSandbox>>>;

/// The sandboxes of a server; cheap to clone.
#[derive(Clone)]
pub struct Sandboxes {
    options: Arc<Options>,
    dir: PathBuf,
    shared: Shared,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
}

impl Sandboxes {
    /// Prepares what all sandboxes share. What an earlier server left running is left running.
    pub fn new(options: Options) -> Result<Self, Error> {
        let dir = options.data_dir.join("sandboxes");
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let shared = Shared::write(&dir)?;
        Ok(Self { options: Arc::new(options), dir, shared, slots: Arc::default() })
    }

    /// Whether a sandbox can be started on this machine.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub async fn check(&self) -> Result<(), Error> {
        bubblewrap::check().await
    }

    fn slot(&self, sandbox_id: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(sandbox_id.to_owned()).or_default())
    }

    /// The sandbox, running: found, taken over from an earlier server, or started. Who asks at the same time shares
    /// one start.
    pub async fn ensure(&self, spec: Spec) -> Result<LocalSandbox, Error> {
        let slot = self.slot(&spec.sandbox_id);
        let mut held = slot.lock().await;
        if let Some(sandbox) = self.running(&spec.sandbox_id, &mut held).await? {
            return Ok(sandbox);
        }
        let sandbox = self.start(&spec).await?;
        *held = Some(sandbox.clone());
        Ok(sandbox)
    }

    /// The sandbox, if it runs, be it of this server or of an earlier one; none is started.
    pub async fn find(&self, sandbox_id: &str) -> Result<Option<LocalSandbox>, Error> {
        let slot = self.slot(sandbox_id);
        let mut held = slot.lock().await;
        self.running(sandbox_id, &mut held).await
    }

    async fn running(
        &self,
        sandbox_id: &str,
        held: &mut Option<LocalSandbox>,
    ) -> Result<Option<LocalSandbox>, Error> {
        let is_new = held.is_none();
        if let Some(sandbox) = held.take_if(|sandbox| sandbox.guest.is_dead()) {
            drop(sandbox);
        }
        if is_new {
            *held = self.adopt(sandbox_id).await?;
        }
        Ok(held.clone())
    }

    /// Takes over a sandbox that an earlier server left.
    async fn adopt(&self, sandbox_id: &str) -> Result<Option<LocalSandbox>, Error> {
        let place = Place::new(&self.dir, sandbox_id)?;
        let Some(token) = place.token() else { return Ok(None) };
        let guest = Guest::listen(Door::new(UnixListener::from_std(place.listen()?)?, &token), ADOPT_LIMIT);
        if guest.connected().await {
            return Ok(Some(LocalSandbox { guest }));
        }
        place.remove()?;
        Ok(None)
    }

    async fn start(&self, spec: &Spec) -> Result<LocalSandbox, Error> {
        let place = Place::new(&self.dir, &spec.sandbox_id)?;
        fs::create_dir_all(&spec.workspace_dir)?;
        let spec = Spec { workspace_dir: spec.workspace_dir.canonicalize()?, ..spec.clone() };
        let started = self.start_in(&place, &spec).await;
        if started.is_err() {
            // What is left would be taken for a sandbox of an earlier server. Why it did not start was read before.
            place.remove()?;
        }
        started
    }

    async fn start_in(&self, place: &Place, spec: &Spec) -> Result<LocalSandbox, Error> {
        let token = place.prepare(self.options.rng.as_ref())?;
        // Listening before the guest exists, so that its first attempt meets it.
        let door = Door::new(UnixListener::from_std(place.listen()?)?, &token);
        let guest = Guest::listen(door, START_LIMIT);
        let run_dir = place.run_dir();
        let mut child =
            bubblewrap::start(&self.shared, &run_dir, spec, &token, self.options.away_limit).await?;
        tokio::select! {
            biased;
            is_connected = guest.connected() => if !is_connected {
                let _ = child.start_kill();
                return Err(Error::Slow);
            },
            _ = child.wait() => return Err(bubblewrap::reason(&run_dir)),
        }
        tokio::spawn(reap(child, Arc::clone(&**guest)));
        Ok(LocalSandbox { guest })
    }

    /// Ends a sandbox with all that runs in it, also one of an earlier server. Its workspace stays.
    pub async fn stop(&self, sandbox_id: &str) -> Result<(), Error> {
        self.stop_if(sandbox_id, || true).await
    }

    /// Ends a sandbox if `may_stop` says so, which is asked when nobody can start or find it until it has ended.
    pub async fn stop_if(&self, sandbox_id: &str, may_stop: impl Fn() -> bool) -> Result<(), Error> {
        let slot = self.slot(sandbox_id);
        let mut held = slot.lock().await;
        if !may_stop() {
            return Ok(());
        }
        if let Some(sandbox) = self.running(sandbox_id, &mut held).await? {
            sandbox.guest.shut_down();
            if timeout(STOP_LIMIT, sandbox.guest.ended()).await.is_err() {
                sandbox.guest.kill();
                timeout(KILL_LIMIT, sandbox.guest.ended()).await.map_err(|_| Error::Undead)?;
            }
        }
        *held = None;
        Place::new(&self.dir, sandbox_id)?.remove()?;
        // Nobody else has the slot, and nobody can get it while the table is held: only then may it go.
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.get(sandbox_id).is_some_and(|kept| Arc::ptr_eq(kept, &slot) && Arc::strong_count(kept) == 2)
        {
            slots.remove(sandbox_id);
        }
        Ok(())
    }

    /// Ends every sandbox of this server.
    pub async fn stop_all(&self) {
        let all: Vec<String> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.keys().cloned().collect()
        };
        for sandbox_id in all {
            if let Err(error) = self.stop(&sandbox_id).await {
                tracing::warn!(
                    sandbox_id,
                    error = &error as &dyn std::error::Error,
                    "failed to stop a sandbox"
                );
            }
        }
    }
}

/// Waits for bubblewrap's end, so that it leaves no zombie and its guest is known to be gone.
async fn reap(mut child: Child, guest: Arc<Guest>) {
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "failed to wait for a sandbox");
    }
    // If bubblewrap alone was ended, its guest goes on, and would beside the one that takes its place.
    guest.kill();
    guest.has_ended();
}
