//! Typed ids. An id is a prefix, an underscore, and a UUIDv7 in Crockford's base32 (26 characters, as in the
//! TypeID specification), for example `dep_01j…`.
//!
//! Ids sort by creation time. The ids that one [`IdSource`] generates are strictly increasing.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::{Clock, Rng};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 26;

/// The error for a string that is not an id with the expected prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `{prefix}_` followed by 26 lower-case letters and digits")]
pub struct InvalidId {
    pub prefix: &'static str,
}

/// A typed id: 128 bits, written with a fixed prefix that identifies the type.
pub trait Id: Copy + std::fmt::Display + std::str::FromStr<Err = InvalidId> + Send + Sync + 'static {
    /// The prefix of the written id, without the underscore, for example `dep`.
    const PREFIX: &'static str;
    fn from_bits(bits: u128) -> Self;
    fn to_bits(self) -> u128;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
            fn from_bits(bits: u128) -> Self {
                Self(bits)
            }
            fn to_bits(self) -> u128 {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "_{}"), encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode)
                    .map(Self)
                    .ok_or(InvalidId { prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                id_schema($prefix)
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

id!(/// The id of an account, the owner of keys and deployments.
    AccountId, "acc");
id!(/// The id of an API key or a browser token.
    KeyId, "key");
id!(/// The id of a deployment.
    DeploymentId, "dep");
id!(/// The id of a thread.
    ThreadId, "thr");
id!(/// The id of a message.
    MessageId, "msg");
id!(/// The id of a run.
    RunId, "run");
id!(/// The id of a skill.
    SkillId, "skl");
id!(/// The id that the server generates for a secret if the client chose none. See [`crate::SecretId`].
    NewSecretId, "sec");
id!(/// The id of a snapshot.
    SnapshotId, "snap");
id!(/// The id of a steering request.
    SteeringId, "str");
id!(/// The id of a stored approval.
    ApprovalId, "apr");
id!(/// The id of an HTTP request.
    RequestId, "req");
id!(/// The id of a work item.
    WorkId, "work");

/// The id of an event, written `evt_<n>`. The events of a deployment are numbered from 1 without gaps.
/// `evt_0` is the position before the first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub i64);

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "evt_{}", self.0)
    }
}

impl std::str::FromStr for EventId {
    type Err = InvalidEventId;
    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let digits = text.strip_prefix("evt_").ok_or(InvalidEventId)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidEventId);
        }
        digits.parse().map(Self).map_err(|_| InvalidEventId)
    }
}

/// The error for a string that is not an event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an event id, for example `evt_42`")]
pub struct InvalidEventId;

fn id_schema(prefix: &str) -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    use utoipa::openapi::{ObjectBuilder, Type};
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!("^{prefix}_[0-9a-hjkmnp-tv-z]{{26}}$")))
        .into()
}

fn encode(bits: u128) -> String {
    (0..TEXT_LEN)
        .rev()
        .filter_map(|place| ALPHABET.get(((bits >> (place * 5)) & 31) as usize))
        .map(|&symbol| char::from(symbol))
        .collect()
}

fn decode(text: &str) -> Option<u128> {
    // 26 base32 symbols hold 130 bits. A value whose first symbol is greater than 7 does not fit into 128
    // bits.
    if text.len() != TEXT_LEN || text.as_bytes().first().is_none_or(|&first| first > b'7') {
        return None;
    }
    text.bytes().try_fold(0u128, |bits, symbol| {
        let value = ALPHABET.iter().position(|&known| known == symbol)?;
        Some((bits << 5) | value as u128)
    })
}

/// Generates ids from a clock and a random number generator. Each id is greater than all ids generated before
/// it, whatever their types. This also holds across clones of a source.
#[derive(Clone)]
pub struct IdSource {
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    last: Arc<Mutex<u64>>,
}

impl IdSource {
    pub fn new(clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Self {
        Self { clock, rng, last: Arc::new(Mutex::new(0)) }
    }

    /// Ensures that every id generated from now on is greater than `id`, even if the clock was set back after
    /// `id` was generated.
    pub fn resume_after<I: Id>(&self, id: I) {
        let bits = id.to_bits();
        let (milliseconds, fraction) = (bits >> 80, (bits >> 64) & 0xfff);
        let stamp = u64::try_from((milliseconds << 12) | fraction).unwrap_or(u64::MAX);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = stamp.max(*last);
    }

    /// Generates an id. It begins with its creation time, encoded as in RFC 9562, section 6.2, method 3:
    /// 48 bits for the milliseconds and, after the UUID version, 12 bits for the fraction of the millisecond.
    /// If the clock has not advanced since the previous id, the new id's time is 1/4096 ms after that of the
    /// previous id.
    pub fn next<I: Id>(&self) -> I {
        let micros = u64::try_from(self.clock.now().as_micros()).unwrap_or(0);
        let current = ((micros / 1000) << 12) | ((micros % 1000) * 4096 / 1000);
        let stamp = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = current.max(*last + 1);
            *last
        };
        let mut random = [0u8; 8];
        self.rng.fill(&mut random);
        let random = u128::from(u64::from_be_bytes(random) >> 2);
        let milliseconds = u128::from(stamp >> 12) & 0xffff_ffff_ffff;
        let fraction = u128::from(stamp & 0xfff);
        I::from_bits((milliseconds << 80) | (7 << 76) | (fraction << 64) | (0b10 << 62) | random)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::{SystemClock, SystemRng};

    #[test]
    fn ids_of_one_source_increase_and_round_trip() {
        let ids = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng));
        let generated: Vec<RunId> = (0..5000).map(|_| ids.next()).collect();
        assert!(
            generated.windows(2).all(|pair| pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string())
        );
        assert_eq!(generated[7].to_string().parse(), Ok(generated[7]));
    }

    #[test]
    fn a_resumed_source_generates_greater_ids_even_if_the_clock_goes_back() {
        let clock =
            Arc::new(crate::time::ManualClock::at(crate::Timestamp::from_micros(1_800_000_000_000_000)));
        let source = || IdSource::new(Arc::clone(&clock) as _, Arc::new(SystemRng));
        let before: RunId = source().next();
        clock.advance_ms(-60_000);
        let ids = source();
        assert!(ids.next::<RunId>() < before);
        ids.resume_after(before);
        let after: [RunId; 2] = [ids.next(), ids.next()];
        assert!(before < after[0] && after[0] < after[1]);
        ids.resume_after(before);
        assert!(after[1] < ids.next(), "resuming after an older id has no effect");
    }

    #[test]
    fn an_id_with_another_prefix_is_rejected() {
        let ids = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng));
        let run: RunId = ids.next();
        assert!(run.to_string().parse::<ThreadId>().is_err());
        assert!("run_8zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<RunId>().is_err(), "more than 128 bits");
    }

    proptest! {
        #[test]
        fn any_bits_round_trip_through_text(bits: u128) {
            prop_assert_eq!(decode(&encode(bits)), Some(bits));
        }

        #[test]
        fn parsing_any_text_does_not_panic(text: String) {
            let _ = text.parse::<RunId>();
            let _ = text.parse::<EventId>();
        }
    }
}
