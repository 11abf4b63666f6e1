//! Authentication of callers, and the access rights of their keys.

use herm_crypto::ApiKey;
use herm_store::{Tx, deployments, snapshots};
use herm_types::deployment::Deployment;
use herm_types::key::{KeyInfo, Scope};
use herm_types::snapshot::Snapshot;
use herm_types::{AccountId, DeploymentId, Error, ErrorCode, SnapshotId, Timestamp};

use crate::App;

/// An authenticated caller, identified by a valid key.
#[derive(Clone, Debug)]
pub struct Caller {
    key: KeyInfo,
}

impl Caller {
    pub fn account_id(&self) -> AccountId {
        self.key.account_id
    }

    pub fn key(&self) -> &KeyInfo {
        &self.key
    }

    /// Checks that the caller's key has this scope.
    ///
    /// # Errors
    /// Returns `forbidden` with a message that names the missing scope.
    pub fn require(&self, scope: Scope) -> Result<(), Error> {
        if self.key.has(scope) {
            return Ok(());
        }
        let message = format!("This key lacks the scope `{}`; use a key that has it.", scope.as_str());
        Err(Error::new(ErrorCode::Forbidden, message))
    }

    /// Rejects browser tokens. They must not read, for example, the configuration of an agent or its
    /// snapshots. `what` names the requested data in the error message.
    ///
    /// # Errors
    /// Returns `forbidden` for a browser token.
    pub(crate) fn refuse_browser_token(&self, what: &str) -> Result<(), Error> {
        if !self.key.is_token() {
            return Ok(());
        }
        let message = format!("Browser tokens cannot read {what}; use an API key.");
        Err(Error::new(ErrorCode::Forbidden, message))
    }

    /// Checks that the caller's key may create deployments for this customer. Fails if the key is restricted
    /// to a deployment or to another customer.
    pub(crate) fn check_customer(&self, customer_id: &str) -> Result<(), Error> {
        let restriction = match (self.key.deployment_id, self.key.customer_id.as_deref()) {
            (Some(deployment_id), _) => format!("deployment {deployment_id}"),
            (None, Some(limit)) if limit != customer_id => format!("customer {limit}"),
            (None, _) => return Ok(()),
        };
        Err(Error::new(ErrorCode::Forbidden, format!("This key is restricted to {restriction}.")))
    }

    /// Checks within a transaction that the caller's key is still valid.
    ///
    /// # Errors
    /// Returns `unauthorized` if the key has been revoked or has expired since the request began.
    pub(crate) async fn check_live(&self, tx: &mut Tx, now: Timestamp) -> Result<(), crate::Error> {
        let found = herm_store::keys::find(tx, self.key.key_id).await?;
        if found.is_some_and(|key| key.is_live(now)) { Ok(()) } else { Err(unknown_key().into()) }
    }

    fn can_access(&self, deployment: &Deployment) -> bool {
        deployment.account_id == self.key.account_id
            && self.key.deployment_id.is_none_or(|limit| limit == deployment.deployment_id)
            && self.key.customer_id.as_deref().is_none_or(|limit| limit == deployment.customer_id)
    }

    /// Returns the deployment if the caller's key may access it.
    ///
    /// # Errors
    /// Returns `not_found` if the deployment does not exist or the key may not access it.
    pub(crate) async fn deployment(
        &self,
        tx: &mut Tx,
        deployment_id: DeploymentId,
    ) -> Result<Deployment, crate::Error> {
        let found = deployments::find(tx, deployment_id).await?;
        self.check_access(found, deployment_id)
    }

    /// Returns the deployment if the caller's key may access it. Its row is locked until the transaction
    /// ends.
    ///
    /// # Errors
    /// Returns `not_found` if the deployment does not exist or the key may not access it.
    pub(crate) async fn lock_deployment(
        &self,
        tx: &mut Tx,
        deployment_id: DeploymentId,
    ) -> Result<Deployment, crate::Error> {
        let found = deployments::find_and_lock(tx, deployment_id).await?;
        self.check_access(found, deployment_id)
    }

    /// Returns the snapshot if the caller's key may access it. A key that is restricted to a deployment or
    /// customer may access only the snapshots of that deployment or customer.
    ///
    /// # Errors
    /// Returns `not_found` if the snapshot does not exist or the key may not access it.
    pub(crate) async fn snapshot(
        &self,
        tx: &mut Tx,
        snapshot_id: SnapshotId,
    ) -> Result<Snapshot, crate::Error> {
        let found = snapshots::find(tx, snapshot_id).await?.filter(|snapshot| {
            snapshot.account_id == self.key.account_id
                && self.key.deployment_id.is_none_or(|limit| limit == snapshot.deployment_id)
                && self.key.customer_id.as_deref().is_none_or(|limit| limit == snapshot.customer_id)
        });
        Ok(found.ok_or_else(|| Error::not_found("snapshot", &snapshot_id.to_string()))?)
    }

    fn check_access(
        &self,
        found: Option<Deployment>,
        deployment_id: DeploymentId,
    ) -> Result<Deployment, crate::Error> {
        let found = found.filter(|deployment| self.can_access(deployment));
        Ok(found.ok_or_else(|| Error::not_found("deployment", &deployment_id.to_string()))?)
    }
}

impl App {
    /// Authenticates a request by its API key or browser token, and returns the caller.
    ///
    /// # Errors
    /// Returns `unauthorized` if the key is malformed, unknown, expired or revoked.
    pub async fn authenticate(&self, text: &str) -> Result<Caller, crate::Error> {
        let key = ApiKey::parse(text).map_err(|error| {
            Error::new(ErrorCode::Unauthorized, format!("The API key is malformed: {error}."))
        })?;
        let hash = crate::keys::hash(&key);
        let found = self
            .store
            .read("find_key", move |tx| {
                Box::pin(async move { herm_store::keys::find_by_hash(tx, &hash).await })
            })
            .await?;
        // In the list queries of the store, an empty customer restriction would not exclude anything. Keys
        // with such a restriction are therefore rejected.
        let has_empty_restriction = |key: &KeyInfo| key.customer_id.as_deref() == Some("");
        match found.filter(|key| key.is_live(self.clock.now()) && !has_empty_restriction(key)) {
            Some(key) => Ok(Caller { key }),
            None => Err(unknown_key().into()),
        }
    }
}

fn unknown_key() -> Error {
    Error::new(ErrorCode::Unauthorized, "The API key is unknown, expired or revoked.")
}
