//! Idempotency records. Each one stores the response to a request with an idempotency key, so that a repeated request
//! gets the same response. A request first claims its record. The transaction that makes the request's changes also
//! stores the response, which completes the record.
//!
//! A claim is a lease with an id. If the claim expires and another request takes it over, the first request can no
//! longer complete the record, and its transaction is rolled back.

use herm_types::{KeyId, Timestamp};

use crate::row::params;
use crate::{Error, Tx};

/// The time for which an idempotency record is stored, in milliseconds: 24 hours.
pub const RECORD_LIFETIME_MS: i64 = 24 * 60 * 60 * 1000;

/// Identifies an idempotency record. Two requests share a record only if they have the same idempotency key, API key,
/// method and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    pub key_id: KeyId,
    pub method: String,
    pub path: String,
    pub idempotency_key: String,
}

/// A stored idempotency record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub body_hash: String,
    /// The status and body of the response, or `None` while the request is in progress.
    pub response: Option<(u16, String)>,
    pub lease_expires_at: Timestamp,
    pub created_at: Timestamp,
}

impl Record {
    /// Returns true if the record has expired at the time `now`, which must be the database's time
    /// ([`Tx::database_now`]).
    pub fn is_outdated(&self, now: Timestamp) -> bool {
        self.created_at <= now.plus_ms(-RECORD_LIFETIME_MS)
    }
}

/// Inserts an idempotency record with the claim `claim_id`. Returns false, without any change, if there already is a
/// record with this key.
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

/// Returns the idempotency record with this key and locks it until the transaction ends.
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
    let status =
        status.map_err(|_| Error::Corrupt("an idempotency record has an invalid HTTP status".to_owned()))?;
    Ok(Some(Record {
        body_hash: row.text(0)?,
        response: status.zip(row.opt_str(2)?.map(str::to_owned)),
        lease_expires_at: row.time(3)?,
        created_at: row.time(4)?,
    }))
}

/// Replaces the claim on a record with the claim `claim_id`, removes any response, and restarts the record's lifetime.
/// The caller must have locked the record with [`find_and_lock`].
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

/// Stores the response of the request that holds the claim `claim_id`. Returns false, without any change, if another
/// request has taken the claim over.
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

/// Deletes the record, so that the request can be retried at once. Has no effect if the record already has a response,
/// or if another request has taken the claim over.
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

/// Deletes all records without a response. A server calls this when it starts, while it holds the exclusive lock on the
/// database. The requests of these records belonged to a previous server process. They changed nothing, because a
/// request's changes and its response are stored in the same transaction.
pub async fn release_all(tx: &mut Tx) -> Result<(), Error> {
    tx.execute("DELETE FROM idempotent_requests WHERE status IS NULL", &[]).await?;
    Ok(())
}

/// Removes expired records, oldest first and up to `limit`. Returns how many it removed.
pub async fn remove_outdated(tx: &mut Tx, limit: i64) -> Result<u64, Error> {
    let before = tx.database_now().await?.plus_ms(-RECORD_LIFETIME_MS);
    tx.execute(
        "DELETE FROM idempotent_requests WHERE (key_id, method, path, idempotency_key) IN \
         (SELECT key_id, method, path, idempotency_key FROM idempotent_requests WHERE created_at <= $1 \
         ORDER BY created_at LIMIT $2)",
        params![before, limit],
    )
    .await
}
