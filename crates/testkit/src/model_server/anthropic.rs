//! Renders a reply in Anthropic's streaming format.

use serde_json::json;

use super::reply::{Part, Reply, Stop, fragments};
use super::script::Script;

/// Renders the events of the reply, from `message_start` to `message_stop`. If the reply breaks off, the remaining
/// events are omitted.
pub(super) fn script(reply: Reply, next_id: &mut dyn FnMut() -> u64) -> Script {
    let stop = reply.stop_reason();
    let usage = reply.usage;
    let mut writer = Writer { script: Script::default(), index: 0, is_text_open: false, has_pinged: false };
    let counts = json!({
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": 1,
    });
    writer.script.named_event(
        "message_start",
        &json!({"type": "message_start", "message": {
            "id": format!("msg_{}", next_id()), "type": "message", "role": "assistant", "model": "scripted",
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": counts,
        }}),
    );
    for part in reply.parts {
        if writer.write(part, next_id) {
            return writer.script;
        }
    }
    writer.close_text();
    writer.script.named_event(
        "message_delta",
        &json!({"type": "message_delta", "delta": {"stop_reason": stop_word(stop), "stop_sequence": null},
            "usage": {"output_tokens": usage.output}}),
    );
    writer.script.named_event("message_stop", &json!({"type": "message_stop"}));
    writer.script
}

struct Writer {
    script: Script,
    index: u32,
    is_text_open: bool,
    has_pinged: bool,
}

impl Writer {
    /// Renders one part of the reply. Returns true if the reply breaks off at this part.
    fn write(&mut self, part: Part, next_id: &mut dyn FnMut() -> u64) -> bool {
        match part {
            Part::Text(text) => {
                if !self.is_text_open {
                    self.start(&json!({"type": "text", "text": ""}));
                    self.is_text_open = true;
                }
                self.delta(&json!({"type": "text_delta", "text": text}));
            }
            Part::Thinking { text, signature } => {
                self.close_text();
                self.start(&json!({"type": "thinking", "thinking": "", "signature": ""}));
                self.delta(&json!({"type": "thinking_delta", "thinking": text}));
                self.delta(&json!({"type": "signature_delta", "signature": signature}));
                self.stop();
            }
            Part::RedactedThinking(data) => {
                self.close_text();
                self.start(&json!({"type": "redacted_thinking", "data": data}));
                self.stop();
            }
            Part::ToolCall { id, name, arguments } => {
                self.close_text();
                let id = id.unwrap_or_else(|| format!("toolu_{}", next_id()));
                self.start(&json!({"type": "tool_use", "id": id, "name": name, "input": {}}));
                for fragment in std::iter::once("").chain(fragments(&arguments)) {
                    self.delta(&json!({"type": "input_json_delta", "partial_json": fragment}));
                }
                self.stop();
            }
            Part::Raw(bytes) => self.script.send(&bytes),
            Part::Gate(gate) => self.script.wait(gate),
            Part::Error(error_type) => {
                let error = json!({"type": error_type, "message": format!("scripted {error_type}")});
                self.script.named_event("error", &json!({"type": "error", "error": error}));
                return true;
            }
            Part::Stall => {
                self.script.stall();
                return true;
            }
            Part::Cut => {
                self.script.cut();
                return true;
            }
        }
        false
    }

    fn start(&mut self, block: &serde_json::Value) {
        let event = json!({"type": "content_block_start", "index": self.index, "content_block": block});
        self.script.named_event("content_block_start", &event);
        if !std::mem::replace(&mut self.has_pinged, true) {
            self.script.named_event("ping", &json!({"type": "ping"}));
        }
    }

    fn delta(&mut self, delta: &serde_json::Value) {
        let event = json!({"type": "content_block_delta", "index": self.index, "delta": delta});
        self.script.named_event("content_block_delta", &event);
    }

    fn stop(&mut self) {
        let event = json!({"type": "content_block_stop", "index": self.index});
        self.script.named_event("content_block_stop", &event);
        self.index += 1;
    }

    fn close_text(&mut self) {
        if std::mem::take(&mut self.is_text_open) {
            self.stop();
        }
    }
}

fn stop_word(stop: Stop) -> &'static str {
    match stop {
        Stop::EndTurn => "end_turn",
        Stop::ToolCalls => "tool_use",
        Stop::Length => "max_tokens",
        Stop::Refusal => "refusal",
    }
}
