//! Reads ids from request paths. A malformed id is rejected with the error `not_found`, like an id that does not exist.

use std::collections::HashMap;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use herm_types::{DeploymentId, Error};
use http::request::Parts;

use crate::error::Failure;

/// Extractor for the parameters of a path that begins with `/v1/deployments/{deployment_id}`.
pub(crate) struct DeploymentPath {
    pub(crate) deployment_id: DeploymentId,
    parameters: HashMap<String, String>,
}

impl<S: Send + Sync> FromRequestParts<S> for DeploymentPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_or_else(|_| HashMap::new(), |Path(parameters)| parameters);
        let deployment_id = id_in_path("deployment", parameters.get("deployment_id"))?;
        Ok(Self { deployment_id, parameters })
    }
}

impl DeploymentPath {
    /// Returns the text of a path parameter that is not an id, for example the name of a tool.
    pub(crate) fn parameter(&self, name: &str) -> String {
        self.parameters.get(name).cloned().unwrap_or_default()
    }

    /// Parses the path parameter `parameter` as an id. `what` names the kind of resource in the error message, for
    /// example `thread`.
    pub(crate) fn id<I: FromStr>(&self, what: &str, parameter: &str) -> Result<I, Error> {
        id_in_path(what, self.parameters.get(parameter))
    }
}

/// Extractor for the parameters of a path that does not begin with `/v1/deployments/{deployment_id}`.
pub(crate) struct IdPath(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for IdPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        Ok(Self(parameters.map_or_else(|_| HashMap::new(), |Path(parameters)| parameters)))
    }
}

impl IdPath {
    pub(crate) fn id<I: FromStr>(&self, what: &str, parameter: &str) -> Result<I, Error> {
        id_in_path(what, self.0.get(parameter))
    }
}

/// Parses a path parameter as an id. `what` names the kind of resource in the error message, for example `thread`.
///
/// # Errors
/// `not_found`: the parameter is missing, or not a valid id of type `I`.
fn id_in_path<I: FromStr>(what: &str, text: Option<&String>) -> Result<I, Error> {
    let text = text.map_or("", String::as_str);
    text.parse().map_err(|_| Error::not_found(what, text))
}
