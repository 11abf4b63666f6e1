//! API keys, by the hash of their text.

use herm_types::key::{KeyInfo, Scope};
use herm_types::{KeyId, Timestamp};

use crate::row::{Row, params};
use crate::{Error, Tx};

/// The most keys that one listing gives.
const MAX_LISTED: i64 = 1000;

/// Adds a key; `hash` is its text's SHA-256 in hexadecimal. Gives `false`, and changes nothing, if there is
/// one with this hash.
pub async fn insert(tx: &mut Tx, key: &KeyInfo, hash: &str) -> Result<bool, Error> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let inserted = tx
        .execute(
            "INSERT INTO api_keys (key_id, account_id, name, hash, scopes, deployment_id, customer_id, created_at, \
             expires_at, revoked_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
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
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// The key with this hash, be it live or not.
pub async fn find_by_hash(tx: &mut Tx, hash: &str) -> Result<Option<KeyInfo>, Error> {
    tx.one(
        "SELECT key_id, account_id, name, scopes, deployment_id, customer_id, created_at, expires_at, revoked_at \
         FROM api_keys WHERE hash = $1",
        params![hash],
    )
    .await?
    .map(|row| key(&row))
    .transpose()
}

/// Every key, newest first.
pub async fn list(tx: &mut Tx) -> Result<Vec<KeyInfo>, Error> {
    let rows = tx
        .all(
            "SELECT key_id, account_id, name, scopes, deployment_id, customer_id, created_at, expires_at, \
             revoked_at FROM api_keys ORDER BY key_id DESC LIMIT $1",
            params![MAX_LISTED],
        )
        .await?;
    rows.iter().map(key).collect()
}

/// Revokes a key; `false` if there is no such key. One revoked before keeps its time.
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
        created_at: row.time(6)?,
        expires_at: row.opt_time(7)?,
        revoked_at: row.opt_time(8)?,
    })
}
