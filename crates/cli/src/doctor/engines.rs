//! Which sandbox engines work here.

use std::sync::Arc;

use herm_config::{Config, SandboxFallback};
use herm_sandbox::{AWAY_LIMIT, Certificates, DockerOptions, Options, Sandboxes};
use herm_types::sandbox::SandboxType;
use herm_types::time::SystemRng;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct EngineReport {
    pub(super) name: &'static str,
    pub(super) works: bool,
    /// Whether each sandbox has a user of its own to the host's kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_users: Option<bool>,
    /// Why it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// What to do, where it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// Asks each engine whether it could start a sandbox.
pub(super) async fn engines(config: &Config) -> Vec<EngineReport> {
    // Nothing is written to the data directory, which need not exist yet.
    let prepared = tempfile::tempdir().map_err(herm_sandbox::Error::from).and_then(|dir| {
        let sandboxes = Sandboxes::new(Options {
            data_dir: dir.path().to_owned(),
            rng: Arc::new(SystemRng),
            away_limit: AWAY_LIMIT,
            docker: DockerOptions {
                host: Some(config.sandbox.docker_host.clone()),
                image: config.sandbox.image.clone(),
            },
            certificates: Certificates::default(),
            carry: Arc::new(|_, stream| drop(stream)),
        })?;
        Ok((dir, sandboxes))
    });
    let mut reports = Vec::new();
    for kind in SandboxType::ALL {
        let checked = match &prepared {
            Ok((_, sandboxes)) => look(sandboxes, kind, &config.sandbox.image).await,
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

/// Whether its sandboxes have users of their own, if it can start any.
async fn look(sandboxes: &Sandboxes, kind: SandboxType, image: &str) -> Result<bool, herm_sandbox::Error> {
    sandboxes.check(kind).await?;
    if !sandboxes.has_image(kind, None).await? {
        let reason = "build it from images/sandbox, or name another in HERM_SANDBOX_IMAGE".to_owned();
        return Err(herm_sandbox::Error::NoImage { image: image.to_owned(), reason });
    }
    Ok(sandboxes.have_users(kind).await)
}

fn advice(kind: SandboxType) -> &'static str {
    match kind {
        SandboxType::Local => {
            "install bubblewrap, and let the server's user make user namespaces; docs/concepts/sandboxes.md says more"
        }
        SandboxType::Docker => {
            "start a Docker engine and set HERM_DOCKER_HOST to it, or leave it and use local"
        }
        SandboxType::Gvisor => {
            "add the runtime runsc to the Docker engine, or leave it and use docker or local"
        }
    }
}

/// What stands in the way of deployments that ask for nothing special: they are of type `docker`, which becomes `local`
/// where the operator allows that.
pub(super) fn fault(config: &Config, engines: &[EngineReport]) -> Option<String> {
    let works = |kind: SandboxType| engines.iter().any(|engine| engine.name == kind.as_str() && engine.works);
    let is_served = match config.sandbox.fallback {
        SandboxFallback::Local => works(SandboxType::Docker) || works(SandboxType::Local),
        SandboxFallback::Refuse => works(SandboxType::Docker),
    };
    (!is_served).then(|| "sandbox engines".to_owned())
}
