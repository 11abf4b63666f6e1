//! Browser tokens: short-lived keys that a backend creates for the browsers of its users.

use herm_crypto::{ApiKey, KeyKind};
use herm_store::keys;
use herm_types::key::{KeyInfo, Scope};
use herm_types::{DeploymentId, Error as ApiError, ErrorCode, KeyId};

use crate::idempotency::Reply;
use crate::keys::{hash, insert_new};
use crate::{App, Caller, Error};

/// The properties of a browser token to be created. Every field has been validated.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub deployment_id: DeploymentId,
    /// The scopes of the token, a subset of [`Scope::FOR_BROWSER_TOKENS`].
    pub scopes: Vec<Scope>,
    pub lifetime_ms: i64,
}

/// Creates a browser token for one deployment. The token expires no later than the key that creates it. This
/// is the only time that the text of the token is returned.
///
/// # Errors
/// Returns `forbidden` if the caller lacks one of the requested scopes or is a browser token.
pub async fn create(
    app: &App,
    caller: &Caller,
    new: NewToken,
    reply: Reply<(ApiKey, KeyInfo)>,
) -> Result<(ApiKey, KeyInfo), Error> {
    if caller.key().is_token() {
        let message =
            "A browser token cannot create browser tokens; create them in your backend with an API key.";
        return Err(ApiError::new(ErrorCode::Forbidden, message).into());
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
