//! `/v1/tokens`: creates browser tokens.

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
use crate::idempotency::OptionalClaim;
use crate::input::{FieldErrors, JsonBody, Object, Query};
use crate::keys::scopes;
use crate::state::ApiState;

/// The default lifetime of a browser token: 15 minutes, in seconds.
const DEFAULT_LIFETIME_S: u32 = 15 * 60;
/// The maximum lifetime of a browser token: one day, in seconds.
const MAX_LIFETIME_S: u32 = 24 * 60 * 60;

/// A browser token to create.
#[derive(utoipa::ToSchema)]
#[schema(as = CreateToken)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct CreateToken {
    /// The only deployment that the token can access.
    deployment_id: DeploymentId,
    /// The scopes of the token: one or more of `messages:send`, `steering:answer`, `threads:write`, `files:read`,
    /// `files:write` and `deployments:read`. The key that creates the token must have these scopes too. The key scope
    /// `deployments:write` implies all of them except `deployments:read`.
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// The lifetime of the token, in seconds. The token expires earlier if the key that creates it does.
    #[schema(minimum = 1, maximum = 86400, default = 900)]
    expires_in_s: Option<u32>,
}

/// A new browser token.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedToken {
    /// The text of the token. It is shown only once. Requests send it in the `Authorization` header, like an API key.
    #[schema(example = "herm_pk_…")]
    token: String,
    /// The id of the token. `DELETE /v1/keys/{key_id}` with this id revokes the token.
    key_id: KeyId,
    deployment_id: DeploymentId,
    scopes: Vec<Scope>,
    created_at: Timestamp,
    expires_at: Timestamp,
}

fn parse(body: &Value) -> Result<NewToken, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    object.require("deployment_id", &mut errors);
    let deployment_id = object.parsed("deployment_id", &mut errors);
    let scopes = scopes(&mut object, &Scope::FOR_BROWSER_TOKENS, &mut errors);
    let lifetime_s = object.integer("expires_in_s", 1..=MAX_LIFETIME_S, &mut errors);
    object.finish(&mut errors);
    errors.check()?;
    let (Some(deployment_id), Some(scopes)) = (deployment_id, scopes) else {
        return Err(Error::invalid(Vec::new()));
    };
    let lifetime_ms = i64::from(lifetime_s.unwrap_or(DEFAULT_LIFETIME_S)) * 1000;
    Ok(NewToken { deployment_id, scopes, lifetime_ms })
}

/// Create a browser token: a short-lived key for one deployment.
///
/// With a browser token, a browser can talk to the agent but cannot change the configuration of the agent. When the
/// token expires, or the key that created it is revoked, the token stops working and its event streams end.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "keys", request_body = CreateToken,
    responses((status = 201, body = CreatedToken), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn create_token(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    query: Query,
    claim: OptionalClaim,
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
    let created =
        tokens::create(&state.app, &caller, new, claim.reply_with(StatusCode::CREATED, view)).await?;
    Ok((StatusCode::CREATED, Json(view(&created))))
}
