//! Secrets, as the API shows them: without the value, but with the hosts to which the value may be sent and
//! the parts of a request that may contain it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{IdSource, NewSecretId};
use crate::time::Timestamp;

mod host;

pub use host::{HostPattern, InvalidHostPattern};

const PREFIX: &str = "sec_";
/// The maximum length of a secret id after its prefix, in characters.
pub const MAX_ID_CHARS: usize = 64;

/// A secret id: `sec_`, then 1 to 64 characters from ASCII letters, digits, `-` and `_`. The client that
/// creates a secret may choose the id. Ids are case-sensitive and unique within an account.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretId(String);

/// The error for a string that is not a secret id. The message does not quote the string, because the client
/// may have put a secret value into the wrong field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `{PREFIX}` followed by 1 to {MAX_ID_CHARS} letters, digits, `-` or `_`")]
pub struct InvalidSecretId;

impl SecretId {
    /// Generates an id for a secret whose creator did not choose one.
    pub fn generate(ids: &IdSource) -> Self {
        Self(ids.next::<NewSecretId>().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretId {
    type Err = InvalidSecretId;

    fn from_str(text: &str) -> Result<Self, InvalidSecretId> {
        let rest = text.strip_prefix(PREFIX).ok_or(InvalidSecretId)?;
        let is_valid = (1..=MAX_ID_CHARS).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidSecretId) }
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SecretId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for SecretId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::{ObjectBuilder, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(format!("^{PREFIX}[A-Za-z0-9_-]{{1,{MAX_ID_CHARS}}}$")))
            .into()
    }
}

impl utoipa::ToSchema for SecretId {}

/// A part of an HTTP request. Programs in a sandbox send a random placeholder instead of a secret's value.
/// The egress proxy replaces the placeholder with the value only in the parts that the secret allows.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Inject {
    Header,
    Query,
    Body,
}

impl Inject {
    pub const ALL: [Self; 3] = [Self::Header, Self::Query, Self::Body];
    /// The request parts that a secret allows if it is created without `inject`.
    pub const DEFAULT: [Self; 1] = [Self::Header];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Query => "query",
            Self::Body => "body",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == text)
    }
}

/// A secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Secret {
    pub secret_id: SecretId,
    pub name: String,
    /// The hosts to which the value may be sent. If the list is empty, the value is never sent.
    #[schema(value_type = Vec<String>)]
    pub allowed_hosts: Vec<HostPattern>,
    /// The parts of an HTTP request in which the secret's placeholder is replaced with its value.
    pub inject: Vec<Inject>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chosen_id_must_be_within_limits() {
        let longest = format!("sec_{}", "x".repeat(MAX_ID_CHARS));
        for id in ["sec_a", "sec_Acme-api_KEY", "sec_-", longest.as_str()] {
            assert_eq!(id.parse::<SecretId>().unwrap().as_str(), id);
        }
        let too_long = format!("{longest}x");
        for wrong in
            ["", "sec_", "sec", "Sec_a", "key_a", "sec_a b", "sec_a/b", "sec_é", "sec_a\n", &too_long]
        {
            assert_eq!(wrong.parse::<SecretId>(), Err(InvalidSecretId), "{wrong:?}");
        }
    }

    #[test]
    fn every_inject_value_round_trips_through_text() {
        for part in Inject::ALL {
            assert_eq!(Inject::parse(part.as_str()), Some(part));
            assert_eq!(serde_json::to_value(part).unwrap(), part.as_str());
        }
    }

    proptest! {
        #[test]
        fn parsing_any_text_does_not_panic(text: String) {
            let _ = text.parse::<SecretId>();
        }
    }
}
