//! Collects the invalid fields of a request.

use herm_types::{Error, FieldError};

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
                format!("has too many errors to list; number of omitted errors: {}", self.unlisted),
            ));
        }
        Err(Error::invalid(self.listed))
    }
}

/// Returns the name of a field or query parameter in the form used in the path of a field error. An empty name becomes
/// `""`, because an empty path means the whole body.
pub(super) fn quote_if_empty(name: &str) -> &str {
    if name.is_empty() { "\"\"" } else { name }
}
