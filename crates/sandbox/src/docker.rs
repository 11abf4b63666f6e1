//! Sandboxes of a Docker engine: containers without a network, with a read-only root, the guest as PID 1. With the
//! runtime `runsc` (gVisor) they have a kernel of their own.

mod container;

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker as Client};
use futures_util::TryStreamExt as _;
use herm_types::Rng;

use crate::engine::{Body, Engine};
use crate::place::Place;
use crate::sandboxes::Options;
use crate::shared::{Shared, group, passwd};
use crate::spec::{Error, Spec};
use crate::user;
use container::{Container, name_of};

/// How long the engine may take to answer.
const ANSWER_LIMIT_S: u64 = 60;
/// How long an image may take to come.
const IMAGE_LIMIT: Duration = Duration::from_secs(900);
/// Where the engine listens, if nothing else is said.
const USUAL_SOCKET: &str = "/var/run/docker.sock";

/// Which Docker engine is used, and how.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// A Unix socket, with `unix://` before it or without.
    pub host: Option<String>,
    /// The image of sandboxes that name none.
    pub image: String,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self { host: None, image: "herm-sandbox:latest".to_owned() }
    }
}

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// The engine's own choice: `runc` nearly everywhere.
    Default,
    Gvisor,
}

impl Runtime {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Gvisor => Some("runsc"),
        }
    }
}

/// A Docker engine with one of its runtimes.
pub(crate) struct Docker {
    host: String,
    image: String,
    runtime: Runtime,
    shared: Shared,
    rng: Arc<dyn Rng>,
}

impl Docker {
    pub(crate) fn new(options: &Options, runtime: Runtime, shared: Shared) -> Self {
        let (options, rng) = (&options.docker, Arc::clone(&options.rng));
        let host = options.host.as_deref().unwrap_or(USUAL_SOCKET).trim_start_matches("unix://").to_owned();
        Self { host, image: options.image.clone(), runtime, shared, rng }
    }

    /// A connection, in the newest version of the API that both sides speak.
    async fn connect(&self) -> Result<Client, Error> {
        let no_docker = |error: bollard::errors::Error| Error::NoDocker {
            host: self.host.clone(),
            reason: error.to_string(),
        };
        let client =
            Client::connect_with_unix(&self.host, ANSWER_LIMIT_S, API_DEFAULT_VERSION).map_err(no_docker)?;
        client.negotiate_version().await.map_err(no_docker)
    }

    /// Whether this image can be used without getting it first.
    async fn has_image(&self, image: Option<&str>) -> Result<bool, Error> {
        match self.connect().await?.inspect_image(self.image(image)).await {
            Ok(_) => Ok(true),
            Err(error) if is_status(&error, 404) => Ok(false),
            Err(error) => Err(refused(&error)),
        }
    }

    /// Gets an image, which may take minutes.
    async fn get_image(&self, image: &str) -> Result<(), Error> {
        let client = self.connect().await?;
        let options = CreateImageOptionsBuilder::new().from_image(image).build();
        let progress = client.create_image(Some(options), None, None);
        let pulled = tokio::time::timeout(IMAGE_LIMIT, progress.try_for_each(async |_| Ok(()))).await;
        let reason = match pulled {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it did not come within {} s", IMAGE_LIMIT.as_secs()),
        };
        Err(Error::NoImage { image: image.to_owned(), reason })
    }

    fn image<'a>(&'a self, wanted: Option<&'a str>) -> &'a str {
        wanted.unwrap_or(&self.image)
    }
}

fn refused(error: &bollard::errors::Error) -> Error {
    Error::Docker(error.to_string())
}

fn is_status(error: &bollard::errors::Error, wanted: u16) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code, .. } if *status_code == wanted)
}

#[async_trait]
impl Engine for Docker {
    async fn check(&self) -> Result<(), Error> {
        let client = self.connect().await?;
        if let Some(runtime) = self.runtime.name() {
            let info = client.info().await.map_err(|error| refused(&error))?;
            if !info.runtimes.unwrap_or_default().contains_key(runtime) {
                return Err(Error::NoRuntime(runtime));
            }
        }
        if self.has_image(None).await? {
            return Ok(());
        }
        let reason = "build it from images/sandbox, or name another in HERM_SANDBOX_IMAGE".to_owned();
        Err(Error::NoImage { image: self.image.clone(), reason })
    }

    async fn has_users(&self) -> bool {
        user::is_root()
    }

    async fn start(&self, place: &Place, spec: &Spec, away: Duration) -> Result<Box<dyn Body>, Error> {
        let client = self.connect().await?;
        // Files are the same user's inside and outside.
        let user_id = if user::is_root() {
            user::of_its_own(&spec.workspace_dir, self.rng.as_ref())?
        } else {
            std::fs::metadata(&spec.workspace_dir)?.uid()
        };
        let container = Container::new(client, name_of(&self.shared.instance, place.sandbox_id()));
        let wanted = container::Wanted {
            image: self.image(spec.image.as_deref()),
            runtime: self.runtime,
            shared: &self.shared,
            place,
            spec,
            user_id,
            passwd_file: place.write("passwd", &passwd(user_id))?,
            group_file: place.write("group", &group(user_id))?,
            away,
        };
        let started = match (container.start(&wanted).await, &spec.image) {
            // One that the deployment names is fetched when it is first needed.
            (Err(Error::NoImage { .. }), Some(image)) => {
                self.get_image(image).await?;
                container.start(&wanted).await
            }
            (started, _) => started,
        };
        started?;
        Ok(Box::new(container))
    }

    async fn find(&self, place: &Place) -> Result<Box<dyn Body>, Error> {
        let client = self.connect().await?;
        Ok(Box::new(Container::new(client, name_of(&self.shared.instance, place.sandbox_id()))))
    }
}
