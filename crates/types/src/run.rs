//! Runs: the work that a message starts, its steps and its usage.

use serde::{Deserialize, Serialize};

use crate::connection::StepConnection;
use crate::id::{DeploymentId, RunId, ThreadId};
use crate::model::TokenUsage;
use crate::time::Timestamp;

/// The status of a run. A run starts as `queued` and becomes `running`. It is `waiting_on_human` while it
/// waits for answers to steering requests. It ends as `completed`, `error` or `cancelled`, which are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    Queued,
    Running,
    WaitingOnHuman,
    Completed,
    Error,
    Cancelled,
}

impl RunStatus {
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::WaitingOnHuman, Self::Completed, Self::Error, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::WaitingOnHuman => "waiting_on_human",
            Self::Completed => "completed",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Returns true if the status is final.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Error | Self::Cancelled)
    }
}

/// The error with which a run failed: a stable code and a human-readable explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunError {
    pub code: String,
    pub message: String,
}

/// The model calls, tool calls and tokens that a run has consumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Usage {
    pub model_calls: u64,
    pub tool_calls: u64,
    pub tokens: TokenUsage,
    /// The usage of each model, in the order of first use. The list has several entries if fallback models
    /// replied.
    #[serde(default)]
    pub models: Vec<ModelUsage>,
}

impl Usage {
    /// Adds a successful model call to the run's totals and to the usage of `model`.
    pub fn add_model_call(&mut self, model: &str, tokens: TokenUsage) {
        self.model_calls += 1;
        self.tokens += tokens;
        let existing = self.models.iter_mut().find(|usage| usage.model == model);
        if let Some(usage) = existing {
            usage.model_calls += 1;
            usage.tokens += tokens;
        } else {
            self.models.push(ModelUsage { model: model.to_owned(), model_calls: 1, tokens });
        }
    }
}

/// One model's share of a run's usage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ModelUsage {
    /// The model's name, as `provider/model`.
    pub model: String,
    pub model_calls: u64,
    pub tokens: TokenUsage,
}

/// The cause of a run. Currently, only a message can start a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Message,
}

/// The kind of a call made during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A model call.
    Model,
    /// A tool call that the model requested.
    Tool,
}

/// The status of a model call or tool call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    Running,
    Completed,
    /// The tool call failed. The model receives the error as the tool result.
    Error,
    /// The run ended before the call had completed.
    Cancelled,
}

/// A model call or tool call made during a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RunStep {
    /// The number of the step, from 1. A model call and the tool calls that its reply requests belong to the
    /// same step.
    pub step: i64,
    pub kind: StepKind,
    /// The name of the model (`provider/model`) or of the tool that is called.
    pub name: String,
    /// The id of the tool call, as in the events `tool_call` and `tool_result`. Absent for a model call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    pub status: StepStatus,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub duration_ms: Option<i64>,
    /// The tokens of a model call, as the provider counts them. Absent for a tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenUsage>,
    /// The first 100 network connections attempted by programs that the tool call started, in order. Absent
    /// for a model call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Vec<StepConnection>>,
    /// The total number of network connections attempted by programs that the tool call started. Absent for a
    /// model call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_total: Option<i64>,
}

/// The work that a message starts, until it completes, fails or is cancelled.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Run {
    pub run_id: RunId,
    pub deployment_id: DeploymentId,
    pub thread_id: ThreadId,
    pub trigger: Trigger,
    pub status: RunStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    pub usage: Usage,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// The time at which cancellation was requested. The run ends as soon as its active calls have stopped.
    /// Absent if cancellation was not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<Timestamp>,
}
