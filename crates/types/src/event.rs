//! The events of a deployment: one gapless, ordered log that every subscriber sees identically.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::deployment::DeploymentError;
use crate::id::{EventId, MessageId, RunId, SteeringId, ThreadId};
use crate::run::{RunError, RunStatus, Usage};
use crate::steering::{SteeringKind, SteeringOutcome};
use crate::thread::{Attachment, Role};
use crate::time::Timestamp;

/// The data of an event. The serialized data does not contain the event type, which [`Event::type_name`]
/// returns.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Event {
    /// `token`: a piece of the text of a message that the agent is still writing.
    Token { run_id: RunId, thread_id: ThreadId, message_id: MessageId, delta: String },
    /// `message`: a complete message of a user or of the agent.
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
    /// `tool_call`: the agent makes a tool call.
    ToolCall {
        run_id: RunId,
        thread_id: ThreadId,
        tool_call_id: String,
        tool: String,
        arguments: serde_json::Value,
    },
    /// `tool_result`: a tool call has ended, with this result.
    ToolResult {
        run_id: RunId,
        thread_id: ThreadId,
        tool_call_id: String,
        tool: String,
        result: String,
        is_error: bool,
        duration_ms: i64,
    },
    /// `run_status`: the status of a run has changed.
    RunStatus {
        run_id: RunId,
        thread_id: ThreadId,
        status: RunStatus,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<RunError>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// `steering_request`: a run asks a person for an approval or an answer, and waits.
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
    /// `steering_resolved`: a steering request was answered, has expired or was cancelled.
    SteeringResolved {
        run_id: RunId,
        thread_id: ThreadId,
        steering_id: SteeringId,
        outcome: SteeringOutcome,
        by: String,
    },
    /// `deployment_status`: the status of the deployment has changed. The event with the status `deleted` is
    /// always the deployment's last event.
    DeploymentStatus {
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<DeploymentError>,
    },
}

/// The status in the last event of a deleted deployment.
pub const DELETED: &str = "deleted";

/// The names of all event types, in the order in which error messages list them.
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
    /// Creates a `deployment_status` event for any status except `error`.
    pub fn deployment_status(status: &'static str) -> Self {
        Self::DeploymentStatus { status, error: None }
    }

    /// Returns the event type, for example `run_status`. Event streams send it in the `event:` line.
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

    /// Returns the run and the thread that the event belongs to, or `None` if it concerns the whole
    /// deployment.
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

/// An event in the form that is stored in the database and sent to clients. `data` is JSON, and its bytes
/// never change once the event is committed.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    pub event_id: EventId,
    pub event: Arc<str>,
    pub run_id: Option<RunId>,
    pub thread_id: Option<ThreadId>,
    pub data: Arc<str>,
    pub created_at: Timestamp,
}

/// A row in a JSON list of events.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EventItem {
    /// The event id. Events of a deployment are numbered from `evt_1` without gaps.
    #[schema(pattern = "^evt_[0-9]+$")]
    pub id: String,
    /// The event type, for example `message`.
    pub event: String,
    /// The event's data. The shape of the object depends on the event type.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
    pub created_at: Timestamp,
}

/// A filter on a deployment's events. An event must match every field that is set. `None` and an empty list
/// match all events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub thread_id: Option<ThreadId>,
    pub run_id: Option<RunId>,
    pub types: Vec<String>,
}

impl EventFilter {
    /// Returns true if the filter selects all events.
    pub fn is_empty(&self) -> bool {
        self.thread_id.is_none() && self.run_id.is_none() && self.types.is_empty()
    }

    /// Returns true if the filter selects the event.
    pub fn matches(&self, event: &StoredEvent) -> bool {
        self.thread_id.is_none_or(|selected| event.thread_id == Some(selected))
            && self.run_id.is_none_or(|selected| event.run_id == Some(selected))
            && (self.types.is_empty() || self.types.iter().any(|selected| **selected == *event.event))
    }
}
