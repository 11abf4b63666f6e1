//! The settings of sandboxes.

use url::Url;

use crate::Error;
use crate::setting;
use crate::source::{Sourced, Sources};

const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";
const DEFAULT_IMAGE: &str = "herm-sandbox:latest";
/// The maximum length of an image reference in bytes. A longer one is rejected, because container engines
/// reject it too.
const MAX_IMAGE_BYTES: usize = 255;

/// The behavior for a sandbox of type `docker` if the Docker engine is not available or lacks the configured
/// image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxFallback {
    /// The engine `local` (bubblewrap) creates the sandbox instead of Docker.
    Local,
    /// The engine `local` never replaces Docker. If the Docker engine is not available, the request to create
    /// the deployment fails.
    Refuse,
}

/// The settings of sandboxes.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The behavior for sandboxes of type `docker` if the Docker engine is not available.
    pub fallback: SandboxFallback,
    /// The URL of the Docker engine's socket on this machine: `unix://…`.
    pub docker_host: String,
    /// The image for the sandboxes of deployments that do not specify one.
    pub image: String,
}

impl Sandbox {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let fallback = sources
            .text(&setting::SANDBOX)?
            .map(|raw| raw.choose(&[("local", SandboxFallback::Local), ("refuse", SandboxFallback::Refuse)]))
            .transpose()?
            .unwrap_or(SandboxFallback::Local);
        let docker_host = sources.text(&setting::DOCKER_HOST)?.map(docker_host).transpose()?;
        let image = sources.text(&setting::SANDBOX_IMAGE)?.map(image).transpose()?;
        Ok(Self {
            fallback,
            docker_host: docker_host.unwrap_or_else(|| DEFAULT_DOCKER_HOST.to_owned()),
            image: image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        })
    }
}

/// Parses the URL of the Docker engine's socket. The engine must be on this machine, because sandboxes share
/// directories with the server.
fn docker_host(raw: Sourced<String>) -> Result<String, Error> {
    let expected = "unix:///path/to/docker.sock, the socket of an engine on this machine";
    let url: Url = raw.parse(expected)?;
    let is_usable =
        url.scheme() == "unix" && url.host_str().is_none_or(str::is_empty) && url.path().len() > 1;
    if is_usable { Ok(raw.value) } else { Err(raw.unexpected(expected)) }
}

fn image(raw: Sourced<String>) -> Result<String, Error> {
    let is_valid = raw.value.len() <= MAX_IMAGE_BYTES
        && raw.value.starts_with(|first: char| first.is_ascii_alphanumeric())
        && raw.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte));
    if is_valid {
        Ok(raw.value)
    } else {
        Err(raw.unexpected("an image reference, for example registry/name:tag"))
    }
}
