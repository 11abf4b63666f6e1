//! The OpenAPI document of the server, and random values that match its schemas.

use herm_testkit::client::Client;
use serde_json::{Map, Value, json};

use super::request::Ids;
use super::seeded_random::SeededRandom;

/// The nesting depth from which optional fields are omitted and arrays are left empty, so that values of recursive
/// schemas are finite.
const MAX_DEPTH: usize = 6;

pub(super) struct Document(Value);

impl Document {
    pub(super) async fn fetch(client: &Client) -> Self {
        Self(client.get("/openapi.json").await.unwrap().json())
    }

    /// Returns the method, path template and definition of every operation.
    pub(super) fn operations(&self) -> Vec<(String, String, &Value)> {
        let paths = self.0["paths"].as_object().unwrap();
        paths
            .iter()
            .flat_map(|(path, operations)| {
                let operations = operations.as_object().unwrap().iter();
                operations.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
            })
            .collect()
    }

    /// Returns the operation that handles a request. If several path templates match, the one with the fewest
    /// parameters is used.
    pub(super) fn find(&self, method: &str, path: &str) -> Option<&Value> {
        let method = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
        let matches = |template: &str| {
            let pairs = template.split('/').zip(path.split('/'));
            template.split('/').count() == path.split('/').count()
                && pairs
                    .into_iter()
                    .all(|(part, value)| (part.starts_with('{') && !value.is_empty()) || part == value)
        };
        let templates = self.0["paths"].as_object().unwrap().iter().filter(|(template, _)| matches(template));
        let (_, operations) = templates.min_by_key(|(template, _)| template.matches('{').count())?;
        operations.get(&method)
    }

    /// Returns a random value of the type that a schema describes. Limits such as a maximum length are ignored, so the
    /// server may reject the value.
    pub(super) fn value(&self, schema: &Value, ids: &Ids, random: &mut SeededRandom, depth: usize) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let named = self.0.pointer(reference.trim_start_matches('#')).unwrap();
            return self.value(named, ids, random, depth);
        }
        for choice in ["oneOf", "anyOf", "allOf", "enum"] {
            if let Some(choices) = schema[choice].as_array() {
                let chosen = random.pick(choices).clone();
                return if choice == "enum" { chosen } else { self.value(&chosen, ids, random, depth) };
            }
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => random.pick(kinds).as_str().unwrap_or("null"),
            kind => kind.as_str().unwrap_or("string"),
        };
        match kind {
            "object" => self.object(schema, ids, random, depth),
            "array" => {
                let count = if depth > MAX_DEPTH { 0 } else { random.below(3) };
                (0..count).map(|_| self.value(&schema["items"], ids, random, depth + 1)).collect()
            }
            "integer" | "number" => json!(random.below(100) + 1),
            "boolean" => json!(random.one_in(2)),
            "null" => Value::Null,
            _ => self.text(schema, ids, random),
        }
    }

    fn object(&self, schema: &Value, ids: &Ids, random: &mut SeededRandom, depth: usize) -> Value {
        let none = Vec::new();
        let required = schema["required"].as_array().unwrap_or(&none);
        let mut object = Map::new();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.iter().any(|required| required.as_str() == Some(name));
            if is_required || (depth < MAX_DEPTH && random.one_in(4)) {
                object.insert(name.clone(), self.value(field, ids, random, depth + 1));
            }
        }
        if schema["additionalProperties"].is_object() && depth < MAX_DEPTH && random.one_in(2) {
            object.insert(
                "KEY".to_owned(),
                self.value(&schema["additionalProperties"], ids, random, depth + 1),
            );
        }
        Value::Object(object)
    }

    fn text(&self, schema: &Value, ids: &Ids, random: &mut SeededRandom) -> Value {
        let pattern = schema["pattern"].as_str().unwrap_or_default();
        let plain = pattern.trim_start_matches('^').trim_end_matches('$');
        if let Some((prefix, _)) = plain.split_once('_') {
            return json!(ids.any(prefix, random));
        }
        if !plain.is_empty() && plain.chars().all(|c| c.is_ascii_alphanumeric()) {
            return json!(plain);
        }
        if let Some(example) = schema.get("example").or_else(|| schema.get("default")) {
            return example.clone();
        }
        match schema["format"].as_str() {
            Some("uri") => json!("http://127.0.0.1:9/none"),
            Some("date-time") => json!("2026-01-01T00:00:00Z"),
            _ => json!(*random.pick(&[
                "a",
                "notes/a.txt",
                "Ada",
                "new",
                "anthropic/claude-sonnet-4.5",
                "évt 🙂",
                "x y"
            ])),
        }
    }
}
