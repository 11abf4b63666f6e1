//! The network connections that programs in a sandbox attempted, as the API lists them.

use serde::Serialize;

use crate::time::Timestamp;

/// The decision of the egress policy on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionVerdict {
    Allowed,
    Denied,
}

impl ConnectionVerdict {
    pub const ALL: [Self; 2] = [Self::Allowed, Self::Denied];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == text)
    }
}

/// One attempt by a program in the sandbox to connect to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct StepConnection {
    /// The requested host: a host name in lower case, or an IP address (IPv6 without brackets).
    pub host: String,
    pub port: u16,
    pub verdict: ConnectionVerdict,
    /// The reason why the connection was denied. Absent if it was allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The number of bytes sent to the host, or `null` if it is not known yet.
    pub sent_bytes: Option<i64>,
    /// The number of bytes received from the host, or `null` if it is not known yet.
    pub received_bytes: Option<i64>,
    /// The error with which the connection failed. Absent if it did not fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub opened_at: Timestamp,
    /// The time at which the connection ended, or `null` while it is open.
    pub ended_at: Option<Timestamp>,
}
