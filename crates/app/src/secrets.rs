//! Secrets: values that an agent can use and never sees. They are encrypted before they reach the database, each bound
//! to its row, and no use case of the API gives one back.

use std::collections::{BTreeMap, BTreeSet};

use herm_crypto::Cell;
use herm_store::placeholders::{self, BoundSecret};
use herm_store::{Store, secrets};
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::secret::{HostPattern, Inject, Secret};
use herm_types::{AccountId, DeploymentId, Error as Refusal, ErrorCode, SecretId};
use secrecy::{ExposeSecret as _, SecretString};

use crate::idempotency::Reply;
use crate::{App, Caller, Error, Sealer};

pub use herm_store::secrets::Cursor;

/// Secrets of one account, at most.
const MAX_SECRETS: i64 = 10_000;
/// Deployments that are named when a secret cannot be deleted for them.
const MAX_USERS_NAMED: u32 = 3;

/// A secret to be made; every value is checked already.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// `None`: one is made.
    pub secret_id: Option<SecretId>,
    pub name: String,
    pub value: SecretString,
    pub allowed_hosts: Vec<HostPattern>,
    pub inject: Vec<Inject>,
}

/// What is to be changed of a secret; what is `None` is kept.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub value: Option<SecretString>,
    pub allowed_hosts: Option<Vec<HostPattern>>,
    pub inject: Option<Vec<Inject>>,
}

/// Whether the caller's key reaches the account as a whole, to which secrets belong: one that is limited to a
/// deployment or a customer does not.
fn reaches_account(caller: &Caller) -> bool {
    caller.key().deployment_id.is_none() && caller.key().customer_id.is_none()
}

fn missing(secret_id: &SecretId) -> Refusal {
    Refusal::not_found("secret", secret_id.as_str())
}

/// Adds a secret to the caller's account.
///
/// # Errors
/// `conflict`: the account has one with this id.
pub async fn create(
    app: &App,
    caller: &Caller,
    new: NewSecret,
    reply: Reply<Secret>,
) -> Result<Secret, Error> {
    caller.require(Scope::SecretsWrite)?;
    if !reaches_account(caller) {
        let message = "This API key is limited to a part of the account; secrets belong to the whole of it. Use a \
                       key without a limit.";
        return Err(Refusal::new(ErrorCode::Forbidden, message).into());
    }
    app.refuse_while_draining()?;
    let account_id = caller.account_id();
    let secret_id = new.secret_id.unwrap_or_else(|| SecretId::generate(&app.ids));
    let sealed = seal(&app.sealer, account_id, &secret_id, &new.value)?;
    app.transaction("create_secret", reply, move |tx| {
        Box::pin(async move {
            if secrets::count(tx, account_id).await? >= MAX_SECRETS {
                let message = format!("This account has {MAX_SECRETS} secrets; delete some first.");
                return Err(Refusal::new(ErrorCode::Conflict, message).into());
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
                    "This account has a secret {} already; change it with PATCH, or choose another id.",
                    secret.secret_id
                );
                return Err(Refusal::new(ErrorCode::Conflict, message).into());
            }
            Ok(secret)
        })
    })
    .await
}

/// A page of the account's secrets, newest first.
pub async fn list(app: &App, caller: &Caller, page: PageRequest) -> Result<Page<Secret>, Error> {
    caller.require(Scope::SecretsWrite)?;
    if !reaches_account(caller) {
        return Ok(Page { data: Vec::new(), next_cursor: None });
    }
    let (account_id, limit) = (caller.account_id(), page.limit);
    let rows = app
        .store
        .read("list_secrets", move |tx| Box::pin(async move { secrets::page(tx, account_id, &page).await }))
        .await?;
    Ok(Page::from_rows(rows, limit, |secret| Cursor::of(secret).to_string()))
}

/// Changes a secret; a new value takes the place of the old one at the next use. A change that changes nothing leaves
/// it as it is.
pub async fn update(
    app: &App,
    caller: &Caller,
    secret_id: SecretId,
    change: Change,
) -> Result<Secret, Error> {
    caller.require(Scope::SecretsWrite)?;
    if !reaches_account(caller) {
        return Err(missing(&secret_id).into());
    }
    let account_id = caller.account_id();
    let sealed =
        change.value.as_ref().map(|value| seal(&app.sealer, account_id, &secret_id, value)).transpose()?;
    app.store
        .transaction("update_secret", move |tx| {
            Box::pin(async move {
                let found = secrets::find_and_lock(tx, account_id, &secret_id).await?;
                let before = found.ok_or_else(|| missing(&secret_id))?;
                let mut after = before.clone();
                after.name = change.name.unwrap_or(after.name);
                after.allowed_hosts = change.allowed_hosts.unwrap_or(after.allowed_hosts);
                after.inject = change.inject.unwrap_or(after.inject);
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

/// Deletes a secret that no deployment uses.
///
/// # Errors
/// `conflict`, naming deployments that use it.
pub async fn delete(app: &App, caller: &Caller, secret_id: SecretId) -> Result<(), Error> {
    caller.require(Scope::SecretsWrite)?;
    if !reaches_account(caller) {
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
                        "{secret_id} is used by {named}{more}; take it out of their secrets first, or rotate its value."
                    );
                    return Err(Refusal::new(ErrorCode::Conflict, message).into());
                }
                Ok(secrets::delete(tx, account_id, &secret_id).await?)
            })
        })
        .await
}

