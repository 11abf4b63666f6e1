//! A request as it goes over the wire, made right.

use std::collections::BTreeMap;

use serde_json::Value;

use super::dice::Dice;
use super::document::Document;
use super::wire::Response;

/// Ids of a kind that are remembered.
const MAX_IDS: usize = 50;

/// The ids that the server gave, by their prefix.
#[derive(Default)]
pub(super) struct Ids {
    kept: BTreeMap<String, Vec<String>>,
    learnt: BTreeMap<String, Vec<String>>,
}

impl Ids {
    /// Remembers those that stay.
    pub(super) fn keep(&mut self, value: &Value) {
        gather(value, &mut self.kept);
    }

    /// Remembers what a request made.
    pub(super) fn learn(&mut self, request: &Request, response: &Response) {
        if request.method == "POST" && response.status < 300 {
            gather(&serde_json::from_slice(&response.body).unwrap_or_default(), &mut self.learnt);
            for ids in self.learnt.values_mut() {
                ids.drain(..ids.len().saturating_sub(MAX_IDS));
            }
        }
    }

    /// One that is there, most of the time.
    pub(super) fn any(&self, prefix: &str, dice: &mut Dice) -> String {
        let learnt = self.learnt.get(prefix).filter(|_| dice.once_in(5));
        match learnt.or_else(|| self.kept.get(prefix)).filter(|ids| !ids.is_empty()) {
            Some(ids) => dice.pick(ids).clone(),
            None => self.learnt_or_made_up(prefix, dice),
        }
    }

    /// One that nothing else needs: it may be deleted.
    pub(super) fn learnt_or_made_up(&self, prefix: &str, dice: &mut Dice) -> String {
        let learnt = self.learnt.get(prefix).filter(|ids| !ids.is_empty());
        learnt.map_or_else(|| format!("{prefix}_01h455vb4pex5vsknk084sn02q"), |ids| dice.pick(ids).clone())
    }
}

fn gather(value: &Value, ids: &mut BTreeMap<String, Vec<String>>) {
    match value {
        Value::String(text) => {
            let parts = text.split_once('_').filter(|(_, rest)| rest.len() == 26);
            if let Some((prefix, _)) = parts {
                ids.entry(prefix.to_owned()).or_default().push(text.clone());
            }
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, ids)),
        Value::Object(fields) => fields.values().for_each(|field| gather(field, ids)),
        _ => {}
    }
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query, as they are sent.
    pub(super) target: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    /// Bytes that are announced and do not come.
    pub(super) missing_bytes: usize,
    /// What is sent may not be HTTP any more: then there need not be an answer.
    pub(super) is_broken: bool,
}

impl Request {
    /// A request for any operation of the document.
    pub(super) fn right(document: &Document, ids: &mut Ids, key: &str, dice: &mut Dice) -> Self {
        let (method, template, operation) = dice.pick(&document.operations()).clone();
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
                    target = target.replace(&format!("{{{name}}}"), &in_path(name, operation, ids, dice));
                }
                _ if parameter["required"] != true && !dice.once_in(4) => {}
                "query" => query.push(format!("{name}={}", encoded(&of_schema(document, schema, ids, dice)))),
                "header" => {
                    headers.push((name.to_owned(), of_schema(document, schema, ids, dice).into_bytes()));
                }
                other => panic!("parameters in {other} are new"),
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
            body = document.value(&content["schema"], ids, dice, 0).to_string().into_bytes();
        }
        Self { method, target, headers, body, missing_bytes: 0, is_broken: false }
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub(super) fn header(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
    }

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

    /// What is sent, as far as it helps.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).chars().take(2_000).collect()
    }
}

fn in_path(name: &str, operation: &Value, ids: &Ids, dice: &mut Dice) -> String {
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
        // A name that the test made up, and may have given to something.
        _ => return "Ada".to_owned(),
    };
    // The ground stays; a key could be the one that all of this is done with.
    let is_gone_after = (id.starts_with("delete_deployment") && prefix == "dep") || id.contains("key");
    if is_gone_after { ids.learnt_or_made_up(prefix, dice) } else { ids.any(prefix, dice) }
}

fn of_schema(document: &Document, schema: &Value, ids: &Ids, dice: &mut Dice) -> String {
    match document.value(schema, ids, dice, 0) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
