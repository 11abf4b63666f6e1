//! Who asks, and what lies within reach.

use herm_crypto::ApiKey;
use herm_store::{Tx, deployments, snapshots};
use herm_types::deployment::Deployment;
use herm_types::key::{KeyInfo, Scope};
use herm_types::snapshot::Snapshot;
use herm_types::{AccountId, DeploymentId, Error, ErrorCode, SnapshotId, Timestamp};

use crate::App;

/// An authenticated caller: a live key.
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

    /// # Errors
    /// `forbidden`, naming the scope that the key lacks.
    pub fn require(&self, scope: Scope) -> Result<(), Error> {
        if self.key.has(scope) {
            return Ok(());
        }
        let message = format!("This API key lacks the scope {}; use one that has it.", scope.as_str());
        Err(Error::new(ErrorCode::Forbidden, message))
    }

    /// # Errors
    /// `forbidden`: a browser token is not shown what its deployment is made of.
    pub(crate) fn refuse_token(&self, what: &str) -> Result<(), Error> {
        if !self.key.is_token() {
            return Ok(());
        }
        let message = format!("A browser token is not shown {what}; ask with an API key.");
        Err(Error::new(ErrorCode::Forbidden, message))
    }

    /// Whether the key's limits allow this customer's deployments to be made.
    pub(crate) fn may_create_for(&self, customer_id: &str) -> Result<(), Error> {
        let allowed = self.key.deployment_id.is_none()
            && self.key.customer_id.as_deref().is_none_or(|limit| limit == customer_id);
        if allowed {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::Forbidden,
            "This API key is limited to what it was made for; use another one.",
        ))
    }

    /// # Errors
    /// `unauthorized`: the key has ended since the request began.
    pub(crate) async fn check_live(&self, tx: &mut Tx, now: Timestamp) -> Result<(), crate::Error> {
        let found = herm_store::keys::find(tx, self.key.key_id).await?;
        if found.is_some_and(|key| key.is_live(now)) { Ok(()) } else { Err(unknown_key().into()) }
    }

    fn reaches(&self, deployment: &Deployment) -> bool {
        deployment.account_id == self.key.account_id
            && self.key.deployment_id.is_none_or(|limit| limit == deployment.deployment_id)
            && self.key.customer_id.as_deref().is_none_or(|limit| limit == deployment.customer_id)
    }

    /// The deployment, if it lies within reach.
    ///
    /// # Errors
    /// `not_found`, be it another account's or nobody's.
    pub(crate) async fn deployment(
        &self,
        tx: &mut Tx,
        deployment_id: DeploymentId,
    ) -> Result<Deployment, crate::Error> {
        let found = deployments::find(tx, deployment_id).await?;
        self.within_reach(found, deployment_id)
    }

    /// The same, its row locked: what is read of it stands until the transaction ends.
    pub(crate) async fn lock_deployment(
        &self,
        tx: &mut Tx,
        deployment_id: DeploymentId,
    ) -> Result<Deployment, crate::Error> {
        let found = deployments::find_and_lock(tx, deployment_id).await?;
        self.within_reach(found, deployment_id)
    }

    /// The snapshot, if it lies within reach: what a key is limited to, its snapshots are limited to.
    ///
    /// # Errors
    /// `not_found`, be it another account's or nobody's.
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

    fn within_reach(
        &self,
        found: Option<Deployment>,
        deployment_id: DeploymentId,
    ) -> Result<Deployment, crate::Error> {
        let found = found.filter(|deployment| self.reaches(deployment));
        Ok(found.ok_or_else(|| Error::not_found("deployment", &deployment_id.to_string()))?)
    }
}

impl App {
    /// Who holds this key.
    ///
    /// # Errors
    /// `unauthorized`: the text is not a key, or the key is unknown, expired or revoked.
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
        match found.filter(|key| key.is_live(self.clock.now())) {
            Some(key) => Ok(Caller { key }),
            None => Err(unknown_key().into()),
        }
    }
}

fn unknown_key() -> Error {
    Error::new(ErrorCode::Unauthorized, "The API key is unknown, expired or revoked.")
}
