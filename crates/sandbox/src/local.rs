//! Sandboxes on this machine: bubblewrap, with the guest as PID 1. They share the host's kernel.

mod bubblewrap;
mod cgroup;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use herm_types::Rng;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;

use crate::engine::{Body, Engine};
use crate::place::Place;
use crate::shared::Shared;
use crate::spec::{Error, Spec};
use crate::user;
use bubblewrap::Launch;
use cgroup::{Cgroup, Cgroups};
use process::Process;

/// The engine that needs nothing but bubblewrap.
pub(crate) struct Local {
    shared: Shared,
    /// None where the host gives this server no control groups: then the guest sets limits for each process alone.
    cgroups: Option<Cgroups>,
    rng: Arc<dyn Rng>,
    /// A directory of the host that a launch may hide; none where sandboxes cannot have users of their own.
    stage: OnceCell<Option<PathBuf>>,
}

/// What is hidden for the launch of a sandbox with a user of its own: what no sandbox's launch needs.
const STAGES: [&str; 4] = ["/mnt", "/media", "/srv", "/opt"];
/// The user of a trial.
const TRIAL_USER_ID: u32 = 1 << 30;

impl Local {
    pub(crate) fn new(shared: Shared, rng: Arc<dyn Rng>) -> Self {
        let cgroups = Cgroups::find(&shared.instance);
        if let Err(error) = &cgroups {
            tracing::info!(%error, "local sandboxes have no control groups: memory is limited for each process alone");
        }
        Self { shared, cgroups: cgroups.ok(), rng, stage: OnceCell::new() }
    }

    /// Where a sandbox with a user of its own is launched, if there can be such a one; it is tried once.
    async fn stage(&self, away: Duration) -> Option<&Path> {
        let tried = self.stage.get_or_init(|| async {
            if !user::is_root() {
                return None;
            }
            let stage = STAGES
                .map(Path::new)
                .into_iter()
                .find(|stage| stage.is_dir() && !self.shared.dir().starts_with(stage))?;
            let user = Some((TRIAL_USER_ID, stage));
            let launch =
                Launch { name: "herm-sandbox:trial", shared: &self.shared, cgroup: None, user, away };
            match bubblewrap::check(&launch).await {
                Ok(()) => Some(stage.to_owned()),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "local sandboxes cannot have users of their own here: they share the server's, root"
                    );
                    None
                }
            }
        });
        tried.await.as_deref()
    }

    fn body(&self, place: &Place) -> LocalBody {
        let cgroup = self.cgroups.as_ref().map(|cgroups| cgroups.of(place.sandbox_id()));
        let name = bubblewrap::name_of(&self.shared.instance, place.sandbox_id());
        LocalBody { process: Arc::default(), name, place: place.clone(), cgroup }
    }
}

#[async_trait]
impl Engine for Local {
    async fn check(&self) -> Result<(), Error> {
        bubblewrap::check(&Launch {
            name: "herm-sandbox:trial",
            shared: &self.shared,
            cgroup: None,
            user: None,
            away: Duration::ZERO,
        })
        .await
    }

    /// Local sandboxes have the host's programs.
    async fn has_image(&self, _image: Option<&str>) -> Result<bool, Error> {
        Ok(true)
    }

    async fn get_image(&self, _image: Option<&str>) -> Result<(), Error> {
        Ok(())
    }

    async fn has_users(&self) -> bool {
        self.stage(Duration::ZERO).await.is_some()
    }

    async fn start(&self, place: &Place, spec: &Spec, away: Duration) -> Result<Box<dyn Body>, Error> {
        let body = self.body(place);
        if let Some(cgroup) = &body.cgroup {
            cgroup.make(spec.limits)?;
        }
        let user = match self.stage(away).await {
            Some(stage) => Some((user::of_its_own(&spec.workspace_dir, self.rng.as_ref())?, stage)),
            None => {
                user::of_the_server(&spec.workspace_dir)?;
                None
            }
        };
        let launch =
            Launch { name: &body.name, shared: &self.shared, cgroup: body.cgroup.as_ref(), user, away };
        let started = bubblewrap::start(&launch, place, spec).await;
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
    /// In lists of processes.
    name: String,
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

    async fn may_run(&self) -> bool {
        self.cgroup.as_ref().map_or_else(|| process::is_listed(&self.name), Cgroup::has_processes)
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
