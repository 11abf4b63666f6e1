//! Deployments. Inserting a deployment also inserts its event counter, the row with the number of its latest event.
//! Once a deployment is deleted, no query finds its rows any more. The rows are erased later, in batches.

use herm_types::deployment::{Deployment, DeploymentError, DeploymentItem, DeploymentStatus, RUNTIME};
use herm_types::event::{DELETED, Event};
use herm_types::id::Id;
use herm_types::paging::PageRequest;
use herm_types::sandbox::SandboxSettings;
use herm_types::{AccountId, DeploymentId};
use serde::Deserialize;

use crate::row::{Row, params};
use crate::{Error, Tx};

/// Filters for a list of deployments. A filter that is `None` matches every deployment.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
    pub status: Option<DeploymentStatus>,
}

/// Adds a deployment, its first version and its empty event log.
pub async fn insert(tx: &mut Tx, deployment: &Deployment) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO deployments (deployment_id, account_id, customer_id, name, status, default_thread_id, version, \
         created_at, updated_at, restore_snapshot_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            deployment.deployment_id.to_string(),
            deployment.account_id.to_string(),
            deployment.customer_id.as_str(),
            deployment.name.as_str(),
            deployment.status.as_str(),
            deployment.default_thread_id.to_string(),
            deployment.version,
            deployment.created_at,
            deployment.updated_at,
            deployment.restore_snapshot.map(|id| id.to_string()),
        ],
    )
    .await?;
    insert_version(tx, deployment).await?;
    tx.execute(
        "INSERT INTO event_counters (deployment_id, last_seq, closed) VALUES ($1, 0, 0)",
        params![deployment.deployment_id.to_string()],
    )
    .await?;
    Ok(())
}

async fn insert_version(tx: &mut Tx, deployment: &Deployment) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO deployment_versions (deployment_id, version, model, system_prompt, settings) \
         VALUES ($1, $2, $3, $4, $5)",
        params![
            deployment.deployment_id.to_string(),
            deployment.version,
            deployment.model.as_str(),
            deployment.system_prompt.as_str(),
            serde_json::to_string(&deployment.settings)?,
        ],
    )
    .await?;
    Ok(())
}

/// Writes a changed deployment as its next version. Removes versions that no active run uses.
pub async fn update(tx: &mut Tx, deployment: &Deployment) -> Result<(), Error> {
    let id = deployment.deployment_id.to_string();
    tx.execute(
        "UPDATE deployments SET name = $1, version = $2, updated_at = $3 WHERE deployment_id = $4",
        params![deployment.name.as_str(), deployment.version, deployment.updated_at, id.as_str()],
    )
    .await?;
    tx.execute(
        "DELETE FROM deployment_versions WHERE deployment_id = $1 AND version NOT IN \
         (SELECT runs.version FROM threads JOIN runs ON runs.run_id = threads.active_run_id \
         WHERE threads.deployment_id = $1 AND runs.version IS NOT NULL)",
        params![id],
    )
    .await?;
    insert_version(tx, deployment).await
}

/// A change of a deployment's status after its creation. [`delete`] ends the lifecycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// From `provisioning` to `ready`: the deployment is provisioned.
    Ready,
    /// From `provisioning` to `error`: provisioning has failed.
    Fail(DeploymentError),
    /// From `error` to `provisioning`: provisioning is repeated.
    Provision,
    /// From `error` to `ready`: there is nothing to provision.
    Recover,
}

impl Transition {
    fn from(&self) -> DeploymentStatus {
        match self {
            Self::Ready | Self::Fail(_) => DeploymentStatus::Provisioning,
            Self::Provision | Self::Recover => DeploymentStatus::Error,
        }
    }

    fn to(&self) -> DeploymentStatus {
        match self {
            Self::Ready | Self::Recover => DeploymentStatus::Ready,
            Self::Fail(_) => DeploymentStatus::Error,
            Self::Provision => DeploymentStatus::Provisioning,
        }
    }
}

/// Changes the status of a deployment and emits an event. The version number stays the same. Returns false, without any
/// change, if the deployment does not have the status from which the transition starts.
pub async fn transition(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    transition: Transition,
) -> Result<bool, Error> {
    let (from, to) = (transition.from(), transition.to());
    let error = match transition {
        Transition::Fail(error) => Some(error),
        Transition::Ready | Transition::Provision | Transition::Recover => None,
    };
    let now = tx.now();
    let changed = tx
        .execute(
            "UPDATE deployments SET status = $1, error = $2, updated_at = $3, restore_snapshot_id = \
             CASE WHEN $1 = 'ready' THEN NULL ELSE restore_snapshot_id END WHERE deployment_id = $4 AND status = $5",
            params![
                to.as_str(),
                error.as_ref().map(serde_json::to_string).transpose()?,
                now,
                deployment_id.to_string(),
                from.as_str()
            ],
        )
        .await?;
    if changed == 1 {
        tx.emit(deployment_id, Event::DeploymentStatus { status: to.as_str(), error });
    }
    Ok(changed == 1)
}

