//! Sandboxes of a Docker engine: containers without a network, with a read-only root, the guest as PID 1. With the
//! runtime `runsc` (gVisor) they have a kernel of their own.

mod container;

use std::borrow::Cow;
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

    /// Fetches an image from where its name says, also one that is there already.
    async fn fetch_image(&self, image: &str) -> Result<(), Error> {
        let client = self.connect().await?;
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image)).build();
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

/// An image's name as engines mean it where it says no tag; asked to fetch it without one, they fetch every tag there is.
fn with_tag(image: &str) -> Cow<'_, str> {
    // What stands before the last slash may be a host with a port.
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    if name.contains([':', '@']) { image.into() } else { format!("{image}:latest").into() }
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
        Ok(())
    }

    async fn has_image(&self, image: Option<&str>) -> Result<bool, Error> {
        match self.connect().await?.inspect_image(self.image(image)).await {
            Ok(_) => Ok(true),
            Err(error) if is_status(&error, 404) => Ok(false),
            Err(error) => Err(refused(&error)),
        }
    }

    async fn get_image(&self, image: Option<&str>) -> Result<(), Error> {
        if self.has_image(image).await? { Ok(()) } else { self.fetch_image(self.image(image)).await }
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
        match container.start(&wanted).await {
            // It was there when the deployment was made, and was lost or named since.
            Err(Error::NoImage { .. }) => {
                self.fetch_image(wanted.image).await?;
                container.start(&wanted).await?;
            }
            started => started?,
        }
        Ok(Box::new(container))
    }

    async fn find(&self, place: &Place) -> Result<Box<dyn Body>, Error> {
        let client = self.connect().await?;
        Ok(Box::new(Container::new(client, name_of(&self.shared.instance, place.sandbox_id()))))
    }
}

#[cfg(test)]
mod tests {
    use super::with_tag;

    #[test]
    fn a_name_without_a_tag_means_the_latest_and_no_other() {
        for (image, expected) in [
            ("alpine", "alpine:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            ("ghcr.io/a/b@sha256:00", "ghcr.io/a/b@sha256:00"),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }
}
