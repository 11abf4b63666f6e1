//! The built-in provider `demo`. Its only model, `demo/tour`, plays a fixed script that calls the real tools, so that
//! every kind of event can be seen without an API key.

use futures_util::{Stream, stream};
use herm_types::model::{
    Block, ModelError, ModelEvent, ModelReply, ModelRequest, StopReason, TokenUsage, ToolCall, Turn,
};
use serde_json::json;

/// The name of the built-in demo provider, which is the prefix of its model names.
pub const PROVIDER: &str = "demo";

/// The text with which the script's first and last replies begin, so that nobody mistakes them for replies of a real
/// model.
const LABEL: &str = "[canned script demo/tour, not a model]";
const FILE: &str = "tour/hello.txt";

/// Returns the script's next reply as a stream. The reply is selected by the number of tool results since the last user
/// message.
pub(crate) fn reply(
    request: &ModelRequest,
) -> impl Stream<Item = Result<ModelEvent, ModelError>> + Send + use<> {
    let (text, calls) = next(request);
    let words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
    let stop = if calls.is_empty() { StopReason::EndTurn } else { StopReason::ToolCalls };
    let blocks = [Block::Text { text }].into_iter().chain(calls.into_iter().map(Block::ToolCall)).collect();
    let finished = ModelEvent::Finished(ModelReply { blocks, stop, usage: TokenUsage::default() });
    let events = words.into_iter().map(ModelEvent::TextDelta).chain([finished]);
    stream::iter(events.map(Ok))
}

fn next(request: &ModelRequest) -> (String, Vec<ToolCall>) {
    let results: Vec<&str> = request
        .turns
        .iter()
        .rev()
        .take_while(|turn| !matches!(turn, Turn::User { .. }))
        .filter_map(|turn| match turn {
            Turn::ToolResults { results } => Some(results.iter().map(|result| result.text.as_str())),
            _ => None,
        })
        .flatten()
        .collect();
    let has_tools = !request.tools.is_empty();
    match results.len() {
        0 if has_tools => (
            format!("{LABEL} I will write a file and inspect my sandbox, both at once."),
            vec![
                call(1, "write_file", &json!({"path": FILE, "content": "Hello from the workspace.\n"})),
                call(2, "shell", &json!({"command": "id -un; uname -s; pwd"})),
            ],
        ),
        2 => (
            "Now a command reads what the file tool wrote.".to_owned(),
            vec![call(3, "shell", &json!({"command": format!("wc -c {FILE} && cat {FILE}")}))],
        ),
        _ => {
            let seen = results.first().map_or("", |text| text.lines().next().unwrap_or_default());
            (
                format!("{LABEL} Done. The command saw \"{seen}\". The file stays in the workspace."),
                Vec::new(),
            )
        }
    }
}

fn call(number: u32, tool: &str, arguments: &serde_json::Value) -> ToolCall {
    ToolCall {
        tool_call_id: format!("tour_{number}"),
        tool: tool.to_owned(),
        arguments: arguments.to_string(),
    }
}
