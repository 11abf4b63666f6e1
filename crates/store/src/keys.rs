//! API keys and browser tokens. The database contains only their SHA-256 hashes.

use herm_types::key::{KeyInfo, Scope};
use herm_types::paging::PageRequest;
use herm_types::{AccountId, DeploymentId, KeyId, Timestamp};

use crate::deployments::max_id;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// The maximum number of keys that [`list`] returns. Older keys are omitted.
const MAX_LISTED: i64 = 1000;
/// The maximum number of expired browser tokens that one call of [`remove_expired_tokens`] removes. Each new token
/// triggers one call, which can remove more tokens than were added, so that expired tokens do not accumulate.
const EXPIRED_AT_ONCE: i64 = 8;

/// The SELECT statement for keys, followed by the clauses in `$rest`. A browser token without a revocation time of its
/// own gets the revocation time of its parent key.
macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "SELECT api_keys.key_id, api_keys.account_id, api_keys.name, api_keys.scopes, api_keys.deployment_id, \
             api_keys.customer_id, api_keys.created_at, api_keys.expires_at, \
             COALESCE(api_keys.revoked_at, parents.revoked_at), api_keys.parent_key_id \
             FROM api_keys LEFT JOIN api_keys parents ON parents.key_id = api_keys.parent_key_id ",
            $rest
        )
    };
}

/// The keys that a caller may see: all keys of the caller's account or, if the caller's own key is restricted to a
/// deployment or customer, only those with the same restriction.
#[derive(Clone, Debug)]
pub struct Reach {
    pub account_id: AccountId,
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
}

impl Reach {
    fn deployment(&self) -> String {
        self.deployment_id.map(|id| id.to_string()).unwrap_or_default()
    }

    fn customer(&self) -> String {
        self.customer_id.clone().unwrap_or_default()
    }
}

