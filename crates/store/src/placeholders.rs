//! Placeholders: random strings that programs in a sandbox use in place of the values of secrets. A placeholder belongs
//! to one deployment and one secret. It exists for as long as the deployment uses the secret.

use herm_types::secret::{HostPattern, Inject};
use herm_types::{AccountId, DeploymentId, SecretId};

use crate::row::params;
use crate::{Error, Tx};

/// A secret that a deployment uses, without the secret's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSecret {
    pub secret_id: SecretId,
    /// `None` if no command has needed a placeholder for this secret yet.
    pub placeholder: Option<String>,
    pub allowed_hosts: Vec<HostPattern>,
    pub inject: Vec<Inject>,
}

/// Returns the secrets that a deployment uses. The result is not split into pages, because the settings of a deployment
/// can list only a limited number of secrets.
pub async fn bound_secrets(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Vec<BoundSecret>, Error> {
    let rows = tx
        .all(
            "SELECT s.secret_id, placeholder, allowed_hosts, inject FROM secret_uses u JOIN secrets s \
             ON s.account_id = u.account_id AND s.secret_id = u.secret_id WHERE u.deployment_id = $1 \
             ORDER BY s.secret_id",
            params![deployment_id.to_string()],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(BoundSecret {
                secret_id: row.parse(0)?,
                placeholder: row.opt_str(1)?.map(str::to_owned),
                allowed_hosts: row.json(2)?,
                inject: row.json(3)?,
            })
        })
        .collect()
}

/// Stores a placeholder for a secret that the deployment uses, unless one is already stored. Returns the stored
/// placeholder, or `None` if the deployment no longer uses the secret.
pub async fn insert(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    secret_id: &SecretId,
    placeholder: &str,
) -> Result<Option<String>, Error> {
    let row = tx
        .one(
            "UPDATE secret_uses SET placeholder = COALESCE(placeholder, $1) \
             WHERE deployment_id = $2 AND secret_id = $3 RETURNING placeholder",
            params![placeholder, deployment_id.to_string(), secret_id.as_str()],
        )
        .await?;
    row.map(|row| row.text(0)).transpose()
}

/// Returns the encrypted value of a secret and the account that it belongs to, or `None` if the deployment does not use
/// the secret.
pub async fn find_sealed(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    secret_id: &SecretId,
) -> Result<Option<(AccountId, String)>, Error> {
    tx.one(
        "SELECT s.account_id, value FROM secret_uses u JOIN secrets s \
         ON s.account_id = u.account_id AND s.secret_id = u.secret_id \
         WHERE u.deployment_id = $1 AND u.secret_id = $2",
        params![deployment_id.to_string(), secret_id.as_str()],
    )
    .await?
    .map(|row| Ok((row.parse(0)?, row.text(1)?)))
    .transpose()
}
