//! Parses the path, query and body of requests into Rust types. An error response lists all invalid query parameters
//! together, or all invalid fields of the body together.

mod body;
mod json;
mod object;
mod path;
mod query;

pub use body::DEFAULT_MAX_JSON_BYTES;
pub(crate) use body::{JsonBody, OptionalJsonBody, read_body};
pub(crate) use object::{FieldValue, Object};
pub(crate) use path::{DeploymentPath, IdPath};
pub(crate) use query::Query;

use herm_types::{Error, FieldError};
use serde_json::Value;

/// The maximum number of field errors listed in one response. Further errors are counted but not listed, because a body
/// of 1 MiB can contain a hundred thousand errors.
const MAX_FIELD_ERRORS: usize = 100;

/// Collects the field errors of a request.
#[derive(Debug, Default)]
pub(crate) struct FieldErrors {
    listed: Vec<FieldError>,
    unlisted: usize,
}

impl FieldErrors {
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.listed.len() < MAX_FIELD_ERRORS {
            self.listed.push(FieldError::new(path, message));
        } else {
            self.unlisted += 1;
        }
    }

    /// Returns true if an error was already added for the field with this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.listed.iter().any(|error| error.path == path)
    }

    /// Fails if any field errors were added.
    ///
    /// # Errors
    /// `validation_error`, which lists the field errors.
    pub(crate) fn check(mut self) -> Result<(), Error> {
        if self.listed.is_empty() {
            return Ok(());
        }
        if self.unlisted > 0 {
            self.listed.push(FieldError::new(
                "",
                format!("contains more errors than are listed here; {} are omitted", self.unlisted),
            ));
        }
        Err(Error::invalid(self.listed))
    }
}

/// Checks the body of an operation that takes no fields: it must be absent or an empty object.
///
/// # Errors
/// `validation_error`, which lists every field of the body as unknown.
pub(crate) fn no_fields(body: Option<&Value>) -> Result<(), Error> {
    let mut errors = FieldErrors::default();
    if let Some(body) = body {
        Object::from_body(body, &mut errors).finish(&mut errors);
    }
    errors.check()
}

/// Returns the name of a field or query parameter in the form used in the path of a field error. An empty name becomes
/// `""`, because an empty path means the whole body.
fn quote_if_empty(name: &str) -> &str {
    if name.is_empty() { "\"\"" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> String {
        let result = json::parse(body.as_bytes()).and_then(|body| no_fields(Some(&body)));
        result.unwrap_err().message
    }

    #[test]
    fn an_error_of_the_whole_body_reads_as_a_sentence() {
        assert_eq!(message("[]"), "The request body must be a JSON object.");
        let error = |path: &str| FieldError::new(path, "must be a JSON object");
        let several = Error::invalid(vec![error(""), error("a"), error("b")]);
        assert_eq!(several.message, "The request body must be a JSON object (and 2 more).");
    }

    #[test]
    fn an_empty_field_name_is_shown_in_quotes() {
        assert_eq!(message(r#"{"": 1}"#), "\"\": unknown field");
        assert_eq!(message(r#"{"a": {"": 1, "": 2}}"#), "a.\"\": duplicate key");
    }
}
