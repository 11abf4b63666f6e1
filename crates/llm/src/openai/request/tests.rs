use herm_types::model;
use serde_json::{Value, json};

use super::*;

fn request() -> ModelRequest {
    let call = |id: &str, arguments: &str| {
        Block::ToolCall(model::ToolCall {
            tool_call_id: id.to_owned(),
            tool: "shell".to_owned(),
            arguments: arguments.to_owned(),
        })
    };
    let result = |id: &str, text: &str, is_error| ToolResult {
        tool_call_id: id.to_owned(),
        text: text.to_owned(),
        is_error,
    };
    ModelRequest {
        model: "gpt-5".to_owned(),
        system: "Be kind.".to_owned(),
        tools: vec![ToolSchema {
            name: "shell".to_owned(),
            description: "Runs a command.".to_owned(),
            parameters: json!({"type": "object"}),
        }],
        turns: vec![
            Turn::User { text: "Hello".to_owned() },
            Turn::Assistant {
                blocks: vec![
                    Block::Thinking { text: "Hm.".to_owned(), signature: Some("sig".to_owned()) },
                    Block::Text { text: "Looking.".to_owned() },
                    call("call_1", r#"{"command": "ls"}"#),
                    call("call_2", "{broken"),
                ],
            },
            Turn::ToolResults {
                results: vec![result("call_1", "a.txt", false), result("call_2", "bad", true)],
            },
            Turn::Assistant { blocks: vec![call("call_3", "")] },
            Turn::ToolResults { results: vec![result("call_3", "", false)] },
            Turn::Assistant { blocks: vec![Block::RedactedThinking { data: "enc".to_owned() }] },
            Turn::User { text: "Thanks".to_owned() },
        ],
        max_output_tokens: 4096,
    }
}

fn sent(request: &ModelRequest, max_tokens: MaxTokensField) -> Value {
    serde_json::from_slice(&body(request, max_tokens).unwrap()).unwrap()
}

#[test]
fn a_request_is_in_the_wire_format() {
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "shell", "arguments": arguments}});
    assert_eq!(
        sent(&request(), MaxTokensField::MaxCompletionTokens),
        json!({
            "model": "gpt-5",
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Looking.", "tool_calls": [
                    call("call_1", r#"{"command": "ls"}"#),
                    call("call_2", r#"{"INVALID_JSON":"{broken"}"#),
                ]},
                {"role": "tool", "tool_call_id": "call_1", "content": "a.txt"},
                {"role": "tool", "tool_call_id": "call_2", "content": "bad"},
                {"role": "assistant", "content": null, "tool_calls": [call("call_3", "{}")]},
                {"role": "tool", "tool_call_id": "call_3", "content": ""},
                {"role": "user", "content": "Thanks"},
            ],
            "tools": [{"type": "function", "function": {
                "name": "shell", "description": "Runs a command.", "parameters": {"type": "object"},
            }}],
            "max_completion_tokens": 4096,
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
}

#[test]
fn other_servers_receive_the_limit_under_its_old_name() {
    let request = ModelRequest { system: String::new(), tools: vec![], turns: vec![], ..request() };
    assert_eq!(
        sent(&request, MaxTokensField::MaxTokens),
        json!({
            "model": "gpt-5", "messages": [], "max_tokens": 4096, "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
}
