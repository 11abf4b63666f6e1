//! All sandboxes of a server: started once each, found again, stopped.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use herm_types::Rng;
use herm_types::sandbox::SandboxType;
use tokio::net::UnixListener;
use tokio::time::timeout;

use crate::connection::{Guest, Held};
use crate::docker::{Docker, DockerOptions, Runtime};
use crate::door::{Carry, Door};
use crate::engine::{Engine, START_LIMIT};
use crate::local::Local;
use crate::place::Place;
use crate::sandbox::Sandbox;
use crate::shared::Shared;
use crate::spec::{Error, Spec};

/// How long a guest of an earlier server is awaited before it is asked whether its sandbox runs at all: it dials every
/// 100 ms, when it is given the processor.
const LOOK_AFTER: Duration = Duration::from_millis(1_500);
/// How long it is awaited while its sandbox runs.
const ADOPT_LIMIT: Duration = Duration::from_secs(60);
/// How long a guest may take to end politely.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// How long the kernel may take to end what was killed: a process that waits for a disk cannot be ended sooner.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(120);
/// What a sandbox waits for its server unless a test says otherwise.
pub const AWAY_LIMIT: Duration = Duration::from_secs(30);

/// How sandboxes are kept.
#[derive(Clone)]
pub struct Options {
    /// Sockets and tokens lie in `sandboxes/` below it.
    pub data_dir: PathBuf,
    pub rng: Arc<dyn Rng>,
    /// How long a sandbox waits for its server before it ends itself.
    pub away_limit: Duration,
    pub docker: DockerOptions,
    /// Certificates that programs inside trust, as PEM: all of them, and the last one alone. Empty: none.
    pub certificates: Certificates,
    /// Gets the connections that programs make to the proxy.
    pub carry: Carry,
}

/// What programs in sandboxes trust, as PEM; they find it in `/run/herm`.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// The public authorities and the proxy's own.
    pub bundle: String,
    /// The proxy's own alone.
    pub proxy: String,
}

/// One sandbox's place in the table; its lock lets one start or stop it at a time.
type Slot = Arc<tokio::sync::Mutex<Option<Sandbox>>>;

/// The sandboxes of a server; cheap to clone.
#[derive(Clone)]
pub struct Sandboxes {
    options: Arc<Options>,
    dir: PathBuf,
    local: Arc<Local>,
    docker: Arc<Docker>,
    gvisor: Arc<Docker>,
    #[cfg(feature = "simulated")]
    simulated: Option<Arc<dyn Engine>>,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
}

impl Sandboxes {
    /// Prepares what all sandboxes share. What an earlier server left running is left running.
    pub fn new(options: Options) -> Result<Self, Error> {
        let dir = options.data_dir.join("sandboxes");
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let shared = Shared::write(&dir, &options)?;
        let docker = |runtime| Arc::new(Docker::new(&options, runtime, shared.clone()));
        Ok(Self {
            local: Arc::new(Local::new(shared.clone(), Arc::clone(&options.rng))),
            docker: docker(Runtime::Default),
            gvisor: docker(Runtime::Gvisor),
            #[cfg(feature = "simulated")]
            simulated: None,
            options: Arc::new(options),
            dir,
            slots: Arc::default(),
        })
    }

    /// The same, with all sandboxes on a machine that a test simulates.
    #[cfg(feature = "simulated")]
    #[must_use]
    pub fn on(self, machine: Arc<dyn crate::Machine>) -> Self {
        Self { simulated: Some(Arc::new(crate::simulated::Simulated(machine))), ..self }
    }

    fn engine(&self, kind: SandboxType) -> &dyn Engine {
        #[cfg(feature = "simulated")]
        if let Some(simulated) = &self.simulated {
            return simulated.as_ref();
        }
        match kind {
            SandboxType::Local => self.local.as_ref(),
            SandboxType::Docker => self.docker.as_ref(),
            SandboxType::Gvisor => self.gvisor.as_ref(),
        }
    }

