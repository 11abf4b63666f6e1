//! `/v1/secrets`. No answer holds a value.

use axum::Json;
use axum::extract::State;
use herm_app::secrets::{self, Change, NewSecret};
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
use crate::idempotency::Once;
use crate::input::{Faults, IdPath, JsonBody, Object, Query};
use crate::router::Shared;

const MAX_NAME_CHARS: usize = 256;
/// Characters of a value: a credential, the longest being keys and certificates as PEM; not a file.
const MAX_VALUE_CHARS: usize = 32_768;
/// Hosts that one secret may be sent to.
const MAX_ALLOWED_HOSTS: usize = 50;

/// The body of a create.
#[derive(utoipa::ToSchema)]
#[schema(as = CreateSecret)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct CreateSecret {
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// Encrypted at rest, and given back by no operation.
    #[schema(min_length = 1, max_length = 32768, write_only)]
    value: String,
    /// Unique in the account; made if it is left out.
    secret_id: Option<SecretId>,
    /// The hosts that may be sent the value: `api.example.com`, `*.example.com` for all below, an address; with
    /// `:port` for that port alone. None: nobody is. Addresses that are private are refused at the connection unless
    /// the operator allows them.
    #[schema(max_items = 50)]
    allowed_hosts: Option<Vec<String>>,
    /// The parts of a request that the value may be put into.
    #[schema(min_items = 1, default = json!(["header"]))]
    inject: Option<Vec<Inject>>,
}

/// The body of an update: what is left out is kept, lists are replaced whole.
#[derive(utoipa::ToSchema)]
#[schema(as = UpdateSecret)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct UpdateSecret {
    #[schema(min_length = 1, max_length = 256)]
    name: Option<String>,
    /// Takes the place of the old one from the next request on.
    #[schema(min_length = 1, max_length = 32768, write_only)]
    value: Option<String>,
    /// `[]`: nobody is sent the value.
    #[schema(max_items = 50)]
    allowed_hosts: Option<Vec<String>>,
    #[schema(min_items = 1)]
    inject: Option<Vec<Inject>>,
}

/// The fields that a create and an update share.
fn change(object: &mut Object<'_>, faults: &mut Faults) -> Change {
    let name = object.text("name", 1..=MAX_NAME_CHARS, faults);
    let value = object.text("value", 1..=MAX_VALUE_CHARS, faults).map(SecretString::from);
    let host = |text: &str| text.parse::<HostPattern>().map_err(|error| error.to_string());
    let allowed_hosts = object.list("allowed_hosts", MAX_ALLOWED_HOSTS, host, faults);
    let place = |text: &str| {
        Inject::parse(text)
            .ok_or_else(|| format!("must be one of: {}", Inject::ALL.map(Inject::as_str).join(", ")))
    };
    let inject = object.list("inject", 2 * Inject::ALL.len(), place, faults);
    if inject.as_ref().is_some_and(Vec::is_empty) {
        faults.add("inject", "must name at least one part; to send the value nowhere, empty allowed_hosts");
    }
    Change { name, value, allowed_hosts, inject }
}

fn parse_create(body: &Value) -> Result<NewSecret, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    object.require("name", &mut faults);
    object.require("value", &mut faults);
    let Change { name, value, allowed_hosts, inject } = change(&mut object, &mut faults);
    let secret_id = object.parsed("secret_id", &mut faults);
    object.finish(&mut faults);
    faults.check()?;
    let (Some(name), Some(value)) = (name, value) else { return Err(Error::invalid(Vec::new())) };
    let allowed_hosts = allowed_hosts.unwrap_or_default();
    let inject = inject.unwrap_or_else(|| Inject::DEFAULT.to_vec());
    Ok(NewSecret { secret_id, name, value, allowed_hosts, inject })
}

fn parse_update(body: &Value) -> Result<Change, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let change = change(&mut object, &mut faults);
    object.finish(&mut faults);
    faults.check()?;
    Ok(change)
}

/// Add a secret: a value that an agent's requests to certain hosts can carry, and that the agent itself never sees.
#[utoipa::path(post, path = "/v1/secrets", operation_id = "create_secret", tag = "secrets",
    request_body = CreateSecret,
    responses((status = 201, body = Secret), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn create_secret(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    query: Query,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Secret>), Failure> {
    query.finish()?;
    caller.require(Scope::SecretsWrite)?;
    let new = parse_create(&body)?;
    let reply = once.reply(StatusCode::CREATED);
    Ok((StatusCode::CREATED, Json(secrets::create(&shared.app, &caller, new, reply).await?)))
}

/// List the account's secrets, newest first, without their values. Needs `secrets:write`, as every operation on them.
#[utoipa::path(get, path = "/v1/secrets", operation_id = "list_secrets", tag = "secrets",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<Secret>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
pub(crate) async fn list_secrets(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<Secret>>, Failure> {
    let page = query.page::<secrets::Cursor>();
    query.finish()?;
    Ok(Json(secrets::list(&shared.app, &caller, page).await?))
}

/// Change a secret; a new `value` rotates it for every deployment that uses it.
#[utoipa::path(patch, path = "/v1/secrets/{secret_id}", operation_id = "update_secret", tag = "secrets",
    params(("secret_id" = SecretId, Path)), request_body = UpdateSecret,
    responses((status = 200, body = Secret), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn update_secret(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<Secret>, Failure> {
    query.finish()?;
    caller.require(Scope::SecretsWrite)?;
    let secret_id = path.id("secret", "secret_id")?;
    let change = parse_update(&body)?;
    Ok(Json(secrets::update(&shared.app, &caller, secret_id, change).await?))
}

/// A deleted secret.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedSecret {
    secret_id: SecretId,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Delete a secret that no deployment uses.
#[utoipa::path(delete, path = "/v1/secrets/{secret_id}", operation_id = "delete_secret", tag = "secrets",
    params(("secret_id" = SecretId, Path)),
    responses((status = 200, body = DeletedSecret), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn delete_secret(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
) -> Result<Json<DeletedSecret>, Failure> {
    query.finish()?;
    caller.require(Scope::SecretsWrite)?;
    let secret_id: SecretId = path.id("secret", "secret_id")?;
    secrets::delete(&shared.app, &caller, secret_id.clone()).await?;
    Ok(Json(DeletedSecret { secret_id, status: "deleted" }))
}
