//! Idempotent requests. A client may send such a request several times, but the request takes effect only
//! once.
//!
//! A request with an idempotency key is claimed before its use case runs. The use case receives a [`Reply`]
//! and stores the response in the same transaction as the effect (`App::transaction`), so that neither is
//! ever stored without the other. If the use case fails with an error that would be the same on a retry, the
//! error is stored. After any other error the claim is released, so that the client can retry.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use herm_crypto::{Cell, sha256};
use herm_store::idempotent_requests::{self as records, RequestKey};
use herm_store::{Store, Tx};
use herm_types::ErrorCode;
use serde::Serialize;

use crate::sealer::Sealer;
use crate::{App, Caller, Error};

/// The duration of a claim's lease, in milliseconds. If the server dies while it executes a request, requests
/// with the same idempotency key are rejected until the lease ends.
const LEASE_MS: i64 = 60_000;
/// The maximum length of an idempotency key, in characters. Requests with a longer key are rejected.
pub const MAX_KEY_CHARS: usize = 255;
/// The maximum length of the path of a request with an idempotency key, in bytes. A longer path is answered
/// with 404: no resource has so long a path, and the path is part of a database index that cannot store
/// longer values.
const MAX_PATH_BYTES: usize = 1024;

pub use herm_store::idempotent_requests::RECORD_LIFETIME_MS;

const TABLE: &str = "idempotent_requests";

/// The stored response of a request: HTTP status and JSON body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    pub status: u16,
    pub body: Vec<u8>,
}

/// An HTTP request with an idempotency key.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub idempotency_key: &'a str,
    pub body: &'a [u8],
}

/// The result of an attempt to claim a request.
pub enum ClaimOutcome {
    /// The request is new. The caller must execute it.
    New(Claim),
    /// The request was executed earlier. Contains the stored response.
    Replay(StoredResponse),
    /// An earlier copy of the same request is still being executed.
    InProgress,
    /// The idempotency key was used for a different request.
    KeyReused,
}

/// The right to execute one request with an idempotency key. Cheap to clone.
#[derive(Clone)]
pub struct Claim(Arc<ClaimState>);

struct ClaimState {
    key: RequestKey,
    claim_id: String,
    store: Store,
    sealer: Sealer,
}

impl App {
    /// Claims a request with an idempotency key, so that no other copy of it is executed at the same time.
    ///
    /// # Errors
    /// Returns `validation_error` if the idempotency key does not consist of 1 to 255 visible ASCII
    /// characters, and `not_found` if the request path is too long.
    pub async fn claim(&self, caller: &Caller, request: Request<'_>) -> Result<ClaimOutcome, Error> {
        validate(&request)?;
        let key = RequestKey {
            key_id: caller.key().key_id,
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            idempotency_key: request.idempotency_key.to_owned(),
        };
        // A query string contains no NUL, so the boundary between query string and body is unambiguous.
        let hash = sha256([request.query.as_bytes(), b"\0", request.body]);
        let (claim_id, sealer) = (self.sealer.nonce(), self.sealer.clone());
        let claim = Claim(Arc::new(ClaimState { key, claim_id, store: self.store.clone(), sealer }));
        self.store.transaction("claim_request", move |tx| Box::pin(claim.acquire(tx, hash))).await
    }

    /// Runs a named transaction for a request. If the request has an idempotency key, the response is stored
    /// in the same transaction.
    pub(crate) async fn transaction<T, F>(
        &self,
        name: &'static str,
        reply: Reply<T>,
        body: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, Error>> + Send + 'static,
    {
        self.store
            .transaction(name, move |tx| {
                Box::pin(async move {
                    let output = body(tx).await?;
                    if let Some((claim, render)) = reply.0 {
                        let response = render(&output)?;
                        claim.complete(tx, &response).await?;
                    }
                    Ok(output)
                })
            })
            .await
    }
}

fn validate(request: &Request<'_>) -> Result<(), herm_types::Error> {
    let key = request.idempotency_key;
    if !(1..=MAX_KEY_CHARS).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message =
            format!("The Idempotency-Key header must have 1 to {MAX_KEY_CHARS} visible ASCII characters.");
        return Err(herm_types::Error::new(ErrorCode::ValidationError, message));
    }
    if request.path.len() > MAX_PATH_BYTES {
        let message = format!("The request path exceeds {MAX_PATH_BYTES} bytes.");
        return Err(herm_types::Error::new(ErrorCode::NotFound, message));
    }
    Ok(())
}

