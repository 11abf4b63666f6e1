//! Placeholders: what stands for a secret's value in the sandbox of one deployment, for as long as that deployment uses
//! the secret.

use herm_types::secret::{HostPattern, Inject};
use herm_types::{AccountId, DeploymentId, SecretId};

use crate::row::params;
use crate::{Error, Tx};

/// A secret as one deployment uses it at this moment, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSecret {
    pub secret_id: SecretId,
    /// `None` until a command has needed it.
    pub placeholder: Option<String>,
    pub allowed_hosts: Vec<HostPattern>,
    pub inject: Vec<Inject>,
}

/// The secrets that a deployment uses now, as many as its settings may name.
pub async fn bound(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Vec<BoundSecret>, Error> {
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

/// Gives a secret its placeholder in this deployment, unless it has one; the one that counts is given back. `None`: the
/// deployment does not use the secret (any more).
pub async fn make(
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

/// The encrypted value of a secret that the deployment uses now, and whose it is.
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
