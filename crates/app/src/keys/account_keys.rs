//! API keys, managed by admins of an account. A new key never has more rights than the key that creates it.

use herm_crypto::{ApiKey, KeyKind};
use herm_store::keys::{self, Reach};
use herm_types::key::{KeyInfo, Scope};
use herm_types::paging::{Page, PageRequest};
use herm_types::{DeploymentId, Error as ApiError, ErrorCode, FieldError, KeyId, Timestamp};

use super::insert_new;
use crate::idempotency::Reply;
use crate::{App, Caller, Error};

/// The maximum number of unrevoked API keys of an account. Beyond it, no key can be created. A program that
/// reaches the limit probably creates an API key for each visitor; it should create browser tokens instead.
const MAX_KEYS: i64 = 10_000;

/// The properties of a key to be created in the caller's account. Every field has been validated.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub name: String,
    pub scopes: Vec<Scope>,
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
    pub expires_at: Option<Timestamp>,
}

/// Creates a key. This is the only time that the text of the key is returned.
///
/// # Errors
/// Returns `forbidden` if the caller is not an admin or the new key would have more rights than the caller's
/// key. Returns `not_found` if the new key is restricted to a deployment that the caller may not access.
pub async fn create(
    app: &App,
    caller: &Caller,
    new: NewKey,
    reply: Reply<(ApiKey, KeyInfo)>,
) -> Result<(ApiKey, KeyInfo), Error> {
    caller.require(Scope::Admin)?;
    check_delegation(caller, &new)?;
    app.refuse_while_draining()?;
    let key = app.sealer.new_key(KeyKind::Secret);
    let (caller, key_id, hash) = (caller.clone(), app.ids.next::<KeyId>(), super::hash(&key));
    app.transaction("create_key", reply, move |tx| {
        Box::pin(async move {
            if let Some(deployment_id) = new.deployment_id {
                let deployment = caller.deployment(tx, deployment_id).await?;
                if new.customer_id.as_ref().is_some_and(|limit| *limit != deployment.customer_id) {
                    let message = format!("must be the customer of {deployment_id}; omit either `customer_id` or `deployment_id`");
                    return Err(ApiError::invalid(vec![FieldError::new("customer_id", message)]).into());
                }
            }
            if keys::count(tx, caller.account_id()).await? >= MAX_KEYS {
                let message = format!(
                    "This account has the maximum of {MAX_KEYS} keys; revoke some, or create browser tokens for visitors."
                );
                return Err(ApiError::new(ErrorCode::Conflict, message).into());
            }
            let info = KeyInfo {
                key_id,
                account_id: caller.account_id(),
                name: new.name,
                scopes: new.scopes,
                deployment_id: new.deployment_id,
                customer_id: new.customer_id,
                parent_key_id: None,
                created_at: tx.now(),
                expires_at: new.expires_at,
                revoked_at: None,
            };
            Ok((key, insert_new(tx, info, &hash).await?))
        })
    })
    .await
}

/// Checks that the new key has no more scopes, no wider restriction and no later expiry than the caller's
/// key.
fn check_delegation(caller: &Caller, new: &NewKey) -> Result<(), ApiError> {
    let own = caller.key();
    for scope in &new.scopes {
        caller.require(*scope)?;
    }
    let too_broad = |restriction: String| {
        let message =
            format!("This key is restricted to {restriction}; the new key needs the same restriction.");
        Err(ApiError::new(ErrorCode::Forbidden, message))
    };
    if let Some(limit) = own.deployment_id
        && new.deployment_id != Some(limit)
    {
        return too_broad(format!("deployment {limit}"));
    }
    // If the new key is restricted to a deployment, its customer need not be checked here: `create` fails if
    // the caller may not access that deployment, and a deployment's customer never changes.
    if let Some(limit) = &own.customer_id
        && new.deployment_id.is_none()
        && new.customer_id.as_ref() != Some(limit)
    {
        return too_broad(format!("customer {limit}"));
    }
    if let Some(end) = own.expires_at
        && new.expires_at.is_none_or(|requested| requested > end)
    {
        let message =
            format!("This key expires at {end}; set `expires_at` of the new key to that time or earlier.");
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    Ok(())
}

/// Returns a page of the keys that the caller may access, newest first, including revoked and expired ones.
pub async fn list(app: &App, caller: &Caller, page: PageRequest) -> Result<Page<KeyInfo>, Error> {
    caller.require(Scope::Admin)?;
    let (restriction, limit) = (restriction_of(caller), page.limit);
    let rows = app
        .store
        .read("list_keys_of_account", move |tx| {
            Box::pin(async move { keys::page(tx, &restriction, &page).await })
        })
        .await?;
    Ok(Page::from_rows(rows, limit, |key| key.key_id.to_string()))
}

/// Revokes an API key or a browser token. After the commit, the key is rejected. Its event streams end, and
/// so do those of the browser tokens that it created. Has no effect if the key is already revoked.
pub async fn revoke(app: &App, caller: &Caller, key_id: KeyId) -> Result<(), Error> {
    caller.require(Scope::Admin)?;
    let restriction = restriction_of(caller);
    app.store
        .transaction("revoke_key", move |tx| {
            Box::pin(async move {
                if keys::find_within(tx, &restriction, key_id).await?.is_none() {
                    return Err(ApiError::not_found("key", &key_id.to_string()).into());
                }
                keys::revoke(tx, key_id).await?;
                Ok::<_, Error>(())
            })
        })
        .await?;
    app.key_watch.notify_revoked(key_id);
    Ok(())
}

fn restriction_of(caller: &Caller) -> Reach {
    let own = caller.key();
    Reach {
        account_id: own.account_id,
        deployment_id: own.deployment_id,
        customer_id: own.customer_id.clone(),
    }
}
