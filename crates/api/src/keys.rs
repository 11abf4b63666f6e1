//! `/v1/keys`.

use axum::Json;
use axum::extract::State;
use herm_app::keys::ApiKey;
use herm_app::keys::of_account::{self, NewKey};
use herm_types::error::ErrorBody;
use herm_types::key::{KeyInfo, Scope};
use herm_types::paging::Page;
use herm_types::{AccountId, DeploymentId, Error, KeyId, Timestamp};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::Once;
use crate::input::{Faults, IdPath, JsonBody, Object, Query};
use crate::router::Shared;

const MAX_NAME_CHARS: usize = 256;
const MAX_CUSTOMER_CHARS: usize = 256;

/// The body of a create.
#[derive(utoipa::ToSchema)]
#[schema(as = CreateKey)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct CreateKey {
    /// What the key is for.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// At least one of `deployments:read`, `deployments:write`, `secrets:write`, `webhooks:write`, `usage:read`,
    /// `admin`.
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// The one deployment that it is limited to.
    deployment_id: Option<DeploymentId>,
    /// The one customer that it is limited to.
    #[schema(min_length = 1, max_length = 256)]
    customer_id: Option<String>,
    /// When it stops working; never if it is left out.
    expires_at: Option<Timestamp>,
}

/// A key that was just made.
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
    /// `null`: never.
    expires_at: Option<Timestamp>,
    /// The key itself, shown this once: keep it safe.
    #[schema(example = "herm_sk_…")]
    key: String,
}

impl CreatedKey {
    fn of((key, info): &(ApiKey, KeyInfo)) -> Self {
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
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let name = object.required_text("name", 1..=MAX_NAME_CHARS, &mut faults);
    let scopes = scopes(&mut object, &Scope::OF_KEYS, &mut faults);
    let deployment_id = object.parsed("deployment_id", &mut faults);
    let customer_id = object.text("customer_id", 1..=MAX_CUSTOMER_CHARS, &mut faults);
    let expires_at = object.parsed::<Timestamp>("expires_at", &mut faults);
    if expires_at.is_some_and(|end| end <= now) {
        faults.add("expires_at", "must lie in the future");
    }
    object.finish(&mut faults);
    faults.check()?;
    let (Some(name), Some(scopes)) = (name, scopes) else { return Err(Error::invalid(Vec::new())) };
    Ok(NewKey { name, scopes, deployment_id, customer_id, expires_at })
}

/// The field `scopes`: at least one of these.
pub(crate) fn scopes(object: &mut Object<'_>, known: &[Scope], faults: &mut Faults) -> Option<Vec<Scope>> {
    object.require("scopes", faults);
    let read = |text: &str| {
        let scope = Scope::parse(text).filter(|scope| known.contains(scope));
        scope.ok_or_else(|| {
            let texts: Vec<&str> = known.iter().map(|scope| scope.as_str()).collect();
            format!("must be one of: {}", texts.join(", "))
        })
    };
    // Each may come twice, which asks for nothing more.
    let scopes = object.list("scopes", 2 * known.len(), read, faults)?;
    if scopes.is_empty() {
        faults.add("scopes", "must name at least one scope");
        return None;
    }
    Some(scopes)
}

/// Make an API key. It reaches no further than the key that makes it: one with limits or an end makes only keys within
/// them.
#[utoipa::path(post, path = "/v1/keys", operation_id = "create_key", tag = "keys", request_body = CreateKey,
    responses((status = 201, body = CreatedKey), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn create_key(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    query: Query,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<CreatedKey>), Failure> {
    query.finish()?;
    // Who may make none is told that, not how to ask better.
    caller.require(Scope::Admin)?;
    let new = parse(&body, shared.app.now())?;
    let reply = once.reply_with(StatusCode::CREATED, CreatedKey::of);
    let made = of_account::create(&shared.app, &caller, new, reply).await?;
    Ok((StatusCode::CREATED, Json(CreatedKey::of(&made))))
}

/// List the account's API keys, newest first, revoked and expired ones among them; never the keys themselves. Browser
/// tokens are not listed.
#[utoipa::path(get, path = "/v1/keys", operation_id = "list_keys", tag = "keys",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<KeyInfo>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
pub(crate) async fn list_keys(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<KeyInfo>>, Failure> {
    let page = query.page::<KeyId>();
    query.finish()?;
    Ok(Json(of_account::list(&shared.app, &caller, page).await?))
}

/// A key that opens nothing any more.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RevokedKey {
    key_id: KeyId,
    #[schema(pattern = "^revoked$")]
    status: &'static str,
}

/// Revoke an API key, with the browser tokens it minted, or one such token. It works at once, on open event streams
/// too; one that is revoked already stays so.
#[utoipa::path(delete, path = "/v1/keys/{key_id}", operation_id = "revoke_key", tag = "keys",
    params(("key_id" = KeyId, Path)),
    responses((status = 200, body = RevokedKey), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(crate) async fn revoke_key(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
) -> Result<Json<RevokedKey>, Failure> {
    query.finish()?;
    caller.require(Scope::Admin)?;
    let key_id = path.id("key", "key_id")?;
    of_account::revoke(&shared.app, &caller, key_id).await?;
    Ok(Json(RevokedKey { key_id, status: "revoked" }))
}
