//! The table of the built-in tools, and the parsing of calls by it.

use herm_types::model::ToolCall;
use serde::de::Error as _;

use super::call::{FileRequest, ParsedCall, ToolRequest};
use super::tool::Tool;
use super::{ask_human, edit_file, read_file, shell, write_file};

/// A row of the table: a tool, and the function that parses and validates the arguments of its calls.
#[derive(Clone, Copy)]
struct Row {
    tool: &'static Tool,
    parse: fn(&str) -> Result<ParsedCall, serde_json::Error>,
}

/// All built-in tools, in the order in which they are sent to the model.
const TABLE: [Row; 5] = [
    Row {
        tool: &shell::TOOL,
        parse: |arguments| Ok(ToolRequest::Shell(serde_json::from_str(arguments)?).into()),
    },
    Row {
        tool: &read_file::TOOL,
        parse: |arguments| Ok(FileRequest::Read(serde_json::from_str(arguments)?).into()),
    },
    Row {
        tool: &write_file::TOOL,
        parse: |arguments| Ok(FileRequest::Write(serde_json::from_str(arguments)?).into()),
    },
    Row {
        tool: &edit_file::TOOL,
        parse: |arguments| Ok(FileRequest::Edit(serde_json::from_str(arguments)?).into()),
    },
    Row { tool: &ask_human::TOOL, parse: |arguments| ask_human::parse(arguments).map(ParsedCall::AskPerson) },
];

/// Returns all built-in tools, always in the same order.
pub(super) fn all() -> impl Iterator<Item = &'static Tool> {
    TABLE.into_iter().map(|row| row.tool)
}

/// Returns the built-in tool with this name, if it exists.
pub(super) fn find(name: &str) -> Option<&'static Tool> {
    all().find(|tool| tool.name == name)
}

/// Returns the row of the tool with this name.
///
/// # Errors
/// Returns a text for the model that suggests the most similar name.
fn get(name: &str) -> Result<&'static Row, String> {
    TABLE.iter().find(|row| row.tool.name == name).ok_or_else(|| {
        let names = TABLE.map(|row| row.tool.name);
        let nearest =
            names.into_iter().min_by_key(|known| strsim::osa_distance(name, known)).unwrap_or_default();
        format!("Unknown tool {name:?}. Did you mean {nearest}? The tools are: {}.", names.join(", "))
    })
}

/// Parses and validates a tool call.
///
/// # Errors
/// Returns a text for the model that explains the error. If the arguments are invalid, it contains their schema.
pub(super) fn parse(call: &ToolCall) -> Result<(&'static Tool, ParsedCall), String> {
    let Row { tool, parse } = get(&call.tool)?;
    let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
    // A struct can also be deserialized from an array. An approval of a call would then not be found by the names of its
    // arguments.
    let parsed = if arguments.trim_start().starts_with('{') {
        parse(arguments)
    } else {
        Err(serde_json::Error::custom("the arguments must be a JSON object"))
    };
    let parsed = parsed.map_err(|error| {
        let schema = tool.schema().parameters;
        format!("Invalid arguments for {}: {error}. The schema of the arguments: {schema}", tool.name)
    })?;
    Ok((tool, parsed))
}

/// Checks the arguments of a tool call after a person has edited them.
///
/// # Errors
/// Returns a text that explains the error and contains the schema of the arguments.
pub fn check_arguments(tool: &str, arguments: &serde_json::Value) -> Result<(), String> {
    let call =
        ToolCall { tool_call_id: String::new(), tool: tool.to_owned(), arguments: arguments.to_string() };
    parse(&call).map(|_| ())
}

/// Returns a text that is equal for two tool calls if a person's stored approval of one also applies to the other. It
/// contains the tool's name and the argument that matters for approvals, for example the command of `shell` but not the
/// timeout. For a tool without such an argument, it contains all arguments, without whitespace and with sorted fields.
pub fn canonical_call(tool: &str, arguments: &str) -> String {
    let Ok(parsed) = serde_json::from_str(arguments) else { return format!("{tool}\n{arguments}") };
    match find(tool).and_then(|tool| (tool.approved_part)(&parsed)) {
        Some(part) => format!("{tool}\n{part}"),
        None => format!("{tool}\n{}", sorted_json(&parsed)),
    }
}

/// Serializes a JSON value with the fields of each object sorted by name.
fn sorted_json(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let fields: std::collections::BTreeMap<&str, String> =
                map.iter().map(|(name, value)| (name.as_str(), sorted_json(value))).collect();
            let fields: Vec<String> =
                fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted_json).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_names_are_unique_and_the_total_size_of_the_schemas_is_bounded() {
        let mut names = TABLE.map(|row| row.tool.name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        let schemas = TABLE.map(|row| row.tool.schema());
        let size: usize =
            schemas.iter().map(|s| s.name.len() + s.description.len() + s.parameters.to_string().len()).sum();
        assert!(size < 12 * 1024, "{size} bytes");
    }

    #[test]
    fn the_error_for_invalid_arguments_contains_the_schema() {
        let parse = |tool: &str, arguments: &str| {
            let (tool_call_id, arguments) = ("c".to_owned(), arguments.to_owned());
            parse(&ToolCall { tool_call_id, tool: tool.to_owned(), arguments })
        };
        let message = parse("shell", r#"{"command": "ls"#).unwrap_err();
        assert!(message.contains("EOF") && message.contains(r#""required":["command"]"#), "{message}");
        let message = parse("read_file", r#"{"file": "a"}"#).unwrap_err();
        assert!(message.contains("unknown field `file`"), "{message}");
        assert!(parse("shell", " ").unwrap_err().contains("missing field `command`"));
        for not_an_object in [r#"["ls", 7]"#, "\"ls\"", "null", "7"] {
            assert!(parse("shell", not_an_object).unwrap_err().contains("must be a JSON object"));
        }
    }

    #[test]
    fn the_error_for_an_unknown_tool_suggests_the_nearest_name() {
        let message = check_arguments("readfile", &json!({})).unwrap_err();
        assert!(message.contains("Did you mean read_file?"), "{message}");
    }

    #[test]
    fn equivalent_calls_have_the_same_canonical_form() {
        let key = |tool: &str, arguments: &str| canonical_call(tool, arguments);
        assert_eq!(
            key("a", r#"{"x":1, "y":{"b":2,"a":[1, 2]}}"#),
            key("a", r#"{"y":{"a":[1,2],"b":2},"x":1}"#)
        );
        assert_eq!(key("shell", r#"{"command":"ls"}"#), "shell\nls");
        assert_eq!(key("shell", r#"{"command":"ls"}"#), key("shell", r#"{"command":"ls","timeout_s":9}"#));
        assert_ne!(key("shell", r#"{"command":"ls"}"#), key("shell", r#"{"command":"ls "}"#));
        assert_ne!(key("a", r#"{"x":[1,2]}"#), key("a", r#"{"x":[2,1]}"#));
        assert_ne!(key("a", r#"{"x":1}"#), key("b", r#"{"x":1}"#));
        assert_ne!(key("a", r#"{"x":"1"}"#), key("a", r#"{"x":1}"#));
        assert_eq!(key("a", "{x"), "a\n{x");
    }
}
