//! The ways in which a request is spoilt.

use serde_json::{Value, json};

use super::dice::Dice;
use super::request::{Ids, Request};

/// Bytes of a string that is too long for everything.
const HUGE_BYTES: usize = 1024 * 1024 + 1;
/// Arrays within arrays: more than any stack.
const DEEP: usize = 100_000;

type Way = fn(&mut Request, &Ids, &mut Dice);

/// Spoils a request in one way, and says in which.
pub(super) fn spoil(request: &mut Request, ids: &Ids, dice: &mut Dice) -> &'static str {
    let ways: &[(&str, Way)] = &[
        ("another value", another_value),
        ("a field less", field_less),
        ("a field more", field_more),
        ("a field twice", field_twice),
        ("broken JSON", broken_json),
        ("hostile bytes", hostile_bytes),
        ("a huge or deep body", huge_body),
        ("a body cut short", cut_body),
        ("another method", another_method),
        ("another content type", another_type),
        ("a hostile header", hostile_header),
        ("another key", another_key),
        ("another id", another_id),
        ("an odd path", odd_path),
        ("an odd query", odd_query),
        ("no HTTP", no_http),
    ];
    let (name, way) = dice.pick(ways);
    way(request, ids, dice);
    name
}

/// A value that is seldom what is asked for.
fn odd(ids: &Ids, dice: &mut Dice) -> Value {
    match dice.below(14) {
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
            let prefix = *dice.pick(&["dep", "thr", "run", "skl", "sec"]);
            json!(ids.any(prefix, dice))
        }
    }
}

/// Changes the body as JSON, where it is.
fn change(request: &mut Request, change: impl FnOnce(&mut Value)) {
    if let Ok(mut value) = serde_json::from_slice::<Value>(&request.body) {
        change(&mut value);
        request.body = value.to_string().into_bytes();
    }
}

/// Any place within a value, itself included.
fn place<'v>(value: &'v mut Value, dice: &mut Dice) -> &'v mut Value {
    if dice.once_in(3) {
        return value;
    }
    let within = value.as_array().map(Vec::len).or_else(|| value.as_object().map(serde_json::Map::len));
    let index = dice.below(within.unwrap_or_default());
    if within.unwrap_or_default() == 0 {
        return value;
    }
    match value {
        Value::Array(items) => place(&mut items[index], dice),
        Value::Object(fields) => place(fields.values_mut().nth(index).unwrap(), dice),
        _ => unreachable!("only those two have something within"),
    }
}

fn another_value(request: &mut Request, ids: &Ids, dice: &mut Dice) {
    change(request, |value| *place(value, dice) = odd(ids, dice));
}

fn field_less(request: &mut Request, _: &Ids, dice: &mut Dice) {
    change(request, |value| {
        if let Some(fields) = value.as_object_mut()
            && let Some(name) = fields.keys().nth(dice.below(fields.len())).cloned()
        {
            fields.remove(&name);
        }
    });
}

fn field_more(request: &mut Request, ids: &Ids, dice: &mut Dice) {
    change(request, |value| {
        if let Some(fields) = place(value, dice).as_object_mut() {
            fields
                .insert((*dice.pick(&["unknown", "", "id", "__proto__", "ключ"])).to_owned(), odd(ids, dice));
        }
    });
}

fn field_twice(request: &mut Request, ids: &Ids, dice: &mut Dice) {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let first =
        text.strip_prefix("{\"").and_then(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned());
    if let Some(name) = first {
        request.body = format!("{{\"{name}\":{},{}", odd(ids, dice), &text[1..]).into_bytes();
    }
}

fn broken_json(request: &mut Request, _: &Ids, dice: &mut Dice) {
    let half = dice.below(request.body.len());
    match dice.below(4) {
        0 => request.body.truncate(half),
        1 => request.body = b"{\"a\": 1e999999}".to_vec(),
        2 => request.body = b"{\"content\": \"\\ud800\"}".to_vec(),
        _ => request.body.extend_from_slice(b" {}"),
    }
}

fn hostile_bytes(request: &mut Request, _: &Ids, dice: &mut Dice) {
    let at = dice.below(request.body.len());
    let bytes: &[u8] = dice.pick::<&[u8]>(&[b"\xff\xfe".as_slice(), b"\0", b"\xed\xa0\x80", b"\xc0\xaf"]);
    request.body.splice(at..at, bytes.iter().copied());
}

