//! Sandboxes on a machine that a test simulates: everything from the server down to the socket is the real thing, and
//! whoever dials it is the test's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::engine::{Body, Engine};
use crate::place::Place;
use crate::spec::{Error, Spec};

/// What stands for the machine and its engine.
#[async_trait]
pub trait Machine: Send + Sync {
    /// Starts a sandbox, whose guest finds the server's socket and its token in `run_dir`.
    fn start(&self, sandbox_id: &str, run_dir: PathBuf);

    /// Ends everything in it. One that has ended stays so.
    fn kill(&self, sandbox_id: &str);

    /// Waits until nothing of it runs.
    async fn ended(&self, sandbox_id: &str);
}

pub(crate) struct Simulated(pub(crate) Arc<dyn Machine>);

#[async_trait]
impl Engine for Simulated {
    async fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn has_users(&self) -> bool {
        false
    }

    async fn has_image(&self, _image: Option<&str>) -> Result<bool, Error> {
        Ok(true)
    }

    async fn get_image(&self, _image: Option<&str>) -> Result<(), Error> {
        Ok(())
    }

    async fn start(&self, place: &Place, _spec: &Spec, _away: Duration) -> Result<Box<dyn Body>, Error> {
        self.0.start(place.sandbox_id(), place.run_dir());
        self.find(place).await
    }

    async fn find(&self, place: &Place) -> Result<Box<dyn Body>, Error> {
        let (machine, sandbox_id) = (Arc::clone(&self.0), place.sandbox_id().to_owned());
        Ok(Box::new(SimulatedBody { machine, sandbox_id }))
    }
}

struct SimulatedBody {
    machine: Arc<dyn Machine>,
    sandbox_id: String,
}

#[async_trait]
impl Body for SimulatedBody {
    fn met(&self, _stream: &UnixStream) {}

    async fn kill(&self) {
        self.machine.kill(&self.sandbox_id);
    }

    async fn ended(&self) {
        self.machine.ended(&self.sandbox_id).await;
    }

    async fn may_run(&self) -> bool {
        tokio::select! {
            biased;
            () = self.ended() => false,
            () = std::future::ready(()) => true,
        }
    }

    async fn clear(&self) {}

    async fn reason(&self) -> Error {
        Error::Died
    }
}
