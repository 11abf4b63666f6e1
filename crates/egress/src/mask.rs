//! Values that a host may be sent, replaced by their placeholders in all that comes back from it.

use http::HeaderMap;
use http::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::rewrite::{Needle, Rules};
use crate::values::MIN_VALUE_BYTES;

/// The most values that are masked on one connection: those that it was ever allowed, the latest first. Values change
/// rarely while a connection lives.
const MAX_KNOWN: usize = 128;

/// The values that may have gone over a connection. One that is replaced or taken away meanwhile is still masked.
#[derive(Default)]
pub(crate) struct Known(Vec<(String, SecretString)>);

impl Known {
    pub(crate) fn add(&mut self, placeholder: &str, value: &SecretString) {
        let text = value.expose_secret().as_bytes();
        let is_known = |(other, known): &(String, SecretString)| {
            other == placeholder && bool::from(known.expose_secret().as_bytes().ct_eq(text))
        };
        if text.len() < MIN_VALUE_BYTES || self.0.iter().any(is_known) {
            return;
        }
        if self.0.len() >= MAX_KNOWN {
            self.0.remove(0);
        }
        self.0.push((placeholder.to_owned(), value.clone()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rules(&self) -> Rules {
        let needles = self
            .0
            .iter()
            .flat_map(|(placeholder, value)| Needle::all_forms(value.expose_secret(), placeholder));
        Rules::new(needles.collect())
    }
}

/// Masks header fields or trailers. A field whose name holds a value goes.
pub(crate) fn headers(rules: &Rules, headers: &mut HeaderMap) {
    if rules.is_empty() {
        return;
    }
    let mut masked = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        if rules.rewrite(name.as_str().as_bytes()).is_some() {
            continue;
        }
        let value = match rules.rewrite(value.as_bytes()) {
            None => value.clone(),
            Some(text) => match HeaderValue::from_bytes(&text) {
                Ok(value) => value,
                Err(_) => continue,
            },
        };
        masked.append(name.clone(), value);
    }
    *headers = masked;
}
