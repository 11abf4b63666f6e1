//! Keys as an account's own admins handle them: none reaches further than the key that made it.

use herm_crypto::{ApiKey, KeyKind};
use herm_store::keys::{self, Reach};
use herm_types::key::{KeyInfo, Scope};
use herm_types::paging::{Page, PageRequest};
use herm_types::{DeploymentId, Error as Refusal, ErrorCode, Fault, KeyId, Timestamp};

use super::insert_new;
use crate::idempotency::Reply;
use crate::{App, Caller, Error};

/// Keys of one account that are not revoked, at most. More are a sign of a program that makes one for each visitor;
/// browser tokens are for that.
const MAX_KEYS: i64 = 10_000;

/// A key to be made in the caller's account; every value is checked already.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub name: String,
    pub scopes: Vec<Scope>,
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
    pub expires_at: Option<Timestamp>,
}

/// Makes a key; its text is given this once.
///
/// # Errors
/// `forbidden`: the caller is no admin, or the key would reach further than the caller's. `not_found`: it is to be
/// limited to a deployment that is not within reach.
pub async fn create(
    app: &App,
    caller: &Caller,
    new: NewKey,
    reply: Reply<(ApiKey, KeyInfo)>,
) -> Result<(ApiKey, KeyInfo), Error> {
    caller.require(Scope::Admin)?;
    may_hand_on(caller, &new)?;
    app.refuse_while_draining()?;
    let key = app.sealer.new_key(KeyKind::Secret);
    let (caller, key_id, hash) = (caller.clone(), app.ids.next::<KeyId>(), super::hash(&key));
    app.transaction("create_key", reply, move |tx| {
        Box::pin(async move {
            if let Some(deployment_id) = new.deployment_id {
                let deployment = caller.deployment(tx, deployment_id).await?;
                if new.customer_id.as_ref().is_some_and(|limit| *limit != deployment.customer_id) {
                    let message = format!("is not the customer of {deployment_id}; leave one of them out");
                    return Err(Refusal::invalid(vec![Fault::new("customer_id", message)]).into());
                }
            }
            if keys::count(tx, caller.account_id()).await? >= MAX_KEYS {
                let message = format!(
                    "This account has {MAX_KEYS} keys; revoke some, or mint browser tokens for visitors."
                );
                return Err(Refusal::new(ErrorCode::Conflict, message).into());
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

/// Whether the new key stays within the scopes, the limits and the life of the caller's.
fn may_hand_on(caller: &Caller, new: &NewKey) -> Result<(), Refusal> {
    let own = caller.key();
    for scope in &new.scopes {
        caller.require(*scope)?;
    }
    let too_wide = |limit: String| {
        let message = format!("Your key is limited to {limit}; give the new key the same limit.");
        Err(Refusal::new(ErrorCode::Forbidden, message))
    };
    if let Some(limit) = own.deployment_id
        && new.deployment_id != Some(limit)
    {
        return too_wide(format!("deployment_id {limit}"));
    }
    // A deployment has one customer for good: a limit to it, which is looked up, is one to the customer too.
    if let Some(limit) = &own.customer_id
        && new.deployment_id.is_none()
        && new.customer_id.as_ref() != Some(limit)
    {
        return too_wide(format!("customer_id {limit:?}"));
    }
    if let Some(end) = own.expires_at
        && new.expires_at.is_none_or(|wanted| wanted > end)
    {
        let message = format!("Your key expires at {end}; give the new key expires_at, no later than that.");
        return Err(Refusal::new(ErrorCode::Forbidden, message));
    }
    Ok(())
}

/// A page of the keys within the caller's reach, newest first, revoked and expired ones among them.
pub async fn list(app: &App, caller: &Caller, page: PageRequest) -> Result<Page<KeyInfo>, Error> {
    caller.require(Scope::Admin)?;
    let (reach, limit) = (reach_of(caller), page.limit);
    let rows = app
        .store
        .read("list_keys_of_account", move |tx| Box::pin(async move { keys::page(tx, &reach, &page).await }))
        .await?;
    Ok(Page::from_rows(rows, limit, |key| key.key_id.to_string()))
}

/// Revokes a key or a token: from the commit on it opens nothing, and the streams that it and its tokens have open
/// end. One that is revoked already stays so.
pub async fn revoke(app: &App, caller: &Caller, key_id: KeyId) -> Result<(), Error> {
    caller.require(Scope::Admin)?;
    let reach = reach_of(caller);
    app.store
        .transaction("revoke_key", move |tx| {
            Box::pin(async move {
                if keys::find_within(tx, &reach, key_id).await?.is_none() {
                    return Err(Refusal::not_found("key", &key_id.to_string()).into());
                }
                keys::revoke(tx, key_id).await?;
                Ok::<_, Error>(())
            })
        })
        .await?;
    app.key_watch.revoked(key_id);
    Ok(())
}

fn reach_of(caller: &Caller) -> Reach {
    let own = caller.key();
    Reach {
        account_id: own.account_id,
        deployment_id: own.deployment_id,
        customer_id: own.customer_id.clone(),
    }
}
