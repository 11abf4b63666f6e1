//! Ids in paths. One that cannot be an id names nothing, so it is not found.

use std::collections::HashMap;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use herm_types::{DeploymentId, Error};
use http::request::Parts;

use crate::error::Failure;

/// The deployment that a path lies under, and the path's other parameters.
pub(crate) struct DeploymentPath {
    pub(crate) deployment_id: DeploymentId,
    rest: HashMap<String, String>,
}

impl<S: Send + Sync> FromRequestParts<S> for DeploymentPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let rest = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_or_else(|_| HashMap::new(), |Path(parameters)| parameters);
        let deployment_id = id_in_path("deployment", rest.get("deployment_id"))?;
        Ok(Self { deployment_id, rest })
    }
}

impl DeploymentPath {
    /// A name in the path, which need not be an id.
    pub(crate) fn text(&self, parameter: &str) -> String {
        self.rest.get(parameter).cloned().unwrap_or_default()
    }

    /// Another id of the path.
    pub(crate) fn id<I: FromStr>(&self, what: &str, parameter: &str) -> Result<I, Error> {
        id_in_path(what, self.rest.get(parameter))
    }
}

/// The one id of a path that lies under no deployment.
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

/// # Errors
/// `not_found`: the text is not an id of this kind.
fn id_in_path<I: FromStr>(what: &str, text: Option<&String>) -> Result<I, Error> {
    let text = text.map_or("", String::as_str);
    text.parse().map_err(|_| Error::not_found(what, text))
}
