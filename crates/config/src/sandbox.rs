//! What sandboxes run on.

use url::Url;

use crate::Error;
use crate::setting;
use crate::source::{Found, Sources};

const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";
const DEFAULT_IMAGE: &str = "herm-sandbox:latest";
/// Longest image reference that engines take, in bytes.
const MAX_IMAGE_BYTES: usize = 255;

/// What a sandbox of type `docker` becomes where no engine answers or its image cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxFallback {
    /// A `local` sandbox.
    Local,
    /// A refusal, because this machine must not run anything with a shared kernel.
    Refuse,
}

/// What sandboxes run on.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// What `docker` maps to where it is not to be had.
    pub fallback: SandboxFallback,
    /// The container engine on this machine: `unix://…`.
    pub docker_host: String,
    /// The image of sandboxes that name none.
    pub image: String,
}

impl Sandbox {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let fallback = sources
            .text(&setting::SANDBOX)?
            .map(|found| {
                found.choose(&[("local", SandboxFallback::Local), ("refuse", SandboxFallback::Refuse)])
            })
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

/// Sandboxes share directories with the server, so an engine on another machine is of no use.
fn docker_host(found: Found<String>) -> Result<String, Error> {
    let expected = "unix:///path/to/docker.sock: an engine on this machine";
    let url: Url = found.parse(expected)?;
    let is_usable =
        url.scheme() == "unix" && url.host_str().is_none_or(str::is_empty) && url.path().len() > 1;
    if is_usable { Ok(found.value) } else { Err(found.not(expected)) }
}

fn image(found: Found<String>) -> Result<String, Error> {
    let usable = found.value.len() <= MAX_IMAGE_BYTES
        && found.value.starts_with(|first: char| first.is_ascii_alphanumeric())
        && found.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte));
    if usable { Ok(found.value) } else { Err(found.not("an image reference, such as registry/name:tag")) }
}
