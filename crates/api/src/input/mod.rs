//! Parses the path, query and body of requests into Rust types. An error response lists all invalid query parameters
//! together, or all invalid fields of the body together.

mod body;
mod field_errors;
mod json;
mod object;
mod path;
mod query;

pub(crate) use body::{JsonBody, OptionalJsonBody, read_body};
pub(crate) use field_errors::FieldErrors;
pub(crate) use object::{FieldValue, Object, no_fields};
pub(crate) use path::{DeploymentPath, IdPath};
pub(crate) use query::Query;
