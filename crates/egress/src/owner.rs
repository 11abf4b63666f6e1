//! What egress asks of the server about the sandbox whose connections it serves.

use futures_util::future::BoxFuture;
use secrecy::SecretString;

use crate::{Policy, PolicySecret};

/// The deployment that a sandbox's connections belong to. It is asked anew for each connection and each request, so
/// that a change acts from the next one on.
pub trait Owner: Send + Sync + 'static {
    /// What may be reached now.
    fn policy(&self) -> BoxFuture<'_, Result<Policy, Unavailable>>;

    /// The value of a secret of the policy, if all else of the secret is still as the policy has it: a value that was
    /// given together with other hosts is not for the old ones. It is asked for only when a host is reached that the
    /// secret allows.
    fn value(&self, secret: PolicySecret) -> BoxFuture<'_, Result<SecretString, Unavailable>>;

    /// Records an attempt. Nothing is sent out before this has succeeded.
    fn record(&self, attempt: Attempt) -> BoxFuture<'_, Result<RecordId, Unavailable>>;

    /// Records how an attempt that was allowed ended. It must not wait.
    fn ended(&self, record: RecordId, traffic: Traffic);
}

/// The server cannot say at this moment; the program inside may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is not available")]
pub struct Unavailable;

/// Names a recorded attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId(pub u64);

/// A program's wish to reach a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The user name that the program gave the proxy, if any: the server gives each command its own. It proves
    /// nothing, as a program can give what it likes.
    pub user: Option<String>,
    /// In lower case; an address without brackets.
    pub host: String,
    pub port: u16,
    pub verdict: Verdict,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// The sentence says why, and names no secret.
    Denied {
        reason: String,
    },
}

/// What went over a connection that was allowed, as bytes of the connection to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Why it failed, if it did; names no secret.
    pub error: Option<String>,
}