    /// Whether a sandbox of this kind can be started on this machine, its image aside.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub async fn check(&self, engine: SandboxType) -> Result<(), Error> {
        self.engine(engine).check().await
    }

    /// Whether the image of such a sandbox, for `None` the one that the server is configured with, is there already.
    pub async fn has_image(&self, engine: SandboxType, image: Option<&str>) -> Result<bool, Error> {
        self.engine(engine).has_image(image).await
    }

    /// Gets that image, if it is not there, which may take minutes. It may be given up at any time.
    ///
    /// # Errors
    /// [`Error::NoImage`]: it cannot be had; the engine's own words say why.
    pub async fn get_image(&self, engine: SandboxType, image: Option<&str>) -> Result<(), Error> {
        self.engine(engine).get_image(image).await
    }

    /// Whether sandboxes of this kind have users of their own to the host's kernel; else they share the server's.
    pub async fn have_users(&self, engine: SandboxType) -> bool {
        self.engine(engine).has_users().await
    }

    fn slot(&self, sandbox_id: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(sandbox_id.to_owned()).or_default())
    }

    /// The sandbox, running: found, taken over from an earlier server, or started. Who asks at the same time shares
    /// one start.
    pub async fn ensure(&self, spec: Spec) -> Result<Sandbox, Error> {
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
    pub async fn find(&self, sandbox_id: &str) -> Result<Option<Sandbox>, Error> {
        let slot = self.slot(sandbox_id);
        let mut held = slot.lock().await;
        self.running(sandbox_id, &mut held).await
    }

    async fn running(&self, sandbox_id: &str, held: &mut Option<Sandbox>) -> Result<Option<Sandbox>, Error> {
        let is_new = held.is_none();
        if let Some(sandbox) = held.take_if(|sandbox| sandbox.guest.is_dead()) {
            // Nothing of it may be left beside the one that takes its place.
            end_for_good(&sandbox.guest).await?;
        }
        if is_new {
            *held = self.adopt(sandbox_id).await?;
        }
        Ok(held.clone())
    }

    /// Takes over a sandbox that an earlier server left.
    async fn adopt(&self, sandbox_id: &str) -> Result<Option<Sandbox>, Error> {
        let place = Place::new(&self.dir, sandbox_id)?;
        let Some((token, engine)) = place.left() else { return Ok(None) };
        let guest = self.listen(&place, token, ADOPT_LIMIT)?;
        guest.lives_in(self.engine(engine).find(&place).await?);
        if comes_back(&guest).await {
            return Ok(Some(Sandbox { guest }));
        }
        end_for_good(&guest).await?;
        place.remove()?;
        Ok(None)
    }

    fn listen(&self, place: &Place, token: String, limit: Duration) -> Result<Arc<Held>, Error> {
        let listener = UnixListener::from_std(place.listen()?)?;
        let door = Door::new(listener, place, token, Arc::clone(&self.options.carry));
        Ok(Guest::listen(door, limit))
    }

    async fn start(&self, spec: &Spec) -> Result<Sandbox, Error> {
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

    async fn start_in(&self, place: &Place, spec: &Spec) -> Result<Sandbox, Error> {
        let token = place.prepare(spec.engine, self.options.rng.as_ref())?;
        // Listening before the guest exists, so that its first attempt meets it.
        let guest = self.listen(place, token, START_LIMIT)?;
        let engine = self.engine(spec.engine);
        guest.lives_in(engine.start(place, spec, self.options.away_limit).await?);
        tokio::select! {
            biased;
            is_connected = guest.connected() => if is_connected {
                return Ok(Sandbox { guest });
            },
            () = guest.body_ended() => {}
        }
        let reason = guest.reason().await;
        end_for_good(&guest).await?;
        Err(reason)
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
            let ended = timeout(STOP_LIMIT, sandbox.guest.ended()).await;
            if ended.is_ok() {
                sandbox.guest.clear().await;
            } else {
                end_for_good(&sandbox.guest).await?;
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

    /// Clears up after sandboxes of earlier servers that have ended since. One that is alive is taken over.
    pub async fn clear_left(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            // What all share is no sandbox's name.
            let Some(sandbox_id) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            if let Err(error) = self.find(sandbox_id).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(sandbox_id, error, "failed to clear up after a sandbox");
            }
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

/// Waits for a guest of an earlier server; `false` if it does not come, or nothing of its sandbox runs any more.
async fn comes_back(guest: &Guest) -> bool {
    let mut connected = pin!(guest.connected());
    loop {
        match timeout(LOOK_AFTER, &mut connected).await {
            Ok(is_connected) => return is_connected,
            Err(_) if guest.may_run().await => {}
            Err(_) => return false,
        }
    }
}

/// Kills a sandbox whose guest cannot be asked, and removes what it leaves on the host.
async fn end_for_good(guest: &Guest) -> Result<(), Error> {
    guest.has_ended();
    guest.kill().await;
    timeout(KILL_LIMIT, guest.body_ended()).await.map_err(|_| Error::Undead)?;
    guest.clear().await;
    Ok(())
}
