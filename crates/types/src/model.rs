//! What is said to a model and what comes back: one shape for every provider.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A model's name as clients write it, `provider/model`; the model part may hold further slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelName {
    pub provider: String,
    pub model: String,
}

impl ModelName {
    /// Splits `provider/model` at the first slash; `None` if either side would be empty.
    pub fn parse(text: &str) -> Option<Self> {
        let (provider, model) = text.split_once('/')?;
        if provider.is_empty() || model.is_empty() {
            return None;
        }
        Some(Self { provider: provider.to_owned(), model: model.to_owned() })
    }
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// One call of a model: a fixed prefix (`system`, `tools`) and the conversation so far, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRequest {
    /// The provider's own name of the model, without the `provider/` part.
    pub model: String,
    pub system: String,
    pub tools: Vec<ToolSchema>,
    pub turns: Vec<Turn>,
    pub max_output_tokens: u32,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Turn {
    User { text: String },
    Assistant { blocks: Vec<Block> },
    ToolResults { results: Vec<ToolResult> },
}

/// A piece of what a model said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text {
        text: String,
    },
    /// Reasoning; `signature` must be given back unchanged to the provider that made it.
    Thinking {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// Reasoning that the provider encrypted; given back unchanged.
    RedactedThinking {
        data: String,
    },
    ToolCall(ToolCall),
}

/// A tool call as the model wrote it. `arguments` is the raw JSON text, which may be malformed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    pub tool_call_id: String,
    pub tool: String,
    pub arguments: String,
}

/// What a tool call gave, as the model is told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    pub tool_call_id: String,
    pub text: String,
    pub is_error: bool,
}

/// What a tool call gave, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutcome {
    pub text: String,
    pub is_error: bool,
}

/// A tool as a model is told of it; `parameters` is a JSON Schema of type `object`.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolSchema {
    pub name: String,
    pub description: String,
    pub parameters: serde_json::Value,
}

/// What a model's stream yields: text as it comes, then exactly one finished reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelEvent {
    TextDelta(String),
    Finished(ModelReply),
}

/// A finished reply: its blocks in the model's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReply {
    pub blocks: Vec<Block>,
    pub stop: StopReason,
    pub usage: TokenUsage,
}

impl ModelReply {
    /// All text blocks, concatenated.
    pub fn text(&self) -> String {
        self.blocks
            .iter()
            .filter_map(|block| match block {
                Block::Text { text } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The tool calls, in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.blocks.iter().filter_map(|block| match block {
            Block::ToolCall(call) => Some(call),
            _ => None,
        })
    }
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    EndTurn,
    ToolCalls,
    Length,
    Refusal,
}

/// Tokens as the provider counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenUsage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
}

impl std::ops::AddAssign for TokenUsage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cache_read_tokens += other.cache_read_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
    }
}

/// Why a model call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelFaultKind {
    /// No such provider is configured, or it has no key.
    ProviderNotConfigured,
    Authentication,
    RateLimited,
    Overloaded,
    /// The provider failed (5xx).
    Provider,
    /// The connection failed or broke.
    Network,
    /// The stream went silent for longer than the limit.
    Stalled,
    /// The answer is not what the wire format says.
    Malformed,
    ContextOverflow,
    ContentRefused,
    /// The provider refused the request (another 4xx).
    InvalidRequest,
}

impl ModelFaultKind {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Overloaded
                | Self::Provider
                | Self::Network
                | Self::Stalled
                | Self::Malformed
        )
    }

    /// Whether another model may answer the same request. A refusal stands: models are not asked one after the other
    /// until one complies.
    pub fn may_pass_elsewhere(self) -> bool {
        self != Self::ContentRefused
    }

    /// The stable code that `run_status` carries.
    pub fn code(self) -> &'static str {
        match self {
            Self::ProviderNotConfigured => "provider_not_configured",
            Self::Authentication => "provider_authentication",
            Self::RateLimited => "provider_rate_limited",
            Self::Overloaded => "provider_overloaded",
            Self::Provider => "provider_error",
            Self::Network => "provider_unreachable",
            Self::Stalled => "provider_stalled",
            Self::Malformed => "provider_malformed_response",
            Self::ContextOverflow => "context_overflow",
            Self::ContentRefused => "content_refused",
            Self::InvalidRequest => "provider_rejected_request",
        }
    }
}

/// A failed model call: its kind, a sentence for a person, and how long the provider asks to wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelFault {
    pub kind: ModelFaultKind,
    pub message: String,
    pub retry_after: Option<Duration>,
}