impl Claim {
    async fn acquire(self, tx: &mut Tx, hash: [u8; 32]) -> Result<ClaimOutcome, Error> {
        let ClaimState { key, claim_id, sealer, .. } = &*self.0;
        let row = row(key);
        let sealed = sealer.seal(cell(&row, "body_hash"), &hash)?;
        if records::insert(tx, key, &sealed, claim_id, LEASE_MS).await? {
            return Ok(ClaimOutcome::New(self));
        }
        // The insert failed because a request with the same idempotency key was already claimed. If that
        // claim has since been released, return `InProgress` nevertheless: the client will retry, and the
        // retry can claim the request.
        let Some(record) = records::find_and_lock(tx, key).await? else {
            return Ok(ClaimOutcome::InProgress);
        };
        let now = tx.database_now().await?;
        if record.is_outdated(now) {
            records::take_over(tx, key, &sealed, claim_id, LEASE_MS).await?;
            return Ok(ClaimOutcome::New(self));
        }
        if *sealer.open(cell(&row, "body_hash"), &record.body_hash)? != hash {
            return Ok(ClaimOutcome::KeyReused);
        }
        if let Some((status, response)) = &record.response {
            let body = sealer.open(cell(&row, "response"), response)?.to_vec();
            return Ok(ClaimOutcome::Replay(StoredResponse { status: *status, body }));
        }
        if now < record.lease_expires_at {
            return Ok(ClaimOutcome::InProgress);
        }
        // The lease has expired and no response is stored, so the earlier attempt had no effect: an effect
        // and its response are stored in the same transaction.
        records::take_over(tx, key, &sealed, claim_id, LEASE_MS).await?;
        Ok(ClaimOutcome::New(self))
    }

    async fn complete(&self, tx: &mut Tx, response: &StoredResponse) -> Result<(), Error> {
        let ClaimState { key, claim_id, sealer, .. } = &*self.0;
        let sealed = sealer.seal(cell(&row(key), "response"), &response.body)?;
        if records::complete(tx, key, claim_id, response.status, &sealed).await? {
            return Ok(());
        }
        let message = "This request took too long, and another request with the same Idempotency-Key took over. \
                       This request had no effect; retry with the same key to get the response of the other one.";
        Err(herm_types::Error::new(ErrorCode::Conflict, message).into())
    }

    /// Stores an error response that would be the same on a retry, so that retries receive it.
    pub async fn record(self, response: StoredResponse) -> Result<(), Error> {
        let store = self.0.store.clone();
        store
            .transaction("record_refusal", move |tx| {
                Box::pin(async move { self.complete(tx, &response).await })
            })
            .await
    }

    /// Releases the claim, so that the client may send the request again at once. Has no effect if a response
    /// is already stored.
    pub async fn release(self) -> Result<(), Error> {
        let store = self.0.store.clone();
        store
            .transaction("release_request", move |tx| {
                Box::pin(async move { Ok(records::release(tx, &self.0.key, &self.0.claim_id).await?) })
            })
            .await
    }
}

/// Returns a string that identifies an idempotency record. The encrypted values of the record are bound to
/// this string. The parts of the string are separated by spaces, and no part except the last can contain a
/// space, so different records have different strings.
fn row(key: &RequestKey) -> String {
    format!("{} {} {} {}", key.key_id, key.method, key.path, key.idempotency_key)
}

fn cell<'a>(row: &'a str, column: &'a str) -> Cell<'a> {
    Cell { table: TABLE, row, column }
}

type Render<T> = Box<dyn FnOnce(&T) -> Result<StoredResponse, serde_json::Error> + Send>;

/// Builds the response to a request with an idempotency key from the result of its use case. The response is
/// stored in the same transaction as the effect. For a request without a key, the reply does nothing.
pub struct Reply<T>(Option<(Claim, Render<T>)>);

impl<T> Reply<T> {
    /// Creates a reply that stores no response.
    pub fn none() -> Self {
        Self(None)
    }

    /// Creates a reply with this HTTP status. `view` builds the body from the result of the use case. Without
    /// a claim, no response is stored.
    pub fn new<V: Serialize>(
        claim: Option<Claim>,
        status: u16,
        view: impl FnOnce(&T) -> V + Send + 'static,
    ) -> Self {
        let render =
            move |output: &T| Ok(StoredResponse { status, body: serde_json::to_vec(&view(output))? });
        Self(claim.map(|claim| (claim, Box::new(render) as Render<T>)))
    }
}
