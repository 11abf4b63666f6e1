//! API keys: made, listed, revoked.

use std::fmt::Write as _;

use herm_crypto::{ApiKey, KeyKind};
use herm_store::{Store, accounts, keys};
use herm_types::key::{KeyInfo, Scope};
use herm_types::{DeploymentId, IdSource, KeyId, Rng, Timestamp};

use crate::Error;

/// The account that keys belong to when no other is named.
pub const DEFAULT_ACCOUNT: &str = "default";

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub name: String,
    /// By name; made if it is new.
    pub account: String,
    pub scopes: Vec<Scope>,
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
    pub expires_at: Option<Timestamp>,
}

/// Makes a key; its text is given this once.
pub async fn create(
    store: &Store,
    ids: &IdSource,
    rng: &dyn Rng,
    new: NewKey,
) -> Result<(ApiKey, KeyInfo), Error> {
    let key = ApiKey::generate(KeyKind::Secret, &mut |bytes: &mut [u8]| rng.fill(bytes));
    let info = insert(store, ids, &key, new).await?.ok_or_else(|| {
        Error::Store(herm_store::Error::Corrupt(
            "a new key was known already: the random source repeats".to_owned(),
        ))
    })?;
    Ok((key, info))
}

/// Makes a given key an admin key of the account `default`, unless it is known already, revoked or not.
pub async fn accept_bootstrap(store: &Store, ids: &IdSource, key: &ApiKey) -> Result<(), Error> {
    let new = NewKey {
        name: "bootstrap".to_owned(),
        account: DEFAULT_ACCOUNT.to_owned(),
        scopes: vec![Scope::Admin],
        deployment_id: None,
        customer_id: None,
        expires_at: None,
    };
    insert(store, ids, key, new).await?;
    Ok(())
}

async fn insert(store: &Store, ids: &IdSource, key: &ApiKey, new: NewKey) -> Result<Option<KeyInfo>, Error> {
    let (hash, key_id, new_account) = (hex(key.hash().as_bytes()), ids.next(), ids.next());
    store
        .transaction("create_key", move |tx| {
            Box::pin(async move {
                let info = KeyInfo {
                    key_id,
                    account_id: accounts::get_or_create(tx, &new.account, new_account).await?,
                    name: new.name,
                    scopes: new.scopes,
                    deployment_id: new.deployment_id,
                    customer_id: new.customer_id,
                    created_at: tx.now(),
                    expires_at: new.expires_at,
                    revoked_at: None,
                };
                Ok(keys::insert(tx, &info, &hash).await?.then_some(info))
            })
        })
        .await
}

/// Every key of every account, newest first.
pub async fn list(store: &Store) -> Result<Vec<KeyInfo>, Error> {
    Ok(store.read("list_keys", |tx| Box::pin(keys::list(tx))).await?)
}

/// Revokes a key at once; `false` if there is no such key.
pub async fn revoke(store: &Store, key_id: KeyId) -> Result<bool, Error> {
    Ok(store.transaction("revoke_key", move |tx| Box::pin(keys::revoke(tx, key_id))).await?)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