fn huge_body(request: &mut Request, _: &Ids, dice: &mut Dice) {
    request.body = match dice.below(4) {
        0 => format!("{{\"content\": \"{}\"}}", "x".repeat(HUGE_BYTES)).into_bytes(),
        1 => "[".repeat(DEEP).into_bytes(),
        2 => "{\"a\":".repeat(DEEP).into_bytes(),
        _ => format!("{{\"attachments\": [{}1]}}", "1,".repeat(DEEP)).into_bytes(),
    };
}

fn cut_body(request: &mut Request, _: &Ids, dice: &mut Dice) {
    request.missing_bytes = dice.below(1_000) + 1;
    request.is_broken = true;
}

fn another_method(request: &mut Request, _: &Ids, dice: &mut Dice) {
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
    request.method = (*dice.pick(&methods)).to_owned();
    if request.method == "DELETE" && request.path().matches('/').count() == 3 {
        // The ground stays.
        request.method = "BREW".to_owned();
    }
}

fn another_type(request: &mut Request, _: &Ids, dice: &mut Dice) {
    let types =
        ["", "text/plain", "application/json; charset=utf-16", "multipart/form-data", "a/b/c", "\u{e9}"];
    request.header("Content-Type", *dice.pick(&types));
}

fn hostile_header(request: &mut Request, ids: &Ids, dice: &mut Dice) {
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
    let id = ids.any("dep", dice);
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
    let value = dice.pick(&values).to_vec();
    request.header(dice.pick::<&str>(&names), value);
}

fn another_key(request: &mut Request, _: &Ids, dice: &mut Dice) {
    let values = [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer herm_sk_nonsense",
        "bearer \u{1f600}",
        "Bearer a b c",
    ];
    request.header("Authorization", *dice.pick(&values));
}

fn another_id(request: &mut Request, ids: &Ids, dice: &mut Dice) {
    let given =
        request.path().split('/').filter(|part| part.contains('_') && part.len() > 20).collect::<Vec<_>>();
    if given.is_empty() {
        return;
    }
    let given = (*dice.pick(&given)).to_owned();
    let prefix = *dice.pick(&["thr", "run", "skl", "evt", "dep"]);
    let other = match dice.below(4) {
        0 => given.to_uppercase(),
        1 => given[..given.len() - 1].to_owned(),
        2 => format!("{prefix}_zzzzzzzzzzzzzzzzzzzzzzzzzz"),
        _ => ids.learnt_or_made_up(prefix, dice),
    };
    request.target = request.target.replacen(&given, &other, 1);
}

fn odd_path(request: &mut Request, _: &Ids, dice: &mut Dice) {
    let odd = dice.pick(&["/", "//", "/..", "/%2e%2e", "/%00", "/%ff", "/%", "/a%2Fb", "/x", ";a=b"]);
    let path = request.path().to_owned();
    request.target = match dice.below(3) {
        0 => format!("{path}{odd}"),
        1 => format!("{odd}{path}"),
        _ => format!("{path}/{}", "a".repeat(10_000)),
    };
    if !request.target.starts_with('/') {
        request.is_broken = true;
    }
}

fn odd_query(request: &mut Request, _: &Ids, dice: &mut Dice) {
    let odd = [
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
    let mark = if request.target.contains('?') { '&' } else { '?' };
    request.target = format!("{}{mark}{}", request.target, dice.pick(&odd));
}

/// What the HTTP of the server refuses before it is a request.
fn no_http(request: &mut Request, _: &Ids, dice: &mut Dice) {
    request.is_broken = true;
    match dice.below(6) {
        0 => request.target.push_str(" HTTP/9.9 x"),
        1 => request.header("X-Huge", vec![b'x'; 1024 * 1024]),
        2 => request.headers.extend((0..1_000).map(|number| (format!("X-{number}"), b"x".to_vec()))),
        3 => request.header("X\0Y", b"x".to_vec()),
        4 => request.header("Transfer-Encoding", b"chunked".to_vec()),
        _ => request.headers.push(("Content-Length".to_owned(), b"7".to_vec())),
    }
}
