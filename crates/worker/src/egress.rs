//! Deployments as egress sees them: what each one's sandbox may reach, which placeholders stand for which secrets in it,
//! and the record of what it reached. All of it is read anew each time, so that a change acts from the next request on.

mod ledger;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use herm_app::{Sealer, secrets};
use herm_egress::{Attempt, Egress, Owner, Policy, PolicySecret, RecordId, Traffic, Unavailable};
use herm_sandbox::{Carry, WorkspaceId};
use herm_store::placeholders::{self, BoundSecret};
use herm_store::{Error, Store, deployments};
use herm_types::sandbox::{self, EgressMode};
use herm_types::secret::InvalidHostPattern;
use herm_types::{DeploymentId, Rng, SecretId};
use secrecy::SecretString;

use ledger::Ledger;

/// What the ways out of all sandboxes stand on.
pub struct Options {
    pub store: Store,
    pub sealer: Sealer,
    pub rng: Arc<dyn Rng>,
    /// Of deployments that say nothing of it.
    pub default_mode: EgressMode,
}

/// The ways out of all sandboxes; cheap to clone.
#[derive(Clone)]
pub struct WaysOut(Arc<Shared>);

struct Shared {
    store: Store,
    sealer: Sealer,
    default_mode: EgressMode,
    ledger: Ledger,
}

impl WaysOut {
    /// Its records are written until [`WaysOut::close`].
    pub fn new(options: Options) -> Self {
        let Options { store, sealer, rng, default_mode } = options;
        let ledger = Ledger::new(store.clone(), rng);
        Self(Arc::new(Shared { store, sealer, default_mode, ledger }))
    }

    /// Lets egress serve the connections of all sandboxes.
    pub fn carry(&self, egress: Egress) -> Carry {
        let (ways_out, owners) = (self.clone(), Owners::default());
        Arc::new(move |sandbox_id, stream| {
            let Ok(workspace) = sandbox_id.parse::<WorkspaceId>() else {
                tracing::error!(sandbox_id, "a sandbox of no deployment wanted out");
                return;
            };
            let owner = owners.of(workspace, || ways_out.owner(workspace.deployment_id()));
            let egress = egress.clone();
            tokio::spawn(async move { egress.serve(stream, owner).await });
        })
    }

    /// Whom egress asks about the sandbox of this deployment.
    pub fn owner(&self, deployment_id: DeploymentId) -> Arc<dyn Owner> {
        Arc::new(Deployment { ways_out: self.clone(), deployment_id })
    }

    /// The environment by which a command in the deployment's sandbox knows its secrets: for each name the placeholder,
    /// never the value. A name whose secret the deployment no longer uses is left out.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn environment(
        &self,
        deployment_id: DeploymentId,
        secrets: &BTreeMap<String, SecretId>,
    ) -> Result<Vec<(String, String)>, Error> {
        if secrets.is_empty() {
            return Ok(Vec::new());
        }
        let Shared { store, sealer, .. } = &*self.0;
        let wanted = secrets.values().cloned().collect();
        let made = secrets::placeholders(store, sealer, deployment_id, wanted).await?;
        let known = secrets.iter().filter_map(|(name, secret_id)| Some((name, made.get(secret_id)?)));
        Ok(known.map(|(name, placeholder)| (name.clone(), placeholder.clone())).collect())
    }

    /// Writes down what has ended so far, and takes no more.
    pub async fn close(&self) {
        self.0.ledger.close().await;
    }
}

/// The owners of connections that are open. Connections are counted by their owner, so all of a sandbox have the same.
#[derive(Default)]
struct Owners(Mutex<HashMap<WorkspaceId, Weak<dyn Owner>>>);

impl Owners {
    fn of(&self, workspace: WorkspaceId, make: impl FnOnce() -> Arc<dyn Owner>) -> Arc<dyn Owner> {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = owners.get(&workspace).and_then(Weak::upgrade) {
            return owner;
        }
        // Those whose last connection has ended.
        owners.retain(|_, owner| owner.strong_count() > 0);
        let owner = make();
        owners.insert(workspace, Arc::downgrade(&owner));
        owner
    }
}

