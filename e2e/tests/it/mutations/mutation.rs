//! The deliberate errors that can be inserted into a request.

use serde_json::{Value, json};

use super::request::{Ids, Request};
use super::seeded_random::SeededRandom;

/// The length in bytes of a string that exceeds every limit of the API.
const HUGE_BYTES: usize = 1024 * 1024 + 1;
/// A depth of nested JSON arrays that would overflow the stack of a recursive parser.
const DEPTH: usize = 100_000;

type Mutation = fn(&mut Request, &Ids, &mut SeededRandom);

/// Applies a random mutation to a request. Returns the name of the mutation.
pub(super) fn mutate(request: &mut Request, ids: &Ids, random: &mut SeededRandom) -> &'static str {
    let mutations: &[(&str, Mutation)] = &[
        ("replaced value", replace_value),
        ("removed field", remove_field),
        ("added field", add_field),
        ("duplicate field", duplicate_field),
        ("invalid JSON", break_json),
        ("invalid bytes", insert_invalid_bytes),
        ("huge or deeply nested body", enlarge_body),
        ("truncated body", truncate_body),
        ("other method", change_method),
        ("other content type", change_content_type),
        ("hostile header", set_hostile_header),
        ("invalid key", change_key),
        ("other id", change_id),
        ("unusual path", change_path),
        ("unusual query", change_query),
        ("invalid HTTP", break_http),
    ];
    let (name, mutation) = random.pick(mutations);
    mutation(request, ids, random);
    name
}

/// Returns a random JSON value that most fields do not accept.
fn unusual_value(ids: &Ids, random: &mut SeededRandom) -> Value {
    match random.below(14) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(0),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(1e308),
        7 => json!(""),
        8 => json!("a\u{0}b"),
        9 => json!("../../etc/passwd"),
        10 => json!([]),
        11 => json!({}),
        12 => json!("x".repeat(300_000)),
        _ => {
            let prefix = *random.pick(&["dep", "thr", "run", "skl", "sec"]);
            json!(ids.any(prefix, random))
        }
    }
}

/// Edits the request body if it is valid JSON. Otherwise leaves it unchanged.
fn edit_json(request: &mut Request, edit: impl FnOnce(&mut Value)) {
    if let Ok(mut value) = serde_json::from_slice::<Value>(&request.body) {
        edit(&mut value);
        request.body = value.to_string().into_bytes();
    }
}

/// Returns a random element or field at any depth of `value`, or `value` itself.
fn pick_value<'v>(value: &'v mut Value, random: &mut SeededRandom) -> &'v mut Value {
    if random.one_in(3) {
        return value;
    }
    let len = value.as_array().map(Vec::len).or_else(|| value.as_object().map(serde_json::Map::len));
    let index = random.below(len.unwrap_or_default());
    if len.unwrap_or_default() == 0 {
        return value;
    }
    match value {
        Value::Array(items) => pick_value(&mut items[index], random),
        Value::Object(fields) => pick_value(fields.values_mut().nth(index).unwrap(), random),
        _ => unreachable!("only arrays and objects contain values"),
    }
}

fn replace_value(request: &mut Request, ids: &Ids, random: &mut SeededRandom) {
    edit_json(request, |value| *pick_value(value, random) = unusual_value(ids, random));
}

fn remove_field(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    edit_json(request, |value| {
        if let Some(fields) = value.as_object_mut()
            && let Some(name) = fields.keys().nth(random.below(fields.len())).cloned()
        {
            fields.remove(&name);
        }
    });
}

fn add_field(request: &mut Request, ids: &Ids, random: &mut SeededRandom) {
    edit_json(request, |value| {
        if let Some(fields) = pick_value(value, random).as_object_mut() {
            fields.insert(
                (*random.pick(&["unknown", "", "id", "__proto__", "ключ"])).to_owned(),
                unusual_value(ids, random),
            );
        }
    });
}

fn duplicate_field(request: &mut Request, ids: &Ids, random: &mut SeededRandom) {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let first =
        text.strip_prefix("{\"").and_then(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned());
    if let Some(name) = first {
        request.body = format!("{{\"{name}\":{},{}", unusual_value(ids, random), &text[1..]).into_bytes();
    }
}

fn break_json(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    let half = random.below(request.body.len());
    match random.below(4) {
        0 => request.body.truncate(half),
        1 => request.body = b"{\"a\": 1e999999}".to_vec(),
        2 => request.body = b"{\"content\": \"\\ud800\"}".to_vec(),
        _ => request.body.extend_from_slice(b" {}"),
    }
}

fn insert_invalid_bytes(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    let at = random.below(request.body.len());
    let bytes: &[u8] = random.pick::<&[u8]>(&[b"\xff\xfe".as_slice(), b"\0", b"\xed\xa0\x80", b"\xc0\xaf"]);
    request.body.splice(at..at, bytes.iter().copied());
}

