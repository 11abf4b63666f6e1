//! Manages all sandboxes of a server: starts, finds and stops them.

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

use crate::connection::{Guest, GuestHandle};
use crate::docker::{Docker, DockerOptions, Runtime};
use crate::engine::{Engine, START_TIMEOUT};
use crate::guest_listener::{GuestListener, ProxyHandler};
use crate::local::Local;
use crate::sandbox::Sandbox;
use crate::sandbox_dir::SandboxDir;
use crate::shared_files::SharedFiles;
use crate::spec::{Error, Spec};

/// The interval between checks that a sandbox is still running, made while the server waits for its guest to reconnect.
/// A guest usually reconnects before the first check, because it tries every 100 ms.
const ADOPT_CHECK_INTERVAL: Duration = Duration::from_millis(1_500);
/// The maximum time to wait until a guest that outlived a previous server process has reconnected. If it takes longer,
/// the guest's sandbox is killed.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum time for a guest to shut down. If it takes longer, the sandbox is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum time until killed processes have exited. If it takes longer, stopping the sandbox fails. The limit is
/// long because a killed process that is waiting for a disk exits only after the disk has responded.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(120);
/// The default reconnect timeout. If a guest cannot reach a server for this long, it exits, which ends its sandbox.
pub const RECONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration of [`Sandboxes`], which applies to the sandboxes of all engines.
#[derive(Clone)]
pub struct Options {
    /// The server's data directory. Its subdirectory `sandboxes` contains the sandboxes' sockets and guest tokens.
    pub data_dir: PathBuf,
    pub rng: Arc<dyn Rng>,
    /// The time for which a sandbox keeps running while its guest cannot reach a server. After that, the guest exits,
    /// which ends the sandbox.
    pub reconnect_timeout: Duration,
    pub docker: DockerOptions,
    /// The certificates of the certificate authorities (CAs) that programs in sandboxes trust.
    pub certificates: Certificates,
    /// Called for each connection that a program in a sandbox makes to the egress proxy.
    pub proxy_handler: ProxyHandler,
}

/// The certificates of the certificate authorities (CAs) that programs in sandboxes trust, in PEM format. They are
/// mounted as files in `/run/herm`. Each field may be an empty string.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// The certificates of the public CAs, followed by the certificate of the egress proxy's own CA.
    pub bundle: String,
    /// Only the certificate of the egress proxy's own CA.
    pub proxy: String,
}

/// The sandbox with a given id, or `None` if this server process has no such sandbox. The lock ensures that only one
/// task at a time starts or stops the sandbox.
type Slot = Arc<tokio::sync::Mutex<Option<Sandbox>>>;