/// One deployment, as its sandbox's connections are asked about.
struct Deployment {
    ways_out: WaysOut,
    deployment_id: DeploymentId,
}

impl Deployment {
    fn unavailable(&self, doing: &str, error: &(dyn std::error::Error + 'static)) -> Unavailable {
        tracing::warn!(deployment_id = %self.deployment_id, error, "failed to {doing}");
        Unavailable
    }

    async fn read_policy(&self) -> Result<Policy, Unavailable> {
        let deployment_id = self.deployment_id;
        let Shared { store, default_mode, .. } = &*self.ways_out.0;
        let read = store.read("read_policy", move |tx| {
            Box::pin(async move {
                let sandbox = deployments::find_sandbox(tx, deployment_id).await?;
                let sandbox = sandbox.ok_or(Error::DeploymentDeleted)?;
                Ok::<_, Error>((sandbox.egress, placeholders::bound(tx, deployment_id).await?))
            })
        });
        let (egress, bound) = read.await.map_err(|error| self.unavailable("read a policy", &error))?;
        policy(egress, *default_mode, bound)
            .map_err(|error| self.unavailable("read a policy's hosts", &error))
    }

    async fn open(&self, secret: PolicySecret) -> Result<SecretString, Unavailable> {
        let Shared { store, sealer, .. } = &*self.ways_out.0;
        let known = BoundSecret {
            secret_id: secret.secret_id,
            placeholder: Some(secret.placeholder),
            allowed_hosts: secret.allowed_hosts,
            inject: secret.inject,
        };
        let opened = secrets::open_for(store, sealer, self.deployment_id, known).await;
        // One that was taken away or changed since the policy was read: the next policy does not have it.
        opened.map_err(|error| self.unavailable("open a secret", &error))?.ok_or(Unavailable)
    }
}

impl Owner for Deployment {
    fn policy(&self) -> BoxFuture<'_, Result<Policy, Unavailable>> {
        self.read_policy().boxed()
    }

    fn value(&self, secret: PolicySecret) -> BoxFuture<'_, Result<SecretString, Unavailable>> {
        self.open(secret).boxed()
    }

    fn record(&self, attempt: Attempt) -> BoxFuture<'_, Result<RecordId, Unavailable>> {
        self.ways_out.0.ledger.record(self.deployment_id, attempt).boxed()
    }

    fn ended(&self, record: RecordId, traffic: Traffic) {
        self.ways_out.0.ledger.ended(record, traffic);
    }
}

/// What a deployment may reach. Where it says nothing and the server's default is a list, that is the hosts of its
/// secrets: it was given them to be used.
fn policy(
    egress: Option<sandbox::Egress>,
    default_mode: EgressMode,
    bound: Vec<BoundSecret>,
) -> Result<Policy, InvalidHostPattern> {
    let (mode, hosts) = match egress {
        Some(sandbox::Egress { mode: EgressMode::Allowlist, hosts }) => {
            let hosts = hosts.iter().map(|host| host.parse()).collect::<Result<_, _>>()?;
            (EgressMode::Allowlist, hosts)
        }
        Some(sandbox::Egress { mode, .. }) => (mode, Vec::new()),
        None if default_mode == EgressMode::Allowlist => {
            let hosts = bound.iter().flat_map(|secret| secret.allowed_hosts.iter().cloned());
            (EgressMode::Allowlist, hosts.collect())
        }
        None => (default_mode, Vec::new()),
    };
    // One without a placeholder is in no sandbox yet.
    let secrets = bound.into_iter().filter_map(|secret| {
        Some(PolicySecret {
            secret_id: secret.secret_id,
            placeholder: secret.placeholder?,
            allowed_hosts: secret.allowed_hosts,
            inject: secret.inject,
        })
    });
    Ok(Policy { mode, hosts, secrets: secrets.collect() })
}
