//! The request body of the Chat Completions wire format.

use std::borrow::Cow;

use herm_types::model::{Block, ModelRequest, ToolResult, ToolSchema, Turn};
use serde::Serialize;

use crate::tool_arguments::object_text;

#[cfg(test)]
mod tests;

/// The JSON field that limits the number of output tokens. OpenAI's newer models accept only
/// `max_completion_tokens`. Most other servers accept only the older `max_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaxTokensField {
    MaxTokens,
    MaxCompletionTokens,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "function")]
struct Tool<'a> {
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a serde_json::Value,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum Message<'a> {
    System {
        content: &'a str,
    },
    User {
        content: &'a str,
    },
    Assistant {
        /// The text of the message. `null` if the reply has tool calls but no text.
        content: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall<'a>>,
    },
    Tool {
        tool_call_id: &'a str,
        content: &'a str,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "function")]
struct ToolCall<'a> {
    id: &'a str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: Cow<'a, str>,
}

/// Returns the request body as JSON.
pub(crate) fn body(request: &ModelRequest, max_tokens: MaxTokensField) -> Result<Vec<u8>, serde_json::Error> {
    let limit = |field| (field == max_tokens).then_some(request.max_output_tokens);
    serde_json::to_vec(&Body {
        model: &request.model,
        messages: messages(request),
        tools: request.tools.iter().map(tool).collect(),
        max_tokens: limit(MaxTokensField::MaxTokens),
        max_completion_tokens: limit(MaxTokensField::MaxCompletionTokens),
        stream: true,
        stream_options: StreamOptions { include_usage: true },
    })
}

fn tool(schema: &ToolSchema) -> Tool<'_> {
    let function =
        Function { name: &schema.name, description: &schema.description, parameters: &schema.parameters };
    Tool { function }
}

fn messages(request: &ModelRequest) -> Vec<Message<'_>> {
    let mut messages = Vec::with_capacity(request.turns.len() + 1);
    if !request.system.is_empty() {
        messages.push(Message::System { content: &request.system });
    }
    for turn in &request.turns {
        match turn {
            Turn::User { text } => messages.push(Message::User { content: text }),
            Turn::Assistant { blocks } => messages.extend(assistant(blocks)),
            Turn::ToolResults { results } => {
                messages.extend(results.iter().map(tool_message));
            }
        }
    }
    messages
}

fn tool_message(result: &ToolResult) -> Message<'_> {
    Message::Tool { tool_call_id: &result.tool_call_id, content: &result.text }
}

/// Converts an earlier reply to a message. Reasoning is omitted: the wire format has no field for it, and its
/// signatures are valid only for the provider that created them. Returns `None` if the reply contains nothing
/// but reasoning.
fn assistant(blocks: &[Block]) -> Option<Message<'_>> {
    let mut content: Option<String> = None;
    let mut tool_calls = Vec::new();
    for block in blocks {
        match block {
            Block::Text { text } if text.is_empty() => {}
            Block::Text { text } => content.get_or_insert_default().push_str(text),
            Block::ToolCall(call) => tool_calls.push(ToolCall {
                id: &call.tool_call_id,
                function: CalledFunction { name: &call.tool, arguments: object_text(&call.arguments) },
            }),
            Block::Thinking { .. } | Block::RedactedThinking { .. } => {}
        }
    }
    (content.is_some() || !tool_calls.is_empty()).then_some(Message::Assistant { content, tool_calls })
}