/// A handle to all sandboxes of a server; cheap to clone.
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
    /// Creates the handle and writes the host files that all sandboxes share. Does not affect sandboxes that a previous
    /// server process left running.
    pub fn new(options: Options) -> Result<Self, Error> {
        let dir = options.data_dir.join("sandboxes");
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let shared_files = SharedFiles::write(&dir, &options)?;
        let docker = |runtime| Arc::new(Docker::new(&options, runtime, shared_files.clone()));
        Ok(Self {
            local: Arc::new(Local::new(shared_files.clone(), Arc::clone(&options.rng))),
            docker: docker(Runtime::Default),
            gvisor: docker(Runtime::Gvisor),
            #[cfg(feature = "simulated")]
            simulated: None,
            options: Arc::new(options),
            dir,
            slots: Arc::default(),
        })
    }

    /// Replaces all engines with a simulated machine. All sandboxes then run on that machine.
    #[cfg(feature = "simulated")]
    #[must_use]
    pub fn with_machine(self, machine: Arc<dyn crate::Machine>) -> Self {
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

    /// Checks that sandboxes of this type can be started on this machine. Does not check the image.
    ///
    /// # Errors
    /// The error message says what is missing and how to fix it.
    pub async fn check(&self, engine: SandboxType) -> Result<(), Error> {
        self.engine(engine).check().await
    }

    /// Returns true if the image is available on this machine. `None` means the default image from the server's
    /// configuration. Always true for `local`, which uses no image.
    pub async fn has_image(&self, engine: SandboxType, image: Option<&str>) -> Result<bool, Error> {
        self.engine(engine).has_image(image).await
    }

    /// Pulls the image if it is not available on this machine. This may take minutes. Safe to cancel.
    ///
    /// # Errors
    /// Returns [`Error::NoImage`] with the engine's message if the image cannot be pulled.
    pub async fn get_image(&self, engine: SandboxType, image: Option<&str>) -> Result<(), Error> {
        self.engine(engine).get_image(image).await
    }

    /// Returns true if each sandbox of this type runs as a separate user of the host's operating system. Otherwise all
    /// sandboxes of this type run as the server's user.
    pub async fn have_own_users(&self, engine: SandboxType) -> bool {
        self.engine(engine).has_own_users().await
    }

    fn slot(&self, sandbox_id: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(sandbox_id.to_owned()).or_default())
    }

    /// Returns the running sandbox with the id in `spec`. If this server process has none, takes over the one that a
    /// previous server process left running, or starts a new one. Concurrent calls for the same id start only one
    /// sandbox.
    pub async fn ensure(&self, spec: Spec) -> Result<Sandbox, Error> {
        let slot = self.slot(&spec.sandbox_id);
        let mut current = slot.lock().await;
        if let Some(sandbox) = self.running(&spec.sandbox_id, &mut current).await? {
            return Ok(sandbox);
        }
        let sandbox = self.start(&spec).await?;
        *current = Some(sandbox.clone());
        Ok(sandbox)
    }

    /// Returns the sandbox if it is running, even if a previous server process started it. Does not start a sandbox.
    pub async fn find(&self, sandbox_id: &str) -> Result<Option<Sandbox>, Error> {
        let slot = self.slot(sandbox_id);
        let mut current = slot.lock().await;
        self.running(sandbox_id, &mut current).await
    }

    async fn running(
        &self,
        sandbox_id: &str,
        current: &mut Option<Sandbox>,
    ) -> Result<Option<Sandbox>, Error> {
        let is_new = current.is_none();
        if let Some(sandbox) = current.take_if(|sandbox| sandbox.guest.is_dead()) {
            // The sandbox is dead. Remove its processes and host resources before a new sandbox with the same id is
            // started.
            destroy_sandbox(&sandbox.guest).await?;
        }
        if is_new {
            *current = self.adopt(sandbox_id).await?;
        }
        Ok(current.clone())
    }

    /// Takes over the sandbox that a previous server process left running. If its guest does not reconnect in time,
    /// destroys the sandbox and returns `None`.
    async fn adopt(&self, sandbox_id: &str) -> Result<Option<Sandbox>, Error> {
        let sandbox_dir = SandboxDir::new(&self.dir, sandbox_id)?;
        let Some((token, engine)) = sandbox_dir.find_existing() else { return Ok(None) };
        let guest = self.listen(&sandbox_dir, token, ADOPT_TIMEOUT)?;
        guest.set_engine_sandbox(self.engine(engine).find(&sandbox_dir).await?);
        if wait_reconnected(&guest).await {
            return Ok(Some(Sandbox { guest }));
        }
        destroy_sandbox(&guest).await?;
        sandbox_dir.remove()?;
        Ok(None)
    }

    fn listen(
        &self,
        sandbox_dir: &SandboxDir,
        token: String,
        connect_timeout: Duration,
    ) -> Result<Arc<GuestHandle>, Error> {
        let listener = UnixListener::from_std(sandbox_dir.listen()?)?;
        let guest_listener =
            GuestListener::new(listener, sandbox_dir, token, Arc::clone(&self.options.proxy_handler));
        Ok(Guest::listen(guest_listener, connect_timeout))
    }

    async fn start(&self, spec: &Spec) -> Result<Sandbox, Error> {
        let sandbox_dir = SandboxDir::new(&self.dir, &spec.sandbox_id)?;
        fs::create_dir_all(&spec.workspace_dir)?;
        let spec = Spec { workspace_dir: spec.workspace_dir.canonicalize()?, ..spec.clone() };
        let started = self.start_with(&sandbox_dir, &spec).await;
        if started.is_err() {
            // Remove the directory: otherwise it would later be taken for the directory of a running sandbox. The log
            // in it is no longer needed, because the error already says why the sandbox did not start.
            sandbox_dir.remove()?;
        }
        started
    }

    async fn start_with(&self, sandbox_dir: &SandboxDir, spec: &Spec) -> Result<Sandbox, Error> {
        let token = sandbox_dir.prepare(spec.engine, self.options.rng.as_ref())?;
        // Listen before starting the guest, so that the guest's first attempt to connect succeeds.
        let guest = self.listen(sandbox_dir, token, START_TIMEOUT)?;
        let engine = self.engine(spec.engine);
        guest.set_engine_sandbox(engine.start(sandbox_dir, spec, self.options.reconnect_timeout).await?);
        tokio::select! {
            biased;
            is_connected = guest.wait_connected() => if is_connected {
                return Ok(Sandbox { guest });
            },
            () = guest.wait_sandbox_ended() => {}
        }
        let start_failure = guest.start_failure().await;
        destroy_sandbox(&guest).await?;
        Err(start_failure)
    }

    /// Stops a sandbox and all processes in it, even if a previous server process started it. The workspace is kept.
    /// Does nothing if the sandbox is not running.
    pub async fn stop(&self, sandbox_id: &str) -> Result<(), Error> {
        self.stop_if(sandbox_id, || true).await
    }

    /// Stops a sandbox if `may_stop` returns true. `may_stop` is called while the sandbox is locked, so other callers
    /// cannot start or find the sandbox until it has been stopped.
    pub async fn stop_if(&self, sandbox_id: &str, may_stop: impl Fn() -> bool) -> Result<(), Error> {
        let slot = self.slot(sandbox_id);
        let mut current = slot.lock().await;
        if !may_stop() {
            return Ok(());
        }
        if let Some(sandbox) = self.running(sandbox_id, &mut current).await? {
            sandbox.guest.shut_down();
            let ended = timeout(STOP_TIMEOUT, sandbox.guest.wait_ended()).await;
            if ended.is_ok() {
                sandbox.guest.clean_up().await;
            } else {
                destroy_sandbox(&sandbox.guest).await?;
            }
        }
        *current = None;
        SandboxDir::new(&self.dir, sandbox_id)?.remove()?;
        // Remove the slot from the table only if no other task holds it. In that case there are exactly two references
        // to it: the one in the table, and `slot`. While the table is locked, no task can create another reference.
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots
            .get(sandbox_id)
            .is_some_and(|stored| Arc::ptr_eq(stored, &slot) && Arc::strong_count(stored) == 2)
        {
            slots.remove(sandbox_id);
        }
        Ok(())
    }

    /// Checks every sandbox that a previous server process started: takes over those that are still running, and
    /// removes the host resources of the others.
    pub async fn clean_up_stale(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            // Skip the directory of the shared files: its name starts with a dot.
            let Some(sandbox_id) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            if let Err(error) = self.find(sandbox_id).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    sandbox_id,
                    error,
                    "failed to take over or clean up a sandbox of a previous server process"
                );
            }
        }
        Ok(())
    }

    /// Stops all sandboxes that this server process has started or taken over. Failures are logged and otherwise
    /// ignored.
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
                    "failed to stop the sandbox"
                );
            }
        }
    }
}

/// Waits until a guest that outlived a previous server process has reconnected. Returns `false` if the guest does not
/// reconnect in time or if the sandbox's processes have exited.
async fn wait_reconnected(guest: &Guest) -> bool {
    let mut connected = pin!(guest.wait_connected());
    loop {
        match timeout(ADOPT_CHECK_INTERVAL, &mut connected).await {
            Ok(is_connected) => return is_connected,
            Err(_) if guest.may_run().await => {}
            Err(_) => return false,
        }
    }
}

/// Kills all processes of a sandbox without involving its guest, and removes the sandbox's resources from the host.
async fn destroy_sandbox(guest: &Guest) -> Result<(), Error> {
    guest.stop_waiting();
    guest.kill().await;
    timeout(KILL_TIMEOUT, guest.wait_sandbox_ended()).await.map_err(|_| Error::KillTimeout)?;
    guest.clean_up().await;
    Ok(())
}
