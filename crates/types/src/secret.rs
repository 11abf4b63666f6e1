//! Secrets: values that go to a service, never to an agent.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most characters of a secret's id behind its prefix.
const MAX_ID_CHARS: usize = 64;

/// The id of a secret, `sec_…`: unique in its account, and the client's to choose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretId(String);

/// A text that is not the id of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be sec_ followed by 1 to {MAX_ID_CHARS} letters, digits, _ or -")]
pub struct InvalidSecretId;

impl std::str::FromStr for SecretId {
    type Err = InvalidSecretId;

    fn from_str(text: &str) -> Result<Self, InvalidSecretId> {
        let rest = text.strip_prefix("sec_").ok_or(InvalidSecretId)?;
        let is_sane = (1..=MAX_ID_CHARS).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if is_sane { Ok(Self(text.to_owned())) } else { Err(InvalidSecretId) }
    }
}

impl std::fmt::Display for SecretId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
            .pattern(Some(format!("^sec_[A-Za-z0-9_-]{{1,{MAX_ID_CHARS}}}$")))
            .into()
    }
}

impl utoipa::ToSchema for SecretId {}
