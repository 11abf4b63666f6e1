//! Implements [`herm_egress::Owner`] for deployments: reads their egress policies and secret values, and records
//! their connections. Policies and values are read from the database for each request, so a change takes effect with
//! the next request.

mod ledger;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use herm_app::{Sealer, secrets};
use herm_egress::{Attempt, Egress, Owner, Policy, PolicySecret, RecordId, Traffic, Unavailable};
use herm_sandbox::{ProxyHandler, WorkspaceId};
use herm_store::placeholders::{self, BoundSecret};
use herm_store::{Error, Store, deployments};
use herm_types::sandbox::{self, EgressMode};
use herm_types::secret::InvalidHostPattern;
use herm_types::{DeploymentId, Rng, SecretId};
use secrecy::SecretString;
use tracing::Instrument as _;

use ledger::Ledger;

/// Dependencies and settings of an [`EgressService`].
pub struct Options {
    pub store: Store,
    pub sealer: Sealer,
    pub rng: Arc<dyn Rng>,
    /// The egress mode of deployments that do not set one.
    pub default_mode: EgressMode,
}

/// Supplies the egress proxy with policies and secret values, and stores its connection records. Cheap to clone.
#[derive(Clone)]
pub struct EgressService(Arc<ServiceState>);

struct ServiceState {
    store: Store,
    sealer: Sealer,
    default_mode: EgressMode,
    ledger: Ledger,
}

impl EgressService {
    /// Creates the service and starts its background task. Until [`EgressService::close`] is called, the task records
    /// that connections were closed, and how many bytes each of them transferred.
    pub fn new(options: Options) -> Self {
        let Options { store, sealer, rng, default_mode } = options;
        let ledger = Ledger::new(store.clone(), rng);
        Self(Arc::new(ServiceState { store, sealer, default_mode, ledger }))
    }

    /// Returns the handler for the connections that sandboxes open to the proxy. The handler serves each connection
    /// with `egress`, on behalf of the sandbox's deployment.
    pub fn proxy_handler(&self, egress: Egress) -> ProxyHandler {
        let (egress_service, owners) = (self.clone(), Owners::default());
        Arc::new(move |sandbox_id, stream| {
            let Ok(workspace) = sandbox_id.parse::<WorkspaceId>() else {
                tracing::error!(sandbox_id, "refused an egress connection from a sandbox with an invalid id");
                return;
            };
            let owner = owners.get_or_create(workspace, || egress_service.owner(workspace.deployment_id()));
            let egress = egress.clone();
            let span = tracing::error_span!("egress", %workspace);
            tokio::spawn(async move { egress.serve(stream, owner).await }.instrument(span));
        })
    }

    /// Returns the [`Owner`] that supplies the policy and secret values of this deployment and records the
    /// deployment's connections.
    pub fn owner(&self, deployment_id: DeploymentId) -> Arc<dyn Owner> {
        Arc::new(DeploymentOwner { egress_service: self.clone(), deployment_id })
    }

    /// Returns the environment variables through which commands in the deployment's sandbox use secrets. `secrets` maps
    /// variable names to secret ids. Each variable contains the secret's placeholder, a random text that the proxy
    /// replaces with the value. Secrets that the deployment no longer uses are omitted.
    ///
    /// # Errors
    /// Fails if the database cannot be reached.
    pub async fn environment(
        &self,
        deployment_id: DeploymentId,
        secrets: &BTreeMap<String, SecretId>,
    ) -> Result<Vec<(String, String)>, Error> {
        if secrets.is_empty() {
            return Ok(Vec::new());
        }
        let ServiceState { store, sealer, .. } = &*self.0;
        let secret_ids = secrets.values().cloned().collect();
        let placeholders = secrets::placeholders(store, sealer, deployment_id, secret_ids).await?;
        let pairs = secrets.iter().filter_map(|(name, secret_id)| Some((name, placeholders.get(secret_id)?)));
        Ok(pairs.map(|(name, placeholder)| (name.clone(), placeholder.clone())).collect())
    }

