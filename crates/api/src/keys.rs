//! `/v1/keys`: creates, lists and revokes API keys.

use axum::Json;
use axum::extract::State;
use herm_app::keys::ApiKey;
use herm_app::keys::account_keys::{self, NewKey};
use herm_types::error::ErrorBody;
use herm_types::key::{KeyInfo, MAX_CUSTOMER_CHARS, Scope};
use herm_types::paging::Page;
use herm_types::{AccountId, DeploymentId, Error, KeyId, Timestamp};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::OptionalClaim;
use crate::input::{FieldErrors, IdPath, JsonBody, Object, Query};
use crate::state::ApiState;

const MAX_NAME_CHARS: usize = 256;

/// An API key to create.
#[derive(utoipa::ToSchema)]
#[schema(as = CreateKey)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct CreateKey {
    /// A name that describes the purpose of the key.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// The scopes of the key: one or more of `deployments:read`, `deployments:write`, `secrets:write`,
    /// `webhooks:write`, `usage:read` and `admin`.
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// The only deployment that the key can access. By default, the key is not restricted to one deployment.
    deployment_id: Option<DeploymentId>,
    /// The only customer whose deployments the key can access. By default, the key is not restricted to one customer.
    #[schema(min_length = 1, max_length = 256)]
    customer_id: Option<String>,
    /// The time at which the key expires. By default, it does not expire.
    expires_at: Option<Timestamp>,
}

/// A new API key, including the text that clients send to authenticate.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedKey {
    key_id: KeyId,
    account_id: AccountId,
    name: String,
    scopes: Vec<Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment_id: Option<DeploymentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer_id: Option<String>,
    created_at: Timestamp,
    /// The time at which the key expires, or `null` if it does not expire.
    expires_at: Option<Timestamp>,
    /// The text of the key, which authenticates requests. It is shown only once, so store it safely.
    #[schema(example = "herm_sk_…")]
    key: String,
}

impl CreatedKey {
    fn new((key, info): &(ApiKey, KeyInfo)) -> Self {
        let info = info.clone();
        Self {
            key_id: info.key_id,
            account_id: info.account_id,
            name: info.name,
            scopes: info.scopes,
            deployment_id: info.deployment_id,
            customer_id: info.customer_id,
            created_at: info.created_at,
            expires_at: info.expires_at,
            key: key.expose().to_owned(),
        }
    }
}

fn parse(body: &Value, now: Timestamp) -> Result<NewKey, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let name = object.required_string("name", 1..=MAX_NAME_CHARS, &mut errors);
    let scopes = scopes(&mut object, &Scope::FOR_API_KEYS, &mut errors);
    let deployment_id = object.parsed("deployment_id", &mut errors);
    let customer_id = object.string("customer_id", 1..=MAX_CUSTOMER_CHARS, &mut errors);
    let expires_at = object.parsed::<Timestamp>("expires_at", &mut errors);
    if expires_at.is_some_and(|end| end <= now) {
        errors.add("expires_at", "must be in the future");
    }
    object.finish(&mut errors);
    errors.check()?;
    let (Some(name), Some(scopes)) = (name, scopes) else { return Err(Error::invalid(Vec::new())) };
    Ok(NewKey { name, scopes, deployment_id, customer_id, expires_at })
}

/// Reads the required field `scopes`. The list must not be empty, and must contain only scopes in `allowed`.
pub(crate) fn scopes(
    object: &mut Object<'_>,
    allowed: &[Scope],
    errors: &mut FieldErrors,
) -> Option<Vec<Scope>> {
    object.require("scopes", errors);
    let parse = |text: &str| {
        let scope = Scope::parse(text).filter(|scope| allowed.contains(scope));
        scope.ok_or_else(|| {
            let texts: Vec<&str> = allowed.iter().map(|scope| scope.as_str()).collect();
            format!("must be one of: `{}`", texts.join("`, `"))
        })
    };
    // The list may contain duplicates, which are ignored, so the maximum length is greater than the number of scopes.
    let scopes = object.parsed_list("scopes", 2 * allowed.len(), parse, errors)?;
    if scopes.is_empty() {
        errors.add("scopes", "must contain at least one scope");
        return None;
    }
    Some(scopes)
}

/// Create an API key.
///
/// The new key cannot have more access than the key that creates it. A key that is restricted to a deployment or a
/// customer can create only keys with at least the same restriction. A key that expires can create only keys that
/// expire no later.
#[utoipa::path(post, path = "/v1/keys", operation_id = "create_key", tag = "keys", request_body = CreateKey,
    responses((status = 201, body = CreatedKey), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn create_key(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    query: Query,
    claim: OptionalClaim,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<CreatedKey>), Failure> {
    query.finish()?;
    // Check the scope before the body, so that a caller without the scope gets 403 instead of errors about the body.
    caller.require(Scope::Admin)?;
    let new = parse(&body, state.app.now())?;
    let reply = claim.reply_with(StatusCode::CREATED, CreatedKey::new);
    let created = account_keys::create(&state.app, &caller, new, reply).await?;
    Ok((StatusCode::CREATED, Json(CreatedKey::new(&created))))
}

/// List the account's API keys, newest first.
///
/// The list includes revoked and expired keys, but no browser tokens. It does not contain the text of any key.
#[utoipa::path(get, path = "/v1/keys", operation_id = "list_keys", tag = "keys",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<KeyInfo>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
pub(crate) async fn list_keys(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<KeyInfo>>, Failure> {
    let page = query.page::<KeyId>();
    query.finish()?;
    Ok(Json(account_keys::list(&state.app, &caller, page).await?))
}

/// The result of revoking an API key or a browser token.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RevokedKey {
    key_id: KeyId,
    #[schema(pattern = "^revoked$")]
    status: &'static str,
}

/// Revoke an API key or a browser token.
///
/// Revoking a key also revokes the browser tokens that were created with it. The revocation takes effect immediately
/// and closes the open event streams of the key and the tokens. Revoking a key again has no effect.
#[utoipa::path(delete, path = "/v1/keys/{key_id}", operation_id = "revoke_key", tag = "keys",
    params(("key_id" = KeyId, Path)),
    responses((status = 200, body = RevokedKey), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(crate) async fn revoke_key(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
) -> Result<Json<RevokedKey>, Failure> {
    query.finish()?;
    caller.require(Scope::Admin)?;
    let key_id = path.id("key", "key_id")?;
    account_keys::revoke(&state.app, &caller, key_id).await?;
    Ok(Json(RevokedKey { key_id, status: "revoked" }))
}
