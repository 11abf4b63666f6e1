//! Model calls: requests, replies and errors, with the same types for all providers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The name of a model, written `provider/model`. The part after the first slash may contain further slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelName {
    pub provider: String,
    pub model: String,
}

impl ModelName {
    /// Parses `provider/model`, split at the first slash. Returns `None` if there is no slash or either part
    /// is empty.
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

/// The input of a model call: the system prompt, the available tools, and the conversation so far, oldest
/// turn first.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRequest {
    /// The model's name at the provider, without the prefix `provider/`.
    pub model: String,
    pub system: String,
    pub tools: Vec<ToolSchema>,
    pub turns: Vec<Turn>,
    pub max_output_tokens: u32,
}

/// One entry of the conversation as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Turn {
    User { text: String },
    Assistant { blocks: Vec<Block> },
    ToolResults { results: Vec<ToolResult> },
}

/// A part of a model's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text {
        text: String,
    },
    /// Reasoning text of the model. Later calls to the same provider must send back `text` and `signature`
    /// unchanged.
    Thinking {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// Reasoning that the provider encrypted. Later calls to the same provider must send it back unchanged.
    RedactedThinking {
        data: String,
    },
    ToolCall(ToolCall),
}

/// A tool call, as the model wrote it. `arguments` is the raw text, which should be JSON but may be
/// malformed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    pub tool_call_id: String,
    pub tool: String,
    pub arguments: String,
}

/// A tool result as it is sent to the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    pub tool_call_id: String,
    pub text: String,
    pub is_error: bool,
}

/// A tool result as it is stored in the journal, the table of a run's steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutcome {
    pub text: String,
    pub is_error: bool,
}

/// The description of a tool for the model. `parameters` is a JSON Schema of type `object`.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolSchema {
    pub name: String,
    pub description: String,
    pub parameters: serde_json::Value,
}

/// An item of a model's output stream. A successful stream delivers the text piece by piece, and then exactly
/// one `Finished` item with the complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelEvent {
    TextDelta(String),
    Finished(ModelReply),
}

/// The complete reply of a model call. The blocks are in the order in which the model wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReply {
    pub blocks: Vec<Block>,
    pub stop: StopReason,
    pub usage: TokenUsage,
}

impl ModelReply {
    /// Returns the text of all text blocks, concatenated without a separator.
    pub fn text(&self) -> String {
        self.blocks
            .iter()
            .filter_map(|block| match block {
                Block::Text { text } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Returns the tool calls of the reply, in the order in which the model wrote them.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.blocks.iter().filter_map(|block| match block {
            Block::ToolCall(call) => Some(call),
            _ => None,
        })
    }
}

/// The reason why a model ended its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    EndTurn,
    ToolCalls,
    Length,
    Refusal,
}

/// The number of model tokens that one or more model calls consumed, as counted by the provider.
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

/// The kind of a model error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelErrorKind {
    /// The server's configuration lacks the provider or its API key.
    ProviderNotConfigured,
    Authentication,
    RateLimited,
    Overloaded,
    /// The provider responded with a 5xx status.
    Provider,
    /// The connection to the provider failed, or was closed before the end of the reply.
    Network,
    /// The provider sent nothing for longer than the stall timeout.
    Stalled,
    /// The provider's response does not conform to the wire format.
    Malformed,
    ContextOverflow,
    ContentRefused,
    /// The provider rejected the request with a 4xx status that no other kind covers.
    InvalidRequest,
}

impl ModelErrorKind {
    /// Returns true if a retry of the same call may succeed.
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

    /// Returns true if a fallback model may be called after this error. A content refusal is final: Herm does
    /// not search for a model that complies with a request that another model refused.
    pub fn allows_fallback(self) -> bool {
        self != Self::ContentRefused
    }

    /// Returns the stable error code that is reported for a run that fails with this kind of error.
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

/// A failed attempt at a model call. `retry_after` is the delay that the provider requested before a retry,
/// if any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    pub kind: ModelErrorKind,
    pub message: String,
    pub retry_after: Option<Duration>,
}