/// Inserts a key. `hash` is the hexadecimal SHA-256 of the key. Returns false, without any change, if the hash already
/// exists.
pub async fn insert(tx: &mut Tx, key: &KeyInfo, hash: &str) -> Result<bool, Error> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let inserted = tx
        .execute(
            "INSERT INTO api_keys (key_id, account_id, name, hash, scopes, deployment_id, customer_id, created_at, \
             expires_at, revoked_at, parent_key_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (hash) DO NOTHING",
            params![
                key.key_id.to_string(),
                key.account_id.to_string(),
                key.name.as_str(),
                hash,
                scopes.join(","),
                key.deployment_id.map(|id| id.to_string()),
                key.customer_id.clone(),
                key.created_at,
                key.expires_at.map(Timestamp::as_micros),
                key.revoked_at.map(Timestamp::as_micros),
                key.parent_key_id.map(|id| id.to_string()),
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// Returns the key or browser token with this hash, even if it is revoked or expired.
pub async fn find_by_hash(tx: &mut Tx, hash: &str) -> Result<Option<KeyInfo>, Error> {
    tx.one(select_keys!("WHERE api_keys.hash = $1"), params![hash]).await?.map(|row| key(&row)).transpose()
}

/// Returns the key or browser token with this id in any account, even if it is revoked or expired.
pub async fn find(tx: &mut Tx, key_id: KeyId) -> Result<Option<KeyInfo>, Error> {
    tx.one(select_keys!("WHERE api_keys.key_id = $1"), params![key_id.to_string()])
        .await?
        .map(|row| key(&row))
        .transpose()
}

/// Returns the key or browser token with this id if the caller may see it.
pub async fn find_within(tx: &mut Tx, reach: &Reach, key_id: KeyId) -> Result<Option<KeyInfo>, Error> {
    tx.one(
        select_keys!(
            "WHERE api_keys.key_id = $1 AND api_keys.account_id = $2 AND ($3 = '' OR api_keys.deployment_id = $3) \
             AND ($4 = '' OR api_keys.customer_id = $4 OR api_keys.deployment_id IN \
             (SELECT deployment_id FROM deployments WHERE account_id = $2 AND customer_id = $4))"
        ),
        params![key_id.to_string(), reach.account_id.to_string(), reach.deployment(), reach.customer()],
    )
    .await?
    .map(|row| key(&row))
    .transpose()
}

/// Returns a page of the keys that the caller may see, newest first, plus one extra row if there is a next page.
/// Browser tokens are omitted, because there can be one for every visitor of a website.
pub async fn page(tx: &mut Tx, reach: &Reach, page: &PageRequest) -> Result<Vec<KeyInfo>, Error> {
    let rows = tx
        .all(
            select_keys!(
                "WHERE api_keys.parent_key_id IS NULL AND api_keys.account_id = $1 AND api_keys.key_id < $2 \
                 AND ($3 = '' OR api_keys.deployment_id = $3) \
                 AND ($4 = '' OR api_keys.customer_id = $4 OR api_keys.deployment_id IN \
                 (SELECT deployment_id FROM deployments WHERE account_id = $1 AND customer_id = $4)) \
                 ORDER BY api_keys.key_id DESC LIMIT $5"
            ),
            params![
                reach.account_id.to_string(),
                page.after.clone().unwrap_or_else(max_id::<KeyId>),
                reach.deployment(),
                reach.customer(),
                i64::from(page.limit) + 1,
            ],
        )
        .await?;
    rows.iter().map(key).collect()
}

/// Returns the keys of all accounts, newest first. Browser tokens are omitted.
pub async fn list(tx: &mut Tx) -> Result<Vec<KeyInfo>, Error> {
    let rows = tx
        .all(
            select_keys!("WHERE api_keys.parent_key_id IS NULL ORDER BY api_keys.key_id DESC LIMIT $1"),
            params![MAX_LISTED],
        )
        .await?;
    rows.iter().map(key).collect()
}

/// Returns the number of the account's unrevoked API keys. Browser tokens are not counted.
pub async fn count(tx: &mut Tx, account_id: AccountId) -> Result<i64, Error> {
    let row = tx
        .one(
            "SELECT COUNT(*) FROM api_keys WHERE account_id = $1 AND revoked_at IS NULL AND parent_key_id IS NULL",
            params![account_id.to_string()],
        )
        .await?;
    row.map_or(Ok(0), |row| row.int(0))
}

/// Revokes a key and, with it, the browser tokens that were created with it. Returns false if the key does not exist.
/// If the key is already revoked, the first revocation time is retained.
pub async fn revoke(tx: &mut Tx, key_id: KeyId) -> Result<bool, Error> {
    let now = tx.now();
    let revoked = tx
        .execute(
            "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $1) WHERE key_id = $2",
            params![now, key_id.to_string()],
        )
        .await?;
    Ok(revoked == 1)
}

/// Removes up to `EXPIRED_AT_ONCE` expired browser tokens. Called whenever a browser token is created.
pub async fn remove_expired_tokens(tx: &mut Tx) -> Result<(), Error> {
    let now = tx.now();
    // SKIP LOCKED lets concurrent transactions remove different tokens instead of waiting for each other.
    let expired = tx
        .all(
            "SELECT key_id FROM api_keys WHERE parent_key_id IS NOT NULL AND expires_at <= $1 \
             ORDER BY expires_at, key_id LIMIT $2 FOR UPDATE SKIP LOCKED",
            params![now, EXPIRED_AT_ONCE],
        )
        .await?;
    for row in expired {
        tx.execute("DELETE FROM api_keys WHERE key_id = $1", params![row.text(0)?]).await?;
    }
    Ok(())
}

fn key(row: &Row) -> Result<KeyInfo, Error> {
    let scopes = row
        .str(3)?
        .split(',')
        .map(|text| Scope::parse(text).ok_or_else(|| Error::Corrupt(format!("unknown scope {text:?}"))));
    Ok(KeyInfo {
        key_id: row.parse(0)?,
        account_id: row.parse(1)?,
        name: row.text(2)?,
        scopes: scopes.collect::<Result<_, _>>()?,
        deployment_id: row.opt_parse(4)?,
        customer_id: row.opt_str(5)?.map(str::to_owned),
        parent_key_id: row.opt_parse(9)?,
        created_at: row.time(6)?,
        expires_at: row.opt_time(7)?,
        revoked_at: row.opt_time(8)?,
    })
}
