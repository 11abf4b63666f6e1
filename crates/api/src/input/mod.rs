//! Input, parsed once: every fault of a body or a query is found, and all are reported together.

mod body;
mod object;
mod path;
mod query;

pub(crate) use body::{JsonBody, OptionalJsonBody};
pub(crate) use object::{Given, Object};
pub(crate) use path::DeploymentPath;
pub(crate) use query::Query;

use herm_types::{Error, Fault};
use serde_json::Value;

/// The faults found so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault::new(path, message));
    }

    /// Whether something was found at this path already.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.iter().any(|fault| fault.path == path)
    }

    /// # Errors
    /// All faults together, if there are any.
    pub(crate) fn check(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::invalid(self.0)) }
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
