//! Converts a conversation to Anthropic messages: alternating user and assistant messages with content
//! blocks.

use std::borrow::Cow;

use herm_types::model::{Block, ToolResult, Turn};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::call_ids::CallIds;
use crate::tool_arguments::object_text;

/// The number of user messages, counted from the end, that get a cache breakpoint. The breakpoint in the last
/// message makes Anthropic cache the conversation for the next call. The breakpoint in the message before it
/// lets Anthropic find the prefix that the previous call cached, even if the last message is long.
const CACHED_MESSAGES: usize = 2;
/// The text that replaces a blank user message, because Anthropic rejects blank text blocks.
const BLANK_MESSAGE: &str = "(empty message)";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    User,
    Assistant,
}

#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    role: Role,
    content: Vec<Content<'a>>,
}

/// A cache breakpoint on a block: Anthropic caches everything up to and including the block.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum CacheControl {
    Ephemeral,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content<'a> {
    Text {
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    RedactedThinking {
        data: &'a str,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: &'a str,
        #[serde(serialize_with = "as_json")]
        input: Cow<'a, str>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        #[serde(skip_serializing_if = "str::is_empty")]
        content: &'a str,
        #[serde(skip_serializing_if = "is_false")]
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
}

impl Content<'_> {
    /// Sets a cache breakpoint on this block if it is a text or a tool result. Anthropic rejects breakpoints
    /// on thinking blocks.
    fn set_breakpoint(&mut self) {
        if let Self::Text { cache_control, .. } | Self::ToolResult { cache_control, .. } = self {
            *cache_control = Some(CacheControl::Ephemeral);
        }
    }
}

/// Returns the Anthropic messages of a conversation. Consecutive turns with the same role become one message.
/// In a user message, tool results come before text, because Anthropic requires them directly after their
/// tool calls.
pub(super) fn messages(turns: &[Turn]) -> Vec<Message<'_>> {
    let mut ids = CallIds::default();
    let mut messages: Vec<Message<'_>> = Vec::with_capacity(turns.len());
    for turn in turns {
        let (role, content) = match turn {
            Turn::User { text } => (Role::User, vec![user_text(text)]),
            Turn::Assistant { blocks } => (
                Role::Assistant,
                blocks.iter().filter_map(|block| assistant_content(block, &mut ids)).collect(),
            ),
            Turn::ToolResults { results } => (Role::User, tool_results(results, &ids)),
        };
        if content.is_empty() {
            continue;
        }
        match messages.last_mut() {
            Some(last) if last.role == role => last.content.extend(content),
            _ => messages.push(Message { role, content }),
        }
    }
    for message in messages.iter_mut().filter(|message| message.role == Role::User) {
        message.content.sort_by_key(|content| !matches!(content, Content::ToolResult { .. }));
    }
    for message in
        messages.iter_mut().rev().filter(|message| message.role == Role::User).take(CACHED_MESSAGES)
    {
        if let Some(last) = message.content.last_mut() {
            last.set_breakpoint();
        }
    }
    messages
}

fn user_text(text: &str) -> Content<'_> {
    let text = if text.trim().is_empty() { BLANK_MESSAGE } else { text };
    Content::Text { text, cache_control: None }
}

/// Converts a block of an earlier reply. Returns `None` for blank text, and for reasoning without a
/// signature, which came from another provider.
fn assistant_content<'a>(block: &'a Block, ids: &mut CallIds<'a>) -> Option<Content<'a>> {
    match block {
        Block::Text { text } if text.trim().is_empty() => None,
        Block::Text { text } => Some(Content::Text { text, cache_control: None }),
        Block::Thinking { text, signature } => {
            Some(Content::Thinking { thinking: text, signature: signature.as_deref()? })
        }
        Block::RedactedThinking { data } => Some(Content::RedactedThinking { data }),
        Block::ToolCall(call) => Some(Content::ToolUse {
            id: ids.call_id(&call.tool_call_id),
            name: &call.tool,
            input: object_text(&call.arguments),
        }),
    }
}

fn tool_results<'a>(results: &'a [ToolResult], ids: &CallIds<'a>) -> Vec<Content<'a>> {
    let content = |result: &'a ToolResult| Content::ToolResult {
        tool_use_id: ids.result_id(&result.tool_call_id),
        content: &result.text,
        is_error: result.is_error,
        cache_control: None,
    };
    results.iter().map(content).collect()
}

fn as_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let json: &RawValue = serde_json::from_str(text).map_err(serde::ser::Error::custom)?;
    json.serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}
