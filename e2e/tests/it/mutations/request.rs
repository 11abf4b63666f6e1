//! Valid random HTTP requests, derived from the OpenAPI document.

use std::collections::BTreeMap;

use serde_json::Value;

use super::document::Document;
use super::seeded_random::SeededRandom;
use super::wire::Response;

/// For each kind of resource, at most this many ids of created resources are remembered. Older ids are forgotten.
const MAX_IDS: usize = 50;

/// The ids of existing resources, by id prefix, for example `dep`.
#[derive(Default)]
pub(super) struct Ids {
    /// Ids of resources that the test created at its start and that requests must not delete.
    permanent: BTreeMap<String, Vec<String>>,
    /// Ids of resources that mutated requests created and that requests may delete.
    created: BTreeMap<String, Vec<String>>,
}

impl Ids {
    /// Adds all ids in `value` as ids of resources that requests must not delete.
    pub(super) fn add_permanent(&mut self, value: &Value) {
        collect_ids(value, &mut self.permanent);
    }

    /// Adds all ids in the response if the request successfully created a resource.
    pub(super) fn add_created(&mut self, request: &Request, response: &Response) {
        if request.method == "POST" && response.status < 300 {
            collect_ids(&serde_json::from_slice(&response.body).unwrap_or_default(), &mut self.created);
            for ids in self.created.values_mut() {
                ids.drain(..ids.len().saturating_sub(MAX_IDS));
            }
        }
    }

    /// Returns a random id with this prefix, usually the id of an existing resource.
    pub(super) fn any(&self, prefix: &str, random: &mut SeededRandom) -> String {
        let created = self.created.get(prefix).filter(|_| random.one_in(5));
        match created.or_else(|| self.permanent.get(prefix)).filter(|ids| !ids.is_empty()) {
            Some(ids) => random.pick(ids).clone(),
            None => self.deletable(prefix, random),
        }
    }

    /// Returns an id with this prefix whose resource may be deleted: the id of a created resource, or an id that does
    /// not exist.
    pub(super) fn deletable(&self, prefix: &str, random: &mut SeededRandom) -> String {
        let created = self.created.get(prefix).filter(|ids| !ids.is_empty());
        created.map_or_else(|| format!("{prefix}_01h455vb4pex5vsknk084sn02q"), |ids| random.pick(ids).clone())
    }
}

fn collect_ids(value: &Value, ids: &mut BTreeMap<String, Vec<String>>) {
    match value {
        Value::String(text) => {
            let parts = text.split_once('_').filter(|(_, rest)| rest.len() == 26);
            if let Some((prefix, _)) = parts {
                ids.entry(prefix.to_owned()).or_default().push(text.clone());
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_ids(item, ids)),
        Value::Object(fields) => fields.values().for_each(|field| collect_ids(field, ids)),
        _ => {}
    }
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// The path and query in the request line, exactly as sent.
    pub(super) target: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    /// The number of bytes by which the `Content-Length` header exceeds the length of the body.
    pub(super) missing_bytes: usize,
    /// True if the request may be invalid HTTP. The server may then close the connection without a response.
    pub(super) is_invalid_http: bool,
}

impl Request {
    /// Returns a valid request for a random operation of the OpenAPI document.
    pub(super) fn valid(document: &Document, ids: &mut Ids, key: &str, random: &mut SeededRandom) -> Self {
        let (method, template, operation) = random.pick(&document.operations()).clone();
        let mut target = template;
        let mut headers = vec![
            ("Host".to_owned(), b"herm.example".to_vec()),
            ("Authorization".to_owned(), format!("Bearer {key}").into_bytes()),
            ("Accept".to_owned(), b"application/json".to_vec()),
        ];
        let mut query = Vec::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let schema = &parameter["schema"];
            match parameter["in"].as_str().unwrap() {
                "path" => {
                    target =
                        target.replace(&format!("{{{name}}}"), &path_value(name, operation, ids, random));
                }
                _ if parameter["required"] != true && !random.one_in(4) => {}
                "query" => query
                    .push(format!("{name}={}", percent_encode(&schema_text(document, schema, ids, random)))),
                "header" => {
                    headers.push((name.to_owned(), schema_text(document, schema, ids, random).into_bytes()));
                }
                other => panic!("unknown parameter location: {other}"),
            }
        }
        if !query.is_empty() {
            target = format!("{target}?{}", query.join("&"));
        }
        let mut body = Vec::new();
        if let Some((kind, content)) =
            operation["requestBody"]["content"].as_object().and_then(|all| all.iter().next())
        {
            headers.push(("Content-Type".to_owned(), kind.clone().into_bytes()));
            body = document.value(&content["schema"], ids, random, 0).to_string().into_bytes();
        }
        Self { method, target, headers, body, missing_bytes: 0, is_invalid_http: false }
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// Sets a header, replacing all headers of the same name.
    pub(super) fn set_header(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.headers.retain(|(existing, _)| !existing.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
    }

    /// Returns the complete request as bytes: request line, headers and body.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        let length = self.body.len() + self.missing_bytes;
        bytes.extend_from_slice(format!("Content-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Returns the first 2,000 characters of the request, for failure messages.
    pub(super) fn preview(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).chars().take(2_000).collect()
    }
}

fn path_value(name: &str, operation: &Value, ids: &Ids, random: &mut SeededRandom) -> String {
    let id = operation["operationId"].as_str().unwrap();
    let prefix = match name {
        "deployment_id" => "dep",
        "thread_id" => "thr",
        "run_id" => "run",
        "skill_id" => "skl",
        "secret_id" => "sec",
        "key_id" => "key",
        "steering_id" => "str",
        "approval_id" => "apr",
        // The parameter is a name, for example of a tool or an MCP server. There need not be a resource with this name.
        _ => return "Ada".to_owned(),
    };
    // Operations that delete deployments or manage keys get only ids of resources that may be deleted: later requests
    // need the other deployments, and the test needs its own API key.
    let needs_deletable_id = (id.starts_with("delete_deployment") && prefix == "dep") || id.contains("key");
    if needs_deletable_id { ids.deletable(prefix, random) } else { ids.any(prefix, random) }
}

fn schema_text(document: &Document, schema: &Value, ids: &Ids, random: &mut SeededRandom) -> String {
    match document.value(schema, ids, random, 0) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
