//! The interface through which the proxy gets policies and secret values from the server, and reports connections.

use futures_util::future::BoxFuture;
use secrecy::SecretString;

use crate::{Policy, PolicySecret};

/// The deployment on whose behalf the proxy serves the connections of a sandbox. The proxy calls these methods for
/// each connection and each request, so that changes take effect with the next request.
pub trait Owner: Send + Sync + 'static {
    /// Returns the deployment's current egress policy.
    fn policy(&self) -> BoxFuture<'_, Result<Policy, Unavailable>>;

    /// Returns the value of a secret in the policy. Called only for a request to a host that may receive the secret.
    /// Returns [`Unavailable`] if the secret has changed since the policy was read: its new value may be meant for
    /// other hosts and must not be sent to this one.
    fn value(&self, secret: PolicySecret) -> BoxFuture<'_, Result<SecretString, Unavailable>>;

    /// Records an attempt to connect. Nothing is sent to the host before this succeeds.
    fn record(&self, attempt: Attempt) -> BoxFuture<'_, Result<RecordId, Unavailable>>;

    /// Records the end of an allowed connection and the traffic on it. Must not block.
    fn ended(&self, record: RecordId, traffic: Traffic);
}

/// The error that an [`Owner`] returns if it cannot provide the policy or a secret value, or cannot record an attempt.
/// The proxy refuses the program's request, and the program may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the egress policy, a secret value or the connection log is unavailable")]
pub struct Unavailable;

/// The id under which an attempt to connect is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId(pub u64);

/// An attempt by a program in a sandbox to reach a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The user name in the program's proxy credentials. Each command gets its own user name, but a program can send
    /// any name, so the name does not prove which command made the attempt.
    pub user: Option<String>,
    /// The name or IP address of the host, in lower case. IPv6 addresses have no brackets.
    pub host: String,
    pub port: u16,
    pub verdict: Verdict,
}

/// The policy's decision about an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// The attempt was denied. `reason` is a sentence that contains no secret.
    Denied {
        reason: String,
    },
}

/// The traffic of an allowed connection, counted as bytes on the TCP connection to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// The cause of the failure if the connection failed. Contains no secret.
    pub error: Option<String>,
}
