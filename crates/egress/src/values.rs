//! Replaces placeholders in a request with secret values. A placeholder is the random text that a sandbox holds in
//! place of a secret. Only secrets that the destination host may receive are used.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use herm_types::secret::{Inject, SecretId};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use http::request::Parts;
use http_body_util::BodyExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::body::{self, Body};
use crate::error::ProxyError;
use crate::rewrite::{Needle, Rules};

/// The minimum length of a value that is injected into requests, in bytes. A shorter value could be guessed, and
/// masking it would also replace unrelated text that happens to be equal.
pub(crate) const MIN_VALUE_BYTES: usize = 8;
/// The maximum size of a request body that is rewritten in memory, in bytes. The new length of such a body is known
/// before it is sent. Larger bodies, and bodies of unknown length, are rewritten as a stream.
const MAX_BUFFERED_BYTES: u64 = 256 * 1024;

/// A secret that the destination host of a request may receive, with its value.
pub(crate) struct SecretValue {
    pub(crate) secret_id: SecretId,
    pub(crate) placeholder: String,
    pub(crate) value: SecretString,
    pub(crate) inject: Vec<Inject>,
}

impl SecretValue {
    fn is_short(&self) -> bool {
        self.value.expose_secret().len() < MIN_VALUE_BYTES
    }

    /// Returns the placeholder as a search string (needle), with the value encoded by `write` as its replacement.
    fn needle(&self, write: impl Fn(&str) -> Vec<u8>) -> Needle {
        Needle::literal(&self.placeholder, Zeroizing::new(write(self.value.expose_secret())))
    }
}

/// Returns the rules that inject secret values into the header, the query or the body of a request, as selected by
/// `inject`. The rules are empty if no secret may be injected there.
fn rules(secrets: &[SecretValue], inject: Inject, write: impl Fn(&str) -> Vec<u8>) -> Rules {
    let injected = secrets.iter().filter(|secret| secret.inject.contains(&inject));
    Rules::new(injected.map(|secret| secret.needle(&write)).collect())
}

/// Injects secret values into the header fields and the URI of a request. On failure, the request must not be sent, and
/// the returned error is a sentence that gives the reason.
pub(crate) fn inject_into_head(head: &mut Parts, secrets: &[SecretValue]) -> Result<(), String> {
    inject_into_headers(head, secrets)?;
    let rules = rules(secrets, Inject::Query, |value| percent_encoded(value).into_bytes());
    let Some(old) = head.uri.path_and_query() else { return Ok(()) };
    let Some(new) = rules.rewrite(old.as_str().as_bytes()) else { return Ok(()) };
    reject_short(secrets, Inject::Query, |placeholder| contains(old.as_str().as_bytes(), placeholder))?;
    let mut uri = head.uri.clone().into_parts();
    uri.path_and_query = Some(
        http::uri::PathAndQuery::try_from(new.as_slice())
            .map_err(|_| "the URI is too long after secrets were inserted".to_owned())?,
    );
    head.uri = http::Uri::from_parts(uri)
        .map_err(|_| "the URI is invalid after secrets were inserted".to_owned())?;
    Ok(())
}

fn inject_into_headers(head: &mut Parts, secrets: &[SecretValue]) -> Result<(), String> {
    let rules = rules(secrets, Inject::Header, |value| value.as_bytes().to_vec());
    if rules.is_empty() {
        return Ok(());
    }
    for (name, field) in &mut head.headers {
        // `Host` is skipped, because a secret must not change the destination of a request.
        if name == HOST {
            continue;
        }
        let decoded = (name == AUTHORIZATION).then(|| decode_basic(field.as_bytes())).flatten();
        let new = match &decoded {
            Some(credentials) => rules.rewrite(credentials).map(|new| encode_basic(&new)),
            None => rules.rewrite(field.as_bytes()),
        };
        let Some(new) = new else { continue };
        let old = decoded.as_deref().map_or(field.as_bytes(), Vec::as_slice);
        reject_short(secrets, Inject::Header, |placeholder| contains(old, placeholder))?;
        let mut new = HeaderValue::from_bytes(&new).map_err(|_| invalid_header_value(secrets, old))?;
        new.set_sensitive(true);
        *field = new;
    }
    Ok(())
}

