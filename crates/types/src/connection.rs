//! Connections that programs in a sandbox made, or wanted to make.

use serde::Serialize;

use crate::time::Timestamp;

/// What was decided of an attempt to reach a host.
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

/// A connection of a program in the sandbox, from the program's wish on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct StepConnection {
    /// A name in lower case, or an address without brackets.
    pub host: String,
    pub port: u16,
    pub verdict: ConnectionVerdict,
    /// Why it was denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// To the host; `null` while it is not known.
    pub sent_bytes: Option<i64>,
    /// From the host; `null` while it is not known.
    pub received_bytes: Option<i64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub opened_at: Timestamp,
    /// `null` while it is open.
    pub ended_at: Option<Timestamp>,
}
