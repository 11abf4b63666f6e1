//! A request as the scripted provider got it, with one view of both wire formats.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

/// The wire format that a path speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireFormat {
    /// `/v1/messages`.
    Anthropic,
    /// `/v1/chat/completions`.
    OpenAiChat,
}

/// A request as it came; cheap to clone. Its helpers read both wire formats alike.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: String,
    headers: HeaderMap,
    bytes: Bytes,
    /// Read when first asked for, which load tests need not do.
    body: OnceLock<Value>,
}

/// What a conversation holds, oldest first.
#[derive(Debug)]
enum Entry {
    User(String),
    ToolResult { id: String, text: String },
    Assistant,
}

impl RecordedRequest {
    pub(super) fn new(path: String, headers: HeaderMap, bytes: Bytes) -> Self {
        Self { inner: Arc::new(Inner { path, headers, bytes, body: OnceLock::new() }) }
    }

    /// The path, such as `/v1/messages`.
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.inner.headers
    }

    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers.get(name)?.to_str().ok()
    }

    /// The body's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.inner.bytes
    }

    /// The body; `null` if it is not JSON.
    pub fn body(&self) -> &Value {
        self.inner.body.get_or_init(|| serde_json::from_slice(&self.inner.bytes).unwrap_or_default())
    }

    /// The wire format of the path; `None` if nothing is served there.
    pub fn wire_format(&self) -> Option<WireFormat> {
        match self.path() {
            "/v1/messages" => Some(WireFormat::Anthropic),
            "/v1/chat/completions" => Some(WireFormat::OpenAiChat),
            _ => None,
        }
    }

    /// The model that is asked for; empty if none is.
    pub fn model(&self) -> String {
        self.body().get("model").map(text_of).unwrap_or_default()
    }

    /// The system prompt; empty if there is none.
    pub fn system(&self) -> String {
        if let Some(system) = self.body().get("system") {
            return text_of(system);
        }
        let system = self.messages().iter().find(|message| role(message) == "system");
        system.and_then(|message| message.get("content")).map(text_of).unwrap_or_default()
    }

    /// The names of the tools on offer, in order.
    pub fn tool_names(&self) -> Vec<String> {
        let tools = self.body().get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let name =
            |tool: &Value| Some(tool.get("function").unwrap_or(tool).get("name")?.as_str()?.to_owned());
        tools.iter().filter_map(name).collect()
    }

    /// The text that the user said last; empty if they said nothing.
    pub fn last_user_text(&self) -> String {
        let text = |entry| match entry {
            Entry::User(text) => Some(text),
            Entry::ToolResult { .. } | Entry::Assistant => None,
        };
        self.entries().into_iter().rev().find_map(text).unwrap_or_default()
    }

    /// All tool results of the conversation, oldest first: the call's id and the text.
    pub fn tool_results(&self) -> Vec<(String, String)> {
        results(self.entries())
    }

    /// The tool results that came after what the user said last, oldest first; a script that calls tools once per
    /// message asks whether there are any.
    pub fn tool_results_since_user(&self) -> Vec<(String, String)> {
        let mut entries = self.entries();
        let last_user = entries.iter().rposition(|entry| matches!(entry, Entry::User(_)));
        results(entries.split_off(last_user.map_or(0, |position| position + 1)))
    }

    /// How often the model has spoken in this conversation.
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

/// A user's message: a string, or blocks of text and, with Anthropic, of tool results.
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

/// A string, a text block, or a list of them.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().map(text_of).collect(),
        Value::Object(block) => block.get("text").map(text_of).unwrap_or_default(),
        _ => String::new(),
    }
}
