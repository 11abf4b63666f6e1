//! Steering: a run pauses until a person approves a tool call or answers a question.

use serde::{Deserialize, Serialize};

use crate::id::{ApprovalId, DeploymentId, RunId, SteeringId, ThreadId};
use crate::time::Timestamp;

/// The kind of a steering request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SteeringKind {
    /// Asks for approval of a tool call.
    Approval,
    /// Asks a question whose answer is text.
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

/// The status of a steering request.
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

/// The final state of a steering request. It never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SteeringOutcome {
    Approved,
    Denied,
    Answered,
    /// The time limit passed without an answer, and the deployment's `steering.on_expiry` was applied.
    Expired,
    /// The run ended before the request was answered.
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

/// A person's decision on a steering request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SteeringDecision {
    /// For an approval request: make the tool call.
    Approve,
    /// For an approval request: do not make the tool call. For a question: decline to answer.
    Deny,
    /// For a question: the answer is in `message`.
    Answer,
}

impl SteeringDecision {
    /// Returns the outcome of a steering request that is answered with this decision.
    pub fn outcome(self) -> SteeringOutcome {
        match self {
            Self::Approve => SteeringOutcome::Approved,
            Self::Deny => SteeringOutcome::Denied,
            Self::Answer => SteeringOutcome::Answered,
        }
    }
}

/// The time for which an approval is remembered. A remembered approval covers only identical calls: for
/// `shell`, calls with the same command, and for other tools, calls with the same arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Remember {
    /// The approval covers only this call.
    #[default]
    Once,
    /// The approval covers identical calls for the rest of the run.
    Run,
    /// The approval covers identical calls in all runs of the deployment, until the approval is deleted.
    Always,
}

/// A person's answer to a steering request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SteeringAnswer {
    pub decision: SteeringDecision,
    /// The answer to a question, the reason for a denial, or a comment on an approval. The agent reads this
    /// text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Arguments for the approved call, in place of the arguments that the agent wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub arguments: Option<serde_json::Value>,
    #[serde(default)]
    pub remember: Remember,
}

/// A question or a request for approval that a run sends to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SteeringRequest {
    pub steering_id: SteeringId,
    pub deployment_id: DeploymentId,
    pub thread_id: ThreadId,
    pub run_id: RunId,
    pub kind: SteeringKind,
    pub status: SteeringStatus,
    /// The question, or a one-sentence description of the call to approve.
    pub summary: String,
    /// The tool whose call asks the question or needs the approval.
    pub tool: String,
    /// The id of the tool call, as in the events `tool_call` and `tool_result`.
    pub tool_call_id: String,
    /// The arguments of the tool call, as the agent wrote them. Present only for an approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub arguments: Option<serde_json::Value>,
    /// Answers that the agent suggests. A different answer is allowed too. Present only for a question.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    pub created_at: Timestamp,
    /// The time at which the request expires and the deployment's `steering.on_expiry` is applied, or `null`
    /// if it never expires.
    pub expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<SteeringOutcome>,
    /// The id of the API key that answered the request, `expiry` if the request expired, or `cancel` if the
    /// run ended before the request was answered. Absent while the request is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<SteeringAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
}

/// A stored approval of a tool call. Until the approval is deleted, identical calls are made without asking
/// again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Approval {
    pub approval_id: ApprovalId,
    pub tool: String,
    /// The approved arguments. A call is identical if all arguments are the same. For `shell`, only the
    /// command is compared.
    #[schema(value_type = Object)]
    pub arguments: serde_json::Value,
    /// The steering request whose answer created the approval.
    pub steering_id: SteeringId,
    /// The id of the API key that granted the approval.
    pub by: String,
    pub created_at: Timestamp,
}
