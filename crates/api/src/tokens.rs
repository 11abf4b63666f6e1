//! `/v1/tokens`: what a backend gives to a browser.

use axum::Json;
use axum::extract::State;
use herm_app::keys::ApiKey;
use herm_app::tokens::{self, NewToken};
use herm_types::error::ErrorBody;
use herm_types::key::{KeyInfo, Scope};
use herm_types::{DeploymentId, Error, KeyId, Timestamp};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::Once;
use crate::input::{Faults, JsonBody, Object, Query};
use crate::keys::scopes;
use crate::router::Shared;

/// How long a token lives if its maker does not say: 15 minutes.
const DEFAULT_LIFETIME_S: u32 = 15 * 60;
/// How long a token may live: a day, the longest that a page stays open with one.
const MAX_LIFETIME_S: u32 = 24 * 60 * 60;

/// The body of a create.
#[derive(utoipa::ToSchema)]
#[schema(as = CreateToken)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct CreateToken {
    /// The one deployment that it opens.
    deployment_id: DeploymentId,
    /// At least one of `messages:send`, `steering:answer`, `threads:write`, `files:read`, `files:write`,
    /// `deployments:read`. Your key must have what it gives; `deployments:write` has the first five.
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// How long it lives; never longer than your key.
    #[schema(minimum = 1, maximum = 86400, default = 900)]
    expires_in_s: Option<u32>,
}

/// A token that was just minted.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedToken {
    /// The token itself, shown this once; sent like an API key.
    #[schema(example = "herm_pk_…")]
    token: String,
    /// What `DELETE /v1/keys/{key_id}` revokes it by.
    key_id: KeyId,
    deployment_id: DeploymentId,
    scopes: Vec<Scope>,
    created_at: Timestamp,
    expires_at: Timestamp,
}

fn parse(body: &Value) -> Result<NewToken, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    object.require("deployment_id", &mut faults);
    let deployment_id = object.parsed("deployment_id", &mut faults);
    let scopes = scopes(&mut object, &Scope::OF_TOKENS, &mut faults);
    let lifetime_s = object.whole_number("expires_in_s", 1..=MAX_LIFETIME_S, &mut faults);
    object.finish(&mut faults);
    faults.check()?;
    let (Some(deployment_id), Some(scopes)) = (deployment_id, scopes) else {
        return Err(Error::invalid(Vec::new()));
    };
    let lifetime_ms = i64::from(lifetime_s.unwrap_or(DEFAULT_LIFETIME_S)) * 1000;
    Ok(NewToken { deployment_id, scopes, lifetime_ms })
}

/// Mint a browser token: a short-lived key for one deployment, with which a browser can talk to the agent and never
/// change it. It ends, and its event streams with it, when it expires or the key that minted it is revoked.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "keys", request_body = CreateToken,
    responses((status = 201, body = CreatedToken), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn create_token(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    query: Query,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<CreatedToken>), Failure> {
    query.finish()?;
    let new = parse(&body)?;
    let (deployment_id, lifetime_ms) = (new.deployment_id, new.lifetime_ms);
    let view = move |(token, info): &(ApiKey, KeyInfo)| CreatedToken {
        token: token.expose().to_owned(),
        key_id: info.key_id,
        deployment_id,
        scopes: info.scopes.clone(),
        created_at: info.created_at,
        expires_at: info.expires_at.unwrap_or_else(|| info.created_at.plus_ms(lifetime_ms)),
    };
    let made = tokens::create(&shared.app, &caller, new, once.reply_with(StatusCode::CREATED, view)).await?;
    Ok((StatusCode::CREATED, Json(view(&made))))
}
