//! Typed ids: a prefix, `_`, then a UUIDv7 in Crockford's base32 (the TypeID text form, 26 characters).
//!
//! Ids sort by the time they were made; within one [`IdSource`] they are strictly increasing.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::{Clock, Rng};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 26;

/// A text that is not an id of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an id that begins with {prefix}_ followed by 26 characters")]
pub struct InvalidId {
    pub prefix: &'static str,
}

/// An id of one kind.
pub trait Id: Copy + std::fmt::Display + std::str::FromStr<Err = InvalidId> + Send + Sync + 'static {
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

id!(/// An account: the owner of keys and deployments.
    AccountId, "acc");
id!(/// An API key.
    KeyId, "key");
id!(/// A deployment: one customer's agent.
    DeploymentId, "dep");
id!(/// A thread of a deployment.
    ThreadId, "thr");
id!(/// A message of a thread.
    MessageId, "msg");
id!(/// A run: the work on one or more messages.
    RunId, "run");
id!(/// A skill of a deployment.
    SkillId, "skl");
id!(/// The id of a secret whose maker chose none; see [`crate::SecretId`].
    NewSecretId, "sec");
id!(/// A snapshot: the files of a deployment that was deleted.
    SnapshotId, "snap");
id!(/// A steering request: what a run asks a person.
    SteeringId, "str");
id!(/// An approval that stands: a call that need not be asked about again.
    ApprovalId, "apr");
id!(/// A request to the API.
    RequestId, "req");
id!(/// A work item of the queue.
    WorkId, "work");

/// The id of an event, `evt_<n>`: n is its deployment's own gapless sequence, from 1; `evt_0` stands before it.
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

/// A text that is not an event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an event id such as evt_42")]
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
    // Twenty-six symbols hold 130 bits: the first may not exceed 7, or the value would not fit.
    if text.len() != TEXT_LEN || text.as_bytes().first().is_none_or(|&first| first > b'7') {
        return None;
    }
    text.bytes().try_fold(0u128, |bits, symbol| {
        let value = ALPHABET.iter().position(|&known| known == symbol)?;
        Some((bits << 5) | value as u128)
    })
}

/// Makes new ids from a clock and a random source, strictly increasing within one source.
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

    /// From now on makes ids that come after this one, whatever the clock says: it may have gone back since.
    pub fn resume_after<I: Id>(&self, id: I) {
        let bits = id.to_bits();
        let (milliseconds, fraction) = (bits >> 80, (bits >> 64) & 0xfff);
        let stamp = u64::try_from((milliseconds << 12) | fraction).unwrap_or(u64::MAX);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = stamp.max(*last);
    }

    /// A new id. The 12 bits after the milliseconds (RFC 9562, method 3) hold the fraction of the millisecond
    /// and are pushed forward where two ids would fall on the same one.
    pub fn next<I: Id>(&self) -> I {
        let micros = u64::try_from(self.clock.now().as_micros()).unwrap_or(0);
        let wanted = ((micros / 1000) << 12) | ((micros % 1000) * 4096 / 1000);
        let stamp = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = wanted.max(*last + 1);
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
    fn ids_of_one_source_increase_and_read_back() {
        let ids = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng));
        let made: Vec<RunId> = (0..5000).map(|_| ids.next()).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string()));
        assert_eq!(made[7].to_string().parse(), Ok(made[7]));
    }

    #[test]
    fn ids_go_on_after_an_earlier_sources_although_the_clock_has_gone_back() {
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
        assert!(after[1] < ids.next(), "an older one changes nothing");
    }

    #[test]
    fn another_kinds_prefix_is_refused() {
        let ids = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng));
        let run: RunId = ids.next();
        assert!(run.to_string().parse::<ThreadId>().is_err());
        assert!("run_8zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<RunId>().is_err(), "more than 128 bits");
    }

    proptest! {
        #[test]
        fn any_bits_survive_their_text(bits: u128) {
            prop_assert_eq!(decode(&encode(bits)), Some(bits));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<RunId>();
            let _ = text.parse::<EventId>();
        }
    }
}
