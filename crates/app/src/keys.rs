//! API keys. The functions in this file are for the operator and act on all accounts. The functions in
//! [`account_keys`] are for API clients and act only on the client's account.

use std::fmt::Write as _;

pub use herm_crypto::ApiKey;
use herm_crypto::KeyKind;
use herm_store::{Store, Tx, accounts, keys};
use herm_types::key::{KeyInfo, Scope};
use herm_types::{DeploymentId, IdSource, KeyId, Rng, Timestamp};

use crate::Error;

pub mod account_keys;

/// The name of the account that is used if a key is created without an account name.
pub const DEFAULT_ACCOUNT: &str = "default";

/// The properties of a key to be created.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub name: String,
    /// The name of the account, which is created if it does not exist.
    pub account: String,
    pub scopes: Vec<Scope>,
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
    pub expires_at: Option<Timestamp>,
}

/// Creates a key. This is the only time that the text of the key is returned.
pub async fn create(
    store: &Store,
    ids: &IdSource,
    rng: &dyn Rng,
    new: NewKey,
) -> Result<(ApiKey, KeyInfo), Error> {
    let key = ApiKey::generate(KeyKind::Secret, &mut |bytes: &mut [u8]| rng.fill(bytes));
    let info = insert(store, ids, &key, new).await?.ok_or_else(key_collision)?;
    Ok((key, info))
}

/// Inserts a key as an admin key of the account `default`. Has no effect if the key already exists, even if
/// it has been revoked.
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

/// Inserts a newly generated key. Fails if the key already exists.
pub(crate) async fn insert_new(tx: &mut Tx, info: KeyInfo, hash: &str) -> Result<KeyInfo, Error> {
    if keys::insert(tx, &info, hash).await? { Ok(info) } else { Err(key_collision()) }
}

fn key_collision() -> Error {
    Error::Store(herm_store::Error::Corrupt(
        "a newly generated key already exists: the random number generator has returned the same bytes twice"
            .to_owned(),
    ))
}

/// Returns all keys of all accounts, newest first.
pub async fn list(store: &Store) -> Result<Vec<KeyInfo>, Error> {
    Ok(store.read("list_keys", |tx| Box::pin(keys::list(tx))).await?)
}

/// Revokes a key. Returns false if the key does not exist. Open event streams of the key in other processes
/// end within seconds.
pub async fn revoke(store: &Store, key_id: KeyId) -> Result<bool, Error> {
    Ok(store.transaction("revoke_key", move |tx| Box::pin(keys::revoke(tx, key_id))).await?)
}

/// Returns the SHA-256 of a key in hexadecimal. The database stores this hash, and keys are looked up by it.
///
/// The lookup need not take constant time, because its duration depends only on hashes, not on the key
/// itself. An attacker who learned the first characters of a stored hash would still have to find a key with
/// that hash.
pub(crate) fn hash(key: &ApiKey) -> String {
    hex(key.hash().as_bytes())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
