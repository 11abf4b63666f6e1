//! Masks secrets in responses. Each secret value that the destination host may have received is replaced by its
//! placeholder, the text that programs in the sandbox hold in place of the value.

use http::HeaderMap;
use http::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::rewrite::{Needle, Rules};
use crate::values::MIN_VALUE_BYTES;

/// The maximum number of secret values that are masked per connection. Beyond it, the oldest value is no longer
/// masked. This is rare, because values seldom change while a connection is open.
const MAX_VALUES: usize = 128;

/// The secret values that may have been sent over a connection, each with its placeholder. A value remains masked even
/// after its secret was changed or removed.
#[derive(Default)]
pub(crate) struct SentValues(Vec<(String, SecretString)>);

impl SentValues {
    pub(crate) fn add(&mut self, placeholder: &str, value: &SecretString) {
        let text = value.expose_secret().as_bytes();
        let is_duplicate = |(other_placeholder, other_value): &(String, SecretString)| {
            other_placeholder == placeholder && bool::from(other_value.expose_secret().as_bytes().ct_eq(text))
        };
        if text.len() < MIN_VALUE_BYTES || self.0.iter().any(is_duplicate) {
            return;
        }
        if self.0.len() >= MAX_VALUES {
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

/// Masks secret values in header fields or trailers. A field is removed if its name contains a value.
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
