//! Input, parsed once: every fault of a body or a query is found, and all are reported together.

mod body;
mod object;
mod path;
mod query;

pub(crate) use body::JsonBody;
pub(crate) use object::Object;
pub(crate) use path::DeploymentPath;
pub(crate) use query::Query;

use herm_types::{Error, Fault};

/// The faults found so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault::new(path, message));
    }

    /// # Errors
    /// All faults together, if there are any.
    pub(crate) fn check(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::invalid(self.0)) }
    }
}
