//! Docker sandboxes: containers without a network and with a read-only root file system. The guest is PID 1 of the
//! container. With the runtime `runsc` (gVisor), each container has its own kernel.

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

use crate::engine::{Engine, EngineSandbox};
use crate::sandbox_dir::SandboxDir;
use crate::sandboxes::Options;
use crate::shared_files::{SharedFiles, group, passwd};
use crate::spec::{Error, Spec};
use crate::user;
use container::{Container, container_name};

/// The timeout for requests to the Docker engine, in seconds.
const RESPONSE_TIMEOUT_S: u64 = 60;
/// The maximum time to pull an image. If it takes longer, the pull fails.
const PULL_TIMEOUT: Duration = Duration::from_secs(900);
/// The Docker engine's default socket.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The configuration of the engines that use Docker: the socket, and the default image.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// The path of the Docker engine's Unix socket, optionally prefixed with `unix://`. `None` selects
    /// `/var/run/docker.sock`.
    pub host: Option<String>,
    /// The default image, for sandboxes whose specification does not name one.
    pub image: String,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self { host: None, image: "herm-sandbox:latest".to_owned() }
    }
}

/// The OCI runtime with which the Docker engine runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// The Docker engine's default runtime, usually `runc`.
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

/// The sandbox engine that runs sandboxes as containers of the Docker engine. Each instance uses one OCI runtime.
pub(crate) struct Docker {
    host: String,
    image: String,
    runtime: Runtime,
    shared_files: SharedFiles,
    rng: Arc<dyn Rng>,
}

impl Docker {
    pub(crate) fn new(options: &Options, runtime: Runtime, shared_files: SharedFiles) -> Self {
        let (options, rng) = (&options.docker, Arc::clone(&options.rng));
        let host = options.host.as_deref().unwrap_or(DEFAULT_SOCKET).trim_start_matches("unix://").to_owned();
        Self { host, image: options.image.clone(), runtime, shared_files, rng }
    }

    /// Connects to the Docker engine and negotiates the newest API version that both sides support.
    async fn connect(&self) -> Result<Client, Error> {
        let no_docker = |error: bollard::errors::Error| Error::NoDocker {
            host: self.host.clone(),
            reason: error.to_string(),
        };
        let client = Client::connect_with_unix(&self.host, RESPONSE_TIMEOUT_S, API_DEFAULT_VERSION)
            .map_err(no_docker)?;
        client.negotiate_version().await.map_err(no_docker)
    }

    /// Pulls an image from its registry, even if the Docker engine already has a copy.
    async fn fetch_image(&self, image: &str) -> Result<(), Error> {
        let client = self.connect().await?;
        let options = CreateImageOptionsBuilder::new().from_image(&with_default_tag(image)).build();
        let progress = client.create_image(Some(options), None, None);
        let result = tokio::time::timeout(PULL_TIMEOUT, progress.try_for_each(async |_| Ok(()))).await;
        let reason = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("pulling the image did not finish within {} s", PULL_TIMEOUT.as_secs()),
        };
        Err(Error::NoImage { image: image.to_owned(), reason })
    }

    fn image<'a>(&'a self, requested: Option<&'a str>) -> &'a str {
        requested.unwrap_or(&self.image)
    }
}

/// Appends the tag `latest` to an image name that has neither a tag nor a digest. Without a tag, the Docker engine
/// would pull every tag of the image.
fn with_default_tag(image: &str) -> Cow<'_, str> {
    // Look for a colon only after the last slash: a colon before it belongs to the registry's port, not to a tag.
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    if name.contains([':', '@']) { image.into() } else { format!("{image}:latest").into() }
}

fn docker_error(error: &bollard::errors::Error) -> Error {
    Error::Docker(error.to_string())
}

fn is_status(error: &bollard::errors::Error, expected: u16) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code, .. } if *status_code == expected)
}

#[async_trait]
impl Engine for Docker {
    async fn check(&self) -> Result<(), Error> {
        let client = self.connect().await?;
        if let Some(runtime) = self.runtime.name() {
            let info = client.info().await.map_err(|error| docker_error(&error))?;
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
            Err(error) => Err(docker_error(&error)),
        }
    }

    async fn get_image(&self, image: Option<&str>) -> Result<(), Error> {
        if self.has_image(image).await? { Ok(()) } else { self.fetch_image(self.image(image)).await }
    }

    async fn has_own_users(&self) -> bool {
        user::is_root()
    }

    async fn start(
        &self,
        sandbox_dir: &SandboxDir,
        spec: &Spec,
        reconnect_timeout: Duration,
    ) -> Result<Box<dyn EngineSandbox>, Error> {
        let client = self.connect().await?;
        // Use the same user id inside and outside the container, because the owner of the workspace's files must be the
        // same on both sides.
        let user_id = if user::is_root() {
            user::assign_own_user(&spec.workspace_dir, self.rng.as_ref())?
        } else {
            std::fs::metadata(&spec.workspace_dir)?.uid()
        };
        let container =
            Container::new(client, container_name(&self.shared_files.instance, sandbox_dir.sandbox_id()));
        let config = container::ContainerConfig {
            image: self.image(spec.image.as_deref()),
            runtime: self.runtime,
            shared_files: &self.shared_files,
            sandbox_dir,
            spec,
            user_id,
            passwd_file: sandbox_dir.write_file("passwd", &passwd(user_id))?,
            group_file: sandbox_dir.write_file("group", &group(user_id))?,
            reconnect_timeout,
        };
        match container.start(&config).await {
            // The image is missing: it was deleted after the deployment was created, or the deployment has been
            // switched to another image. Pull it and try again.
            Err(Error::NoImage { .. }) => {
                self.fetch_image(config.image).await?;
                container.start(&config).await?;
            }
            started => started?,
        }
        Ok(Box::new(container))
    }

    async fn find(&self, sandbox_dir: &SandboxDir) -> Result<Box<dyn EngineSandbox>, Error> {
        let client = self.connect().await?;
        Ok(Box::new(Container::new(
            client,
            container_name(&self.shared_files.instance, sandbox_dir.sandbox_id()),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::with_default_tag;

    #[test]
    fn an_image_name_without_a_tag_gets_the_tag_latest() {
        for (image, expected) in [
            ("alpine", "alpine:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            ("ghcr.io/a/b@sha256:00", "ghcr.io/a/b@sha256:00"),
        ] {
            assert_eq!(with_default_tag(image), expected);
        }
    }
}
