//! Secrets, and the record of which deployments use them. The caller encrypts the values.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use herm_types::paging::PageRequest;
use herm_types::secret::{Inject, Secret};
use herm_types::{AccountId, DeploymentId, SecretId, Timestamp};

use crate::row::{Row, params};
use crate::{Error, Tx};

/// The position after which the next page of secrets begins. Pages are ordered by age. Secret ids are chosen by clients
/// and do not sort by age, so the cursor also contains the creation time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    created_at: Timestamp,
    secret_id: SecretId,
}

impl Cursor {
    pub fn of(secret: &Secret) -> Self {
        Self { created_at: secret.created_at, secret_id: secret.secret_id.clone() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.created_at.as_micros(), self.secret_id)
    }
}

/// The error for a string that is not a valid [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (micros, secret_id) = text.split_once('.').ok_or(NotACursor)?;
        let created_at = micros.parse().map(Timestamp::from_micros).map_err(|_| NotACursor)?;
        Ok(Self { created_at, secret_id: secret_id.parse().map_err(|_| NotACursor)? })
    }
}

/// Inserts a secret. `sealed` is its encrypted value. Returns false, without any change, if the account already has a
/// secret with this id.
pub async fn insert(
    tx: &mut Tx,
    account_id: AccountId,
    secret: &Secret,
    sealed: &str,
) -> Result<bool, Error> {
    let inserted = tx
        .execute(
            "INSERT INTO secrets (account_id, secret_id, name, value, allowed_hosts, inject, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (account_id, secret_id) DO NOTHING",
            params![
                account_id.to_string(),
                secret.secret_id.as_str(),
                secret.name.as_str(),
                sealed,
                serde_json::to_string(&secret.allowed_hosts)?,
                serde_json::to_string(&secret.inject)?,
                secret.created_at,
                secret.updated_at,
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// Returns the account's secret with this id.
pub async fn find(tx: &mut Tx, account_id: AccountId, secret_id: &SecretId) -> Result<Option<Secret>, Error> {
    tx.one(
        "SELECT secret_id, name, allowed_hosts, inject, created_at, updated_at FROM secrets \
         WHERE account_id = $1 AND secret_id = $2",
        params![account_id.to_string(), secret_id.as_str()],
    )
    .await?
    .map(|row| secret(&row))
    .transpose()
}

/// Returns the account's secret with this id and locks it until the transaction ends. Transactions that change, delete
/// or start to use the same secret need this lock, so they run one after the other.
pub async fn find_and_lock(
    tx: &mut Tx,
    account_id: AccountId,
    secret_id: &SecretId,
) -> Result<Option<Secret>, Error> {
    tx.one(
        "SELECT secret_id, name, allowed_hosts, inject, created_at, updated_at FROM secrets \
         WHERE account_id = $1 AND secret_id = $2 FOR UPDATE",
        params![account_id.to_string(), secret_id.as_str()],
    )
    .await?
    .map(|row| secret(&row))
    .transpose()
}

/// Returns a secret and its encrypted value. One query reads the value and the restrictions on its use, so that a new
/// value is never combined with old restrictions.
pub async fn find_sealed(
    tx: &mut Tx,
    account_id: AccountId,
    secret_id: &SecretId,
) -> Result<Option<(Secret, String)>, Error> {
    tx.one(
        "SELECT secret_id, name, allowed_hosts, inject, created_at, updated_at, value FROM secrets \
         WHERE account_id = $1 AND secret_id = $2",
        params![account_id.to_string(), secret_id.as_str()],
    )
    .await?
    .map(|row| Ok((secret(&row)?, row.text(6)?)))
    .transpose()
}

/// Returns a page of an account's secrets, newest first, plus one extra row if there is a next page. `page.after` must
/// be a [`Cursor`].
pub async fn page(tx: &mut Tx, account_id: AccountId, page: &PageRequest) -> Result<Vec<Secret>, Error> {
    let after = page.after.as_deref().and_then(|text| text.parse::<Cursor>().ok());
    let (created_at, secret_id) = after.map_or((i64::MAX, String::new()), |cursor| {
        (cursor.created_at.as_micros(), cursor.secret_id.to_string())
    });
    let rows = tx
        .all(
            "SELECT secret_id, name, allowed_hosts, inject, created_at, updated_at FROM secrets \
             WHERE account_id = $1 AND (created_at, secret_id) < ($2, $3) \
             ORDER BY created_at DESC, secret_id DESC LIMIT $4",
            params![account_id.to_string(), created_at, secret_id, i64::from(page.limit) + 1],
        )
        .await?;
    rows.iter().map(secret).collect()
}

/// Returns the number of the account's secrets.
pub async fn count(tx: &mut Tx, account_id: AccountId) -> Result<i64, Error> {
    let row =
        tx.one("SELECT COUNT(*) FROM secrets WHERE account_id = $1", params![account_id.to_string()]).await?;
    row.map_or(Ok(0), |row| row.int(0))
}

/// Writes the changed fields of a secret. Also replaces the encrypted value if `sealed` is set.
pub async fn update(
    tx: &mut Tx,
    account_id: AccountId,
    secret: &Secret,
    sealed: Option<String>,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE secrets SET name = $1, value = COALESCE($2, value), allowed_hosts = $3, inject = $4, updated_at = $5 \
         WHERE account_id = $6 AND secret_id = $7",
        params![
            secret.name.as_str(),
            sealed,
            serde_json::to_string(&secret.allowed_hosts)?,
            serde_json::to_string(&secret.inject)?,
            secret.updated_at,
            account_id.to_string(),
            secret.secret_id.as_str(),
        ],
    )
    .await?;
    Ok(())
}

/// Deletes a secret. The caller must have locked it and checked that no deployment uses it.
pub async fn delete(tx: &mut Tx, account_id: AccountId, secret_id: &SecretId) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM secrets WHERE account_id = $1 AND secret_id = $2",
        params![account_id.to_string(), secret_id.as_str()],
    )
    .await?;
    Ok(())
}