fn enlarge_body(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    request.body = match random.below(4) {
        0 => format!("{{\"content\": \"{}\"}}", "x".repeat(HUGE_BYTES)).into_bytes(),
        1 => "[".repeat(DEPTH).into_bytes(),
        2 => "{\"a\":".repeat(DEPTH).into_bytes(),
        _ => format!("{{\"attachments\": [{}1]}}", "1,".repeat(DEPTH)).into_bytes(),
    };
}

fn truncate_body(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    request.missing_bytes = random.below(1_000) + 1;
    request.is_invalid_http = true;
}

fn change_method(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
    request.method = (*random.pick(&methods)).to_owned();
    if request.method == "DELETE" && request.path().matches('/').count() == 3 {
        // `DELETE` on this path could delete a deployment that later requests need. Sends an unknown method instead.
        request.method = "BREW".to_owned();
    }
}

fn change_content_type(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    let types =
        ["", "text/plain", "application/json; charset=utf-16", "multipart/form-data", "a/b/c", "\u{e9}"];
    request.set_header("Content-Type", *random.pick(&types));
}

fn set_hostile_header(request: &mut Request, ids: &Ids, random: &mut SeededRandom) {
    let names = [
        "Accept",
        "Range",
        "If-Range",
        "If-Match",
        "If-None-Match",
        "Last-Event-ID",
        "X-Request-Id",
        "Cookie",
        "Host",
        "X-Forwarded-For",
        "Idempotency-Key",
        "Content-Encoding",
        "Accept-Encoding",
        "Upgrade",
        "X-HTTP-Method-Override",
    ];
    let event = format!("evt_{}", u64::MAX);
    let id = ids.any("dep", random);
    let values: [&[u8]; 14] = [
        b"",
        b"*",
        b"\xff\xfe",
        b"\"a\", W/\"b\"",
        b"bytes=0-,-1",
        b"bytes=18446744073709551615-",
        b"evt_-1",
        event.as_bytes(),
        b"text/event-stream",
        b"../../x",
        b"<script>",
        b"gzip",
        id.as_bytes(),
        &[b'x'; 8_000],
    ];
    let value = random.pick(&values).to_vec();
    request.set_header(random.pick::<&str>(&names), value);
}

fn change_key(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    let values = [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer herm_sk_nonsense",
        "bearer \u{1f600}",
        "Bearer a b c",
    ];
    request.set_header("Authorization", *random.pick(&values));
}

fn change_id(request: &mut Request, ids: &Ids, random: &mut SeededRandom) {
    let ids_in_path =
        request.path().split('/').filter(|part| part.contains('_') && part.len() > 20).collect::<Vec<_>>();
    if ids_in_path.is_empty() {
        return;
    }
    let id = (*random.pick(&ids_in_path)).to_owned();
    let prefix = *random.pick(&["thr", "run", "skl", "evt", "dep"]);
    let other = match random.below(4) {
        0 => id.to_uppercase(),
        1 => id[..id.len() - 1].to_owned(),
        2 => format!("{prefix}_zzzzzzzzzzzzzzzzzzzzzzzzzz"),
        _ => ids.deletable(prefix, random),
    };
    request.target = request.target.replacen(&id, &other, 1);
}

fn change_path(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    let part = random.pick(&["/", "//", "/..", "/%2e%2e", "/%00", "/%ff", "/%", "/a%2Fb", "/x", ";a=b"]);
    let path = request.path().to_owned();
    request.target = match random.below(3) {
        0 => format!("{path}{part}"),
        1 => format!("{part}{path}"),
        _ => format!("{path}/{}", "a".repeat(10_000)),
    };
    if !request.target.starts_with('/') {
        request.is_invalid_http = true;
    }
}

fn change_query(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    let values = [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=1&limit=2",
        "limit=%00",
        "cursor=x",
        "cursor=",
        "cursor=%ff",
        "unknown=1",
        "status=odd",
        "thread_id=x",
        "run_id=dep_",
        "types=",
        "types=a,b",
        "after=evt_99999999999999999999",
        "path=..%2Fa",
        "path=%00",
        "path=%2Fetc%2Fpasswd",
        "path=a&path=b",
        "=",
        "&&",
        "retain_filesystem=maybe",
        "messages_cursor=x",
    ];
    let separator = if request.target.contains('?') { '&' } else { '?' };
    request.target = format!("{}{separator}{}", request.target, random.pick(&values));
}

/// Makes the request invalid HTTP, so that the server's HTTP library rejects it before it reaches a handler.
fn break_http(request: &mut Request, _: &Ids, random: &mut SeededRandom) {
    request.is_invalid_http = true;
    match random.below(6) {
        0 => request.target.push_str(" HTTP/9.9 x"),
        1 => request.set_header("X-Huge", vec![b'x'; 1024 * 1024]),
        2 => request.headers.extend((0..1_000).map(|number| (format!("X-{number}"), b"x".to_vec()))),
        3 => request.set_header("X\0Y", b"x".to_vec()),
        4 => request.set_header("Transfer-Encoding", b"chunked".to_vec()),
        _ => request.headers.push(("Content-Length".to_owned(), b"7".to_vec())),
    }
}
