//! Sandboxes on this machine: bubblewrap, with the guest as PID 1. They share the host's kernel.

mod bubblewrap;
mod cgroup;
mod process;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::engine::{Body, Engine};
use crate::place::Place;
use crate::shared::Shared;
use crate::spec::{Error, Spec};
use cgroup::{Cgroup, Cgroups};
use process::Process;

/// The engine that needs nothing but bubblewrap.
pub(crate) struct Local {
    shared: Shared,
    /// None where the host gives this server no control groups: then the guest sets limits for each process alone.
    cgroups: Option<Cgroups>,
}

impl Local {
    pub(crate) fn new(shared: Shared) -> Self {
        let cgroups = Cgroups::find(&shared.instance);
        if let Err(error) = &cgroups {
            tracing::info!(%error, "local sandboxes have no control groups: memory is limited for each process alone");
        }
        Self { shared, cgroups: cgroups.ok() }
    }

    fn body(&self, place: &Place) -> LocalBody {
        let cgroup = self.cgroups.as_ref().map(|cgroups| cgroups.of(place.sandbox_id()));
        LocalBody { process: Arc::default(), place: place.clone(), cgroup }
    }
}

#[async_trait]
impl Engine for Local {
    async fn check(&self) -> Result<(), Error> {
        bubblewrap::check().await
    }

    async fn has_image(&self, _image: Option<&str>) -> Result<bool, Error> {
        Ok(true)
    }

    async fn get_image(&self, _image: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn start(&self, place: &Place, spec: &Spec, away: Duration) -> Result<Box<dyn Body>, Error> {
        let body = self.body(place);
        if let Some(cgroup) = &body.cgroup {
            cgroup.make(spec.limits)?;
        }
        let started = bubblewrap::start(&self.shared, place, spec, body.cgroup.as_ref(), away).await;
        match started {
            Ok(child) => process::reap(Arc::clone(&body.process), child),
            Err(error) => {
                body.clear().await;
                return Err(error);
            }
        }
        Ok(Box::new(body))
    }

    async fn find(&self, place: &Place) -> Result<Box<dyn Body>, Error> {
        Ok(Box::new(self.body(place)))
    }
}

struct LocalBody {
    process: Arc<Process>,
    place: Place,
    cgroup: Option<Cgroup>,
}

#[async_trait]
impl Body for LocalBody {
    fn met(&self, stream: &UnixStream) {
        self.process.met(stream);
    }

    async fn kill(&self) {
        self.process.kill();
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    async fn ended(&self) {
        self.process.ended().await;
    }

    async fn clear(&self) {
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.remove().await
        {
            tracing::warn!(sandbox_id = self.place.sandbox_id(), %error, "failed to remove a sandbox's control group");
        }
    }

    async fn reason(&self) -> Error {
        if self.process.is_gone() { bubblewrap::reason(&self.place) } else { Error::Slow }
    }
}