/// Sets the secrets that a deployment uses. Removes the placeholders of secrets that it no longer uses.
///
/// If one of `secret_ids` does not exist in the account, returns that id. The caller must then roll the transaction
/// back.
pub async fn set_uses(
    tx: &mut Tx,
    account_id: AccountId,
    deployment_id: DeploymentId,
    secret_ids: &[SecretId],
) -> Result<Option<SecretId>, Error> {
    let wanted: BTreeSet<&SecretId> = secret_ids.iter().collect();
    // If a secret remains in use, its row is left unchanged. The row contains the placeholder that programs in the
    // sandbox may already use in place of the secret.
    for secret_id in used_by(tx, deployment_id).await? {
        if !wanted.contains(&secret_id) {
            tx.execute(
                "DELETE FROM secret_uses WHERE deployment_id = $1 AND secret_id = $2",
                params![deployment_id.to_string(), secret_id.as_str()],
            )
            .await?;
        }
    }
    // Secrets are locked in the order of their ids, so that two transactions cannot deadlock.
    for secret_id in wanted {
        if find_and_lock(tx, account_id, secret_id).await?.is_none() {
            return Ok(Some(secret_id.clone()));
        }
        tx.execute(
            "INSERT INTO secret_uses (deployment_id, account_id, secret_id, placeholder) VALUES ($1, $2, $3, NULL) \
             ON CONFLICT (deployment_id, secret_id) DO NOTHING",
            params![deployment_id.to_string(), account_id.to_string(), secret_id.as_str()],
        )
        .await?;
    }
    Ok(None)
}

/// Returns the secrets that a deployment uses. The result is not split into pages, because the settings of a deployment
/// can list only a limited number of secrets.
async fn used_by(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Vec<SecretId>, Error> {
    let rows = tx
        .all("SELECT secret_id FROM secret_uses WHERE deployment_id = $1", params![deployment_id.to_string()])
        .await?;
    rows.iter().map(|row| row.parse(0)).collect()
}

/// Removes the record of which secrets a deployment uses. Called when the deployment is deleted.
pub(crate) async fn remove_uses(tx: &mut Tx, deployment_id: DeploymentId) -> Result<(), Error> {
    tx.execute("DELETE FROM secret_uses WHERE deployment_id = $1", params![deployment_id.to_string()])
        .await?;
    Ok(())
}

/// Returns up to `limit` deployments that use the secret, oldest first.
pub async fn users(
    tx: &mut Tx,
    account_id: AccountId,
    secret_id: &SecretId,
    limit: u32,
) -> Result<Vec<DeploymentId>, Error> {
    let rows = tx
        .all(
            "SELECT deployment_id FROM secret_uses WHERE account_id = $1 AND secret_id = $2 \
             ORDER BY deployment_id LIMIT $3",
            params![account_id.to_string(), secret_id.as_str(), i64::from(limit)],
        )
        .await?;
    rows.iter().map(|row| row.parse(0)).collect()
}

fn secret(row: &Row) -> Result<Secret, Error> {
    Ok(Secret {
        secret_id: row.parse(0)?,
        name: row.text(1)?,
        allowed_hosts: row.json(2)?,
        inject: row.json::<Vec<Inject>>(3)?,
        created_at: row.time(4)?,
        updated_at: row.time(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        let text = "1800000000000000.sec_acme";
        assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        for wrong in ["", "sec_acme", "1.key_acme", "x.sec_acme", "99999999999999999999.sec_acme"] {
            assert_eq!(wrong.parse::<Cursor>(), Err(NotACursor), "{wrong}");
        }
    }
}
