//! Secrets' values put into a request in place of their placeholders, for the host that they are meant for.

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
use crate::fault::Fault;
use crate::rewrite::{Needle, Rules};

/// A shorter value is not put in: it would be found in replies where it does not stand, and could be guessed.
pub(crate) const MIN_VALUE_BYTES: usize = 8;
/// A body up to this size whose length is known is rewritten whole, so that its new length is known too. A longer one
/// is sent in pieces.
const MAX_MEASURED_BYTES: u64 = 256 * 1024;

/// A secret that the host of a request may be sent.
pub(crate) struct Given {
    pub(crate) secret_id: SecretId,
    pub(crate) placeholder: String,
    pub(crate) value: SecretString,
    pub(crate) inject: Vec<Inject>,
}

impl Given {
    fn is_short(&self) -> bool {
        self.value.expose_secret().len() < MIN_VALUE_BYTES
    }

    /// How the value is found by its placeholder and written in its place.
    fn needle(&self, write: impl Fn(&str) -> Vec<u8>) -> Needle {
        Needle::literal(&self.placeholder, Zeroizing::new(write(self.value.expose_secret())))
    }
}

/// What goes into one place of a request; nothing, for most.
fn rules(given: &[Given], place: Inject, write: impl Fn(&str) -> Vec<u8>) -> Rules {
    let here = given.iter().filter(|one| one.inject.contains(&place));
    Rules::new(here.map(|one| one.needle(&write)).collect())
}

/// Puts values into a request's header and address. The error is a sentence that says why the request must not be sent.
pub(crate) fn put_into_head(head: &mut Parts, given: &[Given]) -> Result<(), String> {
    put_into_fields(head, given)?;
    let rules = rules(given, Inject::Query, |value| percent_encoded(value).into_bytes());
    let Some(old) = head.uri.path_and_query() else { return Ok(()) };
    let Some(new) = rules.rewrite(old.as_str().as_bytes()) else { return Ok(()) };
    refuse_short(given, Inject::Query, |placeholder| holds(old.as_str().as_bytes(), placeholder))?;
    let mut uri = head.uri.clone().into_parts();
    uri.path_and_query = Some(
        http::uri::PathAndQuery::try_from(new.as_slice())
            .map_err(|_| "with the secrets put in, the address is too long".to_owned())?,
    );
    head.uri =
        http::Uri::from_parts(uri).map_err(|_| "with the secrets put in, it is no address".to_owned())?;
    Ok(())
}

fn put_into_fields(head: &mut Parts, given: &[Given]) -> Result<(), String> {
    let rules = rules(given, Inject::Header, |value| value.as_bytes().to_vec());
    if rules.is_empty() {
        return Ok(());
    }
    for (name, field) in &mut head.headers {
        // Where a request goes is not the secrets' matter.
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
        refuse_short(given, Inject::Header, |placeholder| holds(old, placeholder))?;
        let mut new = HeaderValue::from_bytes(&new).map_err(|_| breaks(given, old))?;
        new.set_sensitive(true);
        *field = new;
    }
    Ok(())
}

/// Names the secret whose value is not for a header.
fn breaks(given: &[Given], field: &[u8]) -> String {
    let breaks = |one: &&Given| {
        holds(field, &one.placeholder) && HeaderValue::from_str(one.value.expose_secret()).is_err()
    };
    let which = given.iter().find(breaks).map(|one| one.secret_id.to_string()).unwrap_or_default();
    format!(
        "the value of the secret {which} has line breaks or control characters, which a header cannot hold"
    )
}

fn refuse_short(given: &[Given], place: Inject, stands: impl Fn(&str) -> bool) -> Result<(), String> {
    let short =
        given.iter().find(|one| one.inject.contains(&place) && one.is_short() && stands(&one.placeholder));
    short.map_or(Ok(()), |one| {
        Err(format!(
            "the value of the secret {} is shorter than {MIN_VALUE_BYTES} bytes, so it could not be masked in replies",
            one.secret_id
        ))
    })
}

fn holds(text: &[u8], placeholder: &str) -> bool {
    !placeholder.is_empty() && text.windows(placeholder.len()).any(|part| part == placeholder.as_bytes())
}

/// The credentials of `Authorization: Basic`, decoded.
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

/// Puts values into a request's body where secrets say so. A body that is compressed stays as it is.
pub(crate) async fn put_into_body(head: &mut Parts, body: Body, given: &[Given]) -> Result<Body, Fault> {
    let is_packed = head
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|name| !name.as_bytes().eq_ignore_ascii_case(b"identity"));
    let long_enough = |one: &&Given| one.inject.contains(&Inject::Body) && !one.is_short();
    let needles: Vec<Needle> =
        given.iter().filter(long_enough).map(|one| one.needle(writer_for(head))).collect();
    if is_packed || needles.is_empty() || body::exact_bytes(&body) == Some(0) {
        return Ok(body);
    }
    let rules = Arc::new(Rules::new(needles));
    if body::exact_bytes(&body).is_none_or(|bytes| bytes > MAX_MEASURED_BYTES) {
        head.headers.remove(CONTENT_LENGTH);
        return Ok(body::rewritten(body, None, rules));
    }
    let whole =
        body.collect().await.map_err(|_| Fault::Invalid("the body of the request broke off"))?.to_bytes();
    let new = rules.rewrite(&whole).map_or(whole, |new| Bytes::copy_from_slice(&new));
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(new.len()));
    Ok(body::full(new))
}

/// How a value is written in a body of this request.
fn writer_for(head: &Parts) -> impl Fn(&str) -> Vec<u8> + use<> {
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

/// As it stands between the quotation marks of JSON.
fn json_escaped(value: &str) -> String {
    let escape = |char: char| match char {
        '"' | '\\' => format!("\\{char}"),
        control if u32::from(control) < 32 => format!("\\u{:04x}", u32::from(control)),
        other => other.to_string(),
    };
    value.chars().map(escape).collect()
}
