//! Deployments: made with their event counter, deleted with everything under them.

use herm_types::deployment::{Deployment, DeploymentStatus};
use herm_types::id::Id;
use herm_types::paging::PageRequest;
use herm_types::{AccountId, DeploymentId};

use crate::row::{Row, params};
use crate::{Error, Tx};

/// Which deployments of an account are listed; what is `None` does not filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
    pub status: Option<DeploymentStatus>,
}

/// Adds a deployment and its empty event log.
pub async fn insert(tx: &mut Tx, deployment: &Deployment) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO deployments (deployment_id, account_id, customer_id, name, model, system_prompt, status, \
         default_thread_id, settings, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        params![
            deployment.deployment_id.to_string(),
            deployment.account_id.to_string(),
            deployment.customer_id.as_str(),
            deployment.name.as_str(),
            deployment.model.as_str(),
            deployment.system_prompt.as_str(),
            deployment.status.as_str(),
            deployment.default_thread_id.to_string(),
            serde_json::to_string(&deployment.settings)?,
            deployment.created_at,
            deployment.updated_at,
        ],
    )
    .await?;
    tx.execute(
        "INSERT INTO event_counters (deployment_id, last_seq, closed) VALUES ($1, 0, 0)",
        params![deployment.deployment_id.to_string()],
    )
    .await?;
    Ok(())
}

/// The deployment with this id, whosever it is.
pub async fn find(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Option<Deployment>, Error> {
    tx.one(
        "SELECT deployment_id, account_id, customer_id, name, model, system_prompt, status, default_thread_id, \
         settings, created_at, updated_at FROM deployments WHERE deployment_id = $1",
        params![deployment_id.to_string()],
    )
    .await?
    .map(|row| deployment(&row))
    .transpose()
}

/// A page of an account's deployments, newest first, with one row more than asked for where there is one.
pub async fn list(
    tx: &mut Tx,
    account_id: AccountId,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Vec<Deployment>, Error> {
    // NULL is not compared: each optional filter comes with the text it stands in for.
    let rows = tx
        .all(
            "SELECT deployment_id, account_id, customer_id, name, model, system_prompt, status, default_thread_id, \
             settings, created_at, updated_at FROM deployments \
             WHERE account_id = $1 AND deployment_id < $2 AND ($3 = '' OR deployment_id = $3) \
             AND ($4 = '' OR customer_id = $4) AND ($5 = '' OR status = $5) \
             ORDER BY deployment_id DESC LIMIT $6",
            params![
                account_id.to_string(),
                page.after.clone().unwrap_or_else(last_id::<DeploymentId>),
                filter.deployment_id.map(|id| id.to_string()).unwrap_or_default(),
                filter.customer_id.clone().unwrap_or_default(),
                filter.status.map_or("", DeploymentStatus::as_str),
                i64::from(page.limit) + 1,
            ],
        )
        .await?;
    rows.iter().map(deployment).collect()
}

/// Sorts after every id of its kind, whatever the database's collation.
pub(crate) fn last_id<I: Id>() -> String {
    I::from_bits(u128::MAX).to_string()
}

/// Closes the deployment's log for good, removes its row and leaves a tombstone. `false` if it is gone already.
/// What lies under it is unreachable from then on, and erased by [`erase_contents`].
///
/// An event that this transaction emitted for the deployment is written before the log closes.
pub async fn delete(tx: &mut Tx, deployment: &Deployment) -> Result<bool, Error> {
    crate::events::write_emitted(tx).await?;
    let id = deployment.deployment_id.to_string();
    let deleted =
        tx.execute("DELETE FROM deployments WHERE deployment_id = $1", params![id.as_str()]).await?;
    if deleted == 0 {
        return Ok(false);
    }
    tx.execute("UPDATE event_counters SET closed = 1 WHERE deployment_id = $1", params![id.as_str()]).await?;
    let now = tx.now();
    tx.execute(
        "INSERT INTO tombstones (subject_id, kind, account_id, deleted_at) VALUES ($1, 'deployment', $2, $3)",
        params![id, deployment.account_id.to_string(), now],
    )
    .await?;
    Ok(true)
}

/// Rows of one table that one call of [`erase_contents`] removes, so that no transaction grows without bound.
const ERASED_AT_ONCE: i64 = 2000;

/// Erases a part of what a deleted deployment left; `true` when nothing is left to erase.
pub async fn erase_contents(tx: &mut Tx, deployment_id: DeploymentId) -> Result<bool, Error> {
    let statements = [
        "DELETE FROM events WHERE deployment_id = $1 AND seq <= \
         (SELECT COALESCE(MIN(seq), 0) FROM events WHERE deployment_id = $1) + $2",
        "DELETE FROM steps WHERE run_id IN (SELECT run_id FROM runs WHERE deployment_id = $1 LIMIT $2)",
        // By their runs: every message has one, and a thread that was deleted before is no longer listed.
        "DELETE FROM messages WHERE message_id IN \
         (SELECT message_id FROM messages WHERE thread_id IN \
         (SELECT thread_id FROM runs WHERE deployment_id = $1) LIMIT $2)",
        "DELETE FROM runs WHERE run_id IN (SELECT run_id FROM runs WHERE deployment_id = $1 LIMIT $2)",
    ];
    for statement in statements {
        let erased = tx.execute(statement, params![deployment_id.to_string(), ERASED_AT_ONCE]).await?;
        if erased > 0 {
            return Ok(false);
        }
    }
    tx.execute("DELETE FROM threads WHERE deployment_id = $1", params![deployment_id.to_string()]).await?;
    tx.execute("DELETE FROM event_counters WHERE deployment_id = $1", params![deployment_id.to_string()])
        .await?;
    Ok(true)
}

fn deployment(row: &Row) -> Result<Deployment, Error> {
    let status = row.str(6)?;
    Ok(Deployment {
        deployment_id: row.parse(0)?,
        account_id: row.parse(1)?,
        customer_id: row.text(2)?,
        name: row.text(3)?,
        model: row.text(4)?,
        system_prompt: row.text(5)?,
        status: DeploymentStatus::parse(status)
            .ok_or_else(|| Error::Corrupt(format!("unknown deployment status {status:?}")))?,
        default_thread_id: row.parse(7)?,
        settings: row.json(8)?,
        created_at: row.time(9)?,
        updated_at: row.time(10)?,
    })
}
