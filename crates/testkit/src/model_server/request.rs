//! A request that the scripted model provider received. Its methods hide the differences between the wire formats.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

/// The wire format of a request. It is determined by the request's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireFormat {
    /// Anthropic Messages, at the path `/v1/messages`.
    Anthropic,
    /// OpenAI Chat Completions, at the path `/v1/chat/completions`.
    OpenAiChat,
}

/// A received request. Its methods work for both wire formats. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    inner: Arc<RequestParts>,
}

#[derive(Debug)]
struct RequestParts {
    path: String,
    headers: HeaderMap,
    bytes: Bytes,
    /// The body as JSON, parsed on first use. Load tests never use it, so they save the time for parsing.
    body: OnceLock<Value>,
}

/// An entry of the conversation that a request contains: a user text, a tool result or an assistant message.
#[derive(Debug)]
enum Entry {
    User(String),
    ToolResult { id: String, text: String },
    Assistant,
}

impl RecordedRequest {
    pub(super) fn new(path: String, headers: HeaderMap, bytes: Bytes) -> Self {
        Self { inner: Arc::new(RequestParts { path, headers, bytes, body: OnceLock::new() }) }
    }

    /// Returns the path of the request, for example `/v1/messages`.
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.inner.headers
    }

    /// Returns the value of a header, or `None` if it is missing or contains characters other than visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers.get(name)?.to_str().ok()
    }

    /// Returns the body as received.
    pub fn bytes(&self) -> &Bytes {
        &self.inner.bytes
    }

    /// Returns the body as JSON, or `null` if it is not JSON.
    pub fn body(&self) -> &Value {
        self.inner.body.get_or_init(|| serde_json::from_slice(&self.inner.bytes).unwrap_or_default())
    }

    /// Returns the wire format that belongs to the path, or `None` if the provider does not serve this path.
    pub fn wire_format(&self) -> Option<WireFormat> {
        match self.path() {
            "/v1/messages" => Some(WireFormat::Anthropic),
            "/v1/chat/completions" => Some(WireFormat::OpenAiChat),
            _ => None,
        }
    }

    /// Returns the name of the requested model, or an empty string if the request names none.
    pub fn model(&self) -> String {
        self.body().get("model").map(text_of).unwrap_or_default()
    }

    /// Returns the system prompt, or an empty string if the request has none.
    pub fn system(&self) -> String {
        if let Some(system) = self.body().get("system") {
            return text_of(system);
        }
        let system = self.messages().iter().find(|message| role(message) == "system");
        system.and_then(|message| message.get("content")).map(text_of).unwrap_or_default()
    }

    /// Returns the names of the tools that the request offers to the model, in order.
    pub fn tool_names(&self) -> Vec<String> {
        let tools = self.body().get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let name =
            |tool: &Value| Some(tool.get("function").unwrap_or(tool).get("name")?.as_str()?.to_owned());
        tools.iter().filter_map(name).collect()
    }

    /// Returns the user's latest text, or an empty string if there is none.
    pub fn last_user_text(&self) -> String {
        let text = |entry| match entry {
            Entry::User(text) => Some(text),
            Entry::ToolResult { .. } | Entry::Assistant => None,
        };
        self.entries().into_iter().rev().find_map(text).unwrap_or_default()
    }

    /// Returns all tool results of the conversation, oldest first, as pairs of tool call id and text.
    pub fn tool_results(&self) -> Vec<(String, String)> {
        results(self.entries())
    }

    /// Returns the tool results that follow the user's latest text, oldest first. The list is empty if the scripted
    /// model has not yet called a tool for this text.
    pub fn tool_results_since_user(&self) -> Vec<(String, String)> {
        let mut entries = self.entries();
        let last_user = entries.iter().rposition(|entry| matches!(entry, Entry::User(_)));
        results(entries.split_off(last_user.map_or(0, |position| position + 1)))
    }

    /// Returns the number of assistant messages in the conversation.
    pub fn assistant_turns(&self) -> usize {
        self.entries().iter().filter(|entry| matches!(entry, Entry::Assistant)).count()
    }

    fn messages(&self) -> &[Value] {
        self.body().get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for message in self.messages() {
            let content = message.get("content").unwrap_or(&Value::Null);
            match role(message) {
                "user" => user_entries(content, &mut entries),
                "tool" => entries.push(tool_result(message, "tool_call_id")),
                "assistant" => entries.push(Entry::Assistant),
                _ => {}
            }
        }
        entries
    }
}

fn results(entries: Vec<Entry>) -> Vec<(String, String)> {
    let result = |entry| match entry {
        Entry::ToolResult { id, text } => Some((id, text)),
        Entry::User(_) | Entry::Assistant => None,
    };
    entries.into_iter().filter_map(result).collect()
}

/// Adds the texts and tool results of a user message to `entries`. The content is a string or a list of blocks. In
/// Anthropic's wire format, a block can also be a tool result.
fn user_entries(content: &Value, entries: &mut Vec<Entry>) {
    let Some(blocks) = content.as_array() else {
        entries.push(Entry::User(text_of(content)));
        return;
    };
    for block in blocks {
        match block.get("type").and_then(Value::as_str) {
            Some("tool_result") => entries.push(tool_result(block, "tool_use_id")),
            _ => entries.push(Entry::User(text_of(block))),
        }
    }
}

fn tool_result(holder: &Value, id_key: &str) -> Entry {
    let text = |key| holder.get(key).map(text_of).unwrap_or_default();
    Entry::ToolResult { id: text(id_key), text: text("content") }
}

fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

/// Returns the text of a string, of a text block, or of a list of text blocks.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().map(text_of).collect(),
        Value::Object(block) => block.get("text").map(text_of).unwrap_or_default(),
        _ => String::new(),
    }
}
