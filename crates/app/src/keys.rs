//! API keys: made, listed, revoked. What stands here is for the operator, whose word goes for all accounts;
//! [`of_account`] is for those who hold a key themselves.

use std::fmt::Write as _;

pub use herm_crypto::ApiKey;
use herm_crypto::KeyKind;
use herm_store::{Store, Tx, accounts, keys};
use herm_types::key::{KeyInfo, Scope};
use herm_types::{DeploymentId, IdSource, KeyId, Rng, Timestamp};

use crate::Error;

pub mod of_account;

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
    let info = insert(store, ids, &key, new).await?.ok_or_else(known_already)?;
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
    let (hash, key_id, new_account) = (hash(key), ids.next(), ids.next());
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
                    parent_key_id: None,
                    created_at: tx.now(),
                    expires_at: new.expires_at,
                    revoked_at: None,
                };
                Ok(keys::insert(tx, &info, &hash).await?.then_some(info))
            })
        })
        .await
}

/// Adds a key whose text was just made.
pub(crate) async fn insert_new(tx: &mut Tx, info: KeyInfo, hash: &str) -> Result<KeyInfo, Error> {
    if keys::insert(tx, &info, hash).await? { Ok(info) } else { Err(known_already()) }
}

fn known_already() -> Error {
    Error::Store(herm_store::Error::Corrupt(
        "a new key was known already: the random source repeats".to_owned(),
    ))
}

/// Every key of every account, newest first.
pub async fn list(store: &Store) -> Result<Vec<KeyInfo>, Error> {
    Ok(store.read("list_keys", |tx| Box::pin(keys::list(tx))).await?)
}

/// Revokes a key at once; `false` if there is no such key. Streams of another server end soon after.
pub async fn revoke(store: &Store, key_id: KeyId) -> Result<bool, Error> {
    Ok(store.transaction("revoke_key", move |tx| Box::pin(keys::revoke(tx, key_id))).await?)
}

/// What stands for a key in the database: its SHA-256 in hexadecimal.
///
/// Looking it up takes time that depends on stored hashes and the hash that was asked for. That tells nothing: who
/// could choose texts by their hashes' first bytes, to find more of a stored one, still would have to find a text for
/// the whole hash. So no comparison in constant time is needed, and none is made.
pub(crate) fn hash(key: &ApiKey) -> String {
    hex(key.hash().as_bytes())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
