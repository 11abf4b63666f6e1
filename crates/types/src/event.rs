//! The events of a deployment: what happened, in one gapless order, as every subscriber sees it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::deployment::DeploymentError;
use crate::id::{EventId, MessageId, RunId, SteeringId, ThreadId};
use crate::run::{RunError, RunStatus, Usage};
use crate::steering::{SteeringKind, SteeringOutcome};
use crate::thread::{Attachment, Role};
use crate::time::Timestamp;

/// An event as it is written: its type and its data.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Event {
    Token {
        run_id: RunId,
        thread_id: ThreadId,
        message_id: MessageId,
        delta: String,
    },
    Message {
        run_id: RunId,
        thread_id: ThreadId,
        message_id: MessageId,
        role: Role,
        content: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        attachments: Vec<Attachment>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    ToolCall {
        run_id: RunId,
        thread_id: ThreadId,
        tool_call_id: String,
        tool: String,
        arguments: serde_json::Value,
    },
    ToolResult {
        run_id: RunId,
        thread_id: ThreadId,
        tool_call_id: String,
        tool: String,
        result: String,
        is_error: bool,
        duration_ms: i64,
    },
    RunStatus {
        run_id: RunId,
        thread_id: ThreadId,
        status: RunStatus,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<RunError>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    SteeringRequest {
        run_id: RunId,
        thread_id: ThreadId,
        steering_id: SteeringId,
        kind: SteeringKind,
        summary: String,
        tool: String,
        tool_call_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        arguments: Option<serde_json::Value>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        options: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
    },
    SteeringResolved {
        run_id: RunId,
        thread_id: ThreadId,
        steering_id: SteeringId,
        outcome: SteeringOutcome,
        by: String,
    },
    DeploymentStatus {
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<DeploymentError>,
    },
}

/// The names of all event types that may stand in a stream.
pub const EVENT_TYPES: [&str; 8] = [
    "token",
    "message",
    "tool_call",
    "tool_result",
    "steering_request",
    "steering_resolved",
    "run_status",
    "deployment_status",
];

impl Event {
    /// A deployment's new status, of which there is nothing more to say.
    pub fn deployment_status(status: &'static str) -> Self {
        Self::DeploymentStatus { status, error: None }
    }

    /// The name in the stream's `event:` line.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Token { .. } => "token",
            Self::Message { .. } => "message",
            Self::ToolCall { .. } => "tool_call",
            Self::ToolResult { .. } => "tool_result",
            Self::RunStatus { .. } => "run_status",
            Self::SteeringRequest { .. } => "steering_request",
            Self::SteeringResolved { .. } => "steering_resolved",
            Self::DeploymentStatus { .. } => "deployment_status",
        }
    }

    /// The run and the thread it belongs to, if it belongs to one.
    pub fn scope(&self) -> Option<(RunId, ThreadId)> {
        match self {
            Self::Token { run_id, thread_id, .. }
            | Self::Message { run_id, thread_id, .. }
            | Self::ToolCall { run_id, thread_id, .. }
            | Self::ToolResult { run_id, thread_id, .. }
            | Self::SteeringRequest { run_id, thread_id, .. }
            | Self::SteeringResolved { run_id, thread_id, .. }
            | Self::RunStatus { run_id, thread_id, .. } => Some((*run_id, *thread_id)),
            Self::DeploymentStatus { .. } => None,
        }
    }
}

/// An event as it is stored and sent: the bytes of `data` never change once written.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    pub event_id: EventId,
    pub event: Arc<str>,
    pub run_id: Option<RunId>,
    pub thread_id: Option<ThreadId>,
    pub data: Arc<str>,
    pub created_at: Timestamp,
}

/// An event in the JSON listing.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EventItem {
    #[schema(pattern = "^evt_[0-9]+$")]
    pub id: String,
    /// The event's type.
    pub event: String,
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
    pub created_at: Timestamp,
}

/// Which events of a deployment are wanted; what is `None` or empty does not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub thread_id: Option<ThreadId>,
    pub run_id: Option<RunId>,
    pub types: Vec<String>,
}

impl EventFilter {
    pub fn is_empty(&self) -> bool {
        self.thread_id.is_none() && self.run_id.is_none() && self.types.is_empty()
    }

    pub fn wants(&self, event: &StoredEvent) -> bool {
        self.thread_id.is_none_or(|wanted| event.thread_id == Some(wanted))
            && self.run_id.is_none_or(|wanted| event.run_id == Some(wanted))
            && (self.types.is_empty() || self.types.iter().any(|wanted| **wanted == *event.event))
    }
}
