//! Input, parsed once: every fault of a body or a query is found, and all are reported together.

mod body;
mod json;
mod object;
mod path;
mod query;

pub use body::DEFAULT_MAX_JSON_BYTES;
pub(crate) use body::{JsonBody, OptionalJsonBody, read_body};
pub(crate) use object::{Given, Object};
pub(crate) use path::{DeploymentPath, IdPath};
pub(crate) use query::Query;

use herm_types::{Error, Fault};
use serde_json::Value;

/// The most faults that are told of one request; a body of a megabyte can have a hundred thousand.
const MAX_FAULTS: usize = 100;

/// The faults found so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    first: Vec<Fault>,
    more: usize,
}

impl Faults {
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.first.len() < MAX_FAULTS {
            self.first.push(Fault::new(path, message));
        } else {
            self.more += 1;
        }
    }

    /// Whether something was found at this path already.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.first.iter().any(|fault| fault.path == path)
    }

    /// # Errors
    /// All faults together, if there are any.
    pub(crate) fn check(mut self) -> Result<(), Error> {
        if self.first.is_empty() {
            return Ok(());
        }
        if self.more > 0 {
            self.first.push(Fault::new("", format!("{} more faults are not listed", self.more)));
        }
        Err(Error::invalid(self.first))
    }
}

/// Reads a body that has nothing to say: none, or an object without fields.
///
/// # Errors
/// `validation_error` with every field there is.
pub(crate) fn no_fields(body: Option<&Value>) -> Result<(), Error> {
    let mut faults = Faults::default();
    if let Some(body) = body {
        Object::of_body(body, &mut faults).finish(&mut faults);
    }
    faults.check()
}
