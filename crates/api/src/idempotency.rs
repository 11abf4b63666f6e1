//! `Idempotency-Key`, on every POST: claimed before the handler, and answered from the record the second time.
//!
//! A handler takes [`Once`] and gives its use case a [`Reply`]; nothing else is asked of it.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use herm_app::Caller;
use herm_app::idempotency::{self, Answer, Claim, Claimed, Reply};
use herm_types::{Error, ErrorCode};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;
use tracing::Instrument as _;

use crate::auth;
use crate::error::{self, Failure};
use crate::input::read_body;
use crate::request_id::RequestId;
use crate::router::Shared;

pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Seconds after which a request that met itself under way may try again: most take far less.
const UNDER_WAY_RETRY_AFTER_S: u64 = 1;
/// The most bytes of a refusal's body that is recorded; it lists at most 100 faults.
const MAX_REFUSAL_BYTES: usize = 1024 * 1024;

/// Acts once, however often the request is sent: makes the [`Reply`] that a use case commits with its effect.
pub(crate) struct Once(Option<Claim>);

impl FromRequestParts<Shared> for Once {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Failure> {
        Ok(Self(parts.extensions.get::<Claim>().cloned()))
    }
}

impl Once {
    /// The answer is this status and what the use case gives, as JSON.
    pub(crate) fn reply<T: Serialize + Clone + 'static>(self, status: StatusCode) -> Reply<T> {
        self.reply_with(status, T::clone)
    }

    /// The answer is this status and what `view` makes of what the use case gives, as JSON.
    pub(crate) fn reply_with<T, V: Serialize>(
        self,
        status: StatusCode,
        view: impl FnOnce(&T) -> V + Send + 'static,
    ) -> Reply<T> {
        Reply::new(self.0, status.as_u16(), view)
    }
}

/// Lets a POST with a key through once.
pub(crate) async fn layer(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    once(shared, request, next).await.unwrap_or_else(Failure::into_response)
}

async fn once(shared: Shared, request: Request, next: Next) -> Result<Response, Failure> {
    let (mut parts, body) = request.into_parts();
    let Ok(caller) = auth::caller(&mut parts, &shared).await else {
        // Refused by the handler, if there is one: a path without this method has another answer.
        return Ok(next.run(Request::from_parts(parts, body)).await);
    };
    let body = read_body(body, shared.options.max_json_bytes).await?;
    // What is begun is ended, also if the client goes away: its next try then finds how it ended.
    let work = tokio::spawn(act(shared, caller, parts, body, next).in_current_span());
    work.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request ended before its answer");
        Err(Error::new(ErrorCode::ServerError, "The server failed; the fault is in its log.").into())
    })
}

async fn act(
    shared: Shared,
    caller: Caller,
    parts: Parts,
    body: Bytes,
    next: Next,
) -> Result<Response, Failure> {
    let asked = idempotency::Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        idempotency_key: key(&parts.headers),
        body: &body,
    };
    match shared.app.claim(&caller, asked).await? {
        Claimed::New(claim) => Ok(carry_out(claim, parts, body, next).await),
        Claimed::Before(answer) => Ok(replay(answer)),
        Claimed::UnderWay => {
            let message = "A request with this Idempotency-Key is under way; send it again in a moment.";
            let failure = Failure::from(Error::new(ErrorCode::Conflict, message));
            Err(failure.retry_after(UNDER_WAY_RETRY_AFTER_S))
        }
        Claimed::Other => {
            let message = "This Idempotency-Key was used for another request; make a new one for each.";
            Err(Error::new(ErrorCode::IdempotencyConflict, message).into())
        }
    }
}

/// The header's text; what is not one such text is empty, and so refused.
fn key(headers: &HeaderMap) -> &str {
    let mut values = headers.get_all(KEY).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().unwrap_or_default(),
        _ => "",
    }
}

async fn carry_out(claim: Claim, mut parts: Parts, body: Bytes, next: Next) -> Response {
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    parts.extensions.insert(claim.clone());
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    settle(claim, error::write_body(response, &request_id)).await
}

/// Records a refusal that would be the same the next time. Of a success the record is committed already; after
/// anything else the request may be sent again.
async fn settle(claim: Claim, response: Response) -> Response {
    let status = response.status();
    if status.is_success() {
        return response;
    }
    if !is_lasting(status) {
        if let Err(error) = claim.release().await {
            // The claim's time runs out by itself.
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to give a request's claim up");
        }
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_REFUSAL_BYTES).await.unwrap_or_default();
    let answer = Answer { status: status.as_u16(), body: body.to_vec() };
    if let Err(error) = claim.record(answer).await {
        // It refuses the next time too, then without a record.
        tracing::warn!(error = &error as &dyn std::error::Error, "failed to record a refusal");
    }
    Response::from_parts(parts, Body::from(body))
}

/// Whether the same request would be refused in the same way for as long as a record is kept: it is wrong by itself,
/// or it names what there is not, and no id is used twice. A conflict, a missing scope or an empty account passes.
fn is_lasting(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND)
}

fn replay(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    error::written(response)
}
