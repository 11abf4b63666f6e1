//! What egress is told of a deployment, and what is written down of its connections.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use herm_app::keys::{self, NewKey};
use herm_app::{Sealer, master_key as key_check};
use herm_crypto::{KeyRing, master_key};
use herm_egress::{Attempt, Policy, Traffic, Unavailable, Verdict};
use herm_store::connections::{self, OfCall};
use herm_store::journal::{self, Position};
use herm_store::{DatabaseClock, Error, Location, Options, Store, deployments, runs, secrets, threads};
use herm_types::deployment::{Deployment, DeploymentSettings, DeploymentStatus};
use herm_types::run::StepKind;
use herm_types::sandbox::{Egress, EgressMode, SandboxSettings, SandboxType};
use herm_types::secret::{Inject, Secret};
use herm_types::time::{ManualClock, SystemRng};
use herm_types::{AccountId, IdSource, Rng as _, RunId, SecretId, Timestamp};
use herm_worker::egress::{self, WaysOut};
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
            database_clock: DatabaseClock::Given,
            migrate: true,
            exclusive: true,
        })
        .await
        .unwrap();
        let account_id = ids.next();
        Self { store, sealer: sealer(), account_id, ids, _dir: dir }
    }

    fn ways_out(&self, default_mode: EgressMode) -> WaysOut {
        let (store, sealer, rng) = (self.store.clone(), self.sealer.clone(), Arc::new(SystemRng));
        WaysOut::new(egress::Options { store, sealer, rng, default_mode })
    }

    /// A deployment that has these secrets, each under the name of its id.
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

    /// Writes a secret, or gives it another value and hosts.
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

    /// A run with one open tool call.
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

    async fn of_call(&self, deployment: &Deployment, run_id: RunId) -> OfCall {
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
async fn a_placeholder_is_of_one_deployment_alone_and_stays_the_same() {
    let world = World::new().await;
    world.put_secret("sec_a", VALUE, &["api.acme.example"]).await;
    let (one, other) = (world.deployment(&["sec_a"], None).await, world.deployment(&["sec_a"], None).await);
    let ways_out = world.ways_out(EgressMode::Open);
    let environment = async |deployment: &Deployment| {
        let env = ways_out.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
        let [(name, placeholder)] = env.as_slice() else { panic!("{env:?}") };
        assert_eq!(name, "SEC_A");
        placeholder.clone()
    };
    let owner = ways_out.owner(one.deployment_id);
    assert_eq!(placeholders(&owner.policy().await.unwrap()), [""; 0], "none was needed yet");
    let (first, again) = tokio::join!(environment(&one), environment(&one));
    assert_eq!(first, again);
    let random = first.strip_prefix("herm_ph_").unwrap();
    assert!(random.len() == 32 && random.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
    let elsewhere = environment(&other).await;
    assert_ne!(first, elsewhere);
    assert_eq!(placeholders(&owner.policy().await.unwrap()), [first.as_str()]);
    let others = ways_out.owner(other.deployment_id).policy().await.unwrap();
    assert_eq!(placeholders(&others), [elsewhere.as_str()]);
    // After a restart it is the same.
    let next = world.ways_out(EgressMode::Open);
    let env = next.environment(one.deployment_id, &one.settings.secrets).await.unwrap();
    assert_eq!(env, [("SEC_A".to_owned(), first)]);
}

#[tokio::test]
async fn what_is_changed_of_a_secret_acts_at_the_next_request() {
    let world = World::new().await;
    world.put_secret("sec_a", VALUE, &["api.acme.example"]).await;
    let deployment = world.deployment(&["sec_a"], None).await;
    let ways_out = world.ways_out(EgressMode::Open);
    let env = ways_out.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
    let owner = ways_out.owner(deployment.deployment_id);
    let old = owner.policy().await.unwrap().secrets[0].clone();
    assert_eq!(owner.value(old.clone()).await.unwrap().expose_secret(), VALUE);
    world.put_secret("sec_a", ROTATED, &["new.acme.example"]).await;
    assert_eq!(owner.value(old).await.unwrap_err(), Unavailable, "the new value is not for the old hosts");
    let policy = owner.policy().await.unwrap();
    let new = policy.secrets[0].clone();
    assert_eq!(policy.secrets[0].allowed_hosts[0].to_string(), "new.acme.example");
    assert_eq!(placeholders(&policy), [env[0].1.as_str()], "the placeholder stays");
    assert_eq!(owner.value(new.clone()).await.unwrap().expose_secret(), ROTATED);
    // Taken away, it ends for what runs, too; a run that knew it knows it no more.
    world.bind(&deployment, Vec::new()).await;
    assert!(owner.policy().await.unwrap().secrets.is_empty());
    assert_eq!(owner.value(new).await.unwrap_err(), Unavailable);
    let after = ways_out.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
    assert_eq!(after, []);
    // Given back, it has another placeholder.
    world.bind(&deployment, vec!["sec_a".parse().unwrap()]).await;
    let anew = ways_out.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
    assert_ne!(anew, env);
}

#[tokio::test]
async fn the_policy_is_the_deployments_own_else_the_servers() {
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
        let ways_out = world.ways_out(default);
        let policy = ways_out.owner(silent.deployment_id).policy().await.unwrap();
        assert_eq!(
            (policy.mode, hosts(&policy)),
            (default, expected.iter().map(ToString::to_string).collect())
        );
        let policy = ways_out.owner(listed.deployment_id).policy().await.unwrap();
        assert_eq!((policy.mode, hosts(&policy)), (EgressMode::Allowlist, vec!["pypi.org".to_owned()]));
    }
    // A change of the deployment acts at once, whatever its runs keep to.
    let owner = world.ways_out(EgressMode::Open).owner(listed.deployment_id);
    listed.version += 1;
    listed.settings.sandbox.egress = Some(Egress { mode: EgressMode::Deny, hosts: Vec::new() });
    let changed = listed.clone();
    world.write(move |tx| Box::pin(async move { deployments::update(tx, &changed).await })).await;
    assert_eq!(owner.policy().await.unwrap().mode, EgressMode::Deny);
    // A deployment that is gone reaches nothing.
    world.write(move |tx| Box::pin(async move { deployments::delete(tx, &listed).await })).await;
    assert_eq!(owner.policy().await.unwrap_err(), Unavailable);
    assert_eq!(owner.record(attempt(None, Verdict::Allowed)).await, Err(Unavailable));
}

#[tokio::test]
async fn an_attempt_is_written_before_it_is_made_and_its_end_when_the_server_stops() {
    let world = World::new().await;
    let deployment = world.deployment(&[], None).await;
    let run_id = world.open_call(&deployment).await;
    let ways_out = world.ways_out(EgressMode::Open);
    let owner = ways_out.owner(deployment.deployment_id);
    let user = Some(format!("{run_id}.1.1"));
    let record = owner.record(attempt(user, Verdict::Allowed)).await.unwrap();
    let denied = Verdict::Denied { reason: "the address is private".to_owned() };
    owner.record(attempt(Some("\0nonsense.1.1".to_owned()), denied)).await.unwrap();
    let open = world.of_call(&deployment, run_id).await;
    assert_eq!((open.total, open.listed[0].sent_bytes, open.listed[0].ended_at), (2, None, None));
    owner.ended(record, Traffic { sent_bytes: 7, received_bytes: u64::MAX, error: Some("reset".to_owned()) });
    ways_out.close().await;
    let ended = world.of_call(&deployment, run_id).await.listed.remove(0);
    assert_eq!((ended.sent_bytes, ended.received_bytes), (Some(7), Some(i64::MAX)));
    assert_eq!(ended.error.as_deref(), Some("reset"));
    assert!(ended.ended_at.is_some());
    // What is told after it is lost, and does no harm.
    owner.ended(record, Traffic::default());
}

#[tokio::test]
async fn without_a_database_nothing_is_let_through() {
    let world = World::new().await;
    let deployment = world.deployment(&[], None).await;
    let owner = world.ways_out(EgressMode::Open).owner(deployment.deployment_id);
    world.store.close().await;
    assert_eq!(owner.record(attempt(None, Verdict::Allowed)).await, Err(Unavailable));
}

#[tokio::test]
async fn a_database_that_hangs_refuses_and_what_it_wrote_too_late_is_ended() {
    let world = World::new().await;
    let deployment = world.deployment(&[], None).await;
    let run_id = world.open_call(&deployment).await;
    let ways_out = world.ways_out(EgressMode::Open);
    let owner = ways_out.owner(deployment.deployment_id);
    // The writer stands until it is let go.
    let (let_go, wait) = std::sync::mpsc::channel::<()>();
    let (stands, is_standing) = tokio::sync::oneshot::channel();
    let store = world.store.clone();
    let hanging = tokio::spawn(async move {
        store
            .transaction("hang", move |_| {
                Box::pin(async move {
                    stands.send(()).unwrap();
                    let _ = wait.recv();
                    Ok::<_, Error>(())
                })
            })
            .await
    });
    is_standing.await.unwrap();
    // From here on nothing but the limit can come: it is not waited for.
    tokio::time::pause();
    assert_eq!(owner.record(attempt(None, Verdict::Allowed)).await, Err(Unavailable));
    tokio::time::resume();
    let_go.send(()).unwrap();
    hanging.await.unwrap().unwrap();
    // It is ended as soon as it is written: two looks are enough, one at either.
    let mut ended = None;
    while ended.is_none() {
        let written = world.of_call(&deployment, run_id).await.listed;
        ended = written.into_iter().next().filter(|connection| connection.ended_at.is_some());
    }
    let ended = ended.unwrap();
    assert_eq!((ended.sent_bytes, ended.received_bytes), (Some(0), Some(0)));
    assert!(ended.error.unwrap().contains("refused"));
}

#[tokio::test]
async fn another_master_key_is_noticed() {
    let world = World::new().await;
    assert!(!key_check::is_needed(&world.store).await.unwrap());
    key_check::check(&world.store, &world.sealer).await.unwrap();
    assert!(key_check::is_needed(&world.store).await.unwrap());
    key_check::check(&world.store, &world.sealer).await.unwrap();
    let error = key_check::check(&world.store, &sealer()).await.unwrap_err();
    assert!(error.to_string().contains("another master key"), "{error}");
    key_check::check(&world.store, &world.sealer).await.unwrap();
    // Who makes keys needs none.
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

/// Everything that is traced, at the most verbose level.
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
async fn no_value_reaches_a_log_or_a_text() {
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
    let ways_out = world.ways_out(EgressMode::Open);
    let owner = ways_out.owner(deployment.deployment_id);
    let env = ways_out.environment(deployment.deployment_id, &deployment.settings.secrets).await.unwrap();
    let policy = owner.policy().await.unwrap();
    let value = owner.value(policy.secrets[0].clone()).await.unwrap();
    assert_eq!(value.expose_secret(), VALUE);
    // Also where it fails: another key opens nothing, and says so.
    let (store, rng) = (world.store.clone(), Arc::new(SystemRng));
    let foreign = egress::Options { store, sealer: sealer(), rng, default_mode: EgressMode::Open };
    let foreign = WaysOut::new(foreign).owner(deployment.deployment_id);
    assert_eq!(foreign.value(policy.secrets[0].clone()).await.unwrap_err(), Unavailable);
    let texts = format!("{env:?} {policy:?} {value:?} {:?}", BTreeMap::from([("v", &value)]));
    let traced = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(traced.contains("failed to open a secret"), "nothing was traced");
    for leaked in [VALUE, "Zq8fP2mWn4Lx7Vt1"] {
        assert!(!traced.contains(leaked) && !texts.contains(leaked), "{leaked}");
    }
}
