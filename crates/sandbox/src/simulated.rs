//! Sandboxes on a simulated machine, for tests. The server's code and the socket are real; the test provides a
//! simulated guest that connects to the socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::engine::{Engine, EngineSandbox};
use crate::sandbox_dir::SandboxDir;
use crate::spec::{Error, Spec};

/// A simulated machine on which sandboxes run.
#[async_trait]
pub trait Machine: Send + Sync {
    /// Starts a sandbox. The simulated guest finds the server's socket and the guest token in `run_dir`.
    fn start(&self, sandbox_id: &str, run_dir: PathBuf);

    /// Kills all processes of the sandbox. Does nothing if the sandbox has already ended.
    fn kill(&self, sandbox_id: &str);

    /// Waits until all processes of the sandbox have exited.
    async fn wait_ended(&self, sandbox_id: &str);
}

pub(crate) struct Simulated(pub(crate) Arc<dyn Machine>);

#[async_trait]
impl Engine for Simulated {
    async fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn has_own_users(&self) -> bool {
        false
    }

    async fn has_image(&self, _image: Option<&str>) -> Result<bool, Error> {
        Ok(true)
    }

    async fn get_image(&self, _image: Option<&str>) -> Result<(), Error> {
        Ok(())
    }

    async fn start(
        &self,
        sandbox_dir: &SandboxDir,
        _spec: &Spec,
        _reconnect_timeout: Duration,
    ) -> Result<Box<dyn EngineSandbox>, Error> {
        self.0.start(sandbox_dir.sandbox_id(), sandbox_dir.run_dir());
        self.find(sandbox_dir).await
    }

    async fn find(&self, sandbox_dir: &SandboxDir) -> Result<Box<dyn EngineSandbox>, Error> {
        let (machine, sandbox_id) = (Arc::clone(&self.0), sandbox_dir.sandbox_id().to_owned());
        Ok(Box::new(SimulatedSandbox { machine, sandbox_id }))
    }
}

struct SimulatedSandbox {
    machine: Arc<dyn Machine>,
    sandbox_id: String,
}

#[async_trait]
impl EngineSandbox for SimulatedSandbox {
    fn guest_connected(&self, _stream: &UnixStream) {}

    async fn kill(&self) {
        self.machine.kill(&self.sandbox_id);
    }

    async fn wait_ended(&self) {
        self.machine.wait_ended(&self.sandbox_id).await;
    }

    async fn may_run(&self) -> bool {
        tokio::select! {
            biased;
            () = self.wait_ended() => false,
            () = std::future::ready(()) => true,
        }
    }

    async fn clean_up(&self) {}

    async fn start_failure(&self) -> Error {
        Error::Died
    }
}
