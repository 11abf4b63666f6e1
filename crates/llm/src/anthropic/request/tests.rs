use herm_types::model::{Block, ToolCall, ToolResult, Turn};
use serde_json::{Value, json};

use super::*;

fn user(text: &str) -> Turn {
    Turn::User { text: text.to_owned() }
}

fn call(id: &str, arguments: &str) -> Block {
    Block::ToolCall(ToolCall {
        tool_call_id: id.to_owned(),
        tool: "shell".to_owned(),
        arguments: arguments.to_owned(),
    })
}

fn results(results: &[(&str, &str, bool)]) -> Turn {
    let result = |&(id, text, is_error): &(&str, &str, bool)| ToolResult {
        tool_call_id: id.to_owned(),
        text: text.to_owned(),
        is_error,
    };
    Turn::ToolResults { results: results.iter().map(result).collect() }
}

fn request(turns: Vec<Turn>) -> ModelRequest {
    let tool = |name: &str| ToolSchema {
        name: name.to_owned(),
        description: format!("Runs {name}."),
        parameters: json!({"type": "object", "properties": {"command": {"type": "string"}}}),
    };
    ModelRequest {
        model: "claude-sonnet-4-5".to_owned(),
        system: "Be kind.".to_owned(),
        tools: vec![tool("shell"), tool("todo")],
        turns,
        max_output_tokens: 4096,
    }
}

fn sent(request: &ModelRequest) -> Value {
    serde_json::from_slice(&body(request).unwrap()).unwrap()
}

fn messages_of(turns: Vec<Turn>) -> Value {
    sent(&request(turns))["messages"].clone()
}

#[test]
fn a_request_is_in_the_wire_format_with_four_breakpoints() {
    let cached = json!({"type": "ephemeral"});
    let schema = json!({"type": "object", "properties": {"command": {"type": "string"}}});
    let turns = vec![
        user("Hello"),
        Turn::Assistant {
            blocks: vec![
                Block::Thinking { text: "Hm.".to_owned(), signature: Some("sig==".to_owned()) },
                Block::RedactedThinking { data: "enc==".to_owned() },
                Block::Text { text: "Looking.".to_owned() },
                call("toolu_1", r#"{"command":"ls"}"#),
                call("toolu_2", ""),
            ],
        },
        results(&[("toolu_1", "a.txt", false), ("toolu_2", "no command", true)]),
        Turn::Assistant { blocks: vec![Block::Text { text: "One file.".to_owned() }] },
        user("Thanks"),
    ];
    assert_eq!(
        sent(&request(turns)),
        json!({
            "model": "claude-sonnet-4-5",
            "max_tokens": 4096,
            "stream": true,
            "system": [{"type": "text", "text": "Be kind.", "cache_control": cached}],
            "tools": [
                {"name": "shell", "description": "Runs shell.", "input_schema": schema},
                {"name": "todo", "description": "Runs todo.", "input_schema": schema, "cache_control": cached},
            ],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "sig=="},
                    {"type": "redacted_thinking", "data": "enc=="},
                    {"type": "text", "text": "Looking."},
                    {"type": "tool_use", "id": "toolu_1", "name": "shell", "input": {"command": "ls"}},
                    {"type": "tool_use", "id": "toolu_2", "name": "shell", "input": {}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a.txt"},
                    {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no command", "is_error": true,
                        "cache_control": cached},
                ]},
                {"role": "assistant", "content": [{"type": "text", "text": "One file."}]},
                {"role": "user", "content": [{"type": "text", "text": "Thanks", "cache_control": cached}]},
            ],
        })
    );
}

#[test]
fn an_empty_system_prompt_and_empty_tools_are_omitted() {
    let request = ModelRequest { system: String::new(), tools: vec![], ..request(vec![user("Hello")]) };
    let keys: Vec<String> = sent(&request).as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["model", "max_tokens", "stream", "messages"]);
}

#[test]
fn turns_of_one_role_become_one_message_with_tool_results_first() {
    let messages = messages_of(vec![
        Turn::Assistant { blocks: vec![call("a", "{}")] },
        Turn::Assistant { blocks: vec![call("b", "{}")] },
        user("Stop"),
        results(&[("a", "", false), ("b", "done", false)]),
        user("Please"),
    ]);
    let kinds = |message: &Value| -> Vec<String> {
        let blocks = message["content"].as_array().unwrap();
        blocks.iter().map(|block| block["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(messages.as_array().unwrap().len(), 2);
    assert_eq!(kinds(&messages[0]), ["tool_use", "tool_use"]);
    assert_eq!(kinds(&messages[1]), ["tool_result", "tool_result", "text", "text"]);
    assert_eq!(messages[1]["content"][0], json!({"type": "tool_result", "tool_use_id": "a"}));
    assert_eq!(messages[1]["content"][3]["cache_control"], json!({"type": "ephemeral"}));
}

#[test]
fn content_that_anthropic_rejects_is_not_sent() {
    let messages = messages_of(vec![
        user(" \n"),
        Turn::Assistant {
            blocks: vec![
                Block::Thinking { text: "from elsewhere".to_owned(), signature: None },
                Block::Text { text: "\n".to_owned() },
            ],
        },
        user("Hello"),
        Turn::Assistant { blocks: vec![call("call:0", "{broken"), call("call_1", "{}")] },
        results(&[("call:0", "bad", true), ("call_1", "1", false)]),
        Turn::Assistant { blocks: vec![call("call_1", r#"{ "b": 1.0, "a": 2 }"#)] },
        results(&[("call_1", "2", false)]),
    ]);
    let texts: Vec<&str> = messages[0]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["(empty message)", "Hello"]);
    assert_eq!(messages[1]["content"][0]["input"], json!({"INVALID_JSON": "{broken"}));
    assert_eq!(messages[1]["content"][0]["id"], "call_0");
    assert_eq!(messages[2]["content"][0]["tool_use_id"], "call_0");
    assert_eq!(messages[3]["content"][0]["id"], "call_1_2");
    assert_eq!(messages[4]["content"][0]["tool_use_id"], "call_1_2");
}

#[test]
fn arguments_are_sent_unchanged() {
    let arguments = r#"{ "b": 1.50, "a": 12345678901234567890123 }"#;
    let turns = vec![user("Hello"), Turn::Assistant { blocks: vec![call("a", arguments)] }];
    let body = String::from_utf8(body(&request(turns)).unwrap()).unwrap();
    assert!(body.contains(&format!(r#""input":{arguments}"#)), "{body}");
}