/// A secret and its value, for whoever puts it into a request on the way out; nobody else may ask. `None`: the account
/// has no such secret.
///
/// # Errors
/// The stored value is damaged, or was sealed with another master key.
pub async fn open(
    app: &App,
    account_id: AccountId,
    secret_id: &SecretId,
) -> Result<Option<(Secret, SecretString)>, Error> {
    let wanted = secret_id.clone();
    let found = app
        .store
        .read("open_secret", move |tx| {
            Box::pin(async move { secrets::find_sealed(tx, account_id, &wanted).await })
        })
        .await?;
    let Some((secret, sealed)) = found else { return Ok(None) };
    let row = row(account_id, secret_id);
    let value = app.sealer.open(cell(&row), &sealed)?;
    let text = std::str::from_utf8(&value)
        .map_err(|_| herm_store::Error::Corrupt(format!("the value of {secret_id} is not text")))?;
    Ok(Some((secret, SecretString::from(text))))
}

/// The value of a secret that the deployment uses now, for whoever puts it into a request on the way out; nobody else may
/// ask. `None`: it does not use the secret (any more), or the secret is not what it was known as: a value that was given
/// together with other hosts is not for the old ones.
///
/// # Errors
/// The stored value is damaged, or was sealed with another master key.
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
                if !placeholders::bound(tx, deployment_id).await?.contains(&known) {
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
        .map_err(|_| herm_store::Error::Corrupt(format!("the value of {secret_id} is not text")))?;
    Ok(Some(SecretString::from(text)))
}

/// What is known of a deployment's placeholders: public, and of no use anywhere but in its sandbox.
const PLACEHOLDER_PREFIX: &str = "herm_ph_";

/// What stands for these secrets in the deployment's sandbox, by secret; made where there is none yet. Those that the
/// deployment does not use (any more) are left out.
pub async fn placeholders(
    store: &Store,
    sealer: &Sealer,
    deployment_id: DeploymentId,
    secret_ids: BTreeSet<SecretId>,
) -> Result<BTreeMap<SecretId, String>, herm_store::Error> {
    let bound = store.read("read_placeholders", move |tx| Box::pin(placeholders::bound(tx, deployment_id)));
    let (mut made, mut missing) = (BTreeMap::new(), Vec::new());
    for secret in bound.await?.into_iter().filter(|secret| secret_ids.contains(&secret.secret_id)) {
        match secret.placeholder {
            Some(placeholder) => drop(made.insert(secret.secret_id, placeholder)),
            None => missing.push((secret.secret_id, format!("{PLACEHOLDER_PREFIX}{}", sealer.nonce()))),
        }
    }
    if missing.is_empty() {
        return Ok(made);
    }
    let new = store.transaction("make_placeholders", move |tx| {
        Box::pin(async move {
            let mut new = Vec::new();
            for (secret_id, placeholder) in missing {
                let made = placeholders::make(tx, deployment_id, &secret_id, &placeholder).await?;
                new.extend(made.map(|placeholder| (secret_id, placeholder)));
            }
            Ok::<_, herm_store::Error>(new)
        })
    });
    made.extend(new.await?);
    Ok(made)
}

/// What is stored of a secret's value.
///
/// # Errors
/// The value is longer than what is sealed.
pub fn seal(
    sealer: &Sealer,
    account_id: AccountId,
    secret_id: &SecretId,
    value: &SecretString,
) -> Result<String, Error> {
    let row = row(account_id, secret_id);
    Ok(sealer.seal(cell(&row), value.expose_secret().as_bytes())?)
}

/// The row's primary key as one text: an account's id has no `/`, so no two rows read the same.
fn row(account_id: AccountId, secret_id: &SecretId) -> String {
    format!("{account_id}/{secret_id}")
}

fn cell(row: &str) -> Cell<'_> {
    Cell { table: "secrets", row, column: "value" }
}
