//! Requests that may be sent twice and act once.
//!
//! A request with an idempotency key is claimed before it acts. Its use case gets a [`Reply`], and commits the
//! answer in the transaction of the effect (`App::transaction`): there is never an effect without its answer, nor
//! an answer without its effect. A refusal that would be the same the next time is recorded afterwards; after any
//! other the claim is given up, and the request may be sent again.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use herm_crypto::{Cell, sha256};
use herm_store::idempotent_requests::{self as records, RequestKey};
use herm_store::{Store, Tx};
use herm_types::ErrorCode;
use serde::Serialize;

use crate::sealer::Sealer;
use crate::{App, Caller, Error};

/// How long a request under way keeps others with its key out, should its server die, in milliseconds.
const LEASE_MS: i64 = 60_000;
/// The most characters of an idempotency key.
pub const MAX_KEY_CHARS: usize = 255;
/// The most bytes of a path. No resource has a longer one, and an index has no room for any length.
const MAX_PATH_BYTES: usize = 1024;

pub use herm_store::idempotent_requests::KEPT_MS;

const TABLE: &str = "idempotent_requests";

/// What is answered: a status and a body of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A request with an idempotency key.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub idempotency_key: &'a str,
    pub body: &'a [u8],
}

/// What a request with an idempotency key meets.
pub enum Claimed {
    /// Nothing: it is to be carried out.
    New(Claim),
    /// Its own answer.
    Before(Answer),
    /// Itself, under way.
    UnderWay,
    /// Another request with its key.
    Other,
}

/// The right to carry a request out; cheap to clone.
#[derive(Clone)]
pub struct Claim(Arc<Inner>);

struct Inner {
    key: RequestKey,
    claim_id: String,
    store: Store,
    sealer: Sealer,
}

impl App {
    /// Claims a request for its caller.
    ///
    /// # Errors
    /// `validation_error`: the key is not 1 to 255 visible ASCII characters. `not_found`: no path is that long.
    pub async fn claim(&self, caller: &Caller, request: Request<'_>) -> Result<Claimed, Error> {
        check(&request)?;
        let key = RequestKey {
            key_id: caller.key().key_id,
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            idempotency_key: request.idempotency_key.to_owned(),
        };
        // A query has no NUL in it: where it ends and the body begins is no question.
        let hash = sha256([request.query.as_bytes(), b"\0", request.body]);
        let (claim_id, sealer) = (self.sealer.nonce(), self.sealer.clone());
        let claim = Claim(Arc::new(Inner { key, claim_id, store: self.store.clone(), sealer }));
        self.store.transaction("claim_request", move |tx| Box::pin(claim.take(tx, hash))).await
    }

    /// Runs a named transaction that a request asked for; what it is answered commits with it.
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
                    let done = body(tx).await?;
                    if let Some((claim, render)) = reply.0 {
                        let answer = render(&done)?;
                        claim.complete(tx, &answer).await?;
                    }
                    Ok(done)
                })
            })
            .await
    }
}

fn check(request: &Request<'_>) -> Result<(), herm_types::Error> {
    let key = request.idempotency_key;
    if !(1..=MAX_KEY_CHARS).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!(
            "Idempotency-Key must have 1 to {MAX_KEY_CHARS} visible ASCII characters; make one anew."
        );
        return Err(herm_types::Error::new(ErrorCode::ValidationError, message));
    }
    if request.path.len() > MAX_PATH_BYTES {
        return Err(herm_types::Error::new(ErrorCode::NotFound, "Nothing has a path as long as this one."));
    }
    Ok(())
}

impl Claim {
    async fn take(self, tx: &mut Tx, hash: [u8; 32]) -> Result<Claimed, Error> {
        let Inner { key, claim_id, sealer, .. } = &*self.0;
        let row = row(key);
        let sealed = sealer.seal(cell(&row, "body_hash"), &hash)?;
        if records::insert(tx, key, &sealed, claim_id, LEASE_MS).await? {
            return Ok(Claimed::New(self));
        }
        // One that was given up in between is as good as under way: its next try finds nothing.
        let Some(record) = records::find_and_lock(tx, key).await? else { return Ok(Claimed::UnderWay) };
        let now = tx.database_now().await?;
        if record.is_outdated(now) {
            records::take_over(tx, key, &sealed, claim_id, LEASE_MS).await?;
            return Ok(Claimed::New(self));
        }
        if *sealer.open(cell(&row, "body_hash"), &record.body_hash)? != hash {
            return Ok(Claimed::Other);
        }
        if let Some((status, response)) = &record.answer {
            let body = sealer.open(cell(&row, "response"), response)?.to_vec();
            return Ok(Claimed::Before(Answer { status: *status, body }));
        }
        if now < record.lease_expires_at {
            return Ok(Claimed::UnderWay);
        }
        // Whoever had it is gone, and left no effect: that would have brought the answer along.
        records::take_over(tx, key, &sealed, claim_id, LEASE_MS).await?;
        Ok(Claimed::New(self))
    }

    async fn complete(&self, tx: &mut Tx, answer: &Answer) -> Result<(), Error> {
        let Inner { key, claim_id, sealer, .. } = &*self.0;
        let sealed = sealer.seal(cell(&row(key), "response"), &answer.body)?;
        if records::complete(tx, key, claim_id, answer.status, &sealed).await? {
            return Ok(());
        }
        let message = "This request took so long that another one with its Idempotency-Key took over; nothing of \
                       this one is kept.";
        Err(herm_types::Error::new(ErrorCode::Conflict, message).into())
    }

    /// Records a refusal that would be the same the next time.
    pub async fn record(self, answer: Answer) -> Result<(), Error> {
        let store = self.0.store.clone();
        store
            .transaction("record_refusal", move |tx| {
                Box::pin(async move { self.complete(tx, &answer).await })
            })
            .await
    }

    /// Gives the claim up, so that the request may be sent again at once; one whose answer is recorded stays.
    pub async fn release(self) -> Result<(), Error> {
        let store = self.0.store.clone();
        store
            .transaction("release_request", move |tx| {
                Box::pin(async move { Ok(records::release(tx, &self.0.key, &self.0.claim_id).await?) })
            })
            .await
    }
}

/// The row, as sealed values are bound to it. None of the parts has a space in it but the last.
fn row(key: &RequestKey) -> String {
    format!("{} {} {} {}", key.key_id, key.method, key.path, key.idempotency_key)
}

fn cell<'a>(row: &'a str, column: &'a str) -> Cell<'a> {
    Cell { table: TABLE, row, column }
}

type Render<T> = Box<dyn FnOnce(&T) -> Result<Answer, serde_json::Error> + Send>;

/// How a request is answered when what it asked for has happened: kept with the effect if the request carries an
/// idempotency key, and nothing at all if not.
pub struct Reply<T>(Option<(Claim, Render<T>)>);

impl<T> Reply<T> {
    /// Nothing is kept.
    pub fn none() -> Self {
        Self(None)
    }

    /// The status, and as the body what `view` makes of the result.
    pub fn new<V: Serialize>(
        claim: Option<Claim>,
        status: u16,
        view: impl FnOnce(&T) -> V + Send + 'static,
    ) -> Self {
        let render = move |done: &T| Ok(Answer { status, body: serde_json::to_vec(&view(done))? });
        Self(claim.map(|claim| (claim, Box::new(render) as Render<T>)))
    }
}
