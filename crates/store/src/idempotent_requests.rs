//! Requests that carry an idempotency key: claimed before they act, completed in the transaction of their effect.
//!
//! A claim is a lease with an id of its own. Whoever lost it, because its time ran out and another took over,
//! completes nothing, and so its effect does not commit either.

use herm_types::{KeyId, Timestamp};

use crate::row::params;
use crate::{Error, Tx};

/// How long a record counts, in milliseconds: a day. Later it is as if there were none, and then there is none.
pub const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// What a record is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    pub key_id: KeyId,
    pub method: String,
    pub path: String,
    pub idempotency_key: String,
}

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub body_hash: String,
    /// Status and response; `None` while the request is under way.
    pub answer: Option<(u16, String)>,
    pub lease_expires_at: Timestamp,
    pub created_at: Timestamp,
}

impl Record {
    /// Whether it counts no more at this instant of the database.
    pub fn is_outdated(&self, now: Timestamp) -> bool {
        self.created_at <= now.plus_ms(-KEPT_MS)
    }
}

/// Claims a request that nobody has claimed; `false`, and nothing changes, if there is a record of it.
pub async fn insert(
    tx: &mut Tx,
    key: &RequestKey,
    body_hash: &str,
    claim_id: &str,
    lease_ms: i64,
) -> Result<bool, Error> {
    let now = tx.database_now().await?;
    let inserted = tx
        .execute(
            "INSERT INTO idempotent_requests (key_id, method, path, idempotency_key, body_hash, claim_id, status, \
             response, lease_expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, NULL, NULL, $7, $8) \
             ON CONFLICT (key_id, method, path, idempotency_key) DO NOTHING",
            params![
                key.key_id.to_string(),
                key.method.as_str(),
                key.path.as_str(),
                key.idempotency_key.as_str(),
                body_hash,
                claim_id,
                now.plus_ms(lease_ms),
                now,
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// The record of a request, locked until the transaction ends.
pub async fn find_and_lock(tx: &mut Tx, key: &RequestKey) -> Result<Option<Record>, Error> {
    let row = tx
        .one(
            "SELECT body_hash, status, response, lease_expires_at, created_at FROM idempotent_requests \
             WHERE key_id = $1 AND method = $2 AND path = $3 AND idempotency_key = $4 FOR UPDATE",
            params![
                key.key_id.to_string(),
                key.method.as_str(),
                key.path.as_str(),
                key.idempotency_key.as_str(),
            ],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let status = row.opt_int(1)?.map(u16::try_from).transpose();
    let status = status.map_err(|_| Error::Corrupt("a stored status is no status".to_owned()))?;
    Ok(Some(Record {
        body_hash: row.text(0)?,
        answer: status.zip(row.opt_str(2)?.map(str::to_owned)),
        lease_expires_at: row.time(3)?,
        created_at: row.time(4)?,
    }))
}

/// Claims a request anew, from whoever had it, as if it were seen for the first time. The caller has it locked.
pub async fn take_over(
    tx: &mut Tx,
    key: &RequestKey,
    body_hash: &str,
    claim_id: &str,
    lease_ms: i64,
) -> Result<(), Error> {
    let now = tx.database_now().await?;
    tx.execute(
        "UPDATE idempotent_requests SET body_hash = $1, claim_id = $2, status = NULL, response = NULL, \
         lease_expires_at = $3, created_at = $4 \
         WHERE key_id = $5 AND method = $6 AND path = $7 AND idempotency_key = $8",
        params![
            body_hash,
            claim_id,
            now.plus_ms(lease_ms),
            now,
            key.key_id.to_string(),
            key.method.as_str(),
            key.path.as_str(),
            key.idempotency_key.as_str(),
        ],
    )
    .await?;
    Ok(())
}

/// Stores a claimed request's answer; `false` if the claim is no longer this one.
pub async fn complete(
    tx: &mut Tx,
    key: &RequestKey,
    claim_id: &str,
    status: u16,
    response: &str,
) -> Result<bool, Error> {
    let completed = tx
        .execute(
            "UPDATE idempotent_requests SET status = $1, response = $2 WHERE key_id = $3 AND method = $4 \
             AND path = $5 AND idempotency_key = $6 AND claim_id = $7 AND status IS NULL",
            params![
                i64::from(status),
                response,
                key.key_id.to_string(),
                key.method.as_str(),
                key.path.as_str(),
                key.idempotency_key.as_str(),
                claim_id,
            ],
        )
        .await?;
    Ok(completed == 1)
}

/// Gives a claim up, so that the request may be sent again at once. One that was completed or lost stays.
pub async fn release(tx: &mut Tx, key: &RequestKey, claim_id: &str) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM idempotent_requests WHERE key_id = $1 AND method = $2 AND path = $3 \
         AND idempotency_key = $4 AND claim_id = $5 AND status IS NULL",
        params![
            key.key_id.to_string(),
            key.method.as_str(),
            key.path.as_str(),
            key.idempotency_key.as_str(),
            claim_id,
        ],
    )
    .await?;
    Ok(())
}

/// Gives every claim up: what a server does at its start, when it holds the database alone. What an earlier one had
/// claimed and not completed had no effect.
pub async fn release_all(tx: &mut Tx) -> Result<(), Error> {
    tx.execute("DELETE FROM idempotent_requests WHERE status IS NULL", &[]).await?;
    Ok(())
}

/// Removes up to `limit` records that count no more, the oldest first; gives how many.
pub async fn remove_outdated(tx: &mut Tx, limit: i64) -> Result<u64, Error> {
    let before = tx.database_now().await?.plus_ms(-KEPT_MS);
    tx.execute(
        "DELETE FROM idempotent_requests WHERE (key_id, method, path, idempotency_key) IN \
         (SELECT key_id, method, path, idempotency_key FROM idempotent_requests WHERE created_at <= $1 \
         ORDER BY created_at LIMIT $2)",
        params![before, limit],
    )
    .await
}
