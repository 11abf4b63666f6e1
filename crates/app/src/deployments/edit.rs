//! Edits of a deployment. An edit locks and reads the deployment, patches it, validates it as a whole, and
//! writes it as the next version.

use std::collections::{BTreeMap, BTreeSet};

use herm_store::skills::Skill;
use herm_store::{Tx, deployments, secrets, skills};
use herm_types::deployment::Deployment;
use herm_types::key::Scope;
use herm_types::secret::HostPattern;
use herm_types::{DeploymentId, Error as ApiError, ErrorCode, FieldError, SecretId};

use crate::mcp_servers::secret_references;
use crate::{Caller, Error};

/// The maximum number of skills of a deployment. A request that exceeds it is rejected.
pub const MAX_SKILLS: usize = 20;
/// The maximum number of MCP servers of a deployment. A request that exceeds it is rejected.
pub const MAX_MCP_SERVERS: usize = 20;

/// A deployment and its skills during an edit. They are written only after they have been validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) deployment: Deployment,
    pub(crate) skills: Vec<Skill>,
}

/// Edits a deployment with the closure `edit` and writes it as the next version. Returns the edited
/// deployment and the result of the closure. If the closure changes nothing, nothing is written.
pub(crate) async fn edit<T>(
    tx: &mut Tx,
    caller: &Caller,
    deployment_id: DeploymentId,
    edit: impl FnOnce(&mut Draft) -> Result<T, ApiError>,
) -> Result<(Draft, T), Error> {
    caller.require(Scope::DeploymentsWrite)?;
    let deployment = caller.lock_deployment(tx, deployment_id).await?;
    let before = Draft { deployment, skills: skills::of_deployment(tx, deployment_id).await? };
    let mut draft = before.clone();
    let output = edit(&mut draft)?;
    if draft == before {
        return Ok((draft, output));
    }
    check(tx, &draft).await?;
    draft.deployment.version += 1;
    draft.deployment.updated_at = tx.now();
    deployments::update(tx, &draft.deployment).await?;
    write_parts(tx, Some(&before), &draft).await?;
    Ok((draft, output))
}

/// Validates and inserts a new deployment with its skills and secret references.
pub(crate) async fn insert(tx: &mut Tx, draft: &Draft) -> Result<(), Error> {
    check(tx, draft).await?;
    deployments::insert(tx, &draft.deployment).await?;
    write_parts(tx, None, draft).await
}

/// Writes the deployment's skills and secret references to their tables. Skips those that are the same in
/// `before`.
async fn write_parts(tx: &mut Tx, before: Option<&Draft>, draft: &Draft) -> Result<(), Error> {
    let Deployment { deployment_id, account_id, settings, .. } = &draft.deployment;
    let (old_skills, old_secrets) = match before {
        Some(before) => (before.skills.as_slice(), before.deployment.settings.secrets.clone()),
        None => (&[][..], BTreeMap::new()),
    };
    if draft.skills != old_skills {
        skills::replace(tx, *deployment_id, &draft.skills).await?;
    }
    if settings.secrets != old_secrets {
        let used: BTreeSet<_> = settings.secrets.values().cloned().collect();
        let used: Vec<_> = used.into_iter().collect();
        if let Some(missing) = secrets::set_uses(tx, *account_id, *deployment_id, &used).await? {
            let names = settings.secrets.iter().filter(|(_, secret_id)| **secret_id == missing);
            return Err(missing_secrets(names.map(|(name, _)| (name.as_str(), &missing)).collect()).into());
        }
    }
    Ok(())
}

/// Checks the constraints that concern the whole deployment: there are not too many skills or MCP servers,
/// their names are unique, and all references to secrets are valid.
async fn check(tx: &mut Tx, draft: &Draft) -> Result<(), Error> {
    let settings = &draft.deployment.settings;
    let mut errors = Vec::new();
    for (path, count, max) in [
        ("skills", draft.skills.len(), MAX_SKILLS),
        ("mcp_servers", settings.mcp_servers.len(), MAX_MCP_SERVERS),
    ] {
        if count > max {
            errors.push(FieldError::new(path, format!("must have at most {max} entries, not {count}")));
        }
    }
    let names = draft.skills.iter().map(|skill| ("skills", &skill.name));
    let names = names.chain(settings.mcp_servers.iter().map(|server| ("mcp_servers", &server.name)));
    let mut seen = BTreeSet::new();
    for (path, name) in names {
        if !seen.insert((path, name)) {
            errors.push(FieldError::new(path, format!("must not contain the name {name:?} twice")));
        }
    }
    let secrets = bound_secrets(tx, &draft.deployment).await?;
    errors.extend(secret_references::secret_reference_errors(&settings.mcp_servers, &secrets));
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(errors).into()) }
}

/// Returns the allowed hosts of each secret that the deployment uses, keyed by the name of the environment
/// variable that contains the secret. Fails if a secret does not exist.
async fn bound_secrets(
    tx: &mut Tx,
    deployment: &Deployment,
) -> Result<BTreeMap<String, Vec<HostPattern>>, Error> {
    let mut bound = BTreeMap::new();
    let mut missing = Vec::new();
    for (name, secret_id) in &deployment.settings.secrets {
        match secrets::find(tx, deployment.account_id, secret_id).await? {
            Some(secret) => {
                bound.insert(name.clone(), secret.allowed_hosts);
            }
            None => missing.push((name.as_str(), secret_id)),
        }
    }
    if missing.is_empty() { Ok(bound) } else { Err(missing_secrets(missing).into()) }
}

/// Returns the error for references to secrets that do not exist. `missing` contains, for each reference, the
/// name of the environment variable and the id of the secret.
fn missing_secrets(missing: Vec<(&str, &SecretId)>) -> ApiError {
    let errors = missing.into_iter().map(|(name, secret_id)| {
        FieldError::new(
            format!("secrets.{name}"),
            format!("secret {secret_id} does not exist in this account"),
        )
    });
    ApiError { code: ErrorCode::InvalidSecretRef, ..ApiError::invalid(errors.collect()) }
}
