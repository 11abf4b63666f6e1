//! The request body of the Anthropic wire format.

use herm_types::model::{ModelRequest, ToolSchema};
use serde::Serialize;

use super::messages::{CacheControl, Message, messages};

#[cfg(test)]
mod tests;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<[System<'a>; 1]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    messages: Vec<Message<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "text")]
struct System<'a> {
    text: &'a str,
    cache_control: CacheControl,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

/// Returns the request body as JSON. Cache breakpoints are set after the tools, after the system prompt and
/// after the two latest user messages: four in total, which is the most that Anthropic allows.
pub(crate) fn body(request: &ModelRequest) -> Result<Vec<u8>, serde_json::Error> {
    let has_system = !request.system.trim().is_empty();
    serde_json::to_vec(&Body {
        model: &request.model,
        max_tokens: request.max_output_tokens,
        stream: true,
        system: has_system
            .then_some([System { text: &request.system, cache_control: CacheControl::Ephemeral }]),
        tools: tools(&request.tools),
        messages: messages(&request.turns),
    })
}

fn tools(schemas: &[ToolSchema]) -> Vec<Tool<'_>> {
    let mut tools: Vec<Tool<'_>> = schemas
        .iter()
        .map(|schema| Tool {
            name: &schema.name,
            description: &schema.description,
            input_schema: &schema.parameters,
            cache_control: None,
        })
        .collect();
    if let Some(last) = tools.last_mut() {
        last.cache_control = Some(CacheControl::Ephemeral);
    }
    tools
}
