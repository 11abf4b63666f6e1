//! A test implementation of `Owner`, the deployment on whose behalf the proxy serves connections. A test sets the
//! policy and the secrets, and reads which attempts and closed connections the proxy has reported.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use herm_egress::{Attempt, Owner, Policy, PolicySecret, RecordId, Traffic, Unavailable, Verdict};
use herm_types::sandbox::EgressMode;
use herm_types::secret::{Inject, SecretId};
use secrecy::SecretString;
use tokio::sync::Notify;

pub(crate) struct TestOwner {
    policy: Mutex<Policy>,
    values: Mutex<HashMap<SecretId, String>>,
    pub(crate) attempts: Mutex<Vec<Attempt>>,
    ended: Mutex<Vec<(RecordId, Traffic)>>,
    end_recorded: Notify,
    /// While true, recording an attempt to connect fails.
    pub(crate) is_unavailable: AtomicBool,
}

impl TestOwner {
    pub(crate) fn new() -> Self {
        let policy = Policy { mode: EgressMode::Open, hosts: Vec::new(), secrets: Vec::new() };
        Self {
            policy: Mutex::new(policy),
            values: Mutex::default(),
            attempts: Mutex::default(),
            ended: Mutex::default(),
            end_recorded: Notify::new(),
            is_unavailable: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_mode(&self, mode: EgressMode, hosts: &[&str]) {
        let mut policy = self.policy.lock().unwrap();
        policy.mode = mode;
        policy.hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    }

    /// Adds a secret to the policy, or changes the existing secret with this name. Returns the placeholder that stands
    /// for the secret in requests.
    pub(crate) fn set_secret(&self, name: &str, value: &str, hosts: &[&str], inject: &[Inject]) -> String {
        let secret_id: SecretId = format!("sec_{name}").parse().unwrap();
        let placeholder = format!("herm_secret_{name}_00112233445566778899aabbccddeeff");
        self.values.lock().unwrap().insert(secret_id.clone(), value.to_owned());
        let secret = PolicySecret {
            secret_id: secret_id.clone(),
            placeholder: placeholder.clone(),
            allowed_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            inject: inject.to_vec(),
        };
        let mut policy = self.policy.lock().unwrap();
        policy.secrets.retain(|other| other.secret_id != secret_id);
        policy.secrets.push(secret);
        placeholder
    }

    pub(crate) fn remove_secrets(&self) {
        self.policy.lock().unwrap().secrets.clear();
    }

    /// Returns the host and port of each recorded attempt to connect, and the reason if the attempt was denied.
    pub(crate) fn attempts(&self) -> Vec<(String, Option<String>)> {
        let shown = |attempt: &Attempt| {
            let reason = match &attempt.verdict {
                Verdict::Allowed => None,
                Verdict::Denied { reason } => Some(reason.clone()),
            };
            (format!("{}:{}", attempt.host, attempt.port), reason)
        };
        self.attempts.lock().unwrap().iter().map(shown).collect()
    }

    pub(crate) fn denials(&self) -> Vec<String> {
        self.attempts().into_iter().filter_map(|(_, reason)| reason).collect()
    }

    /// Waits until at least `count` connections have ended, and returns the traffic of all ended connections.
    pub(crate) async fn ended(&self, count: usize) -> Vec<(RecordId, Traffic)> {
        loop {
            let notified = self.end_recorded.notified();
            {
                let ended = self.ended.lock().unwrap();
                if ended.len() >= count {
                    return ended.clone();
                }
            }
            notified.await;
        }
    }
}

impl Owner for TestOwner {
    fn policy(&self) -> BoxFuture<'_, Result<Policy, Unavailable>> {
        let policy = self.policy.lock().unwrap().clone();
        Box::pin(async move { Ok(policy) })
    }

    fn value(&self, secret: PolicySecret) -> BoxFuture<'_, Result<SecretString, Unavailable>> {
        let value = self.values.lock().unwrap().get(&secret.secret_id).cloned();
        Box::pin(async move { value.map(SecretString::from).ok_or(Unavailable) })
    }

    fn record(&self, attempt: Attempt) -> BoxFuture<'_, Result<RecordId, Unavailable>> {
        if self.is_unavailable.load(Ordering::SeqCst) {
            return Box::pin(async { Err(Unavailable) });
        }
        let mut attempts = self.attempts.lock().unwrap();
        attempts.push(attempt);
        let id = RecordId(attempts.len() as u64);
        Box::pin(async move { Ok(id) })
    }

    fn ended(&self, record: RecordId, traffic: Traffic) {
        self.ended.lock().unwrap().push((record, traffic));
        self.end_recorded.notify_waiters();
    }
}
