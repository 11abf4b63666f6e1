//! Renders a reply in the streaming format of Chat Completions.

use serde_json::{Value, json};

use super::reply::{Part, Reply, Stop, Usage, fragments};
use super::script::Script;

/// Renders the chunks of the reply, from the first chunk, which contains the role, to `[DONE]`. If the reply breaks
/// off, the remaining chunks are omitted.
pub(super) fn script(reply: Reply, next_id: &mut dyn FnMut() -> u64) -> Script {
    let stop = reply.stop_reason();
    let usage = reply.usage;
    let mut writer =
        Writer { script: Script::default(), id: format!("chatcmpl-{}", next_id()), tool_calls: 0 };
    writer.delta(&json!({"role": "assistant", "content": "", "refusal": null}));
    for part in reply.parts {
        if writer.write(part, next_id) {
            return writer.script;
        }
    }
    let last = json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": stop_word(stop)}]);
    writer.chunk(&last, &Value::Null);
    writer.chunk(&json!([]), &counts(usage));
    writer.script.send(b"data: [DONE]\n\n");
    writer.script
}

struct Writer {
    script: Script,
    id: String,
    tool_calls: u32,
}

impl Writer {
    /// Renders one part of the reply. Returns true if the reply breaks off at this part.
    fn write(&mut self, part: Part, next_id: &mut dyn FnMut() -> u64) -> bool {
        match part {
            Part::Text(text) => self.delta(&json!({"content": text})),
            Part::Thinking { text, .. } => self.delta(&json!({"reasoning_content": text})),
            Part::RedactedThinking(_) => {}
            Part::ToolCall { id, name, arguments } => {
                let id = id.unwrap_or_else(|| format!("call_{}", next_id()));
                let index = self.tool_calls;
                self.tool_calls += 1;
                let function = json!({"name": name, "arguments": ""});
                self.tool_call(&json!({"index": index, "id": id, "type": "function", "function": function}));
                for fragment in fragments(&arguments) {
                    self.tool_call(&json!({"index": index, "function": {"arguments": fragment}}));
                }
            }
            Part::Raw(bytes) => self.script.send(&bytes),
            Part::Gate(gate) => self.script.wait(gate),
            Part::Error(error_type) => {
                let message = format!("scripted {error_type}");
                let error = json!({"message": message, "type": error_type, "param": null, "code": null});
                self.script.event(&json!({"error": error}));
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

    fn tool_call(&mut self, call: &Value) {
        self.delta(&json!({"tool_calls": [call]}));
    }

    fn delta(&mut self, delta: &Value) {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": null});
        self.chunk(&json!([choice]), &Value::Null);
    }

    fn chunk(&mut self, choices: &Value, usage: &Value) {
        self.script.event(&json!({
            "id": self.id, "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "scripted",
            "choices": choices, "usage": usage,
        }));
    }
}

/// Converts token counts to the form of Chat Completions, whose `prompt_tokens` include the cached tokens.
fn counts(usage: Usage) -> Value {
    let prompt = usage.input + usage.cache_read + usage.cache_write;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
            "audio_tokens": 0,
        },
    })
}

fn stop_word(stop: Stop) -> &'static str {
    match stop {
        Stop::EndTurn => "stop",
        Stop::ToolCalls => "tool_calls",
        Stop::Length => "length",
        Stop::Refusal => "content_filter",
    }
}
