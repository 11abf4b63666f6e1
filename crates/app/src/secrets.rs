//! Secrets: values that an agent can use but not see. A value is encrypted before it reaches the database.
//! Its ciphertext cannot be decrypted if it is copied to another row. The API never returns a value.

use std::collections::{BTreeMap, BTreeSet};

use herm_crypto::Cell;
use herm_store::placeholders::{self, BoundSecret};
use herm_store::{Store, secrets};
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::secret::{HostPattern, Inject, Secret};
use herm_types::{AccountId, DeploymentId, Error as ApiError, ErrorCode, SecretId};
use secrecy::{ExposeSecret as _, SecretString};

use crate::idempotency::Reply;
use crate::{App, Caller, Error, Sealer};

pub use herm_store::secrets::Cursor;

/// The maximum number of secrets of an account. Beyond it, no secret can be created.
const MAX_SECRETS: i64 = 10_000;
/// The maximum number of deployments that are named in the error message when a secret cannot be deleted
/// because deployments still use it.
const MAX_USERS_NAMED: u32 = 3;

/// The properties of a secret to be created. Every field has been validated.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// The id of the secret. With `None`, an id is generated.
    pub secret_id: Option<SecretId>,
    pub name: String,
    pub value: SecretString,
    pub allowed_hosts: Vec<HostPattern>,
    pub inject: Vec<Inject>,
}

/// A patch of a secret. A field that is `None` leaves the stored value unchanged.
#[derive(Clone, Debug, Default)]
pub struct SecretPatch {
    pub name: Option<String>,
    pub value: Option<SecretString>,
    pub allowed_hosts: Option<Vec<HostPattern>>,
    pub inject: Option<Vec<Inject>>,
}

/// Returns true if the caller's key is not restricted to a deployment or customer. Secrets belong to the
/// whole account, so a restricted key cannot access them.
fn is_unrestricted(caller: &Caller) -> bool {
    caller.key().deployment_id.is_none() && caller.key().customer_id.is_none()
}

fn missing(secret_id: &SecretId) -> ApiError {
    ApiError::not_found("secret", secret_id.as_str())
}

/// Creates a secret in the caller's account.
///
/// # Errors
/// Returns `conflict` if the account already has a secret with this id.
pub async fn create(
    app: &App,
    caller: &Caller,
    new: NewSecret,
    reply: Reply<Secret>,
) -> Result<Secret, Error> {
    caller.require(Scope::SecretsWrite)?;
    if !is_unrestricted(caller) {
        let message = "This key is restricted to one customer or deployment. Secrets belong to the whole account; \
                       use an unrestricted key.";
        return Err(ApiError::new(ErrorCode::Forbidden, message).into());
    }
    app.refuse_while_draining()?;
    let account_id = caller.account_id();
    let secret_id = new.secret_id.unwrap_or_else(|| SecretId::generate(&app.ids));
    let sealed = seal(&app.sealer, account_id, &secret_id, &new.value)?;
    app.transaction("create_secret", reply, move |tx| {
        Box::pin(async move {
            if secrets::count(tx, account_id).await? >= MAX_SECRETS {
                let message =
                    format!("This account has the maximum of {MAX_SECRETS} secrets; delete some first.");
                return Err(ApiError::new(ErrorCode::Conflict, message).into());
            }
            let now = tx.now();
            let secret = Secret {
                secret_id,
                name: new.name,
                allowed_hosts: new.allowed_hosts,
                inject: new.inject,
                created_at: now,
                updated_at: now,
            };
            if !secrets::insert(tx, account_id, &secret, &sealed).await? {
                let message = format!(
                    "Secret {} already exists in this account; update it with PATCH, or choose another id.",
                    secret.secret_id
                );
                return Err(ApiError::new(ErrorCode::Conflict, message).into());
            }
            Ok(secret)
        })
    })
    .await
}

/// Returns a page of the account's secrets, newest first.
pub async fn list(app: &App, caller: &Caller, page: PageRequest) -> Result<Page<Secret>, Error> {
    caller.require(Scope::SecretsWrite)?;
    if !is_unrestricted(caller) {
        return Ok(Page { data: Vec::new(), next_cursor: None });
    }
    let (account_id, limit) = (caller.account_id(), page.limit);
    let rows = app
        .store
        .read("list_secrets", move |tx| Box::pin(async move { secrets::page(tx, account_id, &page).await }))
        .await?;
    Ok(Page::from_rows(rows, limit, |secret| Cursor::of(secret).to_string()))
}

/// Updates a secret. A new value takes effect when the secret is next used. A patch without changes writes
/// nothing.
pub async fn update(
    app: &App,
    caller: &Caller,
    secret_id: SecretId,
    patch: SecretPatch,
) -> Result<Secret, Error> {
    caller.require(Scope::SecretsWrite)?;
    if !is_unrestricted(caller) {
        return Err(missing(&secret_id).into());
    }
    let account_id = caller.account_id();
    let sealed =
        patch.value.as_ref().map(|value| seal(&app.sealer, account_id, &secret_id, value)).transpose()?;
    app.store
        .transaction("update_secret", move |tx| {
            Box::pin(async move {
                let found = secrets::find_and_lock(tx, account_id, &secret_id).await?;
                let before = found.ok_or_else(|| missing(&secret_id))?;
                let mut after = before.clone();
                after.name = patch.name.unwrap_or(after.name);
                after.allowed_hosts = patch.allowed_hosts.unwrap_or(after.allowed_hosts);
                after.inject = patch.inject.unwrap_or(after.inject);
                if sealed.is_none() && after == before {
                    return Ok::<_, Error>(before);
                }
                after.updated_at = tx.now();
                secrets::update(tx, account_id, &after, sealed).await?;
                Ok(after)
            })
        })
        .await
}

