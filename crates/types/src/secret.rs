//! Secrets as their account sees them: where a value may be put in, never the value itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{IdSource, NewSecretId};
use crate::time::Timestamp;

mod host;

pub use host::{HostPattern, InvalidHostPattern};

const PREFIX: &str = "sec_";
/// The most characters of a secret's id after its prefix.
pub const MAX_ID_CHARS: usize = 64;

/// A secret's id: `sec_`, then 1 to 64 letters, digits, `-` and `_`. Whoever makes a secret may choose it; it is
/// unique in its account, and its case counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretId(String);

/// A text that is not a secret's id. The message does not repeat it: it may be a value in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {PREFIX} followed by 1 to {MAX_ID_CHARS} letters, digits, - and _")]
pub struct InvalidSecretId;

impl SecretId {
    /// The id of a secret whose maker chose none.
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
        let is_sane = (1..=MAX_ID_CHARS).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if is_sane { Ok(Self(text.to_owned())) } else { Err(InvalidSecretId) }
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

/// The part of a request that a value may be put into.
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
    /// Where a value goes if its maker does not say.
    pub const DEFAULT: [Self; 1] = [Self::Header];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Query => "query",
            Self::Body => "body",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.as_str() == text)
    }
}

/// A secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Secret {
    pub secret_id: SecretId,
    pub name: String,
    /// The hosts that may be sent the value. None: nobody.
    #[schema(value_type = Vec<String>)]
    pub allowed_hosts: Vec<HostPattern>,
    /// The parts of a request in which the placeholder is replaced.
    pub inject: Vec<Inject>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_chosen_within_limits() {
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
    fn every_place_is_read_as_it_is_written() {
        for place in Inject::ALL {
            assert_eq!(Inject::parse(place.as_str()), Some(place));
            assert_eq!(serde_json::to_value(place).unwrap(), place.as_str());
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<SecretId>();
        }
    }
}
