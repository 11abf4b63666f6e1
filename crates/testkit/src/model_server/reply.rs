//! What the scripted provider answers, whatever the wire format.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use super::script::Script;
use super::{Gate, WireFormat, anthropic, openai};

/// One answer of the scripted provider, built piece by piece in the order in which it is sent.
///
/// ```
/// # use herm_testkit::model_server::{Gate, Reply};
/// # use serde_json::json;
/// let gate = Gate::new();
/// Reply::text("Let me ").gate(&gate).then_text("see.").tool_call("shell", json!({"command": "ls"}));
/// Reply::text("half a sent").cut();
/// Reply::status(429, json!({"error": {"message": "slow down"}})).retry_after("2");
/// ```
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) parts: Vec<Part>,
    pub(super) usage: Usage,
    pub(super) stop: Option<Stop>,
    /// The connection is cut once so many characters of text have been sent.
    pub(super) cut_after_chars: Option<usize>,
    status: StatusCode,
    /// `None`: a stream in the wire format that was asked for.
    content_type: Option<String>,
    headers: HeaderMap,
    headers_gate: Option<Gate>,
}

/// Why the scripted model stops, where it is not to be read off the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `end_turn`, `stop`.
    EndTurn,
    /// `tool_use`, `tool_calls`.
    ToolCalls,
    /// `max_tokens`, `length`.
    Length,
    /// `refusal`, `content_filter`.
    Refusal,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Text(String),
    Thinking { text: String, signature: String },
    RedactedThinking(String),
    ToolCall { id: Option<String>, name: String, arguments: String },
    Raw(Vec<u8>),
    Error(String),
    Gate(Gate),
    Stall,
    Cut,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write: u64,
}

impl Reply {
    /// A reply that says nothing yet.
    pub fn new() -> Self {
        Self {
            parts: Vec::new(),
            usage: Usage { input: 10, output: 5, cache_read: 0, cache_write: 0 },
            stop: None,
            cut_after_chars: None,
            status: StatusCode::OK,
            content_type: None,
            headers: HeaderMap::new(),
            headers_gate: None,
        }
    }

