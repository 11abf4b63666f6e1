//! A conversation as Anthropic's messages: user and assistant in turn, each with its blocks.

use std::borrow::Cow;

use herm_types::model::{Block, ToolResult, Turn};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::call_ids::CallIds;
use crate::tool_arguments::object_text;

/// How many of the latest user messages end a cached prefix: the last one writes the cache, the one before is
/// what the previous call wrote, and finds it when the last message is long.
const CACHED_MESSAGES: usize = 2;
/// What stands for a message without words: Anthropic refuses blank text blocks.
const BLANK_MESSAGE: &str = "(an empty message)";

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

/// A breakpoint: what comes before it, itself included, is cached.
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
    /// Ends a cached prefix here. Only what users say can: Anthropic refuses it on reasoning.
    fn set_breakpoint(&mut self) {
        if let Self::Text { cache_control, .. } | Self::ToolResult { cache_control, .. } = self {
            *cache_control = Some(CacheControl::Ephemeral);
        }
    }
}

/// The messages of a conversation. Consecutive turns of one role become one message, in which tool results come
/// first, as Anthropic wants them right after their calls.
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

/// A block of an earlier reply; `None` for what only another provider can have made.
fn assistant_content<'a>(block: &'a Block, ids: &mut CallIds<'a>) -> Option<Content<'a>> {
    match block {
        Block::Text { text } if text.trim().is_empty() => None,
        Block::Text { text } => Some(Content::Text { text, cache_control: None }),
        Block::Thinking { text, signature } => {
            Some(Content::Thinking { thinking: text, signature: signature.as_deref()? })
        }
        Block::RedactedThinking { data } => Some(Content::RedactedThinking { data }),
        Block::ToolCall(call) => Some(Content::ToolUse {
            id: ids.of_call(&call.tool_call_id),
            name: &call.tool,
            input: object_text(&call.arguments),
        }),
    }
}

fn tool_results<'a>(results: &'a [ToolResult], ids: &CallIds<'a>) -> Vec<Content<'a>> {
    let content = |result: &'a ToolResult| Content::ToolResult {
        tool_use_id: ids.of_result(&result.tool_call_id),
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !value
}
