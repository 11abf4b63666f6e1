//! Secrets of an account. Their values are encrypted by who writes them.

use herm_types::secret::SecretId;
use herm_types::{AccountId, DeploymentId};

use crate::row::params;
use crate::{Error, Tx};

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    pub secret_id: SecretId,
    pub name: String,
    pub allowed_hosts: Vec<String>,
}

/// A secret of the account.
pub async fn find(tx: &mut Tx, account_id: AccountId, secret_id: &SecretId) -> Result<Option<Secret>, Error> {
    tx.one(
        "SELECT secret_id, name, allowed_hosts FROM secrets WHERE account_id = $1 AND secret_id = $2",
        params![account_id.to_string(), secret_id.to_string()],
    )
    .await?
    .map(|row| Ok(Secret { secret_id: row.parse(0)?, name: row.text(1)?, allowed_hosts: row.json(2)? }))
    .transpose()
}

/// Makes these the secrets that a deployment uses, and no others.
pub async fn set_uses(
    tx: &mut Tx,
    account_id: AccountId,
    deployment_id: DeploymentId,
    secret_ids: &[SecretId],
) -> Result<(), Error> {
    tx.execute("DELETE FROM secret_uses WHERE deployment_id = $1", params![deployment_id.to_string()])
        .await?;
    for secret_id in secret_ids {
        tx.execute(
            "INSERT INTO secret_uses (deployment_id, account_id, secret_id) VALUES ($1, $2, $3)",
            params![deployment_id.to_string(), account_id.to_string(), secret_id.to_string()],
        )
        .await?;
    }
    Ok(())
}
