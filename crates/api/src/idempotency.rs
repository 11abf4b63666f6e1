//! The `Idempotency-Key` header, which every POST operation supports. The middleware claims the key before the handler
//! runs: a claim is the right to execute the request with this key. If the same request was already executed with this
//! key, the middleware returns the stored response instead.
//!
//! A handler extracts an [`OptionalClaim`], creates a [`Reply`] from it and passes the reply to the use case, the
//! function of `herm-app` that executes the operation. The use case stores the response in the same transaction as the
//! effect of the request.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use herm_app::Caller;
use herm_app::idempotency::{self, Claim, ClaimOutcome, Reply, StoredResponse};
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
use crate::state::ApiState;

pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// The value of the `Retry-After` header, in seconds, in a 409 response. The response is sent if an earlier request
/// with the same idempotency key is still in progress. Most requests complete in much less time.
const IN_PROGRESS_RETRY_AFTER_S: u64 = 1;
/// The maximum size, in bytes, of an error body that is stored under an idempotency key. A larger body would be
/// replaced by an empty one, but none comes close to this limit, because an error body lists at most 100 field errors.
const MAX_ERROR_BYTES: usize = 1024 * 1024;

/// Extractor for a request's claim, the right to execute the request with its idempotency key. Contains `None` if the
/// request has no key. The handler turns the claim into the [`Reply`] with which the use case stores the response.
pub(crate) struct OptionalClaim(Option<Claim>);

impl FromRequestParts<ApiState> for OptionalClaim {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Failure> {
        Ok(Self(parts.extensions.get::<Claim>().cloned()))
    }
}

impl OptionalClaim {
    /// Creates the [`Reply`] with which the use case stores its response. The HTTP status of the response is `status`,
    /// and its body is the result of the use case as JSON.
    pub(crate) fn reply<T: Serialize + Clone + 'static>(self, status: StatusCode) -> Reply<T> {
        self.reply_with(status, T::clone)
    }

    /// Creates the [`Reply`] with which the use case stores its response. The HTTP status of the response is `status`,
    /// and `view` converts the result of the use case into its body.
    pub(crate) fn reply_with<T, V: Serialize>(
        self,
        status: StatusCode,
        view: impl FnOnce(&T) -> V + Send + 'static,
    ) -> Reply<T> {
        Reply::new(self.0, status.as_u16(), view)
    }
}

/// Middleware that ensures that requests with the same idempotency key take effect at most once. Requests without a key
/// pass through unchanged.
pub(crate) async fn layer(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    run_idempotent(state, request, next).await.unwrap_or_else(Failure::into_response)
}

async fn run_idempotent(state: ApiState, request: Request, next: Next) -> Result<Response, Failure> {
    let (mut parts, body) = request.into_parts();
    let Ok(caller) = auth::caller(&mut parts, &state).await else {
        // An unauthenticated request gets no claim on the key. The handler rejects the request with 401, or the router
        // rejects it with 405 if the path does not support POST.
        return Ok(next.run(Request::from_parts(parts, body)).await);
    };
    let body = read_body(body, state.options.max_json_bytes).await?;
    // The request runs in a separate task, so that it completes even if the client disconnects. A retry then gets the
    // stored response.
    let task = tokio::spawn(execute(state, caller, parts, body, next).in_current_span());
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the task that handles a request with an idempotency key panicked or was cancelled");
        Err(Error::new(ErrorCode::ServerError, "Internal error.").into())
    })
}

async fn execute(
    state: ApiState,
    caller: Caller,
    parts: Parts,
    body: Bytes,
    next: Next,
) -> Result<Response, Failure> {
    let claim_request = idempotency::Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        idempotency_key: idempotency_key(&parts.headers),
        body: &body,
    };
    match state.app.claim(&caller, claim_request).await? {
        ClaimOutcome::New(claim) => Ok(run_handler(claim, parts, body, next).await),
        ClaimOutcome::Replay(stored) => Ok(replay(stored)),
        ClaimOutcome::InProgress => {
            let message =
                "An earlier request with this Idempotency-Key is in progress; retry after a second.";
            let failure = Failure::from(Error::new(ErrorCode::Conflict, message));
            Err(failure.retry_after(IN_PROGRESS_RETRY_AFTER_S))
        }
        ClaimOutcome::KeyReused => {
            let message = "This Idempotency-Key was already used for a different request; use a new key for each request.";
            Err(Error::new(ErrorCode::IdempotencyConflict, message).into())
        }
    }
}

/// Returns the value of the `Idempotency-Key` header. If the header is repeated or not ASCII, returns an empty key,
/// which is then rejected as invalid.
fn idempotency_key(headers: &HeaderMap) -> &str {
    let mut values = headers.get_all(KEY).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().unwrap_or_default(),
        _ => "",
    }
}

async fn run_handler(claim: Claim, mut parts: Parts, body: Bytes, next: Next) -> Response {
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    parts.extensions.insert(claim.clone());
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    record_outcome(claim, error::write_body(response, &request_id)).await
}

/// Stores the response if it is a permanent error, so that a retry with the same key gets the same error. After any
/// other error, releases the claim on the key, so that a retry is executed. Does nothing after a success, because the
/// use case has already stored the response together with the effect.
async fn record_outcome(claim: Claim, response: Response) -> Response {
    let status = response.status();
    if status.is_success() {
        return response;
    }
    if !is_permanent(status) {
        if let Err(error) = claim.release().await {
            // A claim that was not released only delays a retry, because the claim expires.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to release an idempotency claim after a failed request"
            );
        }
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let stored = StoredResponse { status: status.as_u16(), body: body.to_vec() };
    if let Err(error) = claim.record(stored).await {
        // An error response that was not stored does no harm: the error is permanent, so a retry is executed again and
        // fails in the same way.
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to store an error response under the request's idempotency key; a retry executes the request again"
        );
    }
    Response::from_parts(parts, Body::from(body))
}

/// Returns true if an error with this status is permanent: the same request would always fail in the same way. This is
/// the case if the request is invalid, or if it names a missing resource, because ids are not reused. After other
/// errors, for example a conflict or a missing scope, a retry may succeed.
fn is_permanent(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND)
}

fn replay(stored: StoredResponse) -> Response {
    let mut response = Response::new(Body::from(stored.body));
    *response.status_mut() = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    error::mark_body_complete(response)
}