/// Returns the current version of the deployment with this id, in any account.
pub async fn find(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Option<Deployment>, Error> {
    tx.one(
        "SELECT d.deployment_id, account_id, customer_id, name, model, system_prompt, status, default_thread_id, \
         d.version, settings, created_at, updated_at, error, restore_snapshot_id FROM deployments d JOIN deployment_versions v \
         ON v.deployment_id = d.deployment_id AND v.version = d.version WHERE d.deployment_id = $1",
        params![deployment_id.to_string()],
    )
    .await?
    .map(|row| deployment(&row))
    .transpose()
}

/// Returns true if the deployment exists, which means that it is not deleted.
pub async fn exists(tx: &mut Tx, deployment_id: DeploymentId) -> Result<bool, Error> {
    let row = "SELECT 1 FROM deployments WHERE deployment_id = $1";
    Ok(tx.one(row, params![deployment_id.to_string()]).await?.is_some())
}

/// Returns the current version of a deployment and locks its row, so that no other transaction can change the
/// deployment before this one ends.
pub async fn find_and_lock(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Option<Deployment>, Error> {
    // Reading only after locking makes sure that the latest committed version is read.
    let locked = tx
        .one(
            "SELECT version FROM deployments WHERE deployment_id = $1 FOR UPDATE",
            params![deployment_id.to_string()],
        )
        .await?;
    if locked.is_some() { find(tx, deployment_id).await } else { Ok(None) }
}

/// Returns the sandbox settings of the deployment's current version.
pub async fn find_sandbox(
    tx: &mut Tx,
    deployment_id: DeploymentId,
) -> Result<Option<SandboxSettings>, Error> {
    /// Only `sandbox` is parsed from the JSON document, because the settings' other fields may be long.
    #[derive(Deserialize)]
    struct OnlySandbox {
        sandbox: SandboxSettings,
    }
    let row = tx
        .one(
            "SELECT settings FROM deployments d JOIN deployment_versions v \
             ON v.deployment_id = d.deployment_id AND v.version = d.version WHERE d.deployment_id = $1",
            params![deployment_id.to_string()],
        )
        .await?;
    row.map(|row| Ok(row.json::<OnlySandbox>(0)?.sandbox)).transpose()
}

/// Returns the deployment at the version `version`, or at its current version if `version` was removed.
pub async fn find_as_of(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    version: Option<i64>,
) -> Result<Option<Deployment>, Error> {
    let Some(mut found) = find(tx, deployment_id).await? else { return Ok(None) };
    let Some(version) = version.filter(|version| *version != found.version) else { return Ok(Some(found)) };
    let row = tx
        .one(
            "SELECT model, system_prompt, settings FROM deployment_versions \
             WHERE deployment_id = $1 AND version = $2",
            params![deployment_id.to_string(), version],
        )
        .await?;
    if let Some(row) = row {
        found.model = row.text(0)?;
        found.system_prompt = row.text(1)?;
        found.settings = row.json(2)?;
        found.version = version;
    }
    Ok(Some(found))
}

/// Returns a page of an account's deployments, newest first, plus one extra row if there is a next page.
pub async fn list(
    tx: &mut Tx,
    account_id: AccountId,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Vec<DeploymentItem>, Error> {
    // `None` is passed as an empty string, which the query treats as "no filter". It is not passed as NULL, because in
    // SQL a comparison with NULL is never true.
    let rows = tx
        .all(
            "SELECT d.deployment_id, customer_id, name, status, model, created_at FROM deployments d \
             JOIN deployment_versions v ON v.deployment_id = d.deployment_id AND v.version = d.version \
             WHERE account_id = $1 AND d.deployment_id < $2 AND ($3 = '' OR d.deployment_id = $3) \
             AND ($4 = '' OR customer_id = $4) AND ($5 = '' OR status = $5) \
             ORDER BY d.deployment_id DESC LIMIT $6",
            params![
                account_id.to_string(),
                page.after.clone().unwrap_or_else(max_id::<DeploymentId>),
                filter.deployment_id.map(|id| id.to_string()).unwrap_or_default(),
                filter.customer_id.clone().unwrap_or_default(),
                filter.status.map_or("", DeploymentStatus::as_str),
                i64::from(page.limit) + 1,
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(DeploymentItem {
                deployment_id: row.parse(0)?,
                customer_id: row.text(1)?,
                name: row.text(2)?,
                runtime: RUNTIME,
                status: status(row.str(3)?)?,
                model: row.text(4)?,
                created_at: row.time(5)?,
            })
        })
        .collect()
}

/// Returns a string that sorts after every id of type `I`, whichever collation the database uses.
pub(crate) fn max_id<I: Id>() -> String {
    I::from_bits(u128::MAX).to_string()
}

/// Deletes the deployment's row, closes its event log and inserts a tombstone, the row that records the deletion.
/// Returns false if the deployment was already deleted.
///
/// Afterwards no query finds the deployment's other rows, and [`erase_contents`] erases them. Events that this
/// transaction has emitted for the deployment are written before the event log closes.
pub async fn delete(tx: &mut Tx, deployment: &Deployment) -> Result<bool, Error> {
    let id = deployment.deployment_id.to_string();
    let deleted =
        tx.execute("DELETE FROM deployments WHERE deployment_id = $1", params![id.as_str()]).await?;
    if deleted == 0 {
        return Ok(false);
    }
    tx.emit(deployment.deployment_id, Event::deployment_status(DELETED));
    crate::events::write_emitted(tx).await?;
    crate::secrets::remove_uses(tx, deployment.deployment_id).await?;
    tx.execute("UPDATE event_counters SET closed = 1 WHERE deployment_id = $1", params![id.as_str()]).await?;
    let now = tx.now();
    tx.execute(
        "INSERT INTO tombstones (subject_id, kind, account_id, deleted_at) VALUES ($1, 'deployment', $2, $3)",
        params![id, deployment.account_id.to_string(), now],
    )
    .await?;
    Ok(true)
}

/// The maximum number of rows that one call to [`erase_contents`] erases, so that its transaction stays short.
const MAX_ERASED: i64 = 2000;

/// Erases one batch of a deleted deployment's rows. Returns true once all rows are erased. Until then, the caller must
/// call it again.
pub async fn erase_contents(tx: &mut Tx, deployment_id: DeploymentId) -> Result<bool, Error> {
    let statements = [
        "DELETE FROM events WHERE deployment_id = $1 AND seq <= \
         (SELECT COALESCE(MIN(seq), 0) FROM events WHERE deployment_id = $1) + $2",
        "DELETE FROM steps WHERE run_id IN (SELECT run_id FROM runs WHERE deployment_id = $1 LIMIT $2)",
        // Connections are erased after the tool calls in `steps`. Recording a connection locks the row of its tool
        // call, so none can be added once that row is erased.
        "DELETE FROM connections WHERE connection_id IN \
         (SELECT connection_id FROM connections WHERE deployment_id = $1 LIMIT $2)",
        // The table `messages` has no deployment id, and the rows of deleted threads no longer exist. The messages are
        // therefore found through the deployment's runs, which still name their threads.
        "DELETE FROM messages WHERE message_id IN \
         (SELECT message_id FROM messages WHERE thread_id IN \
         (SELECT thread_id FROM runs WHERE deployment_id = $1) LIMIT $2)",
        "DELETE FROM steering_requests WHERE steering_id IN \
         (SELECT steering_id FROM steering_requests WHERE deployment_id = $1 LIMIT $2)",
        "DELETE FROM runs WHERE run_id IN (SELECT run_id FROM runs WHERE deployment_id = $1 LIMIT $2)",
    ];
    for statement in statements {
        let erased = tx.execute(statement, params![deployment_id.to_string(), MAX_ERASED]).await?;
        if erased > 0 {
            return Ok(false);
        }
    }
    let the_rest = [
        "DELETE FROM threads WHERE deployment_id = $1",
        "DELETE FROM skills WHERE deployment_id = $1",
        "DELETE FROM approvals WHERE deployment_id = $1",
        "DELETE FROM deployment_versions WHERE deployment_id = $1",
        "DELETE FROM event_counters WHERE deployment_id = $1",
    ];
    for statement in the_rest {
        tx.execute(statement, params![deployment_id.to_string()]).await?;
    }
    Ok(true)
}

fn deployment(row: &Row) -> Result<Deployment, Error> {
    Ok(Deployment {
        deployment_id: row.parse(0)?,
        account_id: row.parse(1)?,
        customer_id: row.text(2)?,
        name: row.text(3)?,
        model: row.text(4)?,
        system_prompt: row.text(5)?,
        status: status(row.str(6)?)?,
        default_thread_id: row.parse(7)?,
        version: row.int(8)?,
        settings: row.json(9)?,
        created_at: row.time(10)?,
        updated_at: row.time(11)?,
        error: row.opt_str(12)?.map(serde_json::from_str).transpose()?,
        restore_snapshot: row.opt_parse(13)?,
    })
}

fn status(text: &str) -> Result<DeploymentStatus, Error> {
    DeploymentStatus::parse(text).ok_or_else(|| Error::Corrupt(format!("unknown deployment status {text:?}")))
}
