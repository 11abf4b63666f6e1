//! `/v1/secrets`: creates, lists, changes and deletes secrets. No response contains a secret's value.

use axum::Json;
use axum::extract::State;
use herm_app::secrets::{self, NewSecret, SecretPatch};
use herm_types::error::ErrorBody;
use herm_types::key::Scope;
use herm_types::paging::Page;
use herm_types::secret::{HostPattern, Inject, Secret};
use herm_types::{Error, SecretId};
use http::StatusCode;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::OptionalClaim;
use crate::input::{FieldErrors, IdPath, JsonBody, Object, Query};
use crate::state::ApiState;

const MAX_NAME_CHARS: usize = 256;
/// The maximum length of a secret's value, in characters. A longer value is rejected. The limit suffices for keys and
/// certificates in PEM format.
const MAX_VALUE_CHARS: usize = 32_768;
/// The maximum number of allowed hosts of one secret. A longer list is rejected.
const MAX_ALLOWED_HOSTS: usize = 50;

/// A secret to create.
#[derive(utoipa::ToSchema)]
#[schema(as = CreateSecret)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct CreateSecret {
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// The value of the secret. It is stored encrypted and never returned.
    #[schema(min_length = 1, max_length = 32768, write_only)]
    value: String,
    /// The id of the secret, unique within the account. By default, the server generates one.
    secret_id: Option<SecretId>,
    /// Patterns of the hosts to which the value may be sent: a host name (`api.example.com`), all subdomains of a name
    /// (`*.example.com`), or an IP address. Each may end with a port (`api.example.com:8443`). If the list is empty,
    /// the value is never sent. Connections to private addresses are rejected unless the operator allows them.
    #[schema(max_items = 50)]
    allowed_hosts: Option<Vec<String>>,
    /// Programs in the sandbox send a placeholder instead of the value. `inject` lists the parts of an HTTP request in
    /// which the placeholder is replaced by the value.
    #[schema(min_items = 1, default = json!(["header"]))]
    inject: Option<Vec<Inject>>,
}

/// Changes to a secret. Fields that are absent are unchanged. Lists are replaced as a whole.
#[derive(utoipa::ToSchema)]
#[schema(as = UpdateSecret)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct UpdateSecret {
    #[schema(min_length = 1, max_length = 256)]
    name: Option<String>,
    /// The new value. It is used for all requests that programs in sandboxes make after the change.
    #[schema(min_length = 1, max_length = 32768, write_only)]
    value: Option<String>,
    /// Patterns of the hosts to which the value may be sent. If the list is empty, the value is never sent.
    #[schema(max_items = 50)]
    allowed_hosts: Option<Vec<String>>,
    #[schema(min_items = 1)]
    inject: Option<Vec<Inject>>,
}

/// Reads the fields that the bodies of `create_secret` and `update_secret` have in common.
fn change(object: &mut Object<'_>, errors: &mut FieldErrors) -> SecretPatch {
    let name = object.string("name", 1..=MAX_NAME_CHARS, errors);
    let value = object.string("value", 1..=MAX_VALUE_CHARS, errors).map(SecretString::from);
    let host = |text: &str| text.parse::<HostPattern>().map_err(|error| error.to_string());
    let allowed_hosts = object.parsed_list("allowed_hosts", MAX_ALLOWED_HOSTS, host, errors);
    let location = |text: &str| {
        Inject::parse(text)
            .ok_or_else(|| format!("must be one of: `{}`", Inject::ALL.map(Inject::as_str).join("`, `")))
    };
    let inject = object.parsed_list("inject", 2 * Inject::ALL.len(), location, errors);
    if inject.as_ref().is_some_and(Vec::is_empty) {
        errors.add(
            "inject",
            "must name at least one part of a request, for example `header`; to stop sending the value, set `allowed_hosts` to `[]`",
        );
    }
    SecretPatch { name, value, allowed_hosts, inject }
}

fn parse_create(body: &Value) -> Result<NewSecret, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    object.require("name", &mut errors);
    object.require("value", &mut errors);
    let SecretPatch { name, value, allowed_hosts, inject } = change(&mut object, &mut errors);
    let secret_id = object.parsed("secret_id", &mut errors);
    object.finish(&mut errors);
    errors.check()?;
    let (Some(name), Some(value)) = (name, value) else { return Err(Error::invalid(Vec::new())) };
    let allowed_hosts = allowed_hosts.unwrap_or_default();
    let inject = inject.unwrap_or_else(|| Inject::DEFAULT.to_vec());
    Ok(NewSecret { secret_id, name, value, allowed_hosts, inject })
}

fn parse_update(body: &Value) -> Result<SecretPatch, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let change = change(&mut object, &mut errors);
    object.finish(&mut errors);
    errors.check()?;
    Ok(change)
}

/// Create a secret.
///
/// The agent never sees the value of a secret. Its programs send a placeholder, which is replaced by the value in
/// requests to the allowed hosts.
#[utoipa::path(post, path = "/v1/secrets", operation_id = "create_secret", tag = "secrets",
    request_body = CreateSecret,
    responses((status = 201, body = Secret), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn create_secret(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    query: Query,
    claim: OptionalClaim,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Secret>), Failure> {
    query.finish()?;
    caller.require(Scope::SecretsWrite)?;
    let new = parse_create(&body)?;
    let reply = claim.reply(StatusCode::CREATED);
    Ok((StatusCode::CREATED, Json(secrets::create(&state.app, &caller, new, reply).await?)))
}

/// List the account's secrets, newest first, without their values.
///
/// Requires the scope `secrets:write`, like all operations on secrets.
#[utoipa::path(get, path = "/v1/secrets", operation_id = "list_secrets", tag = "secrets",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<Secret>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
pub(crate) async fn list_secrets(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<Secret>>, Failure> {
    let page = query.page::<secrets::Cursor>();
    query.finish()?;
    Ok(Json(secrets::list(&state.app, &caller, page).await?))
}

/// Change a secret. The change takes effect in every deployment that uses the secret.
#[utoipa::path(patch, path = "/v1/secrets/{secret_id}", operation_id = "update_secret", tag = "secrets",
    params(("secret_id" = SecretId, Path)), request_body = UpdateSecret,
    responses((status = 200, body = Secret), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn update_secret(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<Secret>, Failure> {
    query.finish()?;
    caller.require(Scope::SecretsWrite)?;
    let secret_id = path.id("secret", "secret_id")?;
    let change = parse_update(&body)?;
    Ok(Json(secrets::update(&state.app, &caller, secret_id, change).await?))
}

/// A deleted secret.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedSecret {
    secret_id: SecretId,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Delete a secret. If a deployment still uses the secret, the response is 409.
#[utoipa::path(delete, path = "/v1/secrets/{secret_id}", operation_id = "delete_secret", tag = "secrets",
    params(("secret_id" = SecretId, Path)),
    responses((status = 200, body = DeletedSecret), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn delete_secret(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
) -> Result<Json<DeletedSecret>, Failure> {
    query.finish()?;
    caller.require(Scope::SecretsWrite)?;
    let secret_id: SecretId = path.id("secret", "secret_id")?;
    secrets::delete(&state.app, &caller, secret_id.clone()).await?;
    Ok(Json(DeletedSecret { secret_id, status: "deleted" }))
}
