//! Changing what an agent is: read under the deployment's lock, edited, checked as a whole, written as its next version.

use std::collections::{BTreeMap, BTreeSet};

use herm_store::skills::Skill;
use herm_store::{Tx, deployments, secrets, skills};
use herm_types::deployment::Deployment;
use herm_types::key::Scope;
use herm_types::secret::HostPattern;
use herm_types::{DeploymentId, Error as Refusal, ErrorCode, Fault, SecretId};

use crate::mcp_servers::{self, MAX_MCP_SERVERS};
use crate::skills::MAX_SKILLS;
use crate::{Caller, Error};

/// A deployment that is being changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) deployment: Deployment,
    pub(crate) skills: Vec<Skill>,
}

/// Edits a deployment; gives it as it is then, and what the edit gave. An edit that changes nothing writes nothing.
pub(crate) async fn make<T>(
    tx: &mut Tx,
    caller: &Caller,
    deployment_id: DeploymentId,
    edit: impl FnOnce(&mut Draft) -> Result<T, Refusal>,
) -> Result<(Draft, T), Error> {
    caller.require(Scope::DeploymentsWrite)?;
    let deployment = caller.lock_deployment(tx, deployment_id).await?;
    let before = Draft { deployment, skills: skills::of_deployment(tx, deployment_id).await? };
    let mut draft = before.clone();
    let given = edit(&mut draft)?;
    if draft == before {
        return Ok((draft, given));
    }
    check(tx, &draft).await?;
    draft.deployment.version += 1;
    draft.deployment.updated_at = tx.now();
    deployments::update(tx, &draft.deployment).await?;
    write_parts(tx, Some(&before), &draft).await?;
    Ok((draft, given))
}

/// Writes a new deployment.
pub(crate) async fn insert(tx: &mut Tx, draft: &Draft) -> Result<(), Error> {
    check(tx, draft).await?;
    deployments::insert(tx, &draft.deployment).await?;
    write_parts(tx, None, draft).await
}

/// Writes what has rows of its own, as far as it is not as before.
async fn write_parts(tx: &mut Tx, before: Option<&Draft>, draft: &Draft) -> Result<(), Error> {
    let Deployment { deployment_id, account_id, settings, .. } = &draft.deployment;
    let (had_skills, had_secrets) = match before {
        Some(before) => (before.skills.as_slice(), before.deployment.settings.secrets.clone()),
        None => (&[][..], BTreeMap::new()),
    };
    if draft.skills != had_skills {
        skills::replace(tx, *deployment_id, &draft.skills).await?;
    }
    if settings.secrets != had_secrets {
        let used: BTreeSet<_> = settings.secrets.values().cloned().collect();
        let used: Vec<_> = used.into_iter().collect();
        if let Some(gone) = secrets::set_uses(tx, *account_id, *deployment_id, &used).await? {
            let names = settings.secrets.iter().filter(|(_, secret_id)| **secret_id == gone);
            return Err(missing_secrets(names.map(|(name, _)| (name.as_str(), &gone)).collect()).into());
        }
    }
    Ok(())
}

/// Checks what only the whole can have wrong.
async fn check(tx: &mut Tx, draft: &Draft) -> Result<(), Error> {
    let settings = &draft.deployment.settings;
    let mut faults = Vec::new();
    for (path, count, most) in [
        ("skills", draft.skills.len(), MAX_SKILLS),
        ("mcp_servers", settings.mcp_servers.len(), MAX_MCP_SERVERS),
    ] {
        if count > most {
            faults.push(Fault::new(path, format!("there are at most {most}, not {count}")));
        }
    }
    let names = draft.skills.iter().map(|skill| ("skills", &skill.name));
    let names = names.chain(settings.mcp_servers.iter().map(|server| ("mcp_servers", &server.name)));
    let mut seen = BTreeSet::new();
    for (path, name) in names {
        if !seen.insert((path, name)) {
            faults.push(Fault::new(path, format!("the name {name:?} is given twice")));
        }
    }
    let secrets = bound_secrets(tx, &draft.deployment).await?;
    faults.extend(mcp_servers::faults(&settings.mcp_servers, &secrets));
    if faults.is_empty() { Ok(()) } else { Err(Refusal::invalid(faults).into()) }
}

/// The secrets that a deployment is given, by the names under which it has them.
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

/// Told of names that are bound to secrets which are not there.
fn missing_secrets(missing: Vec<(&str, &SecretId)>) -> Refusal {
    let faults = missing.into_iter().map(|(name, secret_id)| {
        Fault::new(format!("secrets.{name}"), format!("no secret {secret_id} exists in this account"))
    });
    Refusal { code: ErrorCode::InvalidSecretRef, ..Refusal::invalid(faults.collect()) }
}
