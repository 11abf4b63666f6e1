//! Steering: a run stops for a person, who approves or answers.

use serde::{Deserialize, Serialize};

use crate::id::{ApprovalId, DeploymentId, RunId, SteeringId, ThreadId};
use crate::time::Timestamp;

/// What a person is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SteeringKind {
    /// Whether a tool call may be made.
    Approval,
    /// An answer.
    Question,
}

impl SteeringKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Question => "question",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Approval, Self::Question].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Whether a request still waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SteeringStatus {
    Pending,
    Resolved,
}

impl SteeringStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Resolved => "resolved",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Resolved].into_iter().find(|status| status.as_str() == text)
    }
}

/// What became of a request; the first stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SteeringOutcome {
    Approved,
    Denied,
    Answered,
    /// Nobody answered in time: the deployment's `steering.on_expiry` was followed.
    Expired,
    /// Its run ended before.
    Cancelled,
}

impl SteeringOutcome {
    const ALL: [Self; 5] = [Self::Approved, Self::Denied, Self::Answered, Self::Expired, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Answered => "answered",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SteeringDecision {
    /// Make the call.
    Approve,
    /// Don't make it; of a question: there will be no answer.
    Deny,
    /// The answer is the message.
    Answer,
}

impl SteeringDecision {
    pub fn outcome(self) -> SteeringOutcome {
        match self {
            Self::Approve => SteeringOutcome::Approved,
            Self::Deny => SteeringOutcome::Denied,
            Self::Answer => SteeringOutcome::Answered,
        }
    }
}

/// How far an approval reaches: to the same call alone, be it made again. Of `shell` that is the exact command, of
/// other tools the exact arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Remember {
    /// This call alone.
    #[default]
    Once,
    /// The same call for the rest of the run.
    Run,
    /// The same call of this deployment, until it is withdrawn.
    Always,
}

/// A person's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SteeringAnswer {
    pub decision: SteeringDecision,
    /// The answer, the reason of a denial, or what goes with an approval; the agent reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the call is made with, in place of what the agent wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub arguments: Option<serde_json::Value>,
    #[serde(default)]
    pub remember: Remember,
}

/// What a run asks, or asked, a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SteeringRequest {
    pub steering_id: SteeringId,
    pub deployment_id: DeploymentId,
    pub thread_id: ThreadId,
    pub run_id: RunId,
    pub kind: SteeringKind,
    pub status: SteeringStatus,
    /// What is asked, in a sentence.
    pub summary: String,
    /// The tool whose call asks, or waits.
    pub tool: String,
    /// As in the events `tool_call` and `tool_result`.
    pub tool_call_id: String,
    /// Of an approval: the arguments as the agent wrote them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub arguments: Option<serde_json::Value>,
    /// Of a question: answers that the agent suggests. Any other may be given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    pub created_at: Timestamp,
    /// When `steering.on_expiry` decides; `null`: it waits for ever.
    pub expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<SteeringOutcome>,
    /// The API key of whoever answered; `expiry` and `cancel` where nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<SteeringAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
}

/// A call that an approval with `remember: "always"` lets through from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Approval {
    pub approval_id: ApprovalId,
    pub tool: String,
    /// The arguments that were approved. Of `shell` only the command counts.
    #[schema(value_type = Object)]
    pub arguments: serde_json::Value,
    /// The request at which it was granted.
    pub steering_id: SteeringId,
    /// The API key of whoever granted it.
    pub by: String,
    pub created_at: Timestamp,
}
