//! Browser tokens: short-lived keys that a backend hands to its visitors' browsers.

use herm_crypto::{ApiKey, KeyKind};
use herm_store::keys;
use herm_types::key::{KeyInfo, Scope};
use herm_types::{DeploymentId, Error as Refusal, ErrorCode, KeyId};

use crate::idempotency::Reply;
use crate::keys::{hash, insert_new};
use crate::{App, Caller, Error};

/// A token to be minted; every value is checked already.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub deployment_id: DeploymentId,
    /// Of [`Scope::OF_TOKENS`].
    pub scopes: Vec<Scope>,
    pub lifetime_ms: i64,
}

/// Mints a token for one deployment; its text is given this once. It lives no longer than the key that mints it.
///
/// # Errors
/// `forbidden`: the caller lacks a scope that it would give, or is a token itself.
pub async fn create(
    app: &App,
    caller: &Caller,
    new: NewToken,
    reply: Reply<(ApiKey, KeyInfo)>,
) -> Result<(ApiKey, KeyInfo), Error> {
    if caller.key().is_token() {
        let message = "A browser token cannot mint another; let your backend do it, with its API key.";
        return Err(Refusal::new(ErrorCode::Forbidden, message).into());
    }
    for scope in &new.scopes {
        caller.require(*scope)?;
    }
    app.refuse_while_draining()?;
    let key = app.sealer.new_key(KeyKind::Browser);
    let (caller, key_id, hash) = (caller.clone(), app.ids.next::<KeyId>(), hash(&key));
    app.transaction("create_token", reply, move |tx| {
        Box::pin(async move {
            caller.deployment(tx, new.deployment_id).await?;
            keys::remove_expired_tokens(tx).await?;
            let created_at = tx.now();
            let end = created_at.plus_ms(new.lifetime_ms);
            let parent = caller.key();
            let info = KeyInfo {
                key_id,
                account_id: parent.account_id,
                name: "browser token".to_owned(),
                scopes: new.scopes,
                deployment_id: Some(new.deployment_id),
                customer_id: None,
                parent_key_id: Some(parent.key_id),
                created_at,
                expires_at: Some(parent.expires_at.map_or(end, |parents_end| end.min(parents_end))),
                revoked_at: None,
            };
            Ok((key, insert_new(tx, info, &hash).await?))
        })
    })
    .await
}