/// Deletes a secret, if no deployment uses it.
///
/// # Errors
/// Returns `conflict` if deployments use the secret. The message names some of them.
pub async fn delete(app: &App, caller: &Caller, secret_id: SecretId) -> Result<(), Error> {
    caller.require(Scope::SecretsWrite)?;
    if !is_unrestricted(caller) {
        return Err(missing(&secret_id).into());
    }
    let account_id = caller.account_id();
    app.store
        .transaction("delete_secret", move |tx| {
            Box::pin(async move {
                if secrets::find_and_lock(tx, account_id, &secret_id).await?.is_none() {
                    return Err(missing(&secret_id).into());
                }
                let users = secrets::users(tx, account_id, &secret_id, MAX_USERS_NAMED + 1).await?;
                if !users.is_empty() {
                    let shown = users.iter().take(MAX_USERS_NAMED as usize);
                    let named = shown.map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    let more = if users.len() > MAX_USERS_NAMED as usize { " and more" } else { "" };
                    let message = format!(
                        "Secret {secret_id} is used by the deployments {named}{more}; remove it from their `secrets` first, or update its value instead of deleting it."
                    );
                    return Err(ApiError::new(ErrorCode::Conflict, message).into());
                }
                Ok(secrets::delete(tx, account_id, &secret_id).await?)
            })
        })
        .await
}

/// Returns the value of a secret that a deployment uses. Returns `None` if the deployment no longer uses the
/// secret. Also returns `None` if the secret has changed since `known` was read, because a new value may be
/// meant for other hosts. Only the code that inserts values into outgoing requests may call this function.
///
/// # Errors
/// Fails if the stored value is corrupted or was encrypted under a master key that the server does not have.
pub async fn open_for(
    store: &Store,
    sealer: &Sealer,
    deployment_id: DeploymentId,
    known: BoundSecret,
) -> Result<Option<SecretString>, Error> {
    let secret_id = known.secret_id.clone();
    let found = store
        .read("open_secret", move |tx| {
            Box::pin(async move {
                if !placeholders::bound_secrets(tx, deployment_id).await?.contains(&known) {
                    return Ok(None);
                }
                placeholders::find_sealed(tx, deployment_id, &known.secret_id).await
            })
        })
        .await?;
    let Some((account_id, sealed)) = found else { return Ok(None) };
    let row = row(account_id, &secret_id);
    let value = sealer.open(cell(&row), &sealed)?;
    let text = std::str::from_utf8(&value)
        .map_err(|_| herm_store::Error::Corrupt(format!("the value of secret {secret_id} is not UTF-8")))?;
    Ok(Some(SecretString::from(text)))
}

/// The prefix of placeholders. A placeholder is the random string that a sandbox holds in place of a secret's
/// value. It is not confidential, because it is useless outside its deployment's sandbox.
const PLACEHOLDER_PREFIX: &str = "herm_ph_";

/// Returns the placeholder that represents each of these secrets in the deployment's sandbox. Creates missing
/// placeholders. Secrets that the deployment no longer uses are omitted.
pub async fn placeholders(
    store: &Store,
    sealer: &Sealer,
    deployment_id: DeploymentId,
    secret_ids: BTreeSet<SecretId>,
) -> Result<BTreeMap<SecretId, String>, herm_store::Error> {
    let bound =
        store.read("read_placeholders", move |tx| Box::pin(placeholders::bound_secrets(tx, deployment_id)));
    let (mut result, mut missing) = (BTreeMap::new(), Vec::new());
    for secret in bound.await?.into_iter().filter(|secret| secret_ids.contains(&secret.secret_id)) {
        match secret.placeholder {
            Some(placeholder) => drop(result.insert(secret.secret_id, placeholder)),
            None => missing.push((secret.secret_id, format!("{PLACEHOLDER_PREFIX}{}", sealer.nonce()))),
        }
    }
    if missing.is_empty() {
        return Ok(result);
    }
    let new = store.transaction("make_placeholders", move |tx| {
        Box::pin(async move {
            let mut new = Vec::new();
            for (secret_id, placeholder) in missing {
                let inserted = placeholders::insert(tx, deployment_id, &secret_id, &placeholder).await?;
                new.extend(inserted.map(|placeholder| (secret_id, placeholder)));
            }
            Ok::<_, herm_store::Error>(new)
        })
    });
    result.extend(new.await?);
    Ok(result)
}

/// Encrypts the value of a secret for storage.
///
/// # Errors
/// Fails if the value exceeds the maximum length.
pub fn seal(
    sealer: &Sealer,
    account_id: AccountId,
    secret_id: &SecretId,
    value: &SecretString,
) -> Result<String, Error> {
    let row = row(account_id, secret_id);
    Ok(sealer.seal(cell(&row), value.expose_secret().as_bytes())?)
}

/// Returns the primary key of a secret's row as a string. An account id contains no `/`, so different rows
/// have different strings.
fn row(account_id: AccountId, secret_id: &SecretId) -> String {
    format!("{account_id}/{secret_id}")
}

fn cell(row: &str) -> Cell<'_> {
    Cell { table: "secrets", row, column: "value" }
}
