//! Checks the sandbox engines.

use std::sync::Arc;

use herm_config::{Config, SandboxFallback};
use herm_sandbox::{Certificates, DockerOptions, Options, RECONNECT_TIMEOUT, Sandboxes};
use herm_types::sandbox::SandboxType;
use herm_types::time::SystemRng;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct EngineReport {
    pub(super) name: &'static str,
    pub(super) works: bool,
    /// True if the engine runs the sandbox of each workspace as a separate operating system user. Absent if
    /// the engine does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_users: Option<bool>,
    /// The reason why the engine does not work. Absent if it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// Instructions to make the engine work. Absent if the engine works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// Checks for each sandbox engine whether it can start sandboxes.
pub(super) async fn engines(config: &Config) -> Vec<EngineReport> {
    // Use a temporary directory, because the data directory may not exist yet and must not be changed.
    let prepared = tempfile::tempdir().map_err(herm_sandbox::Error::from).and_then(|dir| {
        let sandboxes = Sandboxes::new(Options {
            data_dir: dir.path().to_owned(),
            rng: Arc::new(SystemRng),
            reconnect_timeout: RECONNECT_TIMEOUT,
            docker: DockerOptions {
                host: Some(config.sandbox.docker_host.clone()),
                image: config.sandbox.image.clone(),
            },
            certificates: Certificates::default(),
            proxy_handler: Arc::new(|_, stream| drop(stream)),
        })?;
        Ok((dir, sandboxes))
    });
    let mut reports = Vec::new();
    for kind in SandboxType::ALL {
        let checked = match &prepared {
            Ok((_, sandboxes)) => check(sandboxes, kind, &config.sandbox.image).await,
            Err(error) => Err(error.clone()),
        };
        let name = kind.as_str();
        reports.push(match checked {
            Ok(own_users) => {
                EngineReport { name, works: true, own_users: Some(own_users), reason: None, advice: None }
            }
            Err(error) => EngineReport {
                name,
                works: false,
                own_users: None,
                reason: Some(error.to_string()),
                advice: Some(advice(kind).to_owned()),
            },
        });
    }
    reports
}

/// Checks that the engine can start sandboxes. Returns true if it runs the sandbox of each workspace as a
/// separate operating system user.
async fn check(sandboxes: &Sandboxes, kind: SandboxType, image: &str) -> Result<bool, herm_sandbox::Error> {
    sandboxes.check(kind).await?;
    if !sandboxes.has_image(kind, None).await? {
        let reason = "build it from images/sandbox, or set HERM_SANDBOX_IMAGE to another image".to_owned();
        return Err(herm_sandbox::Error::NoImage { image: image.to_owned(), reason });
    }
    Ok(sandboxes.have_own_users(kind).await)
}

fn advice(kind: SandboxType) -> &'static str {
    match kind {
        SandboxType::Local => {
            "install bubblewrap, and allow the server's user to create user namespaces; see docs/concepts/sandboxes.md"
        }
        SandboxType::Docker => "start a Docker engine and set HERM_DOCKER_HOST to its address, or use local",
        SandboxType::Gvisor => "add the runtime runsc to the Docker engine, or use docker or local",
    }
}

/// Returns an entry for the list of failed checks if no engine works for deployments with default settings,
/// and `None` otherwise. The default sandbox type is `docker`, with the fallback `local` if the operator
/// allows it.
pub(super) fn error(config: &Config, engines: &[EngineReport]) -> Option<String> {
    let works = |kind: SandboxType| engines.iter().any(|engine| engine.name == kind.as_str() && engine.works);
    let is_available = match config.sandbox.fallback {
        SandboxFallback::Local => works(SandboxType::Docker) || works(SandboxType::Local),
        SandboxFallback::Refuse => works(SandboxType::Docker),
    };
    (!is_available).then(|| "sandbox engines".to_owned())
}