    /// Writes the pending records of closed connections, for a few seconds at most, then stops the background task. A
    /// connection that is closed later is not recorded as closed.
    pub async fn close(&self) {
        self.0.ledger.close().await;
    }
}

/// The `Owner` of each workspace that has open connections to the proxy. The proxy limits the number of connections per
/// owner, so all connections of a sandbox share one owner.
#[derive(Default)]
struct Owners(Mutex<HashMap<WorkspaceId, Weak<dyn Owner>>>);

impl Owners {
    fn get_or_create(&self, workspace: WorkspaceId, make: impl FnOnce() -> Arc<dyn Owner>) -> Arc<dyn Owner> {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = owners.get(&workspace).and_then(Weak::upgrade) {
            return owner;
        }
        // Removes the entries of owners whose last connection has ended.
        owners.retain(|_, owner| owner.strong_count() > 0);
        let owner = make();
        owners.insert(workspace, Arc::downgrade(&owner));
        owner
    }
}

/// The [`Owner`] of one deployment's connections. It reads the policy and the secrets from the database.
struct DeploymentOwner {
    egress_service: EgressService,
    deployment_id: DeploymentId,
}

impl DeploymentOwner {
    fn unavailable(&self, action: &str, error: &(dyn std::error::Error + 'static)) -> Unavailable {
        tracing::warn!(deployment_id = %self.deployment_id, action, error, "refused an egress request because the policy or a secret could not be read");
        Unavailable
    }

    async fn read_policy(&self) -> Result<Policy, Unavailable> {
        let deployment_id = self.deployment_id;
        let ServiceState { store, default_mode, .. } = &*self.egress_service.0;
        let read = store.read("read_policy", move |tx| {
            Box::pin(async move {
                let sandbox = deployments::find_sandbox(tx, deployment_id).await?;
                let sandbox = sandbox.ok_or(Error::DeploymentDeleted)?;
                Ok::<_, Error>((sandbox.egress, placeholders::bound_secrets(tx, deployment_id).await?))
            })
        });
        let (egress, bound) =
            read.await.map_err(|error| self.unavailable("read the egress policy", &error))?;
        policy(egress, *default_mode, bound)
            .map_err(|error| self.unavailable("parse the host patterns of the egress policy", &error))
    }

    async fn open(&self, secret: PolicySecret) -> Result<SecretString, Unavailable> {
        let ServiceState { store, sealer, .. } = &*self.egress_service.0;
        let bound_secret = BoundSecret {
            secret_id: secret.secret_id,
            placeholder: Some(secret.placeholder),
            allowed_hosts: secret.allowed_hosts,
            inject: secret.inject,
        };
        let opened = secrets::open_for(store, sealer, self.deployment_id, bound_secret).await;
        // `open_for` returns `None` if the secret was removed or changed after the policy was read. The request is
        // refused, and the next request reads the new policy.
        opened.map_err(|error| self.unavailable("read and decrypt a secret", &error))?.ok_or(Unavailable)
    }
}

impl Owner for DeploymentOwner {
    fn policy(&self) -> BoxFuture<'_, Result<Policy, Unavailable>> {
        self.read_policy().boxed()
    }

    fn value(&self, secret: PolicySecret) -> BoxFuture<'_, Result<SecretString, Unavailable>> {
        self.open(secret).boxed()
    }

    fn record(&self, attempt: Attempt) -> BoxFuture<'_, Result<RecordId, Unavailable>> {
        self.egress_service.0.ledger.record(self.deployment_id, attempt).boxed()
    }

    fn ended(&self, record: RecordId, traffic: Traffic) {
        self.egress_service.0.ledger.ended(record, traffic);
    }
}

/// Builds a deployment's egress policy. If the deployment sets no egress mode and the server's default mode is
/// `allowlist`, the policy allows the hosts to which the deployment's secrets may be sent. Without these hosts, the
/// secrets could not be used.
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
    // Omits secrets without a placeholder. A secret's placeholder is created before a command can receive it, so no
    // sandbox can use a secret that has none.
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