/// Returns the error message for a secret whose value is not valid in a header field. Names the secret by its id.
fn invalid_header_value(secrets: &[SecretValue], field: &[u8]) -> String {
    let is_invalid = |secret: &&SecretValue| {
        contains(field, &secret.placeholder) && HeaderValue::from_str(secret.value.expose_secret()).is_err()
    };
    let which =
        secrets.iter().find(is_invalid).map(|secret| secret.secret_id.to_string()).unwrap_or_default();
    format!(
        "the value of the secret {which} contains line breaks or control characters, which a header must not contain"
    )
}

fn reject_short(
    secrets: &[SecretValue],
    inject: Inject,
    is_present: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let short = secrets.iter().find(|secret| {
        secret.inject.contains(&inject) && secret.is_short() && is_present(&secret.placeholder)
    });
    short.map_or(Ok(()), |secret| {
        Err(format!(
            "the value of the secret {} is shorter than {MIN_VALUE_BYTES} bytes, the minimum length for values that can be masked in responses",
            secret.secret_id
        ))
    })
}

fn contains(text: &[u8], placeholder: &str) -> bool {
    !placeholder.is_empty() && text.windows(placeholder.len()).any(|part| part == placeholder.as_bytes())
}

/// Decodes the credentials of an `Authorization` header field. Returns `None` if the scheme is not `Basic` or the
/// base64 is invalid.
fn decode_basic(field: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, rest) = field.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = rest.trim_ascii();
    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok().map(Zeroizing::new)
}

fn encode_basic(credentials: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut field = Zeroizing::new(b"Basic ".to_vec());
    field.extend_from_slice(Zeroizing::new(STANDARD.encode(credentials)).as_bytes());
    field
}

/// Injects the values of the secrets that may be sent in a body. A compressed body is left unchanged.
pub(crate) async fn inject_into_body(
    head: &mut Parts,
    body: Body,
    secrets: &[SecretValue],
) -> Result<Body, ProxyError> {
    let is_compressed = head
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|name| !name.as_bytes().eq_ignore_ascii_case(b"identity"));
    let is_injected = |secret: &&SecretValue| secret.inject.contains(&Inject::Body) && !secret.is_short();
    let needles: Vec<Needle> =
        secrets.iter().filter(is_injected).map(|secret| secret.needle(encoder_for(head))).collect();
    if is_compressed || needles.is_empty() || body::exact_bytes(&body) == Some(0) {
        return Ok(body);
    }
    let rules = Arc::new(Rules::new(needles));
    if body::exact_bytes(&body).is_none_or(|bytes| bytes > MAX_BUFFERED_BYTES) {
        head.headers.remove(CONTENT_LENGTH);
        return Ok(body::rewritten(body, None, rules));
    }
    let whole = body
        .collect()
        .await
        .map_err(|_| ProxyError::Invalid("the request body ended before it was complete"))?
        .to_bytes();
    let new = rules.rewrite(&whole).map_or(whole, |new| Bytes::copy_from_slice(&new));
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(new.len()));
    Ok(body::full(new))
}

/// Returns a function that encodes a value for a body with the request's `Content-Type`, for example with JSON escapes.
fn encoder_for(head: &Parts) -> impl Fn(&str) -> Vec<u8> + use<> {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    move |value| match kind.as_str() {
        "application/x-www-form-urlencoded" => percent_encoded(value).into_bytes(),
        json if json == "application/json" || json.ends_with("+json") => json_escaped(value).into_bytes(),
        _ => value.as_bytes().to_vec(),
    }
}

fn percent_encoded(value: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    value.bytes().map(encode).collect()
}

/// Escapes a value for use inside a JSON string.
fn json_escaped(value: &str) -> String {
    let escape = |char: char| match char {
        '"' | '\\' => format!("\\{char}"),
        control if u32::from(control) < 32 => format!("\\u{:04x}", u32::from(control)),
        other => other.to_string(),
    };
    value.chars().map(escape).collect()
}
