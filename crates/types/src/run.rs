//! Runs: the work on a message, from the queue to its end.

use serde::{Deserialize, Serialize};

use crate::connection::StepConnection;
use crate::id::{DeploymentId, RunId, ThreadId};
use crate::model::TokenUsage;
use crate::time::Timestamp;

/// Where a run stands. `queued` → `running` → one of the ends; a run that ended never changes.
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

    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Error | Self::Cancelled)
    }
}

/// Why a run failed: a stable code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunError {
    pub code: String,
    pub message: String,
}

/// What a run used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Usage {
    pub model_calls: u64,
    pub tool_calls: u64,
    pub tokens: TokenUsage,
    /// The same by model, in the order in which they first answered: more than one where a fallback stood in.
    #[serde(default)]
    pub models: Vec<ModelUsage>,
}

impl Usage {
    /// Counts a model call that was answered.
    pub fn add_model_call(&mut self, model: &str, tokens: TokenUsage) {
        self.model_calls += 1;
        self.tokens += tokens;
        let known = self.models.iter_mut().find(|of| of.model == model);
        if let Some(of_model) = known {
            of_model.model_calls += 1;
            of_model.tokens += tokens;
        } else {
            self.models.push(ModelUsage { model: model.to_owned(), model_calls: 1, tokens });
        }
    }
}

/// What a run used of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ModelUsage {
    /// `provider/model`.
    pub model: String,
    pub model_calls: u64,
    pub tokens: TokenUsage,
}

/// What started a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Message,
}

/// What a step of a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A model call.
    Model,
    /// A tool call that the model asked for.
    Tool,
}

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    Running,
    Completed,
    /// A tool call that failed; the model was told.
    Error,
    /// It was under way when its run ended.
    Cancelled,
}

/// A model call or a tool call of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RunStep {
    /// From 1; a model call and the tool calls that it asks for have the same.
    pub step: i64,
    pub kind: StepKind,
    /// The model or the tool.
    pub name: String,
    /// As in the events `tool_call` and `tool_result`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    pub status: StepStatus,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub duration_ms: Option<i64>,
    /// Of a model call, as the provider counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenUsage>,
    /// Of a tool call: the first 100 connections that its programs made, or wanted to make, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Vec<StepConnection>>,
    /// Of a tool call: how many connections there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_total: Option<i64>,
}

/// A run as the API shows it.
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
    /// When it was asked to be cancelled; it ends at the next moment at which it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<Timestamp>,
}
