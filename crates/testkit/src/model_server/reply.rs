//! Replies of the scripted model provider, independent of the wire format.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use super::script::Script;
use super::{Gate, WireFormat, anthropic, openai};

/// One reply of the scripted provider, built piece by piece in the order in which it is sent.
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
    /// If set, the connection is closed after this number of characters of the reply's text.
    pub(super) cut_after_chars: Option<usize>,
    status: StatusCode,
    /// The `Content-Type` of a raw body. `None` for a reply that is rendered as an event stream in the request's wire
    /// format.
    content_type: Option<String>,
    headers: HeaderMap,
    headers_gate: Option<Gate>,
}

/// The stop reason that a reply reports to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model has finished its turn: Anthropic's `end_turn`, OpenAI's `stop`.
    EndTurn,
    /// The model calls tools: Anthropic's `tool_use`, OpenAI's `tool_calls`.
    ToolCalls,
    /// The reply has reached the token limit: Anthropic's `max_tokens`, OpenAI's `length`.
    Length,
    /// The model refused: Anthropic's `refusal`, OpenAI's `content_filter`.
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
    /// Creates a reply with status 200 and no content.
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

    /// Creates a reply that begins with `text`, sent as one delta.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new().then_text(text)
    }

    /// Creates a response with this status and `body` as JSON, instead of a stream.
    ///
    /// # Panics
    /// Panics if `status` is not a valid HTTP status.
    pub fn status(status: u16, body: impl Into<Value>) -> Self {
        #[expect(clippy::expect_used, reason = "the test itself contains the status")]
        let status =
            StatusCode::from_u16(status).expect("the status of a scripted reply is not a valid HTTP status");
        Self { status, ..Self::raw("application/json", body.into().to_string()) }
    }

    /// Creates a response with status 200 and exactly this content type and body, instead of a stream.
    pub fn raw(content_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let content_type = Some(content_type.into());
        Self { content_type, parts: vec![Part::Raw(body.into())], ..Self::new() }
    }

    /// Creates a reply with status 200 whose stream contains an error of this type, for example `overloaded_error`.
    pub fn error_mid_stream(error_type: impl Into<String>) -> Self {
        Self::new().error(error_type)
    }

    /// Adds text, sent as one delta. Consecutive texts belong to the same content block.
    #[must_use]
    pub fn then_text(self, text: impl Into<String>) -> Self {
        self.part(Part::Text(text.into()))
    }

    /// Adds several texts, each sent as one delta.
    #[must_use]
    pub fn text_in<T: Into<String>>(self, pieces: impl IntoIterator<Item = T>) -> Self {
        pieces.into_iter().fold(self, Self::then_text)
    }

    /// Adds a tool call with a generated id, which is unique within the scripted provider: `toolu_1`, `call_2`, and so
    /// on.
    #[must_use]
    pub fn tool_call(self, name: impl Into<String>, arguments: impl Into<Value>) -> Self {
        let arguments = arguments.into().to_string();
        self.part(Part::ToolCall { id: None, name: name.into(), arguments })
    }

    /// Adds a tool call with the id `id`.
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

    /// Adds reasoning. In Chat Completions it is sent as `reasoning_content`, and the signature is omitted.
    #[must_use]
    pub fn thinking(self, text: impl Into<String>, signature: impl Into<String>) -> Self {
        self.part(Part::Thinking { text: text.into(), signature: signature.into() })
    }

    /// Adds encrypted reasoning. Chat Completions has no field for it, so there it is omitted.
    #[must_use]
    pub fn redacted_thinking(self, data: impl Into<String>) -> Self {
        self.part(Part::RedactedThinking(data.into()))
    }

    /// Sets the token counts that the reply reports: `input` for the prompt without cached tokens, and `output` for the
    /// reply itself. The defaults are 10 and 5.
    #[must_use]
    pub fn usage(mut self, input: u64, output: u64) -> Self {
        self.usage = Usage { input, output, ..self.usage };
        self
    }

    /// Sets the numbers of tokens that the reply reports as read from and written to the prompt cache. The default is 0
    /// for both.
    #[must_use]
    pub fn cached(mut self, read: u64, write: u64) -> Self {
        self.usage = Usage { cache_read: read, cache_write: write, ..self.usage };
        self
    }

    /// Sets the stop reason. The default is [`Stop::ToolCalls`] if the reply contains tool calls, and [`Stop::EndTurn`]
    /// otherwise.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Makes the provider pause at this point of the reply until the test opens `gate`.
    #[must_use]
    pub fn gate(self, gate: &Gate) -> Self {
        self.part(Part::Gate(gate.clone()))
    }

    /// Delays the whole response, including its headers, until the test opens `gate`.
    #[must_use]
    pub fn gate_headers(mut self, gate: &Gate) -> Self {
        self.headers_gate = Some(gate.clone());
        self
    }

    /// Makes the reply stall at this point: nothing more is sent, but the connection stays open until the server is
    /// dropped.
    #[must_use]
    pub fn stall(self) -> Self {
        self.part(Part::Stall)
    }

    /// Closes the connection at this point of the reply, before the end of the response body.
    #[must_use]
    pub fn cut(self) -> Self {
        self.part(Part::Cut)
    }

    /// Closes the connection after `chars` characters of the reply's text, even in the middle of a delta. A reply with
    /// less text ends normally.
    #[must_use]
    pub fn cut_after_text(mut self, chars: usize) -> Self {
        self.cut_after_chars = Some(chars);
        self
    }

    /// Sends an error event of this type and ends the stream.
    #[must_use]
    pub fn error(self, error_type: impl Into<String>) -> Self {
        self.part(Part::Error(error_type.into()))
    }

    /// Sets the `Retry-After` header, either to a number of seconds or to an HTTP date.
    #[must_use]
    pub fn retry_after(self, value: &str) -> Self {
        self.header("retry-after", value)
    }

    /// Sets a response header.
    ///
    /// # Panics
    /// Panics if the name or the value is not valid in HTTP.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        #[expect(clippy::expect_used, reason = "the test itself contains the header")]
        let (name, value) = (
            HeaderName::try_from(name).expect("the header name of a scripted reply is invalid"),
            HeaderValue::try_from(value).expect("the header value of a scripted reply is invalid"),
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

    /// Returns the stop reason that the test has set, or the default for the content of the reply.
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

    /// Implements [`Reply::cut_after_text`]: shortens the text, and replaces everything after it with a step that
    /// closes the connection.
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

/// Splits the arguments of a tool call into up to three fragments at arbitrary characters, because providers stream
/// arguments that way.
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
