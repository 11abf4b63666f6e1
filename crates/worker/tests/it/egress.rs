//! Tests of the egress policy and secrets of deployments, and of the connection log.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use herm_app::keys::{self, NewKey};
use herm_app::{Sealer, master_key as key_check};
use herm_crypto::{KeyRing, master_key};
use herm_egress::{Attempt, Policy, Traffic, Unavailable, Verdict};
use herm_store::connections::{self, CallConnections};
use herm_store::journal::{self, Position};
use herm_store::{DatabaseClock, Error, Location, Options, Store, deployments, runs, secrets, threads};
use herm_types::deployment::{Deployment, DeploymentSettings, DeploymentStatus};
use herm_types::run::StepKind;
use herm_types::sandbox::{Egress, EgressMode, SandboxSettings, SandboxType};
use herm_types::secret::{Inject, Secret};
use herm_types::time::{ManualClock, SystemRng};
use herm_types::{AccountId, IdSource, Rng as _, RunId, SecretId, Timestamp};
use herm_worker::egress::{self, EgressService};
use secrecy::{ExposeSecret as _, SecretString};

const VALUE: &str = "sk-live-Zq8fP2mWn4Lx7Vt1";
const ROTATED: &str = "sk-live-Rr5kT9bYc3Hd6Gs0";

struct World {
    store: Store,
    ids: IdSource,
    sealer: Sealer,
    account_id: AccountId,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
        let ids = IdSource::new(Arc::clone(&clock) as _, Arc::new(SystemRng));
        let store = Store::open(Options {
            location: Location::Sqlite(dir.path().to_owned()),
            clock,
            database_clock: DatabaseClock::FromOptions,
            migrate: true,
            exclusive: true,
        })
        .await
        .unwrap();
        let account_id = ids.next();
        Self { store, sealer: sealer(), account_id, ids, _dir: dir }
    }

    fn egress_service(&self, default_mode: EgressMode) -> EgressService {
        let (store, sealer, rng) = (self.store.clone(), self.sealer.clone(), Arc::new(SystemRng));
        EgressService::new(egress::Options { store, sealer, rng, default_mode })
    }

    /// Inserts a deployment that uses these secrets. The name of each secret's environment variable is the secret's
    /// id in upper case.
    async fn deployment(&self, secret_ids: &[&str], egress: Option<Egress>) -> Deployment {
        let mut sandbox = SandboxSettings::new(SandboxType::Docker, Some(SandboxType::Local));
        sandbox.egress = egress;
        let mut settings = DeploymentSettings::new(sandbox);
        settings.secrets = secret_ids.iter().map(|id| (id.to_uppercase(), id.parse().unwrap())).collect();
        let now = Timestamp::from_micros(1);
        let deployment = Deployment {
            deployment_id: self.ids.next(),
            account_id: self.account_id,
            customer_id: "acme".to_owned(),
            name: "Ada".to_owned(),
            model: "demo/tour".to_owned(),
            system_prompt: String::new(),
            status: DeploymentStatus::Ready,
            error: None,
            restore_snapshot: None,
            default_thread_id: self.ids.next(),
            version: 1,
            settings,
            created_at: now,
            updated_at: now,
        };
        let made = deployment.clone();
        self.write(move |tx| {
            Box::pin(async move {
                deployments::insert(tx, &made).await?;
                threads::insert(tx, made.default_thread_id, made.deployment_id, None).await
            })
        })
        .await;
        self.bind(&deployment, deployment.settings.secrets.values().cloned().collect()).await;
        deployment
    }

    async fn bind(&self, deployment: &Deployment, ids: Vec<SecretId>) {
        let (account_id, deployment_id) = (deployment.account_id, deployment.deployment_id);
        self.write(move |tx| {
            Box::pin(async move {
                assert_eq!(secrets::set_uses(tx, account_id, deployment_id, &ids).await?, None);
                Ok(())
            })
        })
        .await;
    }

    /// Inserts a secret, or updates the value and the hosts of an existing one.
    async fn put_secret(&self, id: &str, value: &str, hosts: &[&str]) {
        let secret = Secret {
            secret_id: id.parse().unwrap(),
            name: "n".to_owned(),
            allowed_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            inject: vec![Inject::Header],
            created_at: Timestamp::from_micros(1),
            updated_at: Timestamp::from_micros(1),
        };
        let account_id = self.account_id;
        let value = SecretString::from(value);
        let sealed = herm_app::secrets::seal(&self.sealer, account_id, &secret.secret_id, &value).unwrap();
        self.write(move |tx| {
            Box::pin(async move {
                if !secrets::insert(tx, account_id, &secret, &sealed).await? {
                    secrets::update(tx, account_id, &secret, Some(sealed)).await?;
                }
                Ok(())
            })
        })
        .await;
    }

    async fn write<T: Send + 'static>(
        &self,
        body: impl for<'t> FnOnce(&'t mut herm_store::Tx) -> futures_util::future::BoxFuture<'t, Result<T, Error>>
        + Send
        + 'static,
    ) -> T {
        self.store.transaction("test", body).await.unwrap()
    }

    /// Inserts a run with one unfinished tool call.
    async fn open_call(&self, deployment: &Deployment) -> RunId {
        let (run_id, deployment_id) = (self.ids.next(), deployment.deployment_id);
        let thread_id = deployment.default_thread_id;
        self.write(move |tx| {
            Box::pin(async move {
                runs::insert(tx, run_id, deployment_id, thread_id).await?;
                threads::touch(tx, thread_id, Some(run_id), 0).await?;
                let call = Position { run_id, step_no: 1, call_no: 1 };
                journal::record_intent(tx, call, StepKind::Tool, "shell", "{}").await
            })
        })
        .await;
        run_id
    }

    async fn connections_of_call(&self, deployment: &Deployment, run_id: RunId) -> CallConnections {
        let id = deployment.deployment_id;
        let read = self
            .store
            .read("calls", move |tx| Box::pin(connections::of_calls(tx, id, run_id, (1, 1), (1, 1))));
        read.await.unwrap().remove(&(1, 1)).unwrap_or_default()
    }
}

