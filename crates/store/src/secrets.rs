//! Secrets, their values encrypted before they come here; and which deployment uses which.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use herm_types::paging::PageRequest;
use herm_types::secret::{Inject, Secret};
use herm_types::{AccountId, DeploymentId, SecretId, Timestamp};

use crate::row::{Row, params};
use crate::{Error, Tx};

/// Where a page of secrets ends. Ids are chosen by clients and say nothing of age, so the age goes with them.
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

/// The text is not a cursor.
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

/// Adds a secret; `sealed` is its value, encrypted. Gives `false`, and changes nothing, if the account has one with
/// this id.
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

/// The account's secret with this id.
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

/// The same, locked until the transaction ends: who changes, deletes and begins to use a secret take turns.
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

/// A secret's encrypted value, with what says where it may be put in: read together, so that a value never goes where
/// only an earlier one was allowed.
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

/// A page of an account's secrets, newest first, with one row more than asked for where there is one. The page's
/// `after` is a [`Cursor`].
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

/// How many secrets the account has.
pub async fn count(tx: &mut Tx, account_id: AccountId) -> Result<i64, Error> {
    let row =
        tx.one("SELECT COUNT(*) FROM secrets WHERE account_id = $1", params![account_id.to_string()]).await?;
    row.map_or(Ok(0), |row| row.int(0))
}

/// Writes a secret's changed fields; with `sealed`, its new value too.
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

/// Removes a secret. The caller has it locked, and has seen that no deployment uses it.
pub async fn delete(tx: &mut Tx, account_id: AccountId, secret_id: &SecretId) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM secrets WHERE account_id = $1 AND secret_id = $2",
        params![account_id.to_string(), secret_id.as_str()],
    )
    .await?;
    Ok(())
}

/// Records which secrets a deployment uses, in place of what was recorded before; the placeholder of one that it no
/// longer uses goes. Gives the first that the account does not have (any more): then the transaction must be given up.
pub async fn set_uses(
    tx: &mut Tx,
    account_id: AccountId,
    deployment_id: DeploymentId,
    secret_ids: &[SecretId],
) -> Result<Option<SecretId>, Error> {
    let wanted: BTreeSet<&SecretId> = secret_ids.iter().collect();
    // What is used on keeps its row, and with it the placeholder that programs may hold.
    for secret_id in used_by(tx, deployment_id).await? {
        if !wanted.contains(&secret_id) {
            tx.execute(
                "DELETE FROM secret_uses WHERE deployment_id = $1 AND secret_id = $2",
                params![deployment_id.to_string(), secret_id.as_str()],
            )
            .await?;
        }
    }
    // Each once, and locked in one order, so that two who use the same ones don't wait for each other.
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

/// The secrets that a deployment uses; as many as its settings may name.
async fn used_by(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Vec<SecretId>, Error> {
    let rows = tx
        .all("SELECT secret_id FROM secret_uses WHERE deployment_id = $1", params![deployment_id.to_string()])
        .await?;
    rows.iter().map(|row| row.parse(0)).collect()
}

/// Forgets what a deployment uses; part of its deletion.
pub(crate) async fn remove_uses(tx: &mut Tx, deployment_id: DeploymentId) -> Result<(), Error> {
    tx.execute("DELETE FROM secret_uses WHERE deployment_id = $1", params![deployment_id.to_string()])
        .await?;
    Ok(())
}

/// Up to `limit` deployments that use the secret, oldest first.
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