    /// A reply that begins with this text, in one piece.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new().then_text(text)
    }

    /// An answer with another status than 200, and a JSON body.
    ///
    /// # Panics
    /// If it is not an HTTP status.
    pub fn status(status: u16, body: impl Into<Value>) -> Self {
        #[expect(clippy::expect_used, reason = "a status is written into the test")]
        let status = StatusCode::from_u16(status).expect("not an HTTP status");
        Self { status, ..Self::raw("application/json", body.into().to_string()) }
    }

    /// An answer of 200 with these bytes for a body.
    pub fn raw(content_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let content_type = Some(content_type.into());
        Self { content_type, parts: vec![Part::Raw(body.into())], ..Self::new() }
    }

    /// A stream that begins and then fails with an error of this type, such as `overloaded_error`.
    pub fn error_mid_stream(error_type: impl Into<String>) -> Self {
        Self::new().error(error_type)
    }

    /// Goes on with text, in one piece; text that follows text belongs to the same block.
    #[must_use]
    pub fn then_text(self, text: impl Into<String>) -> Self {
        self.part(Part::Text(text.into()))
    }

    /// Goes on with text, in these pieces.
    #[must_use]
    pub fn text_in<T: Into<String>>(self, pieces: impl IntoIterator<Item = T>) -> Self {
        pieces.into_iter().fold(self, Self::then_text)
    }

    /// Goes on with a tool call; its id is made up, and unique to this server: `toolu_1`, `call_2`, ….
    #[must_use]
    pub fn tool_call(self, name: impl Into<String>, arguments: impl Into<Value>) -> Self {
        let arguments = arguments.into().to_string();
        self.part(Part::ToolCall { id: None, name: name.into(), arguments })
    }

    /// Goes on with a tool call of this id.
    #[must_use]
    pub fn tool_call_with_id(
        self,
        id: impl Into<String>,
        name: impl Into<String>,
        arguments: impl Into<Value>,
    ) -> Self {
        let arguments = arguments.into().to_string();
        self.part(Part::ToolCall { id: Some(id.into()), name: name.into(), arguments })
    }

    /// Goes on with a tool call whose arguments are this text, JSON or not.
    #[must_use]
    pub fn tool_call_raw(self, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        self.part(Part::ToolCall { id: None, name: name.into(), arguments: arguments.into() })
    }

    /// Goes on with reasoning. In Chat Completions it is `reasoning_content`, which has no signature.
    #[must_use]
    pub fn thinking(self, text: impl Into<String>, signature: impl Into<String>) -> Self {
        self.part(Part::Thinking { text: text.into(), signature: signature.into() })
    }

    /// Goes on with encrypted reasoning. Chat Completions has none, so there it is left out.
    #[must_use]
    pub fn redacted_thinking(self, data: impl Into<String>) -> Self {
        self.part(Part::RedactedThinking(data.into()))
    }

    /// The token counts: of the prompt without what is cached, and of the reply. Unless said, 10 and 5.
    #[must_use]
    pub fn usage(mut self, input: u64, output: u64) -> Self {
        self.usage = Usage { input, output, ..self.usage };
        self
    }

    /// The tokens read from and written to the prompt cache. Unless said, 0 and 0.
    #[must_use]
    pub fn cached(mut self, read: u64, write: u64) -> Self {
        self.usage = Usage { cache_read: read, cache_write: write, ..self.usage };
        self
    }

    /// Why the model stops. Unless said, for its tool calls if there are any, else at the end of its turn.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Waits here until the gate is open.
    #[must_use]
    pub fn gate(self, gate: &Gate) -> Self {
        self.part(Part::Gate(gate.clone()))
    }

    /// Waits with the whole answer, headers included, until the gate is open.
    #[must_use]
    pub fn gate_headers(mut self, gate: &Gate) -> Self {
        self.headers_gate = Some(gate.clone());
        self
    }

    /// Says nothing more here and keeps the connection open until the server is dropped.
    #[must_use]
    pub fn stall(self) -> Self {
        self.part(Part::Stall)
    }

    /// Closes the connection here, in the middle of the body.
    #[must_use]
    pub fn cut(self) -> Self {
        self.part(Part::Cut)
    }

    /// Closes the connection once so many characters of text have been sent; the piece that holds the last of
    /// them is cut there. With less text, the reply ends as usual.
    #[must_use]
    pub fn cut_after_text(mut self, chars: usize) -> Self {
        self.cut_after_chars = Some(chars);
        self
    }

    /// Fails here with an error of this type inside the stream, and ends it.
    #[must_use]
    pub fn error(self, error_type: impl Into<String>) -> Self {
        self.part(Part::Error(error_type.into()))
    }

    /// Sets the `Retry-After` header: seconds or an HTTP date.
    #[must_use]
    pub fn retry_after(self, value: &str) -> Self {
        self.header("retry-after", value)
    }

    /// Sets a header.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        #[expect(clippy::expect_used, reason = "headers are written into the test")]
        let (name, value) = (
            HeaderName::try_from(name).expect("not a header's name"),
            HeaderValue::try_from(value).expect("not a header's value"),
        );
        self.headers.insert(name, value);
        self
    }

    fn part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    pub(super) fn headers_gate(&self) -> Option<Gate> {
        self.headers_gate.clone()
    }

    pub(super) fn http_status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn content_type(&self) -> String {
        self.content_type.clone().unwrap_or_else(|| "text/event-stream; charset=utf-8".to_owned())
    }

    pub(super) fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// Why the model stops, said or read off the reply.
    pub(super) fn stop_reason(&self) -> Stop {
        let calls_tools = self.parts.iter().any(|part| matches!(part, Part::ToolCall { .. }));
        self.stop.unwrap_or(if calls_tools { Stop::ToolCalls } else { Stop::EndTurn })
    }

    pub(super) fn script(mut self, format: WireFormat, next_id: &mut dyn FnMut() -> u64) -> Script {
        self.cut_text();
        if self.content_type.is_some() {
            return raw(self.parts);
        }
        match format {
            WireFormat::Anthropic => anthropic::script(self, next_id),
            WireFormat::OpenAiChat => openai::script(self, next_id),
        }
    }

    /// Puts the cut after so many characters where it belongs.
    fn cut_text(&mut self) {
        let Some(mut left) = self.cut_after_chars else { return };
        for (position, part) in self.parts.iter_mut().enumerate() {
            let Part::Text(text) = part else { continue };
            let chars = text.chars().count();
            if chars < left {
                left -= chars;
                continue;
            }
            if let Some((end, _)) = text.char_indices().nth(left) {
                text.truncate(end);
            }
            self.parts.truncate(position + 1);
            self.parts.push(Part::Cut);
            return;
        }
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self::new()
    }
}

fn raw(parts: Vec<Part>) -> Script {
    let mut script = Script::default();
    for part in parts {
        match part {
            Part::Raw(bytes) => script.send(&bytes),
            Part::Gate(gate) => script.wait(gate),
            Part::Stall => script.stall(),
            Part::Cut => script.cut(),
            Part::Text(_)
            | Part::Thinking { .. }
            | Part::RedactedThinking(_)
            | Part::ToolCall { .. }
            | Part::Error(_) => {}
        }
    }
    script
}

/// Splits a tool call's arguments as providers do: in several pieces, anywhere between two characters.
pub(super) fn fragments(text: &str) -> Vec<&str> {
    const FRAGMENTS: usize = 3;
    let size = text.len().div_ceil(FRAGMENTS).max(1);
    let mut fragments = Vec::with_capacity(FRAGMENTS);
    let mut rest = text;
    while !rest.is_empty() {
        let (fragment, left) = rest.split_at(rest.ceil_char_boundary(size));
        fragments.push(fragment);
        rest = left;
    }
    fragments
}