fn sealer() -> Sealer {
    let key = master_key::generate(&mut |bytes: &mut [u8]| SystemRng.fill(bytes));
    Sealer::new(KeyRing::new(&key), Arc::new(SystemRng))
}

fn placeholders(policy: &Policy) -> Vec<&str> {
    policy.secrets.iter().map(|secret| secret.placeholder.as_str()).collect()
}

fn hosts(policy: &Policy) -> Vec<String> {
    policy.hosts.iter().map(ToString::to_string).collect()
}

fn attempt(user: Option<String>, verdict: Verdict) -> Attempt {
    Attempt { user, host: "api.acme.example".to_owned(), port: 443, verdict }
}

#[tokio::test]
async fn placeholders_are_unique_per_deployment_and_stable() {
    let world = World::new().await;
    world.put_secret("sec_a", VALUE, &["api.acme.example"]).await;
    let (one, other) = (world.deployment(&["sec_a"], None).await, world.deployment(&["sec_a"], None).await);
    let egress_service = world.egress_service(EgressMode::Open);
    let environment = async |deployment: &Deployment| {
        let env =
            egress_service.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
        let [(name, placeholder)] = env.as_slice() else { panic!("{env:?}") };
        assert_eq!(name, "SEC_A");
        placeholder.clone()
    };
    let owner = egress_service.owner(one.deployment_id);
    assert_eq!(placeholders(&owner.policy().await.unwrap()), [""; 0], "no placeholder was created yet");
    let (first, again) = tokio::join!(environment(&one), environment(&one));
    assert_eq!(first, again);
    let random = first.strip_prefix("herm_ph_").unwrap();
    assert!(random.len() == 32 && random.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
    let elsewhere = environment(&other).await;
    assert_ne!(first, elsewhere);
    assert_eq!(placeholders(&owner.policy().await.unwrap()), [first.as_str()]);
    let others = egress_service.owner(other.deployment_id).policy().await.unwrap();
    assert_eq!(placeholders(&others), [elsewhere.as_str()]);
    // A new service simulates a restart of the server. It returns the same placeholder.
    let next = world.egress_service(EgressMode::Open);
    let env = next.environment(one.deployment_id, &one.settings.secrets).await.unwrap();
    assert_eq!(env, [("SEC_A".to_owned(), first)]);
}

#[tokio::test]
async fn changes_of_a_secret_take_effect_at_the_next_request() {
    let world = World::new().await;
    world.put_secret("sec_a", VALUE, &["api.acme.example"]).await;
    let deployment = world.deployment(&["sec_a"], None).await;
    let egress_service = world.egress_service(EgressMode::Open);
    let env =
        egress_service.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
    let owner = egress_service.owner(deployment.deployment_id);
    let old = owner.policy().await.unwrap().secrets[0].clone();
    assert_eq!(owner.value(old.clone()).await.unwrap().expose_secret(), VALUE);
    world.put_secret("sec_a", ROTATED, &["new.acme.example"]).await;
    assert_eq!(
        owner.value(old).await.unwrap_err(),
        Unavailable,
        "the new value must not be sent to the old hosts"
    );
    let policy = owner.policy().await.unwrap();
    let new = policy.secrets[0].clone();
    assert_eq!(policy.secrets[0].allowed_hosts[0].to_string(), "new.acme.example");
    assert_eq!(placeholders(&policy), [env[0].1.as_str()], "the placeholder does not change");
    assert_eq!(owner.value(new.clone()).await.unwrap().expose_secret(), ROTATED);
    // After the secret is removed from the deployment, commands that are still running cannot use it either.
    world.bind(&deployment, Vec::new()).await;
    assert!(owner.policy().await.unwrap().secrets.is_empty());
    assert_eq!(owner.value(new).await.unwrap_err(), Unavailable);
    let after =
        egress_service.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
    assert_eq!(after, []);
    // Adding the secret to the deployment again creates a new placeholder.
    world.bind(&deployment, vec!["sec_a".parse().unwrap()]).await;
    let re_added =
        egress_service.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
    assert_ne!(re_added, env);
}

#[tokio::test]
async fn a_deployment_without_a_policy_has_the_servers_default() {
    let world = World::new().await;
    world.put_secret("sec_a", VALUE, &["api.acme.example", "*.acme.test:8443"]).await;
    let own = Egress { mode: EgressMode::Allowlist, hosts: vec!["pypi.org".to_owned()] };
    let mut listed = world.deployment(&["sec_a"], Some(own)).await;
    let silent = world.deployment(&["sec_a"], None).await;
    for (default, expected) in [
        (EgressMode::Open, vec![]),
        (EgressMode::Deny, vec![]),
        (EgressMode::Allowlist, vec!["api.acme.example", "*.acme.test:8443"]),
    ] {
        let egress_service = world.egress_service(default);
        let policy = egress_service.owner(silent.deployment_id).policy().await.unwrap();
        assert_eq!(
            (policy.mode, hosts(&policy)),
            (default, expected.iter().map(ToString::to_string).collect())
        );
        let policy = egress_service.owner(listed.deployment_id).policy().await.unwrap();
        assert_eq!((policy.mode, hosts(&policy)), (EgressMode::Allowlist, vec!["pypi.org".to_owned()]));
    }
    // A change of the egress settings takes effect at once, even for runs that use an older version of the
    // deployment.
    let owner = world.egress_service(EgressMode::Open).owner(listed.deployment_id);
    listed.version += 1;
    listed.settings.sandbox.egress = Some(Egress { mode: EgressMode::Deny, hosts: Vec::new() });
    let changed = listed.clone();
    world.write(move |tx| Box::pin(async move { deployments::update(tx, &changed).await })).await;
    assert_eq!(owner.policy().await.unwrap().mode, EgressMode::Deny);
    // The sandbox of a deleted deployment cannot reach any host.
    world.write(move |tx| Box::pin(async move { deployments::delete(tx, &listed).await })).await;
    assert_eq!(owner.policy().await.unwrap_err(), Unavailable);
    assert_eq!(owner.record(attempt(None, Verdict::Allowed)).await, Err(Unavailable));
}

#[tokio::test]
async fn attempts_are_recorded_at_once_and_their_ends_at_the_latest_on_shutdown() {
    let world = World::new().await;
    let deployment = world.deployment(&[], None).await;
    let run_id = world.open_call(&deployment).await;
    let egress_service = world.egress_service(EgressMode::Open);
    let owner = egress_service.owner(deployment.deployment_id);
    let user = Some(format!("{run_id}.1.1"));
    let record = owner.record(attempt(user, Verdict::Allowed)).await.unwrap();
    let denied = Verdict::Denied { reason: "the address is private".to_owned() };
    owner.record(attempt(Some("\0nonsense.1.1".to_owned()), denied)).await.unwrap();
    let open = world.connections_of_call(&deployment, run_id).await;
    assert_eq!((open.total, open.listed[0].sent_bytes, open.listed[0].ended_at), (2, None, None));
    owner.ended(record, Traffic { sent_bytes: 7, received_bytes: u64::MAX, error: Some("reset".to_owned()) });
    egress_service.close().await;
    let ended = world.connections_of_call(&deployment, run_id).await.listed.remove(0);
    assert_eq!((ended.sent_bytes, ended.received_bytes), (Some(7), Some(i64::MAX)));
    assert_eq!(ended.error.as_deref(), Some("reset"));
    assert!(ended.ended_at.is_some());
    // The service is closed, so a report that a connection has ended is ignored.
    owner.ended(record, Traffic::default());
}

#[tokio::test]
async fn connections_are_refused_while_the_database_is_unavailable() {
    let world = World::new().await;
    let deployment = world.deployment(&[], None).await;
    let owner = world.egress_service(EgressMode::Open).owner(deployment.deployment_id);
    world.store.close().await;
    assert_eq!(owner.record(attempt(None, Verdict::Allowed)).await, Err(Unavailable));
}

#[tokio::test]
async fn an_attempt_recorded_after_its_timeout_is_refused_and_ended() {
    let world = World::new().await;
    let deployment = world.deployment(&[], None).await;
    let run_id = world.open_call(&deployment).await;
    let egress_service = world.egress_service(EgressMode::Open);
    let owner = egress_service.owner(deployment.deployment_id);
    // This transaction simulates a slow database: it blocks the writer until `unblock` is sent.
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let (started, is_started) = tokio::sync::oneshot::channel();
    let store = world.store.clone();
    let hanging = tokio::spawn(async move {
        store
            .transaction("hang", move |_| {
                Box::pin(async move {
                    started.send(()).unwrap();
                    let _ = blocked.recv();
                    Ok::<_, Error>(())
                })
            })
            .await
    });
    is_started.await.unwrap();
    // The writer is blocked, so recording the attempt times out. Tokio's clock is paused, so the test does not really
    // wait for the timeout.
    tokio::time::pause();
    assert_eq!(owner.record(attempt(None, Verdict::Allowed)).await, Err(Unavailable));
    tokio::time::resume();
    unblock.send(()).unwrap();
    hanging.await.unwrap().unwrap();
    // Waits for the row of the refused attempt, which is marked as ended right after it is written.
    let mut ended = None;
    while ended.is_none() {
        let written = world.connections_of_call(&deployment, run_id).await.listed;
        ended = written.into_iter().next().filter(|connection| connection.ended_at.is_some());
    }
    let ended = ended.unwrap();
    assert_eq!((ended.sent_bytes, ended.received_bytes), (Some(0), Some(0)));
    assert!(ended.error.unwrap().contains("refused"));
}

#[tokio::test]
async fn a_changed_master_key_is_rejected() {
    let world = World::new().await;
    assert!(!key_check::is_needed(&world.store).await.unwrap());
    key_check::check(&world.store, &world.sealer).await.unwrap();
    assert!(key_check::is_needed(&world.store).await.unwrap());
    key_check::check(&world.store, &world.sealer).await.unwrap();
    let error = key_check::check(&world.store, &sealer()).await.unwrap_err();
    assert!(error.to_string().contains("does not match this database"), "{error}");
    key_check::check(&world.store, &world.sealer).await.unwrap();
    // Creating API keys does not need the master key.
    let new = NewKey {
        name: "k".to_owned(),
        account: "default".to_owned(),
        scopes: Vec::new(),
        deployment_id: None,
        customer_id: None,
        expires_at: None,
    };
    keys::create(&world.store, &world.ids, &SystemRng, new).await.unwrap();
}

/// A writer that captures the log output.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secret_values_do_not_appear_in_logs_or_debug_output() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let world = World::new().await;
    world.put_secret("sec_a", VALUE, &["api.acme.example"]).await;
    let deployment = world.deployment(&["sec_a"], None).await;
    let egress_service = world.egress_service(EgressMode::Open);
    let owner = egress_service.owner(deployment.deployment_id);
    let env =
        egress_service.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
    let policy = owner.policy().await.unwrap();
    let value = owner.value(policy.secrets[0].clone()).await.unwrap();
    assert_eq!(value.expose_secret(), VALUE);
    // The error for a value that was encrypted with another master key must not contain the value either.
    let (store, rng) = (world.store.clone(), Arc::new(SystemRng));
    let foreign = egress::Options { store, sealer: sealer(), rng, default_mode: EgressMode::Open };
    let foreign = EgressService::new(foreign).owner(deployment.deployment_id);
    assert_eq!(foreign.value(policy.secrets[0].clone()).await.unwrap_err(), Unavailable);
    let texts = format!("{env:?} {policy:?} {value:?} {:?}", BTreeMap::from([("v", &value)]));
    let traced = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(traced.contains("read and decrypt a secret"), "the failure was not logged");
    for leaked in [VALUE, "Zq8fP2mWn4Lx7Vt1"] {
        assert!(!traced.contains(leaked) && !texts.contains(leaked), "{leaked}");
    }
}
