//! Standing approvals of a deployment: tool calls that are made without asking again, because a person approved them
//! with `remember: "always"`.

use herm_types::paging::PageRequest;
use herm_types::steering::Approval;
use herm_types::{ApprovalId, DeploymentId};

use crate::deployments::max_id;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// Stores a standing approval. An existing approval of the same tool call is left unchanged.
pub async fn insert(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    approval: &Approval,
    fingerprint: &str,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO approvals (approval_id, deployment_id, tool, fingerprint, arguments, steering_id, granted_by, \
         created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (deployment_id, fingerprint) DO NOTHING",
        params![
            approval.approval_id.to_string(),
            deployment_id.to_string(),
            approval.tool.as_str(),
            fingerprint,
            serde_json::to_string(&approval.arguments)?,
            approval.steering_id.to_string(),
            approval.by.as_str(),
            approval.created_at,
        ],
    )
    .await?;
    Ok(())
}

/// Returns true if the deployment has a standing approval of the tool call with this fingerprint. A fingerprint
/// identifies a tool and its arguments.
pub async fn is_granted(tx: &mut Tx, deployment_id: DeploymentId, fingerprint: &str) -> Result<bool, Error> {
    let row = tx
        .one(
            "SELECT 1 FROM approvals WHERE deployment_id = $1 AND fingerprint = $2",
            params![deployment_id.to_string(), fingerprint],
        )
        .await?;
    Ok(row.is_some())
}

/// Returns a page of a deployment's approvals, newest first, plus one extra row if there is a next page.
pub async fn list(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    page: &PageRequest,
) -> Result<Vec<Approval>, Error> {
    let rows = tx
        .all(
            "SELECT approval_id, tool, arguments, steering_id, granted_by, created_at FROM approvals \
             WHERE deployment_id = $1 AND approval_id < $2 ORDER BY approval_id DESC LIMIT $3",
            params![
                deployment_id.to_string(),
                page.after.clone().unwrap_or_else(max_id::<ApprovalId>),
                i64::from(page.limit) + 1,
            ],
        )
        .await?;
    rows.iter().map(approval).collect()
}

/// Deletes one approval. Returns false if the deployment has no such approval.
pub async fn delete(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    approval_id: ApprovalId,
) -> Result<bool, Error> {
    let deleted = tx
        .execute(
            "DELETE FROM approvals WHERE deployment_id = $1 AND approval_id = $2",
            params![deployment_id.to_string(), approval_id.to_string()],
        )
        .await?;
    Ok(deleted == 1)
}

/// Deletes all approvals of a deployment and returns how many there were.
pub async fn delete_all(tx: &mut Tx, deployment_id: DeploymentId) -> Result<u64, Error> {
    tx.execute("DELETE FROM approvals WHERE deployment_id = $1", params![deployment_id.to_string()]).await
}

fn approval(row: &Row) -> Result<Approval, Error> {
    Ok(Approval {
        approval_id: row.parse(0)?,
        tool: row.text(1)?,
        arguments: row.json(2)?,
        steering_id: row.parse(3)?,
        by: row.text(4)?,
        created_at: row.time(5)?,
    })
}
