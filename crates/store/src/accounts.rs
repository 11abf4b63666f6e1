//! Accounts: the owners of keys and deployments.

use herm_types::AccountId;

use crate::row::params;
use crate::{Error, Tx};

/// Returns the id of the account with this name, or `None` if there is no such account.
pub async fn find_by_name(tx: &mut Tx, name: &str) -> Result<Option<AccountId>, Error> {
    tx.one("SELECT account_id FROM accounts WHERE name = $1", params![name])
        .await?
        .map(|row| row.parse(0))
        .transpose()
}

/// Returns the id of the account with this name. Creates the account with `new_id` if it does not exist.
pub async fn get_or_create(tx: &mut Tx, name: &str, new_id: AccountId) -> Result<AccountId, Error> {
    let created_at = tx.now();
    tx.execute(
        "INSERT INTO accounts (account_id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
        params![new_id.to_string(), name, created_at],
    )
    .await?;
    find_by_name(tx, name)
        .await?
        .ok_or_else(|| Error::Corrupt(format!("account {name:?} was removed while it was created")))
}
